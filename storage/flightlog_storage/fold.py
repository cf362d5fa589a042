"""The fold: how each event changes the state of its run.

It is pure: no clock, no randomness, so the same events give the same state. A state
is the fold's own: `apply` changes it in place, since rows are many, and what it keeps
of an event it copies.
"""

import math
import signal
from collections.abc import Iterable, Mapping

from flightlog_storage.event import (
    AlertRaised,
    ConfigUpdated,
    Event,
    Gap,
    MetricDefined,
    PreemptionAnnounced,
    Rows,
    RunDescribed,
    RunFinished,
    RunStarted,
    Series,
    SummaryUpdated,
    TagsChanged,
    Unknown,
    WriterId,
    WriterLost,
)
from flightlog_storage.runstate import (
    Alert,
    RunState,
    State,
    WriterState,
    WriterStatus,
)
from flightlog_storage.summary import (
    Aggregate,
    plain,
    remove_nested,
    set_nested,
    value_at,
)

__all__ = ("ALERTS_MAX", "apply", "receive")

ALERTS_MAX = 100  # The latest ones are kept.
INT_MAX = 2**63 - 1  # What SQLite holds; larger numbers from the wire are cut.

_SUPERSEDED = -1  # The session of a writer whose loss no longer matters.
_ENDED_IN_ORDER = (WriterStatus.FINISHED, WriterStatus.EXITED)  # Told, or implied.
_EXIT_TERMINATED = 128 + signal.SIGTERM
_AGGREGATES = frozenset(("min", "max", "mean", "first", "last", "best"))
_DESCRIPTIVE = frozenset(("name", "notes", "group", "job_type"))
# A run ends as badly as its worst writer.
_SEVERITY = {State.FINISHED: 0, State.FAILED: 1, State.KILLED: 2, State.CRASHED: 3}

_Description = (
    PreemptionAnnounced
    | ConfigUpdated
    | SummaryUpdated
    | MetricDefined
    | TagsChanged
    | RunDescribed
    | AlertRaised
)


def apply(state: RunState, writer: WriterId, event: Event | Rows | Unknown) -> None:
    """Change the state to the one that follows from one more event of `writer`."""
    if isinstance(event, Unknown):
        return
    match event:
        case Rows():
            _awaken(state, writer)
            _log(state, event)
        case RunStarted():
            _start(state, writer, event)
        case RunFinished():
            _finish(state, writer, event)
        case WriterLost():
            _lose(state, writer, event)
        case Gap():
            # No sign of life: the daemon tells of what a dead writer lost.
            state.lost_count = _bounded(state.lost_count + max(event.count, 0))
        case _:
            _awaken(state, writer)
            _describe(state, event)
    if event.time > state.updated_at and math.isfinite(event.time):
        state.updated_at = event.time


def receive(state: RunState, writer: WriterId, sequence: int, count: int) -> int:
    """Note `count` events of a writer from `sequence`; return how many are missing.

    The missing ones, between what was received before and these, count as lost. A
    writer that has not started yet is not noted.
    """
    known = state.writers.get(writer)
    if known is None:
        return 0
    expected = sequence if known.next_sequence is None else known.next_sequence
    missing = max(sequence - expected, 0)
    known.next_sequence = _bounded(max(expected, sequence + count))
    state.lost_count = _bounded(state.lost_count + missing)
    state.changes.writers[writer] = None
    return missing


# --- writers come and go ---


def _start(state: RunState, writer: WriterId, event: RunStarted) -> None:
    if not state.writers:
        state.created_at = _finite(event.time)
        state.updated_at = state.created_at
    is_late = _is_late(state, writer, event)
    if writer not in state.writers and not event.forked and not is_late:
        _begin_session(state, event)
    known = _awaken(state, writer)
    known.resumed = event.resumed
    if is_late:
        known.session = _SUPERSEDED
    state.changes.writers[writer] = None
    known.rank = _bounded(event.rank)
    known.forked = event.forked
    known.host = event.host
    known.pid = _bounded(event.pid)
    known.started_at = _finite(event.time)
    for name in _DESCRIPTIVE:
        if (value := getattr(event, name)) is not None:
            setattr(state, name, value)
    if event.tags is not None:
        _set_tags(state, event.tags)
    if event.metadata and not (state.metadata and (event.rank or event.forked)):
        state.metadata = plain(event.metadata)


def _is_late(state: RunState, writer: WriterId, event: RunStarted) -> bool:
    """Whether this writer's spool was found after its run had been resumed."""
    return any(
        known.resumed and known.rank == event.rank and event.time < known.started_at
        for other, known in state.writers.items()
        if other != writer
    )


def _begin_session(state: RunState, event: RunStarted) -> None:
    """Forget how the run ended before, if this writer takes it up again."""
    same_rank = [w for w, known in state.writers.items() if known.rank == event.rank]
    if not state.active and (same_rank or (event.resumed and state.writers)):
        state.session += 1
        state.preemption_announced = False
    elif event.resumed:
        # It replaces a writer whose death is not known yet: that is no longer news.
        for writer in same_rank:
            state.writers[writer].session = _SUPERSEDED
            state.changes.writers[writer] = None


def _awaken(state: RunState, writer: WriterId) -> WriterState:
    """Return the writer, which said something and so is active."""
    known = state.writers.get(writer)
    if known is not None and known.status is WriterStatus.ACTIVE:
        return known
    if known is None:
        known = state.writers[writer] = WriterState()
    known.status = WriterStatus.ACTIVE
    known.session = state.session
    known.exit_code = known.signal = None
    state.active_count += 1
    state.changes.writers[writer] = None
    _settle(state)
    return known


