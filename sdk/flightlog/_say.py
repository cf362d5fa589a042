"""What the SDK tells its user: single lines on stderr."""

import sys
from contextlib import suppress
from functools import cache

from flightlog_storage.terminal import safe

__all__ = ("say", "say_once")


def say(text: str) -> None:
    """Tell the user one line on stderr; where that is full or closed, nobody."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"flightlog: {safe(text)}\n")


@cache
def say_once(text: str) -> None:
    """Tell the user a line, once in this process."""
    say(text)
