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
    ArtifactEvent,
    ArtifactLogged,
    ArtifactUsed,
    AssetEvent,
    ConfigUpdated,
    Event,
    FileDeleted,
    FileEvent,
    FileFailed,
    FileRequested,
    FileSaved,
    Gap,
    MetricDefined,
    OutputEvent,
    PreemptionAnnounced,
    Rows,
    RunCreated,
    RunDeleted,
    RunDescribed,
    RunFinished,
    RunStarted,
    RunStateChanged,
    Series,
    StoringBegun,
    StoringEnded,
    SummaryUpdated,
    TagsChanged,
    Unknown,
    WriterId,
    WriterLost,
)
from flightlog_storage.runfiles import OwedFile, SavedFile
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

__all__ = ("ALERTS_MAX", "apply", "change_files", "count_lost", "edit", "receive")

ALERTS_MAX = 100  # The latest ones are kept.
INT_MAX = 2**63 - 1  # What SQLite holds; larger numbers from the wire are cut.

_SUPERSEDED = -1  # The session of a writer whose loss no longer matters.
_ENDED_IN_ORDER = (WriterStatus.FINISHED, WriterStatus.EXITED)  # Told, or implied.
_EXIT_TERMINATED = 128 + signal.SIGTERM
_AGGREGATES = frozenset(("min", "max", "mean", "first", "last", "best"))
# In each summary of rows.
_OWN: dict[str, None] = dict.fromkeys(("_step", "_timestamp", "_runtime"))
_DESCRIPTIVE = frozenset(("name", "notes", "group", "job_type"))
_EDITABLE = _DESCRIPTIVE | {"description"}
# A run ends as badly as its worst writer.
_SEVERITY = {State.FINISHED: 0, State.FAILED: 1, State.KILLED: 2, State.CRASHED: 3}

_OfStoring = StoringBegun | StoringEnded | FileSaved | ArtifactLogged | ArtifactUsed
_Description = (
    PreemptionAnnounced
    | ConfigUpdated
    | SummaryUpdated
    | MetricDefined
    | TagsChanged
    | RunDescribed
    | AlertRaised
    | _OfStoring
    | FileEvent
    | AssetEvent  # See asset_fold.py.
    | OutputEvent  # See output_fold.py.
    | ArtifactEvent  # These change more than the run: see folding.py and catalog.py.
)


def apply(state: RunState, writer: WriterId, event: Event | Rows | Unknown) -> None:
    """Change the state to the one that follows from one more event of `writer`."""
    if isinstance(event, Unknown | RunCreated | RunStateChanged | RunDeleted):
        return  # Of these the last three are an editor's to say.
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
            count_lost(state, event.count)
        case _:
            _store(state, writer, event)
            _describe(state, event)
    if event.time > state.updated_at and math.isfinite(event.time):
        state.updated_at = event.time


def edit(state: RunState, event: Event | Rows | Unknown) -> None:
    """Change the state as an editor said: a writer that is no process of the run."""
    if isinstance(event, RunCreated):
        _create(state, event)
    elif state.deleted:
        return
    elif isinstance(event, RunDeleted):
        _delete(state)
    elif isinstance(event, Rows):
        _observe(state, event)
    elif isinstance(event, RunStateChanged):
        if not state.active and event.state in tuple(State):
            state.state = State(event.state)
    elif isinstance(event, ConfigUpdated | SummaryUpdated | TagsChanged | RunDescribed):
        _describe(state, event)


def change_files(state: RunState, event: FileEvent) -> None:
    """Change the files to those that follow from one more event of anybody."""
    match event:
        case FileDeleted():
            state.files.pop(event.name, None)
            state.changes.files[event.name] = None
        case FileRequested():
            owed = OwedFile(event.token, event.name, event.size, event.pixels)
            if event.name and event.token:
                state.owed[event.token] = owed
                state.changes.owed[event.token] = None
        case FileFailed():
            if state.owed.pop(event.token, None) is not None:
                state.changes.owed[event.token] = None
                count_lost(state, 1)
        case FileSaved():
            _save_file(state, event)


def _save_file(state: RunState, event: FileSaved) -> None:
    if event.token is not None:
        # What is not owed any more was saved before: the daemon said so twice.
        if state.owed.pop(event.token, None) is None:
            return
        state.changes.owed[event.token] = None
    if event.name:
        state.files[event.name] = SavedFile(
            event.name, event.blob, event.digest, event.size, _finite(event.time)
        )
        state.changes.files[event.name] = None


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
    count_lost(state, missing)
    state.changes.writers[writer] = None
    return missing


