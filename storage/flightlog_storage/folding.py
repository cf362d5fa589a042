"""From frames to runs: whose frame it is, and what it does to that run's state.

The same code folds for the materializer, which keeps the outcome, and for a reader,
which folds what the materializer has not got to yet.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from flightlog_storage.artifact_state import RunName
from flightlog_storage.asset_fold import change_assets, given_up
from flightlog_storage.blobs import named_in
from flightlog_storage.catalog import Catalog
from flightlog_storage.codec import EDITOR_RANK, RunKey, run_of
from flightlog_storage.database import Database, DeadLetter, Editor, MissingEvents
from flightlog_storage.event import (
    ArtifactChanged,
    ArtifactDeleted,
    ArtifactEvent,
    AssetEvent,
    Event,
    FileEvent,
    Malformed,
    OutputEvent,
    Rows,
    RunCreated,
    RunDeleted,
    RunStarted,
    Unknown,
    WriterId,
    WriterLost,
)
from flightlog_storage.fold import apply, change_files, count_lost, edit, receive
from flightlog_storage.frame import FLAG_CARRIED, Frame
from flightlog_storage.output_fold import change_outputs
from flightlog_storage.retention import is_kept
from flightlog_storage.rows import decode
from flightlog_storage.runstate import RunState
from flightlog_storage.segment import Damage

__all__ = ("UNKNOWN_KIND", "Folded", "Folding", "named_run")

DEAD_LETTER_SIZE_MAX = 64 << 10  # And what may name blobs behind that.
DEAD_LETTERS_MAX = 64  # Of one frame; what else is refused in it is one more.
UNKNOWN_KIND = "of a kind that this version does not know, and it may name blobs"
RANK_MAX = (1 << 31) - 1  # What a part holds; larger ones from the wire are cut.

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Folded:
    """What came of a frame or a damage.

    `is_reset`: the run was deleted, and all points up to this frame are void.
    `refused`: how many events the dead letters are.
    """

    state: RunState | None
    rank: int = 0
    is_reset: bool = False
    editor: Editor | None = None
    rows: list[Rows] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    refused: int = 0
    missing: list[MissingEvents] = field(default_factory=list)
    rest: "_Rest | None" = None

    def refuse(self, frame: Frame, item: Malformed, index: int = 0) -> None:
        """Keep an event, or the rest of a frame, as a dead letter."""
        self.refused += item.count
        if len(self.dead_letters) < DEAD_LETTERS_MAX:
            self._bury(frame, index, item.reason, item.raw)
        elif self.rest is None:
            self.rest = _Rest(index, item.reason, [item.raw], item.count)
        else:
            self.rest.pieces += named_in(item.raw)
            self.rest.count += item.count

    def close(self, frame: Frame) -> None:
        """Keep what was more than DEAD_LETTERS_MAX as one of them."""
        if self.rest is not None:
            reason = f"{self.rest.count:,} events, the first: {self.rest.reason}"
            self._bury(frame, self.rest.index, reason, b" ".join(self.rest.pieces))

    def keep(self, frame: Frame, item: Rows | Unknown, index: int) -> None:
        """Keep rows; and an event of a newer version, if it may name blobs."""
        if isinstance(item, Rows):
            self.rows.append(item)
            return
        raw = repr(item.fields).encode("utf-8", "backslashreplace")
        if named_in(raw):
            self._bury(frame, index, UNKNOWN_KIND, raw)

    def _bury(self, frame: Frame, index: int, reason: str, raw: bytes) -> None:
        named = named_in(raw, DEAD_LETTER_SIZE_MAX)
        raw = b" ".join((raw[:DEAD_LETTER_SIZE_MAX], *named))
        letter = DeadLetter(frame.offset + index, frame.writer, reason, raw)
        self.dead_letters.append(letter)


@dataclass(slots=True)
class _Rest:
    """Refused events of a frame that are too many for a dead letter each.

    Of the first `pieces` have all, of the others what may name blobs.
    """

    index: int
    reason: str
    pieces: list[bytes]
    count: int


class Folding:
    """Folds frames, in the order of the log, into the states of their runs.

    `states`, `artifacts` and `dead_letters` have what is not saved yet.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[WriterId, int] = {}
        self._editors: dict[WriterId, Editor] = {}
        self._named: dict[RunName, int] = {}
        self.states: dict[int, RunState] = {}
        self.artifacts = Catalog(database.artifacts)
        self.dead_letters: list[DeadLetter] = []

    def fold(self, frame: Frame, payload: bytes) -> Folded:
        """Fold one frame; never raises for what the payload holds."""
        folded = self._fold(frame, payload)
        folded.close(frame)
        self.dead_letters += folded.dead_letters
        return folded

    def _fold(self, frame: Frame, payload: bytes) -> Folded:
        state = self._state_of(frame.writer) or self._start(frame, payload)
        folded = Folded(state)
        if state is None:
            folded.refuse(frame, Malformed("there is no such run", payload))
            return folded
        self._note_origin(state, frame)
        if frame.sequence_end <= self.next_sequence(frame.writer):
            # The log has lost what is folded already, and its writer has sent it again.
            items = (item for _, item in decode(payload, frame.count))
            folded.rows += (item for item in items if isinstance(item, Rows))
        else:
            self._fold_items(folded, state, frame, payload)
        count = self._receive(state, frame)
        if count:
            self._miss(folded, state, frame, count)
        if self.is_dismissed(frame.writer):
            folded.rows.clear()
        folded.editor = self._editors.get(frame.writer)
        folded.rank = self.rank_of(frame.writer)
        return folded

    def _note_origin(self, state: RunState, frame: Frame) -> None:
        """Note whether a run came from another home, until it is logged into here."""
        if frame.flags & FLAG_CARRIED:
            state.carried = True
        elif state.carried and frame.writer not in self._editors:
            for event in given_up(state, "its run was brought here before it was done"):
                _change(state, frame.writer, event)
            state.carried = False

    def _fold_items(
        self, folded: Folded, state: RunState, frame: Frame, payload: bytes
    ) -> None:
        for index, item in _counting(frame, payload):
            if isinstance(item, Malformed):
                folded.refuse(frame, item, index)
                continue
            try:
                refused = self._apply(state, frame.writer, item)
            except Exception as error:  # A poison event must not stop all others.
                logger.exception("event %d cannot be folded", frame.offset + index)
                folded.refuse(frame, _malformed(item, repr(error)), index)
                continue
            if refused is not None:
                folded.refuse(frame, _malformed(item, refused), index)
            if isinstance(item, Rows | Unknown):
                folded.keep(frame, item, index)
            elif isinstance(item, RunDeleted) and frame.writer in self._editors:
                folded.is_reset = state.deleted
        known = state.writers.get(frame.writer)
        if not state.deleted and (known is None or not known.is_dismissed):
            count_lost(state, folded.refused)

    def _apply(
        self, state: RunState, writer: WriterId, item: Event | Rows | Unknown
    ) -> str | None:
        """Fold one event; return why it is refused, if it is."""
        if writer not in self._editors:
            if self.is_dismissed(writer):
                return None
            apply(state, writer, item)
        elif state.id and not is_kept(state, item):
            edit(state, item)
            if isinstance(item, RunDeleted):
                self.artifacts.forget_run(state)
        if isinstance(item, ArtifactEvent):
            return self.artifacts.apply(state, item)
        if not state.deleted:
            _change(state, writer, item)
        return None

    def _receive(self, state: RunState, frame: Frame) -> int:
        """Note the frame's sequences; return how many before them are missing."""
        editor = self._editors.get(frame.writer)
        if editor is None:
            return receive(state, frame.writer, frame.sequence, frame.count)
        end = max(editor.next_sequence, frame.sequence_end)
        self._editors[frame.writer] = replace(editor, next_sequence=end)
        return max(0, frame.sequence - editor.next_sequence)

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
        """Return the rank of a known writer's points."""
        state = self._state_of(writer)
        if writer in self._editors:
            return EDITOR_RANK
        return 0 if state is None else _rank(state, writer)

    def run_of(self, writer: WriterId) -> int | None:
        """Return the number of the run that a known writer logs into."""
        state = self._state_of(writer)
        return None if state is None else state.number

    def next_sequence(self, writer: WriterId) -> int:
        """Return the sequence of the writer's next event to be folded."""
        state = self._state_of(writer)
        if writer in self._editors:
            return self._editors[writer].next_sequence
        known = None if state is None else state.writers.get(writer)
        return 1 if known is None else known.next_sequence or 1

    def is_dismissed(self, writer: WriterId) -> bool:
        """Whether rows of this writer do not count, for its run was deleted.

        Those of an editor, system metrics, count as long as anybody logs.
        """
        state = self._state_of(writer)
        known = None if state is None else state.writers.get(writer)
        if writer in self._editors:
            return state is None or not state.active
        return known is not None and known.is_dismissed

    def forget(self, number: int) -> None:
        """Drop a state that is saved; it is loaded again when needed."""
        state = self.states.pop(number)
        del self._named[state.key]
        editors = [w for w, known in self._editors.items() if known.run == number]
        for writer in (*state.writers, *editors):
            self._numbers.pop(writer, None)
            self._editors.pop(writer, None)

    def state(self, number: int) -> RunState | None:
        """Return the state of a run as far as it is folded."""
        if number in self.states:
            return self.states[number]
        found = self._database.load_run_by_number(number)
        return None if found is None else self._keep(found)

    def load(self, entity: str, project: str, run: str) -> RunState | None:
        """Return a run's state as far as it is folded."""
        number = self._named.get((entity, project, run))
        if number is not None:
            return self.states[number]
        found = self._database.load_run(entity, project, run)
        return None if found is None else self._keep(found)

    def _state_of(self, writer: WriterId) -> RunState | None:
        number = self._numbers.get(writer)
        if number is None:
            number = self._database.run_of_writer(writer)
        if number is None:
            editor = self._database.editor(writer)
            if editor is None:
                return None
            self._editors[writer] = editor
            number = self._numbers[writer] = editor.run
        return self.state(number)

    def _keep(self, state: RunState) -> RunState:
        kept = self.states.setdefault(state.number, state)
        self._named[state.key] = kept.number
        self._numbers.update((writer, kept.number) for writer in kept.writers)
        return kept

    def _start(self, frame: Frame, payload: bytes) -> RunState | None:
        """Return the run that a frame of an unknown writer belongs to."""
        key = named_run(frame, payload)
        if key is None:
            return None
        state = self.load(key.entity, key.project, key.run)
        if key.rank == EDITOR_RANK:
            return self._open_editor(frame, key, payload, state)
        if state is None:
            state = RunState(key.entity, key.project, key.run, frame.offset)
            self._keep(state)
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

    def _open_editor(
        self, frame: Frame, key: RunKey, payload: bytes, state: RunState | None
    ) -> RunState | None:
        """Return the run that an unknown editor changes, or makes.

        The run without an id is none: it stands for its project, and is never listed.
        """
        if not key.run:
            state = state or RunState(*key[:3], frame.offset, deleted=True)
            self._keep(state)
        elif state is None or state.deleted:
            items = (item for _, item in decode(payload, frame.count))
            if not any(isinstance(item, RunCreated) for item in items):
                return None
        if state is None:
            state = RunState(key.entity, key.project, key.run, frame.offset)
            self._keep(state)
        self._numbers[frame.writer] = state.number
        self._editors[frame.writer] = Editor(frame.writer, state.number, 1)
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


