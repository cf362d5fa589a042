"""Filters: a dict in MongoDB's style as a checked, typed tree."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from flightlog_storage.fields import Column, ColumnType, Field, Logged, find_field
from flightlog_storage.operands import kind_of, moment_of, value_of
from flightlog_storage.patterns import compile_search

__all__ = (
    "OPERATORS",
    "And",
    "Contains",
    "Equal",
    "Exists",
    "Filter",
    "Matches",
    "Not",
    "Or",
    "Ordered",
    "parse_filter",
)

FILTER_NESTING_MAX = 50  # Of $and, $or, $nor and $not.
FILTER_CONDITIONS_MAX = 1_000
FILTER_VALUES_MAX = 10_000  # That all conditions together compare with.
PATTERN_LENGTH_MAX = 1_000


@dataclass(frozen=True, slots=True)
class And:
    """All of these; without any, every run."""

    items: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of these at least; without any, no run."""

    items: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """What it is not true of; also for want of a value."""

    item: "Filter"


@dataclass(frozen=True, slots=True)
class Equal:
    """A value of the field is one of these; None is also what is missing."""

    field: Field
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """A value of the field is of the operand's type and above or below it."""

    field: Field
    sign: str  # As in SQL.
    value: int | float | str | bool


@dataclass(frozen=True, slots=True)
class Exists:
    """There is a value, if it be None."""

    field: Field


@dataclass(frozen=True, slots=True)
class Matches:
    """The pattern is found in a text."""

    field: Field
    pattern: str
    flags: int  # Of `re`.


@dataclass(frozen=True, slots=True)
class Contains:
    """The text is part of a text."""

    field: Field
    text: str


Filter = And | Or | Not | Equal | Ordered | Exists | Matches | Contains

_SIGNS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_LISTS = {"$and", "$or", "$nor"}
_LOGICAL = (*sorted(_LISTS), "$not")
_OPTIONS = {"i": re.I, "m": re.M, "s": re.S, "x": re.X}


def parse_filter(filters: object) -> Filter:
    """Return the filter that a dict in MongoDB's style describes; None is every run.

    Raises:
        ValueError: It is none; the message says what is wrong and what is possible.
    """
    try:
        tree = And(()) if filters is None else _document(filters, 0)
    except RecursionError:
        raise ValueError("a value of the filter is nested too deeply") from None
    conditions, values = _size(tree)
    if conditions > FILTER_CONDITIONS_MAX:
        raise ValueError(
            f"a filter has {FILTER_CONDITIONS_MAX:,} conditions at most, not "
            f"{conditions:,}; $in takes many values at once"
        )
    if values > FILTER_VALUES_MAX:
        raise ValueError(
            f"a filter has {FILTER_VALUES_MAX:,} values at most, not {values:,}"
        )
    return tree


def _document(document: object, depth: int) -> Filter:
    if not isinstance(document, Mapping):
        raise ValueError(f"a filter must be a dict, not {kind_of(document)}")
    if depth > FILTER_NESTING_MAX:
        raise ValueError(f"a filter may be nested {FILTER_NESTING_MAX} levels deep")
    items = [_entry(key, value, depth) for key, value in document.items()]
    return items[0] if len(items) == 1 else And(tuple(items))


def _entry(key: object, value: object, depth: int) -> Filter:
    if not isinstance(key, str):
        raise ValueError(f"the keys of a filter must be str; {key!r} is not")
    if key in _LISTS:
        return _logical(key, value, depth)
    if key == "$not":
        return Not(_document(value, depth + 1))
    if key.startswith("$"):
        raise ValueError(
            f"unknown operator {key!r} in place of a field; there are "
            f"{', '.join(_LOGICAL)}"
        )
    return _conditions(find_field(key), value, depth)


def _logical(key: str, value: object, depth: int) -> Filter:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} takes a list of filters, not {kind_of(value)}")
    items = tuple(_document(item, depth + 1) for item in value)
    if key == "$and":
        return And(items)
    if not items:
        raise ValueError(f"{key} takes one filter at least")
    return Or(items) if key == "$or" else Not(Or(items))


def _conditions(field: Field, value: object, depth: int) -> Filter:
    """Return the filter of one field: a value, or a dict of operators."""
    if not _has_operators(value):
        return OPERATORS["$eq"](field, value)
    if depth > FILTER_NESTING_MAX:
        raise ValueError(f"a filter may be nested {FILTER_NESTING_MAX} levels deep")
    operators = dict(value)
    options = operators.pop("$options", None)
    if options is not None and "$regex" not in operators:
        raise ValueError(f"{field.name}: $options goes with $regex only")
    found: list[Filter] = []
    for name, operand in operators.items():
        if name == "$not":
            found.append(_negation(field, operand, depth))
        elif name == "$regex":
            found.append(_matches(field, operand, options))
        else:
            found.append(_operator(field, name)(field, operand))
    return found[0] if len(found) == 1 else And(tuple(found))


