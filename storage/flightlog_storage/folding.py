"""From frames to runs: whose frame it is, and what it does to that run's state.

The same code folds for the materializer, which keeps the outcome, and for a reader,
which folds what the materializer has not got to yet.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from flightlog_storage.codec import RunKey, run_of
from flightlog_storage.database import Database, DeadLetter, MissingEvents
from flightlog_storage.event import Malformed, Rows, RunStarted, WriterId, WriterLost
from flightlog_storage.fold import apply, receive
from flightlog_storage.frame import Frame
from flightlog_storage.rows import decode
from flightlog_storage.runstate import RunState
from flightlog_storage.segment import Damage

__all__ = ("Folded", "Folding")

DEAD_LETTER_SIZE_MAX = 64 << 10
RANK_MAX = (1 << 31) - 1  # What a part holds; larger ones from the wire are cut.

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Folded:
    """What came of a frame or a damage."""

    state: RunState | None
    rank: int = 0
    rows: list[Rows] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    missing: list[MissingEvents] = field(default_factory=list)


class Folding:
    """Folds frames, in the order of the log, into the states of their runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[WriterId, int] = {}
        self.states: dict[int, RunState] = {}

    def fold(self, frame: Frame, payload: bytes) -> Folded:
        """Fold one frame; never raises for what the payload holds."""
        state = self._state_of(frame.writer) or self._start(frame, payload)
        folded = Folded(state)
        if state is None:
            reason = "no run is named"
            folded.dead_letters.append(_dead_letter(frame, 0, reason, payload))
            return folded
        # The log has lost what is folded already, and its writer has sent it again.
        is_known = frame.sequence_end <= self.next_sequence(frame.writer)
        for index, item in decode(payload, frame.count):
            if is_known:
                folded.rows += [item] if isinstance(item, Rows) else []
                continue
            if isinstance(item, Malformed):
                folded.dead_letters.append(
                    _dead_letter(frame, index, item.reason, item.raw)
                )
                continue
            try:
                apply(state, frame.writer, item)
            except Exception as error:  # A poison event must not stop all others.
                logger.exception("event %d cannot be folded", frame.offset + index)
                folded.dead_letters.append(
                    _dead_letter(frame, index, repr(error), repr(item).encode())
                )
                continue
            if isinstance(item, Rows):
                folded.rows.append(item)
        count = receive(state, frame.writer, frame.sequence, frame.count)
        if count:
            self._miss(folded, state, frame, count)
        folded.rank = _rank(state, frame.writer)
        return folded

    def fold_damage(self, damage: Damage) -> Folded:
        """Take note of a damaged stretch of the log."""
        writer = damage.writer
        state = None if writer is None else self._state_of(writer)
        folded = Folded(state)
        if state is not None and writer is not None and damage.sequence is not None:
            # Were the frame there, the next one of the writer would follow it.
            after = damage.sequence + (damage.count or 0)
            receive(state, writer, after, 0)
        if damage.count != 0:
            folded.missing.append(
                MissingEvents(
                    damage.first_offset,
                    writer or WriterId(b""),
                    None if state is None else state.number,
                    damage.sequence or 0,
                    damage.count or 0,
                    f"{damage.segment}, byte {damage.position}: {damage.why}",
                )
            )
        return folded

    def lose(self, writer: WriterId) -> None:
        """Take a writer for dead, as far as it has not said goodbye."""
        state = self._state_of(writer)
        if state is not None:
            lost = WriterLost(time=state.updated_at, reason="its process is gone")
            apply(state, writer, lost)

    def rank_of(self, writer: WriterId) -> int:
        state = self._state_of(writer)
        return 0 if state is None else _rank(state, writer)

    def run_of(self, writer: WriterId) -> int | None:
        """Return the number of the run that a known writer logs into."""
        state = self._state_of(writer)
        return None if state is None else state.number

    def next_sequence(self, writer: WriterId) -> int:
        """Return the sequence of the writer's next event to be folded."""
        state = self._state_of(writer)
        known = None if state is None else state.writers.get(writer)
        return 1 if known is None else known.next_sequence or 1

    def forget(self, number: int) -> None:
        """Drop a state that is saved; it is loaded again when needed."""
        state = self.states.pop(number)
        for writer in state.writers:
            self._numbers.pop(writer, None)

    def load(self, entity: str, project: str, run: str) -> RunState | None:
        """Return a run's state as far as it is folded."""
        for state in self.states.values():
            if (state.entity, state.project, state.id) == (entity, project, run):
                return state
        found = self._database.load_run(entity, project, run)
        return None if found is None else self._keep(found)

    def _state_of(self, writer: WriterId) -> RunState | None:
        number = self._numbers.get(writer)
        if number is None:
            number = self._database.run_of_writer(writer)
        if number is None:
            return None
        state = self.states.get(number)
        if state is None:
            found = self._database.load_run_by_number(number)
            state = None if found is None else self._keep(found)
        return state

    def _keep(self, state: RunState) -> RunState:
        kept = self.states.setdefault(state.number, state)
        self._numbers.update((writer, kept.number) for writer in kept.writers)
        return kept

    def _start(self, frame: Frame, payload: bytes) -> RunState | None:
        """Return the run that a frame of an unknown writer belongs to."""
        key = run_of(payload)
        if key is None:
            key = next(_keys(payload, frame.count), None)
        if key is None:
            return None
        state = self.load(key.entity, key.project, key.run)
        if state is None:
            state = RunState(key.entity, key.project, key.run, frame.offset)
            self.states[state.number] = state
        self._numbers[frame.writer] = state.number
        first = next(decode(payload, frame.count), None)
        if first is None or not isinstance(first[1], RunStarted):
            # The frame with the start is lost; all that the others need is known.
            time = getattr(first[1], "time", 0.0) if first else 0.0
            started = RunStarted(
                time=time,
                entity=key.entity,
                project=key.project,
                run=key.run,
                rank=key.rank,
            )
            apply(state, frame.writer, started)
            receive(state, frame.writer, 1, 0)
        return state

    def _miss(self, folded: Folded, state: RunState, frame: Frame, count: int) -> None:
        folded.missing.append(
            MissingEvents(
                frame.offset,
                frame.writer,
                state.number,
                frame.sequence - count,
                count,
                "missing in the writer's sequence",
            )
        )


def _rank(state: RunState, writer: WriterId) -> int:
    """Return a writer's rank; 0 for one whose start could not be folded."""
    known = state.writers.get(writer)
    return 0 if known is None else max(0, min(known.rank, RANK_MAX))


def _dead_letter(frame: Frame, index: int, reason: str, raw: bytes) -> DeadLetter:
    raw = raw[:DEAD_LETTER_SIZE_MAX]
    return DeadLetter(frame.offset + index, frame.writer, reason, raw)


def _keys(payload: bytes, count: int) -> Iterator[RunKey]:
    for _, item in decode(payload, count):
        if isinstance(item, RunStarted):
            yield RunKey(item.entity, item.project, item.run, item.rank)
