"""Run tables: a run's state as rows of state.db, saved by what changed."""

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from flightlog_storage.event import WriterId
from flightlog_storage.queries import QUERIES
from flightlog_storage.runstate import (
    Alert,
    RunState,
    State,
    WriterState,
    WriterStatus,
)
from flightlog_storage.summary import Aggregate, Definition, Definitions

__all__ = ("load_run", "save_run")

# NaN and Infinity are written as such tokens, so every float comes back as it was;
# escapes keep lone surrogates, which JSON can hold and UTF-8 cannot.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def load_run(connection: sqlite3.Connection, row: sqlite3.Row) -> RunState:
    """Return the state whose row of `runs` is given, ready to be folded further."""
    number = row["number"]
    return RunState(
        **_columns(row),
        group=row["run_group"],
        metadata=_decode(row["metadata"]),
        state=State(row["state"]),
        preemption_announced=bool(row["preemption_announced"]),
        tags=[tag for (tag,) in connection.execute(QUERIES["tags"], (number,))],
        config=_load_values(connection, "config", number),
        summary=_load_values(connection, "summary", number),
        definitions=_load_definitions(connection, number),
        aggregates=_load_aggregates(connection, number),
        writers=_load_writers(connection, number),
        alerts=[
            Alert(*row) for row in connection.execute(QUERIES["alerts"], (number,))
        ],
    )


_ADAPTED = ("run_group", "metadata", "state", "preemption_announced")


def _columns(row: sqlite3.Row) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() if name not in _ADAPTED}  # noqa: SIM118


def _load_values(
    connection: sqlite3.Connection, table: str, number: int
) -> dict[str, Any]:
    rows = connection.execute(QUERIES[table], (number,))
    return {key: _decode(value) for key, value in rows}


def _load_definitions(connection: sqlite3.Connection, number: int) -> Definitions:
    return Definitions(
        (
            name,
            Definition(name, x, bool(sync), bool(hidden), (*_decode(summary),), goal),
        )
        for name, x, sync, hidden, summary, goal in connection.execute(
            QUERIES["metrics"], (number,)
        )
    )


def _load_aggregates(
    connection: sqlite3.Connection, number: int
) -> dict[tuple[str, ...], Aggregate]:
    rows = connection.execute(QUERIES["aggregates"], (number,))
    return {(*_decode(path),): Aggregate(*_decode(numbers)) for path, numbers in rows}


def _load_writers(
    connection: sqlite3.Connection, number: int
) -> dict[WriterId, WriterState]:
    rows = connection.execute(QUERIES["writers"], (number,))
    return {
        WriterId(writer): WriterState(
            rank, WriterStatus(status), bool(forked), bool(resumed), *rest
        )
        for writer, rank, status, forked, resumed, *rest in rows
    }


def save_run(connection: sqlite3.Connection, state: RunState) -> None:
    """Write what changed since `state.changes` was cleared; it is left as it is."""
    number, changes = state.number, state.changes
    connection.execute(QUERIES["save_run"], _run_row(state))
    _save_values(connection, "config", number, state.config, changes.config)
    _save_values(connection, "summary", number, state.summary, changes.summary)
    connection.executemany(
        QUERIES["save_writer"],
        (
            _writer_row(number, writer, state.writers[writer])
            for writer in changes.writers
        ),
    )
    connection.executemany(
        QUERIES["save_metric"],
        (_metric_row(number, state.definitions[name]) for name in changes.definitions),
    )
    connection.executemany(
        QUERIES["save_aggregate"],
        (
            (number, _encode(path), _encode(_numbers(state.aggregates[path])))
            for path in changes.aggregates
        ),
    )
    if changes.tags:
        rows = ((number, i, tag) for i, tag in enumerate(state.tags))
        _replace(connection, "tag", number, rows)
    if changes.alerts:
        alerts = (
            (number, i, alert.time, alert.title, alert.text, alert.level)
            for i, alert in enumerate(state.alerts)
        )
        _replace(connection, "alert", number, alerts)


def _run_row(state: RunState) -> dict[str, Any]:
    names = (
        "number entity project id name notes group job_type exit_code signal created_at"
        " updated_at last_step last_time row_count lost_count session"
        " preemption_announced"
    )
    row = {name: getattr(state, name) for name in names.split()}
    return row | {"metadata": _encode(state.metadata), "state": str(state.state)}


def _save_values(
    connection: sqlite3.Connection,
    table: str,
    number: int,
    values: dict[str, Any],
    changed: Iterable[str],
) -> None:
    removed = [(number, key) for key in changed if key not in values]
    saved = ((number, key, _encode(values[key])) for key in changed if key in values)
    connection.executemany(QUERIES[f"remove_{table}"], removed)
    connection.executemany(QUERIES[f"save_{table}"], saved)


def _writer_row(number: int, writer: WriterId, known: WriterState) -> tuple[Any, ...]:
    return (
        writer,
        number,
        known.rank,
        str(known.status),
        known.forked,
        known.host,
        known.pid,
        known.exit_code,
        known.signal,
        known.next_sequence,
        known.started_at,
        known.session,
        known.resumed,
    )


def _metric_row(number: int, definition: Definition) -> tuple[Any, ...]:
    return (
        number,
        definition.name,
        definition.step_metric,
        definition.step_sync,
        definition.hidden,
        _encode(definition.summary),
        definition.goal,
    )


def _numbers(aggregate: Aggregate) -> list[Any]:
    return [
        aggregate.count,
        aggregate.total,
        aggregate.minimum,
        aggregate.maximum,
        aggregate.first,
        aggregate.last,
    ]


def _replace(
    connection: sqlite3.Connection,
    name: str,
    number: int,
    rows: Iterable[tuple[Any, ...]],
) -> None:
    connection.execute(QUERIES[f"clear_{name}s"], (number,))
    connection.executemany(QUERIES[f"save_{name}"], rows)
