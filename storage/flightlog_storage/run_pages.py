"""Pages of runs: what is in state.db and what has moved on since, as one answer.

The runs that are not folded yet are filtered and sorted by the very SQL that asks
state.db: their facts are written into a database in memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flightlog_storage.artifact_state import RunName
from flightlog_storage.database import Database
from flightlog_storage.facts import (
    Facts,
    Scope,
    facts_of,
    logged_facts,
    path_of,
    tag_facts,
    text_of,
)
from flightlog_storage.fields import Field, Logged, Values
from flightlog_storage.filters import And, Filter, Not, Or
from flightlog_storage.run_query import FoundRun, RunQuery, Window, is_before
from flightlog_storage.runstate import RunState

__all__ = ("RunPage", "read_page", "read_states")


@dataclass(frozen=True, slots=True)
class RunPage:
    """Runs in order, and the states of the first of them; `total` if it was asked for.

    `project_exists`: whether there is any run in the query's project.
    """

    runs: list[FoundRun]
    states: list[RunState]
    is_last: bool
    total: int | None
    project_exists: bool


def read_page(
    database: Database,
    moved: Mapping[int, RunState],
    query: RunQuery,
    window: Window,
    states: int,
) -> RunPage:
    """Return a page with the first so many states.

    `moved` has the states of the runs that state.db is behind with.

    Raises:
        TimeoutError: $regex took too long.
    """
    one_more = replace(window, limit=window.limit + 1)
    runs, total = database.select_runs(query, one_more, [*moved])
    if moved:
        newer, count = _select_moved(database, moved, query, one_more)
        runs = list(_merged(query, runs, newer))
        total = None if total is None else total + (count or 0)
    shown = runs[: window.limit]
    return RunPage(
        shown,
        _states(database, moved, [run.number for run in shown[:states]]),
        is_last=len(runs) <= window.limit,
        total=total,
        project_exists=bool(runs) or _is_project(database, moved, query),
    )


def _select_moved(
    database: Database, moved: Mapping[int, RunState], query: RunQuery, window: Window
) -> tuple[list[FoundRun], int | None]:
    wanted = _wanted(query)
    with Database.empty() as live:
        with live.transaction():
            for state in moved.values():
                live.save_found(state, _facts(database, state, wanted))
        return live.select_runs(query, window)


def read_states(
    database: Database, moved: Mapping[int, RunState], keys: Sequence[RunName]
) -> list[RunState]:
    """Return the states of runs in the given order, but for those not there."""
    numbers = {state.key: number for number, state in moved.items()}
    for key in keys:
        number = None if key in numbers else database.number_of_run(*key)
        if number is not None:
            numbers[key] = number
    return _states(database, moved, [numbers[key] for key in keys if key in numbers])


def _states(
    database: Database, moved: Mapping[int, RunState], numbers: Sequence[int]
) -> list[RunState]:
    saved = database.load_runs([number for number in numbers if number not in moved])
    found = {**moved, **{state.number: state for state in saved}}
    states = [found[number] for number in numbers if number in found]
    return [state for state in states if not state.deleted]


def _is_project(
    database: Database, moved: Mapping[int, RunState], query: RunQuery
) -> bool:
    if query.entity is None or query.project is None:
        return True
    if database.has_project(query.entity, query.project, [*moved]):
        return True
    wanted = (query.entity, query.project)
    return any(
        (state.entity, state.project) == wanted and not state.deleted
        for state in moved.values()
    )


def _merged(
    query: RunQuery, one: list[FoundRun], other: list[FoundRun]
) -> Iterator[FoundRun]:
    one, other = one[::-1], other[::-1]
    while one and other:
        first = is_before(query, one[-1].place, other[-1].place)
        yield (one if first else other).pop()
    yield from reversed(one)
    yield from reversed(other)


# Facts that a query looks at


def _wanted(query: RunQuery) -> dict[Scope, set[bytes]]:
    found: dict[Scope, set[bytes]] = {}
    fields = [*_fields(query.where), *(term.field for term in query.order)]
    for field in fields:
        if isinstance(field, Logged):
            found.setdefault(Scope.LOGGED, set()).add(path_of(field.path))
        elif isinstance(field, Values):
            found.setdefault(field.scope, set()).update(map(path_of, field.paths))
    return found


def _fields(tree: Filter) -> Iterator[Field]:
    match tree:
        case And(items) | Or(items):
            for item in items:
                yield from _fields(item)
        case Not(item):
            yield from _fields(item)
        case _:
            yield tree.field


def _facts(
    database: Database, state: RunState, wanted: Mapping[Scope, set[bytes]]
) -> Iterator[tuple[Scope, Facts]]:
    for scope, paths in wanted.items():
        match scope:
            case Scope.TAGS:
                yield scope, tag_facts(state.tags)
            case Scope.CONFIG:
                yield scope, _at(facts_of(_near(state.config, paths)), paths)
            case Scope.SUMMARY:
                yield scope, _at(facts_of(_near(state.summary, paths)), paths)
            case Scope.LOGGED:
                yield scope, _logged(database, state, paths)


def _logged(database: Database, state: RunState, paths: set[bytes]) -> Facts:
    """Return the facts of keys logged since the state was saved, or before."""
    found = _at(logged_facts(state.changes.logged), paths)
    if not state.changes.reset:
        saved = (path for path in paths if database.is_logged(state.number, path))
        found |= logged_facts(map(text_of, saved))
    return found


def _near(values: Mapping[str, Any], paths: set[bytes]) -> dict[str, Any]:
    """Return the values that could have one of the paths."""
    starts = {path.split(b".")[0] for path in paths}
    return {
        key: value
        for key, value in values.items()
        if path_of(key.split(".")[0]) in starts
    }


def _at(facts: Facts, paths: set[bytes]) -> Facts:
    return {place: cell for place, cell in facts.items() if place[0] in paths}
