"""Operands: what fields are compared with, checked and made plain."""

import math
import numbers
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any

from flightlog_storage.fields import Field

__all__ = ("kind_of", "moment_of", "value_of")


def value_of(field: Field, name: str, operand: object) -> Any:
    """Return an operand as the value of a config that it could be equal to.

    Raises:
        ValueError: It is of no type that could be.
    """
    if operand is None or isinstance(operand, bool | int | float | str):
        return operand
    match operand:
        case numbers.Integral():  # Numpy's, say.
            return int(operand)
        case numbers.Real():
            return float(operand)
        case datetime() | date() | time():
            return operand.isoformat()  # As such values are logged.
        case list() | tuple():
            return [value_of(field, name, item) for item in operand]
        case Mapping():
            _check_keys(field, name, operand)
            return {key: value_of(field, name, item) for key, item in operand.items()}
    raise ValueError(
        f"{field.name}: {name} takes a number, a str, a bool, None, a datetime, a list "
        f"or a dict, not {kind_of(operand)}"
    )


def _check_keys(field: Field, name: str, operand: Mapping[Any, Any]) -> None:
    for key in operand:
        if not isinstance(key, str):
            raise ValueError(f"{field.name}: {name}: the key {key!r} is no str")


def moment_of(field: Field, operand: object) -> tuple[float, float]:
    """Return the first and the last time, in seconds since 1970, that it stands for.

    Raises:
        ValueError: It is no time.
    """
    match operand:
        case bool():
            pass
        case int() | float():
            return _epoch(operand), _epoch(operand)
        case str():
            try:
                return _around(datetime.fromisoformat(operand.strip()))
            except ValueError:
                pass
        case datetime():
            return _around(operand)
        case date():
            return _around(datetime.combine(operand, time()))
    raise ValueError(
        f"{field.name}: {operand!r} is no time; ISO 8601 text, a datetime and seconds "
        "since 1970 are"
    )


def _around(moment: datetime) -> tuple[float, float]:
    """Return the first and the last second that is shown as this microsecond."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # As all times are shown.
    seconds = moment.timestamp()
    return _edge(moment, seconds, -1e-6), _edge(moment, seconds, 1e-6)


def _edge(moment: datetime, seconds: float, step: float) -> float:
    """Return the farthest second in the step's direction that is shown as `moment`."""
    inside, outside = seconds, seconds + step
    while (middle := (inside + outside) / 2) not in (inside, outside):
        if _is_shown(middle, moment):
            inside = middle
        else:
            outside = middle
    return inside


def _is_shown(seconds: float, moment: datetime) -> bool:
    try:
        return datetime.fromtimestamp(seconds, UTC) == moment
    except (ValueError, OverflowError, OSError):
        return False  # Past the last year that there is.


def _epoch(seconds: float) -> float:
    try:
        return float(seconds)
    except OverflowError:
        return math.inf if seconds > 0 else -math.inf


def kind_of(value: object) -> str:
    """Return what a value is, in words."""
    return "None" if value is None else type(value).__qualname__
