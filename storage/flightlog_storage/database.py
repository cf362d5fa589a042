"""The database state.db: what was folded from the event log, and how far.

It is a projection. When it is damaged, or of another version, it is set aside and an
empty one takes its place; the caller replays the log.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Self

from flightlog_storage.artifact_state import RunName
from flightlog_storage.artifact_tables import ArtifactTables
from flightlog_storage.assets import Asset, asset_of
from flightlog_storage.checkpoint import Checkpoint, checkpoint_of
from flightlog_storage.codec import RunKey
from flightlog_storage.connection import (
    SCHEMA_VERSION,
    connect_empty,
    connect_reader,
    connect_writer,
    set_aside,
)
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.facts import Facts, Scope, save_facts
from flightlog_storage.queries import QUERIES
from flightlog_storage.run_query import FoundRun, RunQuery, Window, find_runs
from flightlog_storage.run_tables import (
    load_runs,
    owed_file,
    run_row,
    save_run,
    watch_of,
)
from flightlog_storage.runfiles import OwedFile
from flightlog_storage.runstate import Changes, RunState, State
from flightlog_storage.watches import OpenWatch

__all__ = (
    "ActiveWriter",
    "Database",
    "DeadLetter",
    "Editor",
    "MissingEvents",
    "RunRow",
    "SavedPart",
    "Tail",
    "Totals",
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
class Editor:
    """A writer that changes the run `run` (its number) and is no process of it."""

    writer: WriterId
    run: int
    next_sequence: int


@dataclass(frozen=True, slots=True)
class ActiveWriter:
    """A writer that may be expected to say more, and its process."""

    writer: WriterId
    run: RunKey
    pid: int
    started_at: float
    next_sequence: int


@dataclass(frozen=True, slots=True)
class MissingEvents:
    """Events of a writer that the log lacks; `offset` is where that was noticed."""

    offset: int
    writer: WriterId
    run: int | None
    first_sequence: int
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What there is of all runs together, up to the checkpoint."""

    runs: int = 0
    lost_events: int = 0
    dead_letters: int = 0
    owed_files: int = 0
    owed_archives: int = 0


