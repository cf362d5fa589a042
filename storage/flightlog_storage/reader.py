"""A home, read: states and histories, up to the last whole frame in the log.

What the materializer has folded comes from state.db and the parts; what it has not got
to is folded here, from the log, by the same code. So it makes no difference to an
answer how far the materializer is, whether any daemon runs, or whether this is a copy.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import TypeVar

from flightlog_storage.cells import History
from flightlog_storage.checkpoint import Checkpoint
from flightlog_storage.codec import run_of
from flightlog_storage.database import Database, RunRow
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.event import Rows, WriterId
from flightlog_storage.folding import Folded, Folding
from flightlog_storage.frame import Frame
from flightlog_storage.history import Query, read_history
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.points import Points
from flightlog_storage.projector import part_folder
from flightlog_storage.rows import decode
from flightlog_storage.runstate import RunState
from flightlog_storage.segment import Damage
from flightlog_storage.spool import SpoolOwner, read_owner
from flightlog_storage.spool_reader import Cut, SpoolReader

__all__ = ("HomeReader", "RunKeyParts")

RunKeyParts = tuple[str, str, str]  # Entity, project, id.
_NOWHERE = 1 << 62  # The offset of what is not in the log yet.
ATTEMPTS_MAX = 10  # Parts may be merged, and the old ones deleted, while we read.

_Result = TypeVar("_Result")


class _Moved(Exception):
    """What was read does not fit together: some of it changed its place meanwhile."""


@dataclass(slots=True)
class _Found:
    """A run as far as it was asked for."""

    state: RunState
    parts: list[Path] = field(default_factory=list)
    points: Points = field(default_factory=Points)


class _Wanted:
    """Whose frames to read: learns which writers log into other runs."""

    def __init__(self) -> None:
        self.others: set[WriterId] = set()

    def __contains__(self, writer: object) -> bool:
        return writer not in self.others


class HomeReader:
    """Reads one home; holds nothing open between calls."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._log = LogReader(home.log)
        self._is_state_damaged = False

    def state(self, key: RunKeyParts) -> RunState | None:
        """Return a run's state, or None if there is no such run."""
        found = self._attempt(
            lambda last: self._find(key, with_points=False, is_last=last)
        )
        return None if found is None else found.state

    def history(self, key: RunKeyParts, query: Query) -> History | None:
        """Return a run's history, or None if there is no such run.

        Raises:
            CorruptData: A part is damaged.
        """

        def read(is_last: bool) -> History | None:
            found = self._find(key, with_points=True, is_last=is_last)
            if found is None:
                return None
            return read_history(found.parts, found.points, query)

        return self._attempt(read)

    def runs(
        self, entity: str | None = None, project: str | None = None
    ) -> list[RunRow]:
        """Return the runs, oldest first."""
        return self._attempt(lambda last: self._runs(entity, project, is_last=last))

    def _runs(
        self, entity: str | None, project: str | None, *, is_last: bool
    ) -> list[RunRow]:
        spools = self._spools(None)
        with self._database() as database:
            folding = Folding(database)
            for item in self._unfolded(database.checkpoint()):
                _fold(folding, item)
            self._fold_spools(folding, spools, Points(), is_last=is_last)
            rows = {row.number: row for row in database.find_runs(entity, project)}
            for number, state in folding.states.items():
                if entity in (None, state.entity) and project in (None, state.project):
                    rows[number] = _row(state)
        return sorted(rows.values(), key=lambda row: (row.created_at, row.number))

    def _find(
        self, key: RunKeyParts, *, with_points: bool, is_last: bool
    ) -> _Found | None:
        spools = self._spools(key)
        with self._database() as database:
            folding = Folding(database)
            state = folding.load(*key)
            wanted = _Wanted()
            points = Points()
            if state is not None and with_points:
                self._read_tail(database, folding, state, points)
            for item in self._unfolded(database.checkpoint(), wanted):
                if isinstance(item, StoredFrame) and not _is_of(folding, item, key):
                    wanted.others.add(item.frame.writer)
                    continue
                folded = _fold(folding, item)
                for rows in folded.rows if with_points else ():
                    points.add(rows, folded.rank)
            self._fold_spools(folding, spools, points, is_last=is_last)
            state = folding.load(*key)
            if state is None:
                return None
            parts = database.parts(state.number) if with_points else []
            folder = part_folder(self._home, state.number)
            return _Found(state, [folder / part.name for part in parts], points)

    def _read_tail(
        self, database: Database, folding: Folding, state: RunState, points: Points
    ) -> None:
        """Read the points that are folded already and in no part."""
        tail = database.tail(state.number)
        if tail is None:
            return
        start = LogPosition(tail.segment_first_offset, tail.position)
        end = _place(database.checkpoint())
        for item in self._log.read(start, end, writers=frozenset(state.writers)):
            if not isinstance(item, StoredFrame):
                continue
            try:
                payload = item.payload()
            except CorruptData:
                continue  # Told when it was folded.
            rank = folding.rank_of(item.frame.writer)
            for _, rows in decode(payload, item.frame.count):
                if isinstance(rows, Rows):
                    points.add(rows, rank)

    def _spools(self, key: RunKeyParts | None) -> list[tuple[Path, SpoolOwner]]:
        """Return the spools of a run, or of all, with their owners.

        To be asked before the log is read: what leaves a spool later is in the log.
        """
        found = []
        for folder in sorted(self._home.spool.glob("[!.]*")):
            owner = read_owner(folder)
            if owner is not None and key in (None, owner.run[:3]):
                found.append((folder, owner))
        return found

    def _fold_spools(
        self,
        folding: Folding,
        spools: list[tuple[Path, SpoolOwner]],
        points: Points,
        *,
        is_last: bool,
    ) -> None:
        """Fold what writers have logged and the daemon has not recorded.

        Raises:
            _Moved: Some of it was recorded meanwhile. But what is missing the last time
                is not in the log either: then it is lost, and the rest is read.
        """
        daemon = self._home.daemon()
        is_served = daemon is not None and daemon.process.is_alive()
        for index, (folder, owner) in enumerate(spools):
            offset = _NOWHERE + index  # Also the number of a run that begins there.
            writer = WriterId(owner.writer)
            expected = folding.next_sequence(writer)
            for cut in _unrecorded(folder, expected, is_last=is_last):
                frame = Frame(
                    len(cut.payload), 0, cut.count, writer, cut.sequence, offset
                )
                folded = folding.fold(frame, cut.payload)
                for rows in folded.rows:
                    points.add(rows, folded.rank)
            if not (folder / "lock").exists() and not is_last:
                raise _Moved
            # The daemon tells of the dead, and knows more; without one, we do.
            if not is_served and not owner.process.is_alive():
                folding.lose(writer)

    def _unfolded(
        self, checkpoint: Checkpoint, wanted: _Wanted | None = None
    ) -> Iterator[StoredFrame | Damage]:
        return self._log.read(_place(checkpoint), None, wanted)

    def _attempt(self, read: Callable[[bool], _Result]) -> _Result:
        """Read until nothing moved meanwhile; `read` is told which time is the last."""
        for attempt in range(ATTEMPTS_MAX):
            is_last = attempt == ATTEMPTS_MAX - 1
            try:
                return read(is_last)
            except (FileNotFoundError, _Moved):
                if is_last:
                    raise
            except (sqlite3.DatabaseError, JSONDecodeError) as error:
                if is_last or not _is_damage(error):
                    raise
                self._is_state_damaged = True  # The log has it all.
        raise AssertionError("unreachable")

    @contextmanager
    def _database(self) -> Iterator[Database]:
        try:
            if self._is_state_damaged:
                raise HomeUnusable(self._home.state, "is damaged")
            database = Database.open_reader(self._home.state)
        except HomeUnusable:
            database = Database.empty()  # Not made yet, or damaged: the log has it all.
        with database, database.snapshot():
            if database.checkpoint().log_id not in ("", self._log.log_id.hex()):
                with Database.empty() as empty, empty.snapshot():
                    yield empty
                return
            yield database


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _unrecorded(folder: Path, expected: int, *, is_last: bool) -> Iterator[Cut]:
    """Yield what a spool holds from a sequence on."""
    try:
        spool = SpoolReader(folder, is_onlooker=True)
    except OSError:
        return  # Unreadable: the daemon says so; the rest of the run can be read.
    try:
        if spool.seek(expected) > expected and not is_last:
            raise _Moved
        while cut := spool.cut():
            yield cut
        if spool.is_overtaken and not is_last:
            raise _Moved
    finally:
        spool.close()


def _fold(folding: Folding, item: StoredFrame | Damage) -> Folded:
    if isinstance(item, Damage):
        return folding.fold_damage(item)
    try:
        return folding.fold(item.frame, item.payload())
    except CorruptData:
        return folding.fold_damage(item.damage())


def _is_of(folding: Folding, item: StoredFrame, key: RunKeyParts) -> bool:
    number = folding.run_of(item.frame.writer)
    if number is not None:
        state = folding.states[number]
        return (state.entity, state.project, state.id) == key
    try:
        named = run_of(item.payload())
    except CorruptData:
        return True  # To be folded as damage.
    return named is None or named[:3] == key


def _place(checkpoint: Checkpoint) -> LogPosition | None:
    if not checkpoint.log_id:
        return None
    return LogPosition(checkpoint.segment_first_offset, checkpoint.position)


def _row(state: RunState) -> RunRow:
    return RunRow(
        state=state.state,
        number=state.number,
        entity=state.entity,
        project=state.project,
        id=state.id,
        name=state.name,
        group=state.group,
        job_type=state.job_type,
        created_at=state.created_at,
        updated_at=state.updated_at,
        last_step=state.last_step,
        row_count=state.row_count,
        lost_count=state.lost_count,
    )
