"""Queries for runs: which, in what order, and from which place on."""

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from flightlog_storage.facts import FactKind, path_of
from flightlog_storage.fields import Column, ColumnType, Logged, Values, find_field
from flightlog_storage.filter_sql import Finder, Sql, compile_filter
from flightlog_storage.filters import And, Filter

__all__ = (
    "EVERY_RUN",
    "FoundRun",
    "OrderTerm",
    "Place",
    "RunQuery",
    "Window",
    "find_runs",
    "is_before",
    "parse_order",
)

ORDER_TERMS_MAX = 16

# What a run is sorted by: all values that the order names, and then what makes it
# unique. A run that comes later has its own place, so none is skipped or repeated.
Place = tuple[int | float | str | bytes, ...]

_FIND = """
SELECT runs.number, runs.entity, runs.project, runs.id, {count}{keys}
FROM runs{joins}
WHERE {where}
ORDER BY {order}
LIMIT ?
"""
_COUNT = "SELECT count(*) FROM runs WHERE {where}"
_PLACES = """
SELECT path, min(split), max(split) FROM facts
WHERE scope = ? AND path IN ({marks}) AND place = 0 GROUP BY path LIMIT 2
"""
_JOIN_ONE = """
LEFT JOIN facts AS {name} ON {name}.scope = ? AND {name}.path = ?
    AND {name}.run = runs.number AND {name}.split = ? AND {name}.place = 0"""
# Of several values of one run, the first is taken: SQLite gives the other columns of
# the row that has the minimum.
_JOIN_ANY = """
LEFT JOIN (
    SELECT run, kind, number, text, min((path <> ?) || split)
    FROM facts WHERE scope = ? AND path IN ({marks}) AND place = 0 GROUP BY run
) AS {name} ON {name}.run = runs.number"""
_NO_KIND = 99  # What is missing sorts behind everything; negated, also downwards.


EVERY_RUN = And(())


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """One field to sort by."""

    field: Column | Values
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs, in what order; entity and project None: of all."""

    entity: str | None = None
    project: str | None = None
    where: Filter = EVERY_RUN
    order: tuple[OrderTerm, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What to read of the runs that a query finds, and whether to count them all."""

    limit: int
    after: Place | None = None
    count: bool = False


class FoundRun(NamedTuple):
    """A run that a query found, and its place in the order."""

    number: int
    entity: str
    project: str
    id: str
    place: Place


@dataclass(frozen=True, slots=True)
class _Key:
    """One expression to sort by."""

    sql: str
    is_descending: bool = False


_LAST_KEYS = tuple(
    _Key(f"runs.{name}") for name in ("created_at", "id", "entity", "project")
)


def parse_order(order: str) -> tuple[OrderTerm, ...]:
    """Return the terms of an order: fields with + or - before, joined with commas.

    Raises:
        ValueError: A field is unknown, or there are too many.
    """
    words = [word.strip() for word in order.split(",")]
    if len(words) > ORDER_TERMS_MAX:
        raise ValueError(f"order: {ORDER_TERMS_MAX} fields at most, not {len(words)}")
    return tuple(_parse_term(word) for word in words)


def _parse_term(word: str) -> OrderTerm:
    name = word[1:].strip() if word[:1] in ("+", "-") else word
    field = find_field(name)
    if isinstance(field, Logged):
        raise ValueError(f"order: runs cannot be sorted by {name}")
    return OrderTerm(field, word[:1] == "-")


def is_before(query: RunQuery, one: Place, other: Place) -> bool:
    """Whether a run at the one place comes before a run at the other."""
    for key, a, b in zip(_keys(query), one, other, strict=True):
        if a != b:
            # SQL has compared each key with its like: they are of one type.
            return (a > b) if key.is_descending else (a < b)  # type: ignore[operator]
    return False


def find_runs(
    connection: sqlite3.Connection,
    query: RunQuery,
    window: Window,
    without: Sequence[int] = (),
) -> tuple[list[FoundRun], int | None]:
    """Return runs in order, and how many there are if the window asks for it.

    Those with the numbers `without` are left out.

    Raises:
        TimeoutError: $regex took too long.
    """
    where = _where(query, without)
    total = None
    if window.count and query.where == EVERY_RUN:  # Then an index counts them.
        total = int(_execute(connection, _COUNT.format(where=where.text), where)[0][0])
    counts_along = window.count and total is None
    keys = _keys(query)
    join = _joined(connection, query)
    if window.after is not None:
        where = _both(where, _behind(keys, window.after))
    text = _FIND.format(
        count="count(*) OVER ()" if counts_along else "NULL",
        keys="".join(f", {key.sql}" for key in keys),
        joins=join.text,
        where=where.text,
        order=", ".join(f"{key.sql}{' DESC' * key.is_descending}" for key in keys),
    )
    limit = Sql("", (window.limit,))
    rows = _execute(connection, text, join, where, limit)
    if counts_along:
        total = rows[0][4] if rows else 0
    found = [
        FoundRun(number, entity, project, id, tuple(place))
        for number, entity, project, id, _, *place in rows
    ]
    return found, total