class Database:
    """A connection to state.db; a context manager. Not for two threads at once."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, set_aside: Path | None = None
    ) -> None:
        self.path = path
        self.set_aside = set_aside  # Where a damaged predecessor lies now.
        self.artifacts = ArtifactTables(connection)
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

    def __exit__(self, *_: object) -> None:
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

    def check(self) -> None:
        """Look through all pages.

        Raises:
            CorruptData: They do not fit together.
        """
        (answer,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise CorruptData(str(self.path), 0, answer)

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
        return next(iter(self._load("run_by_name", entity, project, id)), None)

    def load_run_by_number(self, number: int) -> RunState | None:
        """Return the run's state, if there is such a run."""
        return next(iter(self.load_runs([number])), None)

    def load_runs(self, numbers: Sequence[int]) -> list[RunState]:
        """Return the states of several runs, in no order; unknown ones are left out."""
        return self._load("runs_by_number", json.dumps(list(numbers)))

    def _load(self, query: str, *parameters: object) -> list[RunState]:
        with self.snapshot(), closing(self._connection.cursor()) as cursor:
            return load_runs(
                self._connection, cursor.execute(QUERIES[query], parameters)
            )

    def find_runs(
        self, entity: str | None = None, project: str | None = None
    ) -> list[RunRow]:
        """Return the runs, oldest first."""
        rows = self._connection.execute(
            QUERIES["runs"], {"entity": entity, "project": project}
        )
        return [RunRow(State(state), *rest) for state, *rest in rows]

    def number_of_run(self, entity: str, project: str, id: str) -> int | None:
        """Return the number of a run."""
        row = self._query("number_of_run", entity, project, id).fetchone()
        return row[0] if row else None

    def is_active(self, entity: str, project: str, id: str) -> bool:
        """Whether the run is there and somebody logs into it."""
        return bool(self._query("is_active", entity, project, id).fetchone())

    def select_runs(
        self, query: RunQuery, window: Window, without: Sequence[int] = ()
    ) -> tuple[list[FoundRun], int | None]:
        """Return runs in order, and perhaps how many; see run_query.py."""
        return find_runs(self._connection, query, window, without)

    def has_project(
        self, entity: str, project: str, without: Sequence[int] = ()
    ) -> bool:
        """Whether a run is in the project that is none of those `without`."""
        query = RunQuery(entity, project)
        return bool(find_runs(self._connection, query, Window(1), without)[0])

    def save_found(self, state: RunState, facts: Iterable[tuple[Scope, Facts]]) -> None:
        """Write of a state only what it can be selected by."""
        self._connection.execute(QUERIES["save_run"], run_row(state))
        for scope, found in facts:
            save_facts(self._connection, scope, state.number, {}, found)

    def is_logged(self, number: int, path: bytes) -> bool:
        """Whether a run logged the key of this path; see facts.py."""
        return self._query("is_logged", path, number).fetchone() is not None

    def run_of_writer(self, writer: WriterId) -> int | None:
        """Return the number of the run that the writer logs into."""
        row = self._query("run_of_writer", writer).fetchone()
        return row[0] if row else None

    def editor(self, writer: WriterId) -> Editor | None:
        """Return what is known of a writer that is an editor."""
        row = self._query("editor", writer).fetchone()
        return Editor(*row) if row else None

    def editors_of(self, run: int) -> list[WriterId]:
        """Return the editors of a run."""
        return [writer for (writer,) in self._query("editors_of_run", run)]

    def deleted_writers(self) -> list[WriterId]:
        """Return the writers and editors whose rows count no more, as of now."""
        return [WriterId(writer) for (writer,) in self._query("deleted_writers")]

    def active_writers(self, host: str) -> list[ActiveWriter]:
        """Return the writers of a host that may be expected to say more."""
        return [
            ActiveWriter(WriterId(row[0]), RunKey(*row[1:5]), *row[5:])
            for row in self._query("active_writers", host)
        ]

    def save_editor(self, editor: Editor) -> None:
        """Note how far an editor's events are folded."""
        self._write("save_editor", astuple(editor))

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

    def remove_parts(self, run: int) -> list[str]:
        """Forget all parts of a run; return their names."""
        names = [part.name for part in self.parts(run)]
        self._write("remove_parts", (run,))
        return names

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

    def old_runs(
        self, now: float, retain_s: float, keep_tag: str
    ) -> list[tuple[RunName, float]]:
        """Return runs that ended so long before the newest, and when; oldest first."""
        rows = self._query("old_runs", now, retain_s, keep_tag)
        return [((*row[:3],), row[3]) for row in rows]

    # --- files that are owed ---

    def owed_files(self, limit: int) -> list[tuple[RunName, OwedFile]]:
        """Return files that are requested and not made, and whose, oldest first.

        Those of a run are in the order of the log, those of several nearly so.
        """
        rows = self._query("all_owed_files", limit)
        return [((*row[:3],), owed_file(row[3:])) for row in rows]

    # --- assets ---

    def owed_assets(self, limit: int) -> list[tuple[RunName, Asset]]:
        """Return assets of which something is owed, and whose, oldest first."""
        rows = self._query("all_owed_assets", limit)
        return [((*row[:3],), asset_of(row[3])) for row in rows]

    def all_assets(self) -> Iterator[tuple[RunName, Asset]]:
        """Yield every asset there is, and whose."""
        for row in self._query("all_assets"):
            yield (*row[:3],), asset_of(row[3])

    def last_output(self, run: RunName, key: str) -> Asset | None:
        """Return what was archived last of an output of a run."""
        found = [asset_of(row[0]) for row in self._query("outputs_of_key", *run, key)]
        return max(found, key=_serial, default=None)

    def open_watches(self, limit: int) -> list[tuple[RunName, OpenWatch]]:
        """Return the watches that were not stopped, and whose, oldest first."""
        return [
            ((*row[:3],), OpenWatch(watch_of(row[3:7]), row[7], bool(row[8])))
            for row in self._query("all_watches", limit)
        ]

    # --- what went wrong ---

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Keep an event that was refused."""
        self._write("save_dead_letter", astuple(letter))

    def dead_letters(self) -> list[DeadLetter]:
        """Return the events that were refused."""
        return [DeadLetter(*row) for row in self._query("dead_letters")]

    def totals(self) -> Totals:
        """Return how much there is of what an operator watches."""
        return Totals(*self._query("totals").fetchone())

    def add_gap(self, missing: MissingEvents) -> None:
        """Note that events are missing."""
        self._write("save_gap", astuple(missing))

    def gaps(self) -> list[MissingEvents]:
        """Return what is missing."""
        return [MissingEvents(*row) for row in self._query("gaps")]


def _serial(asset: Asset) -> int:
    return 0 if asset.output is None else asset.output.serial
