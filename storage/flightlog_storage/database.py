"""The database state.db: what was folded from the event log, and how far.

It is a projection. When it is damaged, or of another version, it is set aside and an
empty one takes its place; the caller replays the log.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from flightlog_storage.checkpoint import Checkpoint, checkpoint_of
from flightlog_storage.connection import (
    SCHEMA_VERSION,
    connect_empty,
    connect_reader,
    connect_writer,
    set_aside,
)
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.queries import QUERIES
from flightlog_storage.run_tables import load_run, save_run
from flightlog_storage.runstate import Changes, RunState, State

__all__ = (
    "Database",
    "DeadLetter",
    "MissingEvents",
    "RunRow",
    "SavedPart",
    "Tail",
)


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a listing shows of a run."""

    state: State
    number: int
    entity: str
    project: str
    id: str
    name: str | None
    group: str | None
    job_type: str | None
    created_at: float
    updated_at: float
    last_step: int
    row_count: int
    lost_count: int


@dataclass(frozen=True, slots=True)
class SavedPart:
    """A Parquet file with points of the run `run` (its number)."""

    run: int
    name: str
    first_offset: int
    end_offset: int
    level: int
    points: int
    size: int
    sha256: str
    min_step: int | None
    max_step: int | None


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a run's first frame with points that no part holds lies in the log."""

    run: int
    first_offset: int
    segment_first_offset: int
    position: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was refused."""

    offset: int
    writer: WriterId
    reason: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class MissingEvents:
    """Events of a writer that the log lacks; `offset` is where that was noticed."""

    offset: int
    writer: WriterId
    run: int | None
    first_sequence: int
    count: int
    why: str


class Database:
    """A connection to state.db; a context manager. Not for two threads at once."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, set_aside: Path | None = None
    ) -> None:
        self.path = path
        self.set_aside = set_aside  # Where a damaged predecessor lies now.
        self._connection = connection
        self._saved: list[RunState] = []

    @classmethod
    def open_writer(cls, path: Path) -> Self:
        """Open for writing; what is there but unusable is set aside: see `set_aside`.

        Raises:
            HomeUnusable: The file cannot be opened or created, or is in use.
        """
        try:
            try:
                return cls(connect_writer(path), path)
            except CorruptData:
                aside = set_aside(path)
                return cls(connect_writer(path), path, aside)
        except (OSError, sqlite3.Error) as error:
            raise HomeUnusable(path, str(error)) from error

    @classmethod
    def open_reader(cls, path: Path) -> Self:
        """Open for reading only; also where nothing may be written.

        Raises:
            HomeUnusable: There is no database that this version can read.
        """
        try:
            return cls(connect_reader(path), path)
        except (OSError, sqlite3.Error, CorruptData) as error:
            raise HomeUnusable(path, str(error)) from error

    @classmethod
    def empty(cls) -> Self:
        """Return a database in memory, as if nothing were folded yet."""
        return cls(connect_empty(), Path())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that is written inside, or nothing; needs a writer.

        The states saved inside count as saved only when this ends without an error.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._saved.clear()
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        for state in self._saved:
            state.changes = Changes()
        self._saved.clear()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read all that is read inside from one state of the database."""
        if self._connection.in_transaction:
            yield
            return
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _query(self, name: str, *parameters: object) -> sqlite3.Cursor:
        return self._connection.execute(QUERIES[name], parameters)

    def _write(self, name: str, row: tuple[Any, ...]) -> None:
        assert self._connection.in_transaction, "written outside a transaction"
        self._connection.execute(QUERIES[name], row)

    # --- how far ---

    def checkpoint(self) -> Checkpoint:
        """Return up to where the log is folded."""
        return checkpoint_of(self._connection)

    def set_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Say up to where the log is folded, in the transaction with what follows."""
        self._write("set_checkpoint", (SCHEMA_VERSION, *astuple(checkpoint)))

    # --- runs ---

    def load_run(self, entity: str, project: str, id: str) -> RunState | None:
        """Return the run's state, if there is such a run."""
        return self._load("run_by_name", entity, project, id)

    def load_run_by_number(self, number: int) -> RunState | None:
        """Return the run's state, if there is such a run."""
        return self._load("run_by_number", number)

    def _load(self, query: str, *parameters: object) -> RunState | None:
        with self.snapshot(), closing(self._connection.cursor()) as cursor:
            cursor.row_factory = sqlite3.Row
            row = cursor.execute(QUERIES[query], parameters).fetchone()
            return None if row is None else load_run(self._connection, row)

    def find_runs(
        self, entity: str | None = None, project: str | None = None
    ) -> list[RunRow]:
        """Return the runs, oldest first."""
        rows = self._connection.execute(
            QUERIES["runs"], {"entity": entity, "project": project}
        )
        return [RunRow(State(state), *rest) for state, *rest in rows]

    def run_of_writer(self, writer: WriterId) -> int | None:
        """Return the number of the run that the writer logs into."""
        row = self._query("run_of_writer", writer).fetchone()
        return row[0] if row else None

    def save_run(self, state: RunState) -> None:
        """Write what of the state changed since it was last saved."""
        assert self._connection.in_transaction, "saved outside a transaction"
        save_run(self._connection, state)
        self._saved.append(state)

    # --- parts ---

    def parts(self, run: int | None = None) -> list[SavedPart]:
        """Return a run's parts, or all, in the order of the log."""
        rows = self._query("all_parts") if run is None else self._query("parts", run)
        return [SavedPart(*row) for row in rows]

    def add_part(self, part: SavedPart) -> None:
        """Name one more part; the same name again replaces it."""
        self._write("save_part", astuple(part))

    def remove_part(self, run: int, name: str) -> None:
        """Forget a part."""
        self._write("remove_part", (run, name))

    def tail(self, run: int) -> Tail | None:
        """Return where a run's tail starts; None: nowhere before the checkpoint."""
        row = self._query("tail", run).fetchone()
        return Tail(*row) if row else None

    def tails(self) -> list[Tail]:
        """Return the runs' tails, in the order of the log."""
        return [Tail(*row) for row in self._query("tails")]

    def set_tail(self, tail: Tail) -> None:
        """Say where a run's tail starts."""
        self._write("save_tail", astuple(tail))

    def remove_tail(self, run: int) -> None:
        """Say that a run's points up to the checkpoint are in parts."""
        self._write("remove_tail", (run,))

    # --- what went wrong ---

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Keep an event that was refused."""
        self._write("save_dead_letter", astuple(letter))

    def dead_letters(self) -> list[DeadLetter]:
        """Return the events that were refused."""
        return [DeadLetter(*row) for row in self._query("dead_letters")]

    def add_gap(self, missing: MissingEvents) -> None:
        """Note that events are missing."""
        self._write("save_gap", astuple(missing))

    def gaps(self) -> list[MissingEvents]:
        """Return what is missing."""
        return [MissingEvents(*row) for row in self._query("gaps")]
