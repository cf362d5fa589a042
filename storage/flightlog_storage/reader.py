"""A home, read: states and histories, up to the last whole frame in the log.

What the materializer has folded comes from state.db and the parts; what it has not got
to is folded here, from the log, by the same code. So it makes no difference to an
answer how far the materializer is, whether any daemon runs, or whether this is a copy.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from json import JSONDecodeError
from pathlib import Path
from typing import TypeVar

from flightlog_storage.artifact_state import RunName
from flightlog_storage.catalog import Catalog
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
from flightlog_storage.logreader import AllBut, LogPosition, LogReader, StoredFrame
from flightlog_storage.open_history import OpenHistory
from flightlog_storage.points import Points, Stream
from flightlog_storage.projector import part_folder
from flightlog_storage.rows import decode
from flightlog_storage.run_pages import RunPage, read_page, read_states
from flightlog_storage.run_query import RunQuery, Window
from flightlog_storage.runstate import RunState
from flightlog_storage.sampled import read_sample
from flightlog_storage.segment import Damage
from flightlog_storage.spool import SpoolOwner, read_owner
from flightlog_storage.spool_reader import Cut, SpoolReader

__all__ = ("HomeReader", "is_recorded")

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


class _Gathered:
    """The points of a run's stream that are read from the log and from spools."""

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self.has_parts = stream is not None
        self.points = Points()

    def add(self, folded: Folded) -> None:
        if folded.is_reset:  # The run was deleted: what was there before is void.
            self.points, self.has_parts = Points(), False
        if self._stream is not None and self._stream.holds(folded.rank):
            for rows in folded.rows:
                self.points.add(rows, folded.rank)