def _operator(field: Field, name: object) -> "Callable[[Field, object], Filter]":
    found = OPERATORS.get(str(name))
    if found is None:
        known = (*OPERATORS, "$regex", "$options", "$not")
        raise ValueError(
            f"{field.name}: unknown operator {name!r}; there are {', '.join(known)}"
        )
    return found


def _has_operators(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and key.startswith("$") for key in value
    )


def _negation(field: Field, operand: object, depth: int) -> Filter:
    if not _has_operators(operand):
        raise ValueError(
            f"{field.name}: $not takes a dict of operators, not {kind_of(operand)}; "
            "for a value there is $ne"
        )
    return Not(_conditions(field, operand, depth + 1))


def _equal(field: Field, operand: object) -> Filter:
    return _any_of(field, "$eq", (operand,))


def _unequal(field: Field, operand: object) -> Filter:
    return Not(_any_of(field, "$ne", (operand,)))


def _in(field: Field, operand: object) -> Filter:
    return _any_of(field, "$in", _listed(field, "$in", operand))


def _not_in(field: Field, operand: object) -> Filter:
    return Not(_any_of(field, "$nin", _listed(field, "$nin", operand)))


def _listed(field: Field, name: str, operand: object) -> tuple[object, ...]:
    if not isinstance(operand, list | tuple | set | frozenset):
        raise ValueError(f"{field.name}: {name} takes a list, not {kind_of(operand)}")
    return tuple(operand)


def _any_of(field: Field, name: str, values: tuple[object, ...]) -> Filter:
    if isinstance(field, Logged):
        if values == (None,):
            return Not(Exists(field))
        raise _only_exists(field)
    if isinstance(field, Column) and field.type is ColumnType.TIME:
        moments = [moment_of(field, value) for value in values if value is not None]
        return Or(
            tuple(
                And((Ordered(field, ">=", low), Ordered(field, "<=", high)))
                for low, high in moments
            )
        )
    return Equal(field, tuple(value_of(field, name, value) for value in values))


def _ordering(name: str) -> Callable[[Field, object], Filter]:
    def ordered(field: Field, operand: object) -> Filter:
        sign = _SIGNS[name]
        if isinstance(field, Logged):
            raise _only_exists(field)
        if isinstance(field, Column) and field.type is ColumnType.TIME:
            low, high = moment_of(field, operand)
            return Ordered(field, sign, high if sign in (">", "<=") else low)
        value = value_of(field, name, operand)
        if not isinstance(value, bool | int | float | str):
            raise ValueError(
                f"{field.name}: {name} takes a number, a str or a bool, not "
                f"{kind_of(operand)}"
            )
        return Ordered(field, sign, value)

    return ordered


def _exists(field: Field, operand: object) -> Filter:
    if not isinstance(operand, bool):
        raise ValueError(f"{field.name}: $exists takes a bool, not {operand!r}")
    return Exists(field) if operand else Not(Exists(field))


def _matches(field: Field, operand: object, options: object) -> Filter:
    text = _text(field, "$regex", operand)
    options = "" if options is None else options
    if not isinstance(options, str) or set(options) - _OPTIONS.keys():
        raise ValueError(
            f"{field.name}: $options takes some of the letters "
            f"{''.join(_OPTIONS)!r}, not {options!r}"
        )
    if len(text) > PATTERN_LENGTH_MAX:
        raise ValueError(
            f"{field.name}: a pattern has {PATTERN_LENGTH_MAX:,} characters at most, "
            f"not {len(text):,}"
        )
    flags = sum(_OPTIONS[letter] for letter in set(options))
    try:
        compile_search(text, flags)
    except ValueError as error:
        raise ValueError(f"{field.name}: $regex {error}") from error
    return Matches(field, text, int(flags))


def _contains(field: Field, operand: object) -> Filter:
    return Contains(field, _text(field, "$contains", operand))


def _text(field: Field, name: str, operand: object) -> str:
    if isinstance(field, Logged):
        raise _only_exists(field)
    if isinstance(field, Column) and field.type is not ColumnType.TEXT:
        raise ValueError(
            f"{field.name}: {name} is for texts; this is a {field.type.value}"
        )
    if not isinstance(operand, str):
        raise ValueError(f"{field.name}: {name} takes a str, not {kind_of(operand)}")
    return operand


OPERATORS: Mapping[str, Callable[[Field, object], Filter]] = {
    "$eq": _equal,
    "$ne": _unequal,
    **{name: _ordering(name) for name in _SIGNS},
    "$in": _in,
    "$nin": _not_in,
    "$exists": _exists,
    "$contains": _contains,
}


def _only_exists(field: Field) -> ValueError:
    return ValueError(f"{field.name}: only $exists can be asked of it")


def _size(tree: Filter) -> tuple[int, int]:
    """Return how many conditions and how many values it has."""
    match tree:
        case And(items) | Or(items):
            sizes = [_size(item) for item in items]
            return sum(size for size, _ in sizes), sum(size for _, size in sizes)
        case Not(item):
            return _size(item)
        case Equal(_, values):
            return 1, len(values)
    return 1, 1