def count_lost(state: RunState, count: int) -> None:
    """Count events that had no effect on the run, or will have none."""
    state.lost_count = _bounded(state.lost_count + max(count, 0))


# --- writers come and go ---


def _start(state: RunState, writer: WriterId, event: RunStarted) -> None:
    if state.deleted and event.forked:  # A helper of what was deleted.
        _dismiss(state, writer)
        return
    _bring_about(state, event.time)
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
        if other != writer and known.status is not WriterStatus.DISMISSED
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


def _store(state: RunState, writer: WriterId, event: _Description) -> None:
    """Count what a writer, which is alive, has begun to store, and the outcomes."""
    known = _awaken(state, writer)
    if not isinstance(event, _OfStoring):
        return
    state.changes.writers[writer] = None
    if isinstance(event, StoringBegun):
        known.storing = _bounded(known.storing + 1)
        return
    known.storing = max(0, known.storing - 1)
    if isinstance(event, StoringEnded) and event.reason is not None:
        count_lost(state, 1)


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
    if known.status is WriterStatus.EXITED and event.exit_code is event.signal is None:
        return  # The writer itself had a better idea of how it ended.
    known.exit_code = None if event.exit_code is None else _bounded(event.exit_code)
    known.signal = None if event.signal is None else _bounded(event.signal)
    _end(state, writer, WriterStatus.LOST)


def _end(state: RunState, writer: WriterId, status: WriterStatus) -> None:
    known = state.writers[writer]
    count_lost(state, known.storing)  # It will not store them any more.
    known.storing = 0
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


# --- a run is made and deleted by hand ---


def _create(state: RunState, event: RunCreated) -> None:
    """Make a run; one that is there already is left as it is."""
    if _bring_about(state, event.time) and event.state == State.RUNNING:
        state.state = State.RUNNING


def _bring_about(state: RunState, time: float) -> bool:
    """Date a run that was not there or was deleted; return whether it was so."""
    is_new = state.deleted or not state.created_at
    if is_new:
        state.deleted = False
        state.changes.tags = True  # That it has none is to be found, too.
        state.created_at = state.updated_at = _finite(time)
    return is_new


def _delete(state: RunState) -> None:
    """Forget all but who logged into it: what they still say must not revive it."""
    blank = RunState(state.entity, state.project, state.id, state.number)
    for name in blank.__slots__:
        if name not in ("writers", "session"):
            setattr(state, name, getattr(blank, name))
    for writer in state.writers:
        _dismiss(state, writer)
    state.changes.reset = True
    state.deleted = True


def _dismiss(state: RunState, writer: WriterId) -> None:
    known = state.writers.setdefault(writer, WriterState())
    known.status = WriterStatus.DISMISSED
    known.session = _SUPERSEDED
    state.changes.writers[writer] = None


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
    for name in _EDITABLE.intersection(changes):
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
        state.changes.removed_config.add(key)
    for key, value in event.changes.items():
        state.config[key] = plain(value)
        state.changes.config[key] = None


def _update_summary(state: RunState, event: SummaryUpdated) -> None:
    for removed in filter(None, event.removed):
        remove_nested(state.summary, tuple(removed))
        state.changes.summary[removed[0]] = None
        if len(removed) == 1:
            state.changes.removed_summary.add(removed[0])
    for changed, value in event.changes:
        if changed:
            set_nested(state.summary, tuple(changed), plain(value))
            state.changes.summary[changed[0]] = None


def _log(state: RunState, rows: Rows) -> None:
    """Fold rows: once a metric, not once a point."""
    if not rows.steps:
        return
    summary, changed = state.summary, state.changes.summary
    for name in _OWN:  # First, so that their place does not hang on the frames.
        summary.setdefault(name, None)
    _note_keys(state, rows)
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
    changed.update(_OWN)


def _note_keys(state: RunState, rows: Rows) -> None:
    """Keep which keys were logged; mostly there is none that is new."""
    new = [series.path for series in rows.series if series.path not in state.logged]
    if not state.logged:
        new += [(name,) for name in _OWN]
    if new:
        state.logged.update(new)
        state.changes.logged |= dict.fromkeys(map(".".join, new))


def _observe(state: RunState, rows: Rows) -> None:
    """Keep the latest system metrics of a run that somebody logs into."""
    if not state.active:
        return
    for series in rows.series:
        if series.values:
            value = value_at(series, len(series.values) - 1)
            state.system[".".join(series.path)] = value
            state.changes.system = True


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
