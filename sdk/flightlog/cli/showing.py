"""`flightlog show`: one run."""

import time
from collections.abc import Mapping
from signal import Signals
from typing import Any

from flightlog.cli.naming import find_run
from flightlog.cli.output import age, emit, emit_json, flat, iso, shown, talk
from flightlog_storage.database import Database, MissingEvents
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.home import Home
from flightlog_storage.names import default_name
from flightlog_storage.runstate import RunState, WriterState, WriterStatus
from flightlog_storage.terminal import plain

__all__ = ("show_run",)

KEYS_MAX = 50  # Of config and of summary each.
SYSTEM_MAX = 6  # Of the system metrics; the first are the run's own.
WRITERS_MAX = 16


def show_run(home: Home, name: str, *, is_all: bool, as_json: bool) -> None:
    """Print what is known of the run called `name`."""
    state = find_run(home, name)
    gaps = _gaps(home, state.number)
    if as_json:
        emit_json("flightlog.run/1", _data(state, gaps))
        return
    lines = _facts(state)
    limit = None if is_all else KEYS_MAX
    lines += _section("config", state.config, limit)
    lines += _section("summary", state.summary, limit)
    lines += _section("system", state.system, None if is_all else SYSTEM_MAX)
    lines += _writers(state, None if is_all else WRITERS_MAX)
    lines += ["", "lost"] if gaps else []
    lines += [f"  {_gap_text(gap)}" for gap in gaps[:limit]]
    emit("\n".join(lines))
    if state.lost_count:
        count = state.lost_count
        talk(f"{count} events of this run are lost; see flightlog verify --full")


def _gaps(home: Home, number: int) -> list[MissingEvents]:
    """Return what the log lacks of a run, as far as the materializer has come."""
    try:
        with Database.open_reader(home.state) as database:
            return [gap for gap in database.gaps() if gap.run == number]
    except HomeUnusable:
        return []


def _facts(state: RunState) -> list[str]:
    facts = {
        "run": "/".join(state.key),
        "name": state.name or default_name(state.id),
        "state": _ending(state.state, state.exit_code, state.signal),
        "started": iso(state.created_at),
        "updated": f"{iso(state.updated_at)} ({age(state.updated_at, time.time())})",
        "steps": f"{state.last_step + 1} in {state.row_count} rows",
        "tags": ", ".join(state.tags),
        "group": state.group,
        "job type": state.job_type,
        "notes": state.notes,
        "lost events": state.lost_count or None,
    }
    return [f"{name:12} {shown(value)}" for name, value in facts.items() if value]


def _ending(state: str, exit_code: int | None, signal: int | None) -> str:
    if signal is not None:
        return f"{state} (signal {_signal_name(signal)})"
    if exit_code is not None:
        return f"{state} (exit code {exit_code})"
    return str(state)


def _signal_name(number: int) -> str:
    try:
        return f"{number}, {Signals(number).name}"
    except ValueError:
        return str(number)


def _section(title: str, values: Mapping[str, Any], limit: int | None) -> list[str]:
    """Return lines for some values; what is left out is said."""
    found = flat(values)
    items = list(found.items())[:limit]
    if not items:
        return []
    width = min(40, max(len(plain(key)) for key, _ in items))
    lines = [f"  {plain(key):{width}}  {shown(value)}" for key, value in items]
    left = len(found) - len(items)
    if left:
        lines.append(f"  … and {left:,} more: --all or --json show them")
    return ["", title, *lines]


def _writers(state: RunState, limit: int | None) -> list[str]:
    writers = list(state.writers.items())
    lines = [f"  {_writer_text(*writer)}" for writer in writers[:limit]]
    left = len(writers) - len(lines)
    if left:
        lines.append(f"  … and {left:,} more: --all or --json show them")
    return ["", "writers", *lines]


def _writer_text(writer: WriterId, known: WriterState) -> str:
    is_lost = known.status is WriterStatus.LOST
    word = "ended without finish()" if is_lost else str(known.status)
    ending = _ending(word, known.exit_code, known.signal)
    if known.forked:
        ending = f"forked, {ending}"
    place = f"{plain(known.host)} pid {known.pid}"
    events = (known.next_sequence or 1) - 1
    return f"{writer.hex()}  rank {known.rank}  {place}  {events} events  {ending}"


def _gap_text(gap: MissingEvents) -> str:
    what = f"{gap.count} events from sequence {gap.first_sequence}"
    return f"{what} of writer {gap.writer.hex()}: {plain(gap.why)}"


def _data(state: RunState, gaps: list[MissingEvents]) -> dict[str, Any]:
    same = (
        "entity project id notes group job_type tags exit_code signal config summary"
        " system metadata last_step row_count lost_count"
    )
    return {
        "path": "/".join(state.key),
        "name": state.name or default_name(state.id),
        "state": str(state.state),
        "created_at": iso(state.created_at),
        "updated_at": iso(state.updated_at),
        **{name: getattr(state, name) for name in same.split()},
        "writers": [_writer_data(*writer) for writer in state.writers.items()],
        "gaps": [
            {
                "writer": gap.writer.hex(),
                "first_sequence": gap.first_sequence,
                "count": gap.count,
                "why": gap.why,
            }
            for gap in gaps
        ],
    }


def _writer_data(writer: WriterId, known: WriterState) -> dict[str, Any]:
    return {
        "writer": writer.hex(),
        "rank": known.rank,
        "status": str(known.status),
        "forked": known.forked,
        "host": known.host,
        "pid": known.pid,
        "exit_code": known.exit_code,
        "signal": known.signal,
        "events": (known.next_sequence or 1) - 1,
        "started_at": iso(known.started_at),
    }
