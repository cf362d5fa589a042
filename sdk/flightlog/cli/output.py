"""What commands print: lines, tables and JSON, safe for a terminal."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from flightlog_storage.terminal import plain, safe

__all__ = (
    "age",
    "emit",
    "emit_json",
    "emit_raw",
    "emit_table",
    "flat",
    "is_terminal",
    "iso",
    "shown",
    "sized",
    "talk",
)

VALUE_LENGTH_MAX = 200  # Of a value shown to people.
_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_AGES = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def is_terminal() -> bool:
    return sys.stdout.isatty()


def emit(text: str) -> None:
    """Print data, safe for a terminal."""
    emit_raw(safe(text))


def emit_raw(text: str) -> None:
    """Print data as it is; a reader that has seen enough, as `head`, is no error."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def talk(text: str) -> None:
    """Print what is not data."""
    click.echo(safe(text), err=True)


def emit_json(schema: str, data: object) -> None:
    """Print one object, versioned by its schema; NaN and Infinity as strings."""
    document = {"schema": schema, "data": _finite(data)}
    emit(json.dumps(document, indent=2))


def emit_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to a terminal, else one line a row, fields separated by tabs."""
    if not is_terminal():
        lines = (header, *rows)
        emit("\n".join("\t".join(map(plain, line)) for line in lines))
        return
    # Loaded only here: in a pipe nothing is drawn.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell), style=_style(cell)) for cell in row))
    Console().print(table)


def shown(value: object) -> str:
    """Return a value as people read it, of bounded length, safe for a terminal."""
    text = value if isinstance(value, str) else _text(value)
    text = plain(text[: VALUE_LENGTH_MAX + 1])
    return text if len(text) <= VALUE_LENGTH_MAX else f"{text[:VALUE_LENGTH_MAX]}…"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, keys joined with dots."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def iso(seconds: float) -> str:
    """Return a time, seconds since 1970, as ISO 8601 in UTC; "" for none."""
    if not seconds:
        return ""
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(seconds: float, now: float) -> str:
    """Return how long ago a time was, in one unit."""
    if not seconds:
        return ""
    passed = max(0.0, now - seconds)
    for size, unit in _AGES:
        if passed >= size:
            return f"{int(passed // size)} {unit} ago"
    return "now"


def sized(count: float) -> str:
    """Return a number of bytes as people read it."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, bool | int):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _finite(value: object) -> object:
    """Return the value without floats that JSON has no words for."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def _style(cell: str) -> str:
    styles = {"running": "cyan", "finished": "green", "preempting": "yellow"}
    ended_badly = ("failed", "crashed", "killed", "preempted")
    return "red" if cell in ended_badly else styles.get(cell, "")
