"""`flightlog sql`: the result of a query as a table, tabs, CSV or JSON."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pyarrow import MonthDayNano

from flightlog.apis.public import Api
from flightlog.cli.output import (
    emit_json,
    emit_raw,
    emit_table,
    is_terminal,
    shown,
    talk,
)
from flightlog.errors import BadArgumentError
from flightlog_storage.home import Home
from flightlog_storage.terminal import plain

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ("Form", "print_query")

DRAWN_ROWS_MAX = 1000  # On a terminal.
STDIN = "-"


class Form(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def print_query(
    home: Home, query: str, form: Form, *, timeout_s: float, memory_mb: int
) -> None:
    """Run a query, or the one on stdin for "-", and print its result."""
    text = sys.stdin.read() if query == STDIN else query
    api = Api(home=home.root)
    table = api.sql(text, timeout_s=timeout_s, memory_mb=memory_mb)
    match form:
        case Form.JSON:
            _print_json(table)
        case Form.CSV:
            _print_csv(table)
        case Form.TABLE:
            _print_table(table)


def _print_json(table: "pa.Table") -> None:
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadArgumentError(
            f"more than one column is called {', '.join(twice)}: name them with AS"
        )
    rows = [dict(zip(names, row, strict=True)) for row in _rows(table, _json_value)]
    emit_json("flightlog.sql/1", {"columns": names, "rows": rows})


def _print_csv(table: "pa.Table") -> None:
    safe = plain if is_terminal() else str
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(safe, table.column_names))
    writer.writerows(map(safe, row) for row in _rows(table, _text))
    emit_raw(buffer.getvalue().removesuffix("\n"))


def _print_table(table: "pa.Table") -> None:
    if not is_terminal():
        emit_table(table.column_names, list(_rows(table, _text)))
        return
    some = table.slice(0, DRAWN_ROWS_MAX)
    emit_table([plain(name) for name in some.column_names], list(_rows(some, _drawn)))
    left = table.num_rows - some.num_rows
    if left:
        talk(f"… and {left:,} more rows: LIMIT, --csv or a pipe")


def _rows(
    table: "pa.Table", convert: Callable[[object], Any]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows, each value converted."""
    for batch in table.to_batches():
        columns = [map(convert, column.to_pylist()) for column in batch.columns]
        yield from zip(*columns, strict=True)


def _json_value(value: object) -> object:
    """Return what stands for a value in JSON."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            whole = value == value.to_integral_value()
            return int(value) if whole else float(value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case bytes():
            return value.hex()
        case MonthDayNano():
            days, seconds = value.days, value.nanoseconds / 1e9
            return f"{value.months} months {days} days {seconds:g} s"
        case list() | tuple():
            return [_json_value(each) for each in value]
        case Mapping():
            return {str(key): _json_value(each) for key, each in value.items()}
    return str(value)


def _text(value: object) -> str:
    """Return a value in full; "" for NULL."""
    value = _json_value(value)
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _drawn(value: object) -> str:
    """Return a value as people read it."""
    value = _json_value(value)
    return "" if value is None else shown(value)