def _execute(
    connection: sqlite3.Connection, text: str, *pieces: Sql
) -> list[tuple[Any, ...]]:
    parameters = tuple(chain.from_iterable(piece.parameters for piece in pieces))
    finder = Finder(time.monotonic)
    finder.install(connection)
    try:
        return connection.execute(text, parameters).fetchall()
    except sqlite3.OperationalError:
        finder.check()
        raise


def _both(one: Sql, other: Sql) -> Sql:
    return Sql(f"{one.text} AND {other.text}", one.parameters + other.parameters)


def _where(query: RunQuery, without: Sequence[int]) -> Sql:
    pieces = [Sql("runs.deleted = 0")]
    if query.entity is not None:
        pieces.append(Sql("runs.entity = ?", (query.entity,)))
    if query.project is not None:
        pieces.append(Sql("runs.project = ?", (query.project,)))
    if without:
        numbers = json.dumps(list(without))
        pieces.append(
            Sql("runs.number NOT IN (SELECT value FROM json_each(?))", (numbers,))
        )
    pieces.append(compile_filter(query.where))
    return Sql(
        " AND ".join(piece.text for piece in pieces),
        tuple(chain.from_iterable(piece.parameters for piece in pieces)),
    )


def _behind(keys: Sequence[_Key], after: Place) -> Sql:
    """Return whether a run comes behind a place."""
    found = Sql("0")
    for key, value in reversed(list(zip(keys, after, strict=True))):
        sign = "<" if key.is_descending else ">"
        # Said first as a bound of its own: that is what an index can be used for.
        found = Sql(
            f"({key.sql} {sign}= ? AND ({key.sql} {sign} ? OR {found.text}))",
            (value, value, *found.parameters),
        )
    return found


def _keys(query: RunQuery) -> list[_Key]:
    found = [
        key
        for place, term in enumerate(query.order)
        for key in _term_keys(term, f"key{place}")
    ]
    known = {key.sql for key in found}
    return found + [key for key in _LAST_KEYS if key.sql not in known]


def _term_keys(term: OrderTerm, name: str) -> list[_Key]:
    """Return the expressions for one term: what kind of value, number, text."""
    missing = -_NO_KIND if term.is_descending else _NO_KIND
    match term.field:
        case Column(_, sql, ColumnType.TEXT):
            is_missing = f"CASE WHEN {sql} IS NULL THEN {missing} ELSE 0 END"
            found = [is_missing, f"ifnull({sql}, '')"]
        case Column(_, sql, _):
            found = [sql]
        case Values():
            last = int(FactKind.NULL)
            found = [
                f"CASE WHEN ifnull({name}.kind, {last}) >= {last} THEN {missing} "
                f"ELSE {name}.kind END",
                f"ifnull({name}.number, 0)",
                f"ifnull({name}.text, x'')",
            ]
    return [_Key(sql, term.is_descending) for sql in found]


def _joined(connection: sqlite3.Connection, query: RunQuery) -> Sql:
    joins = [
        _join(connection, term.field, f"key{place}")
        for place, term in enumerate(query.order)
        if isinstance(term.field, Values)
    ]
    return Sql(
        "".join(join.text for join in joins),
        tuple(chain.from_iterable(join.parameters for join in joins)),
    )


def _join(connection: sqlite3.Connection, field: Values, name: str) -> Sql:
    """Join the values to sort by; mostly all runs have them at one place."""
    marks = ", ".join("?" * len(field.paths))
    scope = int(field.scope)
    paths = [path_of(path) for path in field.paths]
    if len(paths) == 1 and b"." not in paths[0]:  # There is nothing to split.
        return Sql(_JOIN_ONE.format(name=name), (scope, paths[0], ""))
    found = connection.execute(_PLACES.format(marks=marks), (scope, *paths)).fetchall()
    path, split, last = found[0] if found else (paths[0], "", "")
    if len(found) > 1 or split != last:
        return Sql(_JOIN_ANY.format(marks=marks, name=name), (paths[0], scope, *paths))
    return Sql(_JOIN_ONE.format(name=name), (scope, path, split))
