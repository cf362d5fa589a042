"""How much the tests tried: they count, and pytest tells the sum when all are done."""

import json
import os
from collections import Counter
from pathlib import Path

__all__ = ("count", "lines", "take", "write")

_counted: Counter[str] = Counter()  # By the test that runs in this process.


def count(what: str, number: int = 1) -> None:
    """Say that something was tried: in the plural, as a table would name it."""
    _counted[what] += number


def take() -> list[tuple[str, int]]:
    """Return what was counted since the last time."""
    taken = list(_counted.items())
    _counted.clear()
    return taken


def lines(total: dict[str, int]) -> list[str]:
    return [f"{number:>12,} {what}" for what, number in sorted(total.items())]


def write(total: dict[str, int]) -> None:
    """Write the sum where FLIGHTLOG_COUNTS says, if it does."""
    if path := os.environ.get("FLIGHTLOG_COUNTS"):
        Path(path).write_text(json.dumps(total, indent=1, sort_keys=True) + "\n")
