"""From whatever people log to what msgpack can carry."""

import datetime
import enum
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from flightlog._media import Media

__all__ = ("ARRAY_ELEMENTS_MAX", "DEPTH_MAX", "plain", "plain_text")

ARRAY_ELEMENTS_MAX = 1024
DEPTH_MAX = 64  # As deep as readers keep a value.
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
    try:
        return _plain_array(key, value, depth)
    except TypeError as error:
        if repr(key) in str(error):
            raise
        raise _unlistable(key, value, error) from error
    except Exception as error:  # Whatever a foreign array raises.
        raise _unlistable(key, value, error) from error


def _unlistable(key: str, value: object, error: Exception) -> TypeError:
    kind = type(value).__qualname__
    return TypeError(f"value of {key!r} has type {kind} and cannot be listed: {error}")


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
    if value.is_nan():  # A signalling one, too.
        return float("nan")
    return _not_grown(key, value, float(value))


def _plain_list(key: str, value: Any, depth: int) -> list[Any]:
    return [plain(key, item, depth + 1) for item in value]


def _plain_set(key: str, value: Any, depth: int) -> list[Any]:
    return sorted(_plain_list(key, value, depth), key=repr)


def _plain_mapping(key: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    found = {}
    for name, item in value.items():
        text = plain_text(str(name))
        if text in found:
            raise TypeError(f"value of {key!r} has two keys {text!r}")
        found[text] = plain(f"{key}.{name}", item, depth + 1)
    return found


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
            f"dicts, and arrays of at most {ARRAY_ELEMENTS_MAX} elements; "
            "log_image() takes images"
        )
    size = 1
    for length in shape:
        size *= length
    if size > ARRAY_ELEMENTS_MAX:
        raise TypeError(
            f"value of {key!r} is an array of {size:,} elements; at most "
            f"{ARRAY_ELEMENTS_MAX:,} can be stored: log a statistic of it, or an image "
            "with log_image()"
        )
    listed = _timeless(value).tolist()
    if type(listed) is type(value):
        return _plain_float(key, value)
    return plain(key, listed, depth + 1)


def _timeless(array: Any) -> Any:
    """Return numpy's datetimes as ISO text and its timedeltas as seconds."""
    kind = getattr(getattr(array, "dtype", None), "kind", "")
    if kind == "M":
        return array.astype(str)
    return array / array.dtype.type(1, "s") if kind == "m" else array


def _not_grown(key: str, value: object, number: float) -> float:
    if math.isinf(number) and value != number:
        raise TypeError(f"value of {key!r} is too large for a float: {value}")
    return number


def _plain_float(key: str, value: Any) -> float:
    """Return what lists itself, as numpy's longdouble does, as the nearest float."""
    if getattr(getattr(value, "dtype", None), "kind", "f") == "f":
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            return _not_grown(key, value, number)
    raise TypeError(f"value of {key!r} of type {type(value)} cannot be stored")


def _refuse_media(key: str, value: object, depth: int) -> Any:
    raise TypeError(
        f"value of {key!r} has type {type(value).__name__}, which only log() takes, "
        "alone or in dicts and lists"
    )


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
    (Media, _refuse_media),
)