def named_run(frame: Frame, payload: bytes) -> RunKey | None:
    """Return the run that the first frame of a writer names, if it does."""
    return run_of(payload) or next(_keys(payload, frame.count), None)


def _rank(state: RunState, writer: WriterId) -> int:
    """Return a writer's rank; 0 for one whose start could not be folded."""
    known = state.writers.get(writer)
    return 0 if known is None else max(0, min(known.rank, RANK_MAX))


def _change(state: RunState, writer: WriterId, item: Event | Rows | Unknown) -> None:
    """Fold what anybody may say of a run."""
    if isinstance(item, FileEvent):
        change_files(state, item)
    elif isinstance(item, AssetEvent):
        change_assets(state, item)
    elif isinstance(item, OutputEvent):
        change_outputs(state, writer, item)


def _malformed(item: Event | Rows | Unknown, reason: str) -> Malformed:
    count = len(item.steps) if isinstance(item, Rows) else 1
    return Malformed(reason, repr(item).encode(), count)


def _counting(
    frame: Frame, payload: bytes
) -> Iterator[tuple[int, Event | Rows | Unknown | Malformed]]:
    """Yield the items that count, with their places in the frame.

    The number of a version means another one in another home.
    """
    is_carried = frame.flags & FLAG_CARRIED
    for index, item in decode(payload, frame.count):
        if not (is_carried and isinstance(item, ArtifactChanged | ArtifactDeleted)):
            yield index, item


def _keys(payload: bytes, count: int) -> Iterator[RunKey]:
    for _, item in decode(payload, count):
        if isinstance(item, RunStarted):
            yield RunKey(item.entity, item.project, item.run, item.rank)