def _finish(state: RunState, writer: WriterId, event: RunFinished) -> None:
    known = state.writers.get(writer)
    if known is not None and known.status in _ENDED_IN_ORDER:
        return
    known = _awaken(state, writer)
    known.session = state.session
    known.exit_code = _bounded(event.exit_code)
    if event.exit_code == _EXIT_TERMINATED:
        known.signal = int(signal.SIGTERM)
    _end(state, writer, _ENDED_IN_ORDER[event.implied])


def _lose(state: RunState, writer: WriterId, event: WriterLost) -> None:
    known = state.writers.get(writer)
    if known is None or known.status not in (WriterStatus.ACTIVE, WriterStatus.EXITED):
        return
    known.exit_code = None if event.exit_code is None else _bounded(event.exit_code)
    known.signal = None if event.signal is None else _bounded(event.signal)
    _end(state, writer, WriterStatus.LOST)


def _end(state: RunState, writer: WriterId, status: WriterStatus) -> None:
    known = state.writers[writer]
    state.active_count -= known.status is WriterStatus.ACTIVE
    known.status = status
    state.changes.writers[writer] = None
    _settle(state)


def _settle(state: RunState) -> None:
    """Set the run's state from its writers'."""
    state.exit_code = state.signal = None
    if state.active:
        announced = state.preemption_announced
        state.state = State.PREEMPTING if announced else State.RUNNING
        return
    ended = [w for w in state.writers.values() if w.session == state.session]
    worst = max(ended, key=lambda w: _SEVERITY[w.outcome])
    state.state = worst.outcome
    state.exit_code, state.signal = worst.exit_code, worst.signal
    if state.preemption_announced and state.state is not State.FINISHED:
        state.state = State.PREEMPTED


# --- what a run says of itself ---


def _describe(state: RunState, event: _Description) -> None:
    match event:
        case PreemptionAnnounced():
            state.preemption_announced = True
            _settle(state)
        case ConfigUpdated():
            _update_config(state, event)
        case SummaryUpdated():
            _update_summary(state, event)
        case MetricDefined():
            _define(state, event)
        case TagsChanged():
            _set_tags(state, event.tags)
        case RunDescribed():
            _set_fields(state, event.changes)
        case AlertRaised():
            _alert(state, event)


def _set_fields(state: RunState, changes: Mapping[str, str | None]) -> None:
    for name in _DESCRIPTIVE.intersection(changes):
        setattr(state, name, changes[name])


def _set_tags(state: RunState, tags: Iterable[str]) -> None:
    state.tags = list(dict.fromkeys(tags))
    state.changes.tags = True


def _define(state: RunState, event: MetricDefined) -> None:
    state.definitions.define(event)
    state.governing.clear()
    state.changes.definitions[event.name] = None


def _alert(state: RunState, event: AlertRaised) -> None:
    alert = Alert(_finite(event.time), event.title, event.text, event.level)
    state.alerts = [*state.alerts, alert][-ALERTS_MAX:]
    state.changes.alerts = True


def _update_config(state: RunState, event: ConfigUpdated) -> None:
    for key in event.removed:
        state.config.pop(key, None)
        state.changes.config[key] = None
    for key, value in event.changes.items():
        state.config[key] = plain(value)
        state.changes.config[key] = None


def _update_summary(state: RunState, event: SummaryUpdated) -> None:
    for removed in filter(None, event.removed):
        remove_nested(state.summary, tuple(removed))
        state.changes.summary[removed[0]] = None
    for changed, value in event.changes:
        if changed:
            set_nested(state.summary, tuple(changed), plain(value))
            state.changes.summary[changed[0]] = None


def _log(state: RunState, rows: Rows) -> None:
    """Fold rows: once a metric, not once a point."""
    if not rows.steps:
        return
    summary, changed = state.summary, state.changes.summary
    for series in rows.series:
        if not series.values:
            continue
        if state.definitions and _summarise(state, series):
            continue
        value = value_at(series, len(series.values) - 1)
        set_nested(summary, series.path, value)
        changed[series.path[0]] = None
    state.row_count += len(rows.steps)
    state.last_step = max(state.last_step, max(rows.steps))
    state.last_time = max(state.last_time, state.created_at, _finite(rows.time))
    summary["_step"] = rows.steps[-1]
    summary["_timestamp"] = state.last_time
    summary["_runtime"] = state.last_time - state.created_at
    changed.update({"_step": None, "_timestamp": None, "_runtime": None})


def _summarise(state: RunState, series: Series) -> bool:
    """Summarise as defined; return False if the last value is what is wanted."""
    path = series.path
    if path not in state.governing:
        state.governing[path] = state.definitions.of(path)
    definition = state.governing[path]
    if definition is None or not definition.summary:
        return False
    if _AGGREGATES.isdisjoint(definition.summary):
        return "none" in definition.summary
    aggregate = state.aggregates.setdefault(path, Aggregate())
    aggregate.add(series)
    state.changes.aggregates[path] = None
    if "none" in definition.summary:
        return True
    if "copy" in definition.summary:
        return False
    if values := aggregate.summarise(definition):
        set_nested(state.summary, path, values)
        state.changes.summary[path[0]] = None
    return True


def _finite(time: float) -> float:
    return time if math.isfinite(time) else 0.0


def _bounded(number: int) -> int:
    return max(-INT_MAX, min(number, INT_MAX))
