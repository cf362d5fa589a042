"""Run tables: a run's state as rows of state.db, saved by what changed."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple
from typing import Any

import msgspec

from flightlog_storage.assets import Asset, asset_of, packed_asset
from flightlog_storage.event import Looking, Pixels, WriterId
from flightlog_storage.facts import Scope, logged_facts, save_facts, tag_facts
from flightlog_storage.names import default_name
from flightlog_storage.queries import QUERIES
from flightlog_storage.run_values import (
    clear_values,
    load_values,
    packed,
    save_values,
    unpacked,
)
from flightlog_storage.runfiles import OwedFile, SavedFile
from flightlog_storage.runstate import (
    Alert,
    RunState,
    State,
    WriterState,
    WriterStatus,
)
from flightlog_storage.summary import Aggregate, Definition, Definitions
from flightlog_storage.watches import Watch

__all__ = ("load_runs", "owed_file", "run_row", "save_run", "watch_of")

# NaN and Infinity are written as such tokens, so every float comes back as it was;
# escapes keep lone surrogates, which JSON can hold and UTF-8 cannot.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def load_runs(connection: sqlite3.Connection, rows: sqlite3.Cursor) -> list[RunState]:
    """Return the states whose rows of `runs` are given, ready to be folded further."""
    names = [name for name, *_ in rows.description]
    columns = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    if not columns:
        return []
    numbers = _encode([*columns])
    configs = load_values(connection, Scope.CONFIG, numbers)
    summaries = load_values(connection, Scope.SUMMARY, numbers)
    lists = {
        field: (_grouped(connection, table, numbers), read)
        for field, (table, read) in _LISTS.items()
    }
    return [
        RunState(
            **_adapted(fields),
            config=configs.get(number, {}),
            summary=summaries.get(number, {}),
            **{
                field: read(found[number])
                for field, (found, read) in lists.items()
                if number in found
            },
        )
        for number, fields in columns.items()
    ]


def _grouped(
    connection: sqlite3.Connection, table: str, numbers: str
) -> dict[int, list[Any]]:
    """Return a table's rows by run, each without the run."""
    found = defaultdict(list)
    for run, *row in connection.execute(QUERIES[table], (numbers,)):
        found[run].append(row)
    return found


def _adapted(fields: dict[str, Any]) -> dict[str, Any]:
    """Make columns of `runs` fields of a state."""
    for name in ("shown_name", "host", "git_commit"):  # They follow from the rest.
        del fields[name]
    fields["group"] = fields.pop("run_group")
    fields["metadata"] = _decode(fields["metadata"])
    fields["state"] = State(fields["state"])
    fields["preemption_announced"] = bool(fields["preemption_announced"])
    fields["deleted"] = bool(fields["deleted"])
    fields["carried"] = bool(fields["carried"])
    return fields


def _tags(rows: list[Any]) -> list[str]:
    return [tag for (tag,) in rows]


def _definitions(rows: list[Any]) -> Definitions:
    return Definitions(
        (
            name,
            Definition(name, x, bool(sync), bool(hidden), (*_decode(summary),), goal),
        )
        for name, x, sync, hidden, summary, goal in rows
    )


def _aggregates(rows: list[Any]) -> dict[tuple[str, ...], Aggregate]:
    return {(*_decode(path),): Aggregate(*_decode(numbers)) for path, numbers in rows}


def _writers(rows: list[Any]) -> dict[WriterId, WriterState]:
    return {
        WriterId(writer): WriterState(
            rank, WriterStatus(status), bool(forked), bool(resumed), *rest
        )
        for writer, rank, status, forked, resumed, *rest in rows
    }


def _alerts(rows: list[Any]) -> list[Alert]:
    return [Alert(*row) for row in rows]


def _files(rows: list[Any]) -> dict[str, SavedFile]:
    return {name: SavedFile(name, *rest) for name, *rest in rows}


def _owed_files(rows: list[Any]) -> dict[str, OwedFile]:
    return {row[0]: owed_file(row) for row in rows}