class HomeReader:
    """Reads one home; holds nothing open between calls.

    Damage costs what is damaged, and no more. But a strict reader refuses then: for who
    deletes what nothing names, all has to be read.
    """

    def __init__(self, home: Home, *, is_strict: bool = False) -> None:
        self._home = home
        self._is_strict = is_strict
        self._log = LogReader(home.log)
        self._is_state_damaged = False

    def state(self, key: RunName) -> RunState | None:
        """Return a run's state, or None if there is no such run."""
        return self._read(key, None, lambda found: found.state)

    def history(self, key: RunName, query: Query) -> History | None:
        """Return a run's history, or None if there is no such run.

        Raises:
            CorruptData: A part is damaged.
        """

        def read(found: _Found) -> History:
            return read_history(found.parts, found.points, query)

        return self._read(key, query.stream, read)

    def sample(
        self,
        key: RunName,
        query: Query,
        samples: int,
        extremes_of: Sequence[str] | None = None,
    ) -> History | None:
        """Return some rows of a run's history, or None without such a run.

        They are evenly spaced or, given keys, those that show each key's extremes.

        Raises:
            CorruptData: A part is damaged.
        """

        def read(found: _Found) -> History:
            return read_sample(found.parts, found.points, query, samples, extremes_of)

        return self._read(key, query.stream, read)

    def open_history(self, key: RunName) -> OpenHistory | None:
        """Return a run's history, to be read point by point; None without such a run.

        Raises:
            CorruptData: A part is damaged.
        """

        def read(found: _Found) -> OpenHistory:
            return OpenHistory(found.parts, found.points)

        return self._read(key, Stream.DEFAULT, read)

    def states(self) -> list[RunState]:
        """Return the states of all runs, oldest first, as of one moment."""
        return self._attempt(lambda last: self._states(is_last=last))

    def runs(
        self, entity: str | None = None, project: str | None = None
    ) -> list[RunRow]:
        """Return the runs, oldest first."""
        return self._attempt(lambda last: self._runs(entity, project, is_last=last))

    def page(self, query: RunQuery, window: Window, states: int = 0) -> RunPage:
        """Return some of the runs that a query finds, in its order.

        With it come the states of so many of the first.

        Raises:
            TimeoutError: $regex took too long.
        """

        def read(is_last: bool) -> RunPage:
            with self._folded(is_last=is_last) as (database, folding):
                return read_page(database, folding.states, query, window, states)

        return self._attempt(read)

    def states_of(self, keys: Sequence[RunName]) -> list[RunState]:
        """Return the states of these runs, in their order, but for those not there."""

        def read(is_last: bool) -> list[RunState]:
            with self._folded(is_last=is_last) as (database, folding):
                return read_states(database, folding.states, keys)

        return self._attempt(read)

    def _runs(
        self, entity: str | None, project: str | None, *, is_last: bool
    ) -> list[RunRow]:
        with self._folded(is_last=is_last) as (database, folding):
            rows = {row.number: row for row in database.find_runs(entity, project)}
            for number, state in folding.states.items():
                rows.pop(number, None)
                if state.deleted:
                    continue
                if entity in (None, state.entity) and project in (None, state.project):
                    rows[number] = _row(state)
        return sorted(rows.values(), key=lambda row: (row.created_at, row.number))

    def _states(self, *, is_last: bool) -> list[RunState]:
        with self._folded(is_last=is_last) as (database, folding):
            states = dict(folding.states)
            numbers = [row.number for row in database.find_runs()]
            for state in database.load_runs([n for n in numbers if n not in states]):
                states[state.number] = state
        present = [state for state in states.values() if not state.deleted]
        return sorted(present, key=lambda state: (state.created_at, state.number))

    def catalog(self, read: Callable[[Catalog], _Result]) -> _Result:
        """Return what `read` finds in the artifacts of the home, as of one moment.

        The catalog is of no use after that.
        """

        return self.look(lambda _, folding: read(folding.artifacts))

    def look(self, read: Callable[[Database, Folding], _Result]) -> _Result:
        """Return what `read` finds in what is saved and what is folded on top of it.

        Both are of one moment, and of no use after that.

        Raises:
            HomeUnusable, CorruptData: Something cannot be read, and this is strict.
        """

        def attempt(is_last: bool) -> _Result:
            with self._folded(is_last=is_last) as (database, folding):
                return read(database, folding)

        return self._attempt(attempt)

    @contextmanager
    def _folded(self, *, is_last: bool) -> Iterator[tuple[Database, Folding]]:
        """Give the database, and on top of it the states of runs that have moved on."""
        spools = self._spools(None)
        with self._database() as database:
            folding = Folding(database)
            for item in self._unfolded(database.checkpoint()):
                _fold(folding, item, is_strict=self._is_strict)
            self._fold_spools(folding, spools, _Gathered(None), is_last=is_last)
            yield database, folding

    def _read(
        self, key: RunName, stream: Stream | None, read: Callable[[_Found], _Result]
    ) -> _Result | None:
        """Return what is read of a run that was found."""

        def attempt(is_last: bool) -> _Result | None:
            found = self._find(key, stream, is_last=is_last)
            return None if found is None else read(found)

        return self._attempt(attempt)

    def _find(
        self, key: RunName, stream: Stream | None, *, is_last: bool
    ) -> _Found | None:
        """Return a run, with its points of one stream or with none."""
        spools = self._spools(key)
        with self._database() as database:
            folding = Folding(database)
            state = folding.load(*key)
            wanted = AllBut()
            gathered = _Gathered(stream)
            if state is not None and stream is not None:
                writers = (
                    database.editors_of(state.number)
                    if stream is Stream.SYSTEM
                    else state.writers
                )
                self._read_tail(database, folding, state.number, writers, gathered)
            for item in self._unfolded(database.checkpoint(), wanted):
                if isinstance(item, StoredFrame) and not _is_of(folding, item, key):
                    wanted.others.add(item.frame.writer)
                    continue
                gathered.add(_fold(folding, item))
            self._fold_spools(folding, spools, gathered, is_last=is_last)
            state = folding.load(*key)
            if state is None or state.deleted:
                return None
            parts = database.parts(state.number) if gathered.has_parts else []
            folder = part_folder(self._home, state.number)
            paths = [folder / part.name for part in parts]
            return _Found(state, paths, gathered.points)

    def _read_tail(
        self,
        database: Database,
        folding: Folding,
        number: int,
        writers: Iterable[WriterId],
        gathered: _Gathered,
    ) -> None:
        """Read the points of these writers that are folded already and in no part."""
        tail = database.tail(number)
        if tail is None:
            return
        start = LogPosition(tail.segment_first_offset, tail.position)
        end = _place(database.checkpoint())
        heard = frozenset(w for w in writers if not folding.is_dismissed(w))
        for item in self._log.read(start, end, writers=heard):
            if not isinstance(item, StoredFrame):
                continue
            try:
                payload = item.payload()
            except CorruptData:
                continue  # Told when it was folded.
            rank = folding.rank_of(item.frame.writer)
            for _, rows in decode(payload, item.frame.count):
                if isinstance(rows, Rows):
                    gathered.points.add(rows, rank)

    def _spools(self, key: RunName | None) -> list[tuple[Path, SpoolOwner]]:
        """Return the spools of a run, or of all, with their owners.

        To be asked before the log is read: what leaves a spool later is in the log.
        """
        found = []
        for folder in sorted(self._home.spool.glob("[!.]*")):
            owner = read_owner(folder)
            if owner is not None and key in (None, owner.run[:3]):
                found.append((folder, owner))
            elif owner is None and self._is_strict and folder.exists():
                raise HomeUnusable(folder, "does not say whose spool it is")
        return found

    def _fold_spools(
        self,
        folding: Folding,
        spools: list[tuple[Path, SpoolOwner]],
        gathered: _Gathered,
        *,
        is_last: bool,
    ) -> None:
        """Fold what writers have logged and the daemon has not recorded.

        Raises:
            _Moved: Some of it was recorded meanwhile. But what is missing the last time
                is not in the log either: then it is lost, and the rest is read.
            HomeUnusable: A spool is damaged, and this is strict.
        """
        daemon = self._home.daemon()
        is_served = daemon is not None and daemon.process.is_alive()
        for index, (folder, owner) in enumerate(spools):
            offset = _NOWHERE + index  # Also the number of a run that begins there.
            writer = WriterId(owner.writer)
            expected = folding.next_sequence(writer)
            for cut in self._unrecorded(folder, expected, is_last=is_last):
                frame = Frame(
                    len(cut.payload), 0, cut.count, writer, cut.sequence, offset
                )
                gathered.add(folding.fold(frame, cut.payload))
            if not (folder / "lock").exists() and not is_last:
                raise _Moved
            # The daemon tells of the dead, and knows more; without one, we do.
            if not is_served and not owner.process.is_alive():
                folding.lose(writer)

    def _unrecorded(
        self, folder: Path, expected: int, *, is_last: bool
    ) -> Iterator[Cut]:
        """Yield what a spool holds from a sequence on."""
        try:
            spool = SpoolReader(folder, is_onlooker=True)
        except OSError:
            if self._is_strict:
                raise
            return  # The daemon says so; the rest of the run can be read.
        try:
            if spool.seek(expected) > expected and not is_last:
                raise _Moved
            while cut := spool.cut():
                yield cut
            if spool.is_overtaken and not is_last:
                raise _Moved
            if self._is_strict and spool.damage is not None:
                raise HomeUnusable(folder, spool.damage)
        finally:
            spool.close()

    def _unfolded(
        self, checkpoint: Checkpoint, wanted: AllBut | None = None
    ) -> Iterator[StoredFrame | Damage]:
        if not self._home.log.is_dir():
            return iter(())
        return self._log.read(_place(checkpoint), None, wanted)

    def _attempt(self, read: Callable[[bool], _Result]) -> _Result:
        """Read until nothing moved meanwhile; `read` is told which time is the last.

        Raises:
            HomeUnusable: What was folded is there, the log it came from is not.
        """
        if not self._home.log.is_dir() and self._home.state.exists():
            why = "is gone, though what was folded from it is there: flightlog verify"
            raise HomeUnusable(self._home.log, why)
        for attempt in range(ATTEMPTS_MAX):
            is_last = attempt == ATTEMPTS_MAX - 1
            try:
                # A strict reader gives nothing up, also not in the end.
                return read(is_last and not self._is_strict)
            except (FileNotFoundError, _Moved) as error:
                if is_last and self._is_strict:
                    why = "changes all the time: try again"
                    raise HomeUnusable(self._home.root, why) from error
                if is_last:
                    raise
            except (sqlite3.DatabaseError, JSONDecodeError) as error:
                if is_last or self._is_strict or not _is_damage(error):
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
            if self._is_strict:
                raise
            database = Database.empty()  # Not made yet, or damaged: the log has it all.
        with database, database.snapshot():
            log_id = database.checkpoint().log_id
            if log_id and log_id != self._log.log_id.hex():
                if self._is_strict:
                    raise HomeUnusable(self._home.state, "was folded from another log")
                with Database.empty() as empty, empty.snapshot():
                    yield empty
                return
            yield database


def is_recorded(state: RunState) -> bool:
    """Whether the log has the run's start, which else is still in a spool."""
    return state.number < _NOWHERE


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _fold(
    folding: Folding, item: StoredFrame | Damage, *, is_strict: bool = False
) -> Folded:
    if not isinstance(item, Damage):
        try:
            return folding.fold(item.frame, item.payload())
        except CorruptData:
            item = item.damage()
    if is_strict:
        raise CorruptData(item.segment, item.position, item.why)
    return folding.fold_damage(item)


def _is_of(folding: Folding, item: StoredFrame, key: RunName) -> bool:
    number = folding.run_of(item.frame.writer)
    if number is not None:
        return folding.states[number].key == key
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
