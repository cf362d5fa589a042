"""From filters to SQL: a condition on the table `runs`, with bound parameters.

Every field is a set of cells (see facts.py), for a column a set of one or none. A leaf
of the filter asks whether one of them passes a test, so that only `Not` has to do with
values that are missing.
"""

import math
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flightlog_storage.facts import (
    Cell,
    FactKind,
    Scope,
    cell_of,
    path_of,
    text_of,
)
from flightlog_storage.fields import Column, ColumnType, Field, Logged, Values
from flightlog_storage.filters import (
    And,
    Contains,
    Equal,
    Exists,
    Filter,
    Matches,
    Not,
    Or,
    Ordered,
)
from flightlog_storage.patterns import Search, compile_search

__all__ = ("Finder", "Sql", "compile_filter", "joined")

FINDING_TIME_MAX_S = 20  # That all the $regex of one query may take.


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL with the parameters that it binds, in order."""

    text: str
    parameters: tuple[object, ...] = ()


_FALSE = Sql("0")
_TRUE = Sql("1")


def compile_filter(tree: Filter, few: bool = False) -> Sql:
    """Return the condition under which a row of `runs` passes the filter.

    `few`: it is asked about few runs, so that each is looked up by itself; else all
    that pass are gathered first.
    """
    match tree:
        case And(items):
            # SQLite tests what it looks up for each run last.
            left_few = few or any(map(_is_selective, items))
            pieces = (
                compile_filter(item, few if _is_selective(item) else left_few)
                for item in items
            )
            return joined("AND", pieces, _TRUE)
        case Or(items):
            pieces = (compile_filter(item, few) for item in items)
            return joined("OR", pieces, _FALSE)
        case Not(item):
            inner = compile_filter(item, few)
            return Sql(f"NOT ({inner.text})", inner.parameters)
    return _condition(tree, few)


def _is_selective(tree: Filter) -> bool:
    """Whether the filter is taken to leave few runs."""
    match tree:
        case Equal(Values(), values):
            return None not in values
    return False


def _condition(leaf: Equal | Ordered | Exists | Matches | Contains, few: bool) -> Sql:
    match leaf:
        case Equal(field, values):
            return _equal(field, values, few)
        case Ordered(field, sign, value):
            return _having(field, _ordered(sign, cell_of(value)), few)
        case Exists(field):
            return _existing(field, few)
        case Matches(field, pattern, flags):
            test = Sql("regex_found(?, ?, {text})", (pattern, flags))
            return _having(field, _of_kind(FactKind.TEXT, test), few)
        case Contains(field, text):
            test = Sql("instr({text}, ?) > 0", (path_of(text),))
            return _having(field, _of_kind(FactKind.TEXT, test), few)


def joined(word: str, pieces: Iterable[Sql], empty: Sql) -> Sql:
    """Join pieces in pairs, since SQLite limits how deep an expression may be."""
    found = list(pieces)
    if not found:
        return empty
    while len(found) > 1:
        pairs = zip(found[::2], found[1::2], strict=False)
        odd = found[-1:] if len(found) % 2 else []
        found = [
            Sql(f"({a.text} {word} {b.text})", a.parameters + b.parameters)
            for a, b in pairs
        ] + odd
    return found[0]


# Fields


def _having(field: Field, test: Sql, few: bool) -> Sql:
    """Return whether one of a field's cells passes the test."""
    match field:
        case Values(_, scope, paths):
            return _facts(scope, paths, test, few)
        case Column(_, sql, ColumnType.TEXT):
            text = f"CAST({sql} AS BLOB)"
            kind = str(int(FactKind.TEXT))
            passed = test.text.format(kind=kind, number="0", text=text)
            return Sql(f"({sql} IS NOT NULL AND {passed})", test.parameters)
        case Column(_, sql, _):
            kind = str(int(FactKind.NUMBER))
            passed = test.text.format(kind=kind, number=sql, text="x''")
            return Sql(f"({passed})", test.parameters)
        case Logged():
            raise AssertionError("only whether it exists is asked")


def _existing(field: Field, few: bool) -> Sql:
    match field:
        case Values(_, scope, paths):
            return _facts(scope, paths, _TRUE, few)
        case Logged(_, path):
            return _facts(Scope.LOGGED, (path,), _TRUE, few)
        case Column(_, sql, _):
            return Sql(f"({sql} IS NOT NULL)")


def _facts(scope: Scope, paths: tuple[str, ...], test: Sql, few: bool) -> Sql:
    marks = ", ".join("?" * len(paths))
    passed = test.text.format(kind="kind", number="number", text="text")
    query = f"SELECT run FROM facts WHERE scope = ? AND path IN ({marks}) AND {passed}"
    return Sql(
        f"EXISTS ({query} AND run = runs.number)"
        if few
        else f"runs.number IN ({query})",
        (int(scope), *map(path_of, paths), *test.parameters),
    )


# Tests of one cell


def _equal(field: Field, values: tuple[object, ...], few: bool) -> Sql:
    cells = dict.fromkeys(cell_of(value) for value in values)
    found = [_having(field, _one_of(list(cells)), few)] if cells else []
    if None in values:
        missing = _existing(field, few)
        found.append(Sql(f"NOT ({missing.text})", missing.parameters))
    return joined("OR", found, _FALSE)


def _one_of(cells: list[Cell]) -> Sql:
    parameters = tuple(
        part for kind, number, text in cells for part in (int(kind), number, text)
    )
    if len(cells) == 1:
        return Sql("{kind} = ? AND {number} = ? AND {text} = ?", parameters)
    marks = ", ".join(["(?, ?, ?)"] * len(cells))
    return Sql(f"({{kind}}, {{number}}, {{text}}) IN (VALUES {marks})", parameters)


def _ordered(sign: str, cell: Cell) -> Sql:
    kind, number, text = cell
    if kind is FactKind.NAN:
        return _FALSE  # It is neither above nor below anything.
    return _of_kind(kind, Sql(f"({{number}}, {{text}}) {sign} (?, ?)", (number, text)))


def _of_kind(kind: FactKind, test: Sql) -> Sql:
    return Sql(f"{{kind}} = {int(kind)} AND {test.text}", test.parameters)


@dataclass
class Finder:
    """Searches texts for patterns, as SQL's `regex_found(pattern, flags, text)`.

    All searches together may take FINDING_TIME_MAX_S; the last one is interrupted.
    """

    now: Callable[[], float]
    is_late: bool = False
    _deadline: float = field(init=False, default=math.inf)
    _searches: dict[tuple[str, int], Search] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._deadline = self.now() + FINDING_TIME_MAX_S

    def install(self, connection: sqlite3.Connection) -> None:
        """Make it known to a connection."""
        connection.create_function("regex_found", 3, self._found, deterministic=True)

    def check(self) -> None:
        """Tell why a query failed.

        Raises:
            TimeoutError: $regex took too long.
        """
        if self.is_late:
            raise TimeoutError(f"$regex took more than {FINDING_TIME_MAX_S} s")

    def _found(self, pattern: str, flags: int, text: bytes) -> bool:
        search = self._searches.get((pattern, flags))
        if search is None:
            search = self._searches[pattern, flags] = compile_search(pattern, flags)
        seconds_left = self._deadline - self.now()
        try:
            if seconds_left <= 0:
                raise TimeoutError
            return search(text_of(text), seconds_left)
        except TimeoutError:
            self.is_late = True
            raise