def _system(rows: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = _decode(rows[0][0])
    return found


def _logged_config(rows: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = unpacked(rows[0][0])
    return found


def _assets(rows: list[Any]) -> dict[str, Asset]:
    assets = (asset_of(data) for (data,) in rows)
    return {asset.token: asset for asset in assets}


def _watches(rows: list[Any]) -> dict[str, Watch]:
    return {row[0]: watch_of(row) for row in rows}


# Of each field of a state that has rows of its own: the table, and how it is read.
_LISTS: dict[str, tuple[str, Callable[[list[Any]], Any]]] = {
    "tags": ("tags", _tags),
    "definitions": ("metrics", _definitions),
    "aggregates": ("aggregates", _aggregates),
    "writers": ("writers", _writers),
    "alerts": ("alerts", _alerts),
    "files": ("files", _files),
    "owed": ("owed_files", _owed_files),
    "system": ("system", _system),
    "logged_config": ("logged_config", _logged_config),
    "assets": ("assets", _assets),
    "watches": ("watches", _watches),
}

# What a run that was deleted leaves behind; its writers stay.
_CLEARED = (
    "tags",
    "metrics",
    "aggregates",
    "alerts",
    "files",
    "owed_files",
    "system",
    "logged_config",
    "assets",
    "watches",
)


def save_run(connection: sqlite3.Connection, state: RunState) -> None:
    """Write what changed since `state.changes` was cleared; it is left as it is."""
    number, changes = state.number, state.changes
    if changes.reset:
        _clear(connection, number)
    connection.execute(QUERIES["save_run"], run_row(state))
    if changes.config:
        changed = changes.config, changes.removed_config
        save_values(connection, Scope.CONFIG, number, state.config, *changed)
    if changes.summary:
        changed = changes.summary, changes.removed_summary
        save_values(connection, Scope.SUMMARY, number, state.summary, *changed)
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
    _save_files(connection, state)
    if changes.system:
        connection.execute(QUERIES["save_system"], (number, _encode(state.system)))
    _save_assets(connection, state)
    if changes.tags:
        saved = _saved_tags(connection, number)
        old = tag_facts(saved) if saved else {}  # Perhaps it was never saved.
        save_facts(connection, Scope.TAGS, number, old, tag_facts(state.tags))
        rows = ((number, i, tag) for i, tag in enumerate(state.tags))
        _replace(connection, "tag", number, rows)
    if changes.logged:
        logged = logged_facts(changes.logged)
        save_facts(connection, Scope.LOGGED, number, {}, logged)
    if changes.alerts:
        alerts = (
            (number, i, alert.time, alert.title, alert.text, alert.level)
            for i, alert in enumerate(state.alerts)
        )
        _replace(connection, "alert", number, alerts)


def _clear(connection: sqlite3.Connection, number: int) -> None:
    clear_values(connection, number)
    tags = tag_facts(_saved_tags(connection, number))
    save_facts(connection, Scope.TAGS, number, tags, {})
    connection.execute(QUERIES["clear_logged"], (number,))
    for name in _CLEARED:
        connection.execute(QUERIES[f"clear_{name}"], (number,))


def _saved_tags(connection: sqlite3.Connection, number: int) -> list[str]:
    return _tags(_grouped(connection, "tags", _encode([number]))[number])


def run_row(state: RunState) -> dict[str, Any]:
    """Return the values for `save_run`."""
    names = (
        "number entity project id name notes group job_type exit_code signal created_at"
        " updated_at last_step last_time row_count lost_count session"
        " preemption_announced description deleted carried"
    )
    row = {name: getattr(state, name) for name in names.split()}
    commit = state.metadata.get("commit")
    return row | {
        "metadata": _encode(state.metadata),
        "state": str(state.state),
        "shown_name": state.name or default_name(state.id),
        "host": state.host,
        "git_commit": commit if isinstance(commit, str) else None,
    }


def _save_files(connection: sqlite3.Connection, state: RunState) -> None:
    files, changed = state.files, state.changes.files
    removed = [(state.number, name) for name in changed if name not in files]
    saved = ((state.number, *astuple(files[name])) for name in changed if name in files)
    connection.executemany(QUERIES["remove_file"], removed)
    connection.executemany(QUERIES["save_file"], saved)
    owed, changed = state.owed, state.changes.owed
    done = [(state.number, token) for token in changed if token not in owed]
    new = ((state.number, *_owed_row(owed[t])) for t in changed if t in owed)
    connection.executemany(QUERIES["remove_owed_file"], done)
    connection.executemany(QUERIES["save_owed_file"], new)


def _save_assets(connection: sqlite3.Connection, state: RunState) -> None:
    number, changes = state.number, state.changes
    if changes.logged_config:
        row = (number, packed(state.logged_config))
        connection.execute(QUERIES["save_logged_config"], row)
    connection.executemany(
        QUERIES["save_asset"],
        (_asset_row(number, state.assets[token]) for token in changes.assets),
    )
    watches, changed = state.watches, changes.watches
    stopped = [(number, token) for token in changed if token not in watches]
    started = (_watch_row(number, watches[t]) for t in changed if t in watches)
    connection.executemany(QUERIES["remove_watch"], stopped)
    connection.executemany(QUERIES["save_watch"], started)


def _asset_row(number: int, asset: Asset) -> tuple[Any, ...]:
    key = None if asset.output is None else asset.output.key
    return (number, asset.token, asset.job, key, packed_asset(asset))


def watch_of(row: Sequence[Any]) -> Watch:
    """Return what a row says without its run: token, writer, interval, looking."""
    token, writer, interval_s, looking = row
    found = msgspec.msgpack.decode(looking, type=Looking)
    return Watch(token, WriterId(writer), interval_s, found)


def _watch_row(number: int, watch: Watch) -> tuple[Any, ...]:
    looking = msgspec.msgpack.encode(watch.looking)
    return (number, watch.token, watch.writer, watch.interval_s, looking)


def owed_file(row: Sequence[Any]) -> OwedFile:
    """Return what a row says without its run: token, name, size, pixels."""
    token, name, size, pixels = row
    found = None if pixels is None else msgspec.json.decode(pixels, type=Pixels)
    return OwedFile(token, name, size, found)


def _owed_row(owed: OwedFile) -> tuple[Any, ...]:
    pixels = owed.pixels
    text = None if pixels is None else msgspec.json.encode(pixels).decode()
    return (owed.token, owed.name, owed.size, text)


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
        known.storing,
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
        aggregate.has_nan,
    ]


def _replace(
    connection: sqlite3.Connection,
    name: str,
    number: int,
    rows: Iterable[tuple[Any, ...]],
) -> None:
    connection.execute(QUERIES[f"clear_{name}s"], (number,))
    connection.executemany(QUERIES[f"save_{name}"], rows)
