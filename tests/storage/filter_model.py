"""What filters and orders mean, in plain Python: what SQL is held against."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flightlog_storage.runstate import RunState

__all__ = ("passes", "sort_key", "values_of")

Kind = str


def passes(state: RunState, document: Mapping[str, Any]) -> bool:
    """Whether a run passes a filter, which must be a right one."""
    return all(_entry(state, key, value) for key, value in document.items())


def _entry(state: RunState, key: str, value: Any) -> bool:
    match key:
        case "$and":
            return all(passes(state, item) for item in value)
        case "$or":
            return any(passes(state, item) for item in value)
        case "$nor":
            return not any(passes(state, item) for item in value)
        case "$not":
            return not passes(state, value)
    return _field(values_of(state, key), value)


def _field(values: list[Any], operand: Any) -> bool:
    if isinstance(operand, dict) and any(key.startswith("$") for key in operand):
        return all(
            _operator(values, name, item, operand)
            for name, item in operand.items()
            if name != "$options"
        )
    return _equals(values, operand)


def _operator(values: list[Any], name: str, operand: Any, whole: Any) -> bool:
    match name:
        case "$ne" | "$nin":
            return not _operator(values, {"$ne": "$eq"}.get(name, "$in"), operand, {})
        case "$eq":
            return _equals(values, operand)
        case "$in":
            return any(_equals(values, item) for item in operand)
        case "$exists":
            return bool(values) is operand
        case "$not":
            return not _field(values, operand)
        case "$regex":
            flags = re.I if whole.get("$options") else 0
            return any(re.search(operand, text, flags) for text in _texts(values))
        case "$contains":
            return any(operand in text for text in _texts(values))
    return any(_compares(value, name, operand) for value in _spread(values))


def _equals(values: list[Any], operand: Any) -> bool:
    if operand is None and not values:
        return True
    return any(_same(value, operand) for value in _spread(values))


def _same(one: Any, other: Any) -> bool:
    if kind_of(one) != kind_of(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            _same(value, other[key]) for key, value in one.items()
        )
    return bool(one == other) or kind_of(one) == "nan"


def _compares(value: Any, name: str, operand: Any) -> bool:
    if kind_of(value) != kind_of(operand) or kind_of(value) == "nan":
        return False
    match name:
        case "$gt":
            return bool(value > operand)
        case "$gte":
            return bool(value >= operand)
        case "$lt":
            return bool(value < operand)
    return bool(value <= operand)


def _texts(values: list[Any]) -> list[str]:
    return [value for value in _spread(values) if isinstance(value, str)]


def _spread(values: list[Any]) -> Iterator[Any]:
    for value in values:
        yield value
        if isinstance(value, list):
            yield from value


def kind_of(value: Any) -> Kind:
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


def values_of(state: RunState, field: str) -> list[Any]:
    """Return the values of a field; of several splits of a path, all."""
    columns = {"name": state.id, "group": state.group, "state": str(state.state)}
    if field in columns:
        return [] if columns[field] is None else [columns[field]]
    if field == "tags":
        return [state.tags]
    head, _, path = field.partition(".")
    if head != "config":
        return list(_resolve(state.summary, path))
    found = list(_resolve(state.config, path))
    keys = path.split(".")
    for place in range(1, len(keys)):
        if keys[place] == "value":
            found += _resolve(state.config, ".".join(keys[:place] + keys[place + 1 :]))
    return found


def _resolve(value: Any, path: str) -> Iterator[Any]:
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if path == key:
            yield inner
        elif path.startswith(f"{key}."):
            yield from _resolve(inner, path[len(key) + 1 :])


_RANKS = {"number": 0, "str": 1, "bool": 2, "list": 3, "dict": 4}


def sort_key(state: RunState, field: str) -> tuple[int, Any] | None:
    """Return what a run is sorted by; None comes last. Lists and dicts tie."""
    values = values_of(state, field)
    if not values or kind_of(values[0]) not in _RANKS:
        return None
    rank = _RANKS[kind_of(values[0])]
    return rank, values[0] if rank < 3 else None
