"""Values: what stands in columns for a value that was logged."""

import json
import math
from collections.abc import Iterator
from typing import Any

from flightlog_storage.codec import DIGITS, unwrapped
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import Kind

__all__ = ("INT_EXACT_MAX", "TOO_DEEP", "Path", "integer", "leaves", "scalar")

INT_EXACT_MAX = 2**53  # A float64 holds every int up to here.
NESTING_MAX = 32  # Dicts nested deeper are kept as JSON.
JSON_NESTING_MAX = 256  # What lies deeper is cut: whoever reads it can parse it.
TOO_DEEP = "<nested too deeply>"

Path = tuple[str, ...]

_NAN = math.nan


def leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the values inside nested dicts, with their paths."""
    if (
        type(value) is not dict
        or not value
        or "_type" in value
        or len(path) > NESTING_MAX
    ):
        yield path, value
        return
    for key, inner in value.items():
        yield from leaves((*path, _name(key)), inner)


def _name(key: object) -> str:
    return _text(key) if isinstance(key, bytes) else str(key)


def scalar(value: Any) -> tuple[float, Kind, str | None]:
    """Return a value as number, kind and, where the number is not exact, text.

    Raises:
        MalformedEvent: The value is of no type that can be logged.
    """
    match value:
        case bool():
            return float(value), Kind.BOOL, None
        case float():
            return value, Kind.FLOAT, None
        case int():
            return integer(value)
        case None:
            return _NAN, Kind.NULL, None
        case str() | bytes():
            return _NAN, Kind.STR, _text(value)
        case list() | dict():
            return _structure(value)
    raise MalformedEvent(f"a value of type {type(value).__name__}")


def _structure(value: list[Any] | dict[Any, Any]) -> tuple[float, Kind, str | None]:
    match value:
        case {"_type": "int", "value": str(digits)} if DIGITS.fullmatch(digits):
            return integer(int(digits))
    return _NAN, Kind.JSON, _json(value)


def integer(value: int) -> tuple[float, Kind, str | None]:
    """Return what `scalar` does for an int."""
    if -INT_EXACT_MAX <= value <= INT_EXACT_MAX:
        return float(value), Kind.INT, None
    try:
        return float(value), Kind.INT, str(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf, Kind.INT, str(value)


def _json(value: object) -> str:
    try:
        text = _dump(value)
    except RecursionError:
        return _dump(_cut(value, JSON_NESTING_MAX))
    if text.count("[") + text.count("{") > JSON_NESTING_MAX and _is_nested(
        value, JSON_NESTING_MAX
    ):
        return _dump(_cut(value, JSON_NESTING_MAX))
    return text


def _dump(value: object) -> str:
    try:
        return json.dumps(
            unwrapped(value), ensure_ascii=False, separators=(",", ":"), default=_text
        )
    except (TypeError, ValueError) as error:
        raise MalformedEvent(f"not JSON: {error}") from error


def _cut(value: object, depth: int) -> object:
    """Return a value with TOO_DEEP for what lies deeper than `depth` levels."""
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return TOO_DEEP
    if isinstance(value, list):
        return [_cut(inner, depth - 1) for inner in value]
    return {key: _cut(inner, depth - 1) for key, inner in value.items()}


def _is_nested(value: object, depth: int) -> bool:
    """Whether lists and dicts in a value are nested deeper than `depth`."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return depth == 0 or any(_is_nested(inner, depth - 1) for inner in value)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, str):
        return value
    raise TypeError(f"a value of type {type(value).__name__}")
