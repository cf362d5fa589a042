"""From whatever people log to what msgpack can carry."""

import datetime
import enum
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

__all__ = ("ARRAY_ELEMENTS_MAX", "DEPTH_MAX", "plain", "plain_text")

ARRAY_ELEMENTS_MAX = 1024
DEPTH_MAX = 32
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def plain(key: str, value: object, depth: int = 0) -> Any:
    """Return `value` as None, bool, int, float, str, list or dict of such.

    Scalars of numpy, torch, jax and tensorflow become numbers and arrays of at most
    ARRAY_ELEMENTS_MAX elements lists, told by what they can do: none is imported.

    Raises:
        TypeError: It cannot be stored; names `key`.
    """
    if depth > DEPTH_MAX:
        raise TypeError(
            f"value of {key!r} is nested more than {DEPTH_MAX} levels deep (a cycle?)"
        )
    for kind, convert in _CONVERTERS:
        if isinstance(value, kind):
            return convert(key, value, depth)
    return _plain_array(key, value, depth)


def plain_text(text: str) -> str:
    """Return `text` as UTF-8 can carry it: lone surrogates become escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _plain_int(key: str, value: int, depth: int) -> Any:
    value = int(value)
    if _INT_MIN <= value <= _INT_MAX:
        return value
    try:
        return {"_type": "int", "value": str(value)}
    except ValueError as error:  # Python's own limit, against slow conversions.
        raise TypeError(f"value of {key!r} has too many digits: {error}") from error


def _plain_decimal(key: str, value: Decimal, depth: int) -> float:
    return float("nan") if value.is_nan() else float(value)  # A signalling one, too.


def _plain_list(key: str, value: Any, depth: int) -> list[Any]:
    return [plain(key, item, depth + 1) for item in value]


def _plain_set(key: str, value: Any, depth: int) -> list[Any]:
    return sorted(_plain_list(key, value, depth), key=repr)


def _plain_mapping(key: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    return {
        plain_text(str(name)): plain(f"{key}.{name}", item, depth + 1)
        for name, item in value.items()
    }


def _plain_array(key: str, value: Any, depth: int) -> Any:
    names = getattr(type(value), "__dataclass_fields__", None)
    if names is not None:
        named = {name: getattr(value, name) for name in names}
        return _plain_mapping(key, named, depth)
    if not hasattr(value, "tolist") and hasattr(value, "numpy"):
        value = value.numpy()  # A tensor of tensorflow.
    shape = getattr(value, "shape", None)
    if shape is None or not hasattr(value, "tolist"):
        raise TypeError(
            f"value of {key!r} has type {type(value).__qualname__}, which cannot be "
            "stored; allowed are numbers, str, bool, None, datetimes, enums, lists, "
            f"dicts, and arrays of at most {ARRAY_ELEMENTS_MAX} elements"
        )
    size = 1
    for length in shape:
        size *= length
    if size > ARRAY_ELEMENTS_MAX:
        raise TypeError(
            f"value of {key!r} is an array of {size:,} elements; at most "
            f"{ARRAY_ELEMENTS_MAX:,} can be stored: log a statistic of it"
        )
    listed = value.tolist()
    if type(listed) is type(value):
        return _plain_float(key, value)
    return plain(key, listed, depth + 1)


def _plain_float(key: str, value: Any) -> float:
    """Return what lists itself, as numpy's longdouble does, as the nearest float."""
    if getattr(getattr(value, "dtype", None), "kind", "f") == "f":
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise TypeError(f"value of {key!r} of type {type(value)} cannot be stored")


# The first that fits; bool and int enums are ints, str enums are strings.
_CONVERTERS: tuple[tuple[Any, Callable[[str, Any, int], Any]], ...] = (
    (type(None), lambda key, value, depth: None),
    (bool, lambda key, value, depth: bool(value)),
    (int, _plain_int),
    (float, lambda key, value, depth: float(value)),
    (str, lambda key, value, depth: plain_text(str.__str__(value))),
    (enum.Enum, lambda key, value, depth: value.name),
    (Decimal, _plain_decimal),
    ((datetime.datetime, datetime.date, datetime.time), lambda k, v, d: v.isoformat()),
    (datetime.timedelta, lambda key, value, depth: value.total_seconds()),
    ((bytes, bytearray), lambda k, v, d: bytes(v).decode("utf-8", "backslashreplace")),
    (Mapping, _plain_mapping),
    ((list, tuple), _plain_list),
    ((set, frozenset), _plain_set),
)
