"""Summary: what logged values become in a run's summary.

By default that is the last value. A metric's definition may ask for aggregates
instead; then it is a dict such as `{"min": 1, "max": 8}`.
"""

import json
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flightlog_storage.event import Kind, MetricDefined, Series
from flightlog_storage.values import TOO_DEEP

__all__ = (
    "NESTING_MAX",
    "Aggregate",
    "Definition",
    "Definitions",
    "plain",
    "remove_nested",
    "set_nested",
    "value_at",
)

NESTING_MAX = 64  # Levels of a value; what lies deeper is replaced by TOO_DEEP.

FEW_POINTS = 16  # Up to so many, Python is faster than numpy.

_NUMBERS_LAST = max(Kind.FLOAT, Kind.INT, Kind.BOOL)
_DIGITS = re.compile(r"-?[0-9]{1,4300}")  # As many as Python takes by default.
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """How a metric, or all metrics with a prefix, are summarised and drawn."""

    name: str
    step_metric: str | None = None
    step_sync: bool = False
    hidden: bool = False
    summary: tuple[str, ...] = ()
    goal: str | None = None

    def joined(self, event: MetricDefined) -> "Definition":
        """Return this definition with what `event` adds to it."""
        return Definition(
            self.name,
            self.step_metric if event.step_metric is None else event.step_metric,
            self.step_sync or event.step_sync,
            self.hidden or event.hidden,
            tuple(dict.fromkeys((*self.summary, *event.summary))),
            self.goal if event.goal is None else event.goal,
        )


class Definitions(dict[str, Definition]):
    """The definitions of a run's metrics by name."""

    def define(self, event: MetricDefined) -> None:
        """Add a definition, joined with an earlier one unless it overwrites that."""
        earlier = None if event.overwrite else self.get(event.name)
        self[event.name] = (earlier or Definition(event.name)).joined(event)

    def of(self, path: _Path) -> Definition | None:
        """Return the definition that governs the metric at `path`.

        An exact name beats a prefix and a longer prefix a shorter one. A dot inside
        a key may be written as it is or escaped. Prefixes skip keys with a leading _.
        """
        name = ".".join(path)
        exact = self.get(".".join(key.replace(".", r"\.") for key in path))
        exact = exact or self.get(name)
        if exact or name.startswith("_"):
            return exact
        prefixes = (name[:size] for size in range(len(name), -1, -1))
        return next(filter(None, (self.get(f"{prefix}*") for prefix in prefixes)), None)


@dataclass(slots=True)
class Aggregate:
    """Running numbers of one metric.

    They do not depend on how its points were grouped. Strings, nulls and JSON only
    count as `last`. One NaN stays for good in what users of W&B know to be so, but is
    never the best: `minimum` and `maximum` are those of the other numbers.
    """

    count: int = 0
    total: float = 0.0
    minimum: Any = None
    maximum: Any = None
    first: Any = None
    last: Any = None
    has_nan: bool = False

    def add(self, series: Series) -> None:
        """Take in more points."""
        self.last = value_at(series, len(series.values) - 1)
        indexes = _number_indexes(series)
        if not len(indexes):
            return
        if not self.count:
            self.first = value_at(series, int(indexes[0]))
        if len(series.values) > FEW_POINTS:
            self._add_many(series, np.asarray(indexes))
        else:
            for index in indexes:
                self._widen(value_at(series, index))
                self.total += series.values[index]
        self.count += len(indexes)

    def _add_many(self, series: Series, indexes: npt.NDArray[np.intp]) -> None:
        numbers = np.frombuffer(series.values, np.float64)[indexes]
        known = indexes[~np.isnan(numbers)]
        self.has_nan |= len(known) < len(indexes)
        if len(known):
            among = np.frombuffer(series.values, np.float64)[known]
            self._widen(value_at(series, int(known[np.argmin(among)])))
            self._widen(value_at(series, int(known[np.argmax(among)])))
        # Not np.sum: its rounding depends on how many numbers it gets at once.
        with np.errstate(over="ignore", invalid="ignore"):
            self.total = float(np.cumsum(np.append(self.total, numbers))[-1])

    def _widen(self, value: Any) -> None:
        number = _as_float(value)
        if math.isnan(number):
            self.has_nan = True
            return
        if self.minimum is None or number < _as_float(self.minimum):
            self.minimum = value
        if self.maximum is None or number > _as_float(self.maximum):
            self.maximum = value

    def summarise(self, definition: Definition) -> dict[str, Any]:
        """Return the aggregates that the definition asks for."""
        wanted = definition.summary
        result = {"last": self.last} if "last" in wanted else {}
        if self.count:
            best = self.maximum if definition.goal == "maximize" else self.minimum
            numbers = {
                "min": math.nan if self.has_nan else self.minimum,
                "max": math.nan if self.has_nan else self.maximum,
                "mean": self.total / self.count,
                "first": self.first,
                "best": math.nan if best is None else best,
            }
            result |= {name: numbers[name] for name in wanted if name in numbers}
        return result


def _number_indexes(series: Series) -> Sequence[int] | npt.NDArray[np.intp]:
    if not series.kinds:
        return range(len(series.values))
    if len(series.values) > FEW_POINTS:
        return np.flatnonzero(np.frombuffer(series.kinds, np.uint8) <= _NUMBERS_LAST)
    return [i for i, kind in enumerate(series.kinds) if kind <= _NUMBERS_LAST]


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def value_at(series: Series, index: int) -> Any:
    """Return a point's value as it was logged."""
    value = series.values[index]
    if not series.kinds:
        return value
    text = series.texts.get(index)
    match series.kinds[index]:
        case Kind.FLOAT:
            return value
        case Kind.INT:
            return int(value) if text is None else int(text)
        case Kind.BOOL:
            return bool(value)
        case Kind.STR:
            return text
        case Kind.JSON:
            return plain(_parse(text or "null"))
        case _:
            return None


def _parse(text: str) -> Any:
    """Return what the JSON says; a text that says nothing we can hold stays a text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def plain(value: Any, depth: int = 0) -> Any:
    """Return a deep copy of `value` that JSON can hold and that comes back equal."""
    if depth > NESTING_MAX:
        return TOO_DEEP
    match value:
        case {"_type": "int", "value": str(digits), **more} if not more:
            # An int beyond 64 bits, which msgpack does not have.
            return int(digits) if _DIGITS.fullmatch(digits) else dict(value)
        case dict():
            return {_key(key): plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | array():
            return [plain(item, depth + 1) for item in value]
        case bytes():
            return value.decode(errors="replace")
        case None | bool() | int() | float() | str():
            return value
        case _:
            return repr(value)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(plain(key))


def set_nested(root: dict[str, Any], path: _Path, value: Any) -> None:
    """Set the value at `path`; what is in the way and no dict gives way."""
    for key in path[:-1]:
        inner = root.get(key)
        if not isinstance(inner, dict):
            inner = root[key] = {}
        root = inner
    root[path[-1]] = value


def remove_nested(root: dict[str, Any], path: _Path) -> None:
    """Remove the value at `path`, if there is one."""
    for key in path[:-1]:
        inner = root.get(key)
        if not isinstance(inner, dict):
            return
        root = inner
    root.pop(path[-1], None)
