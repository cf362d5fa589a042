"""Runs read back: their state and their histories."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flightlog._say import say
from flightlog._scan import (
    HistoryScan,
    check_keys,
    problem_of_keys,
    spread,
    with_runtime,
)
from flightlog.errors import BadArgumentError, CommError, Error, NotFoundError
from flightlog_storage.cells import RANK, STEP, TIMESTAMP, History
from flightlog_storage.database import RunRow
from flightlog_storage.errors import StorageError
from flightlog_storage.history import Query
from flightlog_storage.names import default_name
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ("Run", "Runs", "reading")

_Found = TypeVar("_Found")
RUNTIME = "_runtime"
_MADE_OF_TIME = frozenset((TIMESTAMP, RUNTIME))
_MADE = (STEP, TIMESTAMP, RUNTIME)  # Columns that are made here, not logged.


class Runs(Sequence["Run"]):
    """The runs of some projects, oldest first; read at the first access."""

    def __init__(self, reader: HomeReader, projects: list[tuple[str, str]]) -> None:
        self._reader = reader
        self._projects = projects
        self._loaded: list[Run] | None = None

    def _runs(self) -> "list[Run]":
        if self._loaded is None:
            rows = self._rows()
            self._loaded = [Run(self._reader, row) for row in rows]
        return self._loaded

    def _rows(self) -> list[RunRow]:
        if not self._projects:
            return reading(self._reader.runs)
        for entity, project in self._projects:
            rows = reading(partial(self._reader.runs, entity, project))
            if rows:
                return rows
        raise NotFoundError(f"Could not find project {self._projects[0][1]}")

    def __len__(self) -> int:
        return len(self._runs())

    @overload
    def __getitem__(self, index: int) -> "Run": ...
    @overload
    def __getitem__(self, index: slice) -> "list[Run]": ...
    def __getitem__(self, index: int | slice) -> "Run | list[Run]":
        return self._runs()[index]

    def __repr__(self) -> str:
        where = "/".join(self._projects[0]) if self._projects else "all projects"
        return f"<Runs of {where}: {len(self)}>"


class Run:
    """A run read back. While it runs, each access reads what is there by then."""

    def __init__(self, reader: HomeReader, found: RunState | RunRow) -> None:
        self._reader = reader
        self._key = (found.entity, found.project, found.id)
        self._state = found if isinstance(found, RunState) else None

    # Names

    @property
    def entity(self) -> str:
        return self._key[0]

    @property
    def project(self) -> str:
        return self._key[1]

    @property
    def id(self) -> str:
        return self._key[2]

    @property
    def path(self) -> list[str]:
        return list(self._key)

    @property
    def name(self) -> str:
        return self._fresh().name or default_name(self.id)

    # What it is

    @property
    def state(self) -> str:
        """running, finished, failed, crashed, killed, preempting or preempted."""
        return str(self._fresh().state)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the writer that ended worst, if it is known."""
        return self._fresh().exit_code

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended that writer, if one did."""
        return self._fresh().signal

    @property
    def config(self) -> dict[str, Any]:
        return self._fresh().config

    @property
    def summary(self) -> dict[str, Any]:
        return self._fresh().summary

    @property
    def metadata(self) -> dict[str, Any]:
        return self._fresh().metadata

    @property
    def tags(self) -> list[str]:
        return self._fresh().tags

    @property
    def notes(self) -> str | None:
        return self._fresh().notes

    @property
    def group(self) -> str | None:
        return self._fresh().group

    @property
    def job_type(self) -> str | None:
        return self._fresh().job_type

    @property
    def created_at(self) -> str:
        """When it started, ISO 8601, UTC."""
        return _iso(self.load().created_at)

    @property
    def heartbeat_at(self) -> str:
        """When it was last heard of, ISO 8601, UTC."""
        return _iso(self._fresh().updated_at)

    @property
    def lastHistoryStep(self) -> int:  # W&B's name.
        """The highest step logged, read at each access; -1 without history."""
        return self.load(force=True).last_step

    @property
    def lost_count(self) -> int:
        """How many events are known to be lost: dropped by a full disk or damaged."""
        return self._fresh().lost_count

    def load(self, force: bool = False) -> RunState:
        """Return the run's state, read anew if forced.

        Raises:
            NotFoundError: It does not exist any more.
        """
        if self._state is None or force:
            state = reading(lambda: self._reader.state(self._key))
            if state is None:
                raise NotFoundError(f"Could not find run {self!r}")
            self._state = state
        return self._state

    def _fresh(self) -> RunState:
        return self.load(force=self.load().active)

    # Histories

    def history(
        self,
        samples: int = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
    ) -> Any:
        """Return at most `samples` rows, evenly spaced, the first and last among them.

        Args:
            samples: How many rows at most; 1 gives the last.
            keys: Only rows that have all of these, and only these columns.
            x_axis: One more key that a row must have; its first column.
            pandas: Whether to return a data frame, else a list of dicts. Without
                pandas installed: a warning and the list.

        Raises:
            BadArgumentError: `samples` is not a positive int or `x_axis` no str.
        """
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise BadArgumentError(f"samples must be a positive int, not {samples!r}")
        if not isinstance(x_axis, str):
            raise BadArgumentError("x_axis must be a str")
        problem = problem_of_keys(keys)
        if problem:
            say(f"error: {problem}")
            return []
        rows = self._sampled(samples, keys or None, x_axis)
        if not pandas:
            return rows
        try:
            import pandas as pd  # Optional, and slow to load.
        except ImportError:
            _say_once("pandas is not installed: history() returns a list of dicts")
            return rows
        return pd.DataFrame.from_records(rows)

    def history_arrow(self, keys: list[str] | None = None) -> "pa.Table":
        """Return every row as an Arrow table: `_step`, then one column a key.

        With keys, only the rows that have all of them. Types follow all values of a
        key, see docs/read_api.md.

        Raises:
            BadArgumentError: `keys` is no list of str.
        """
        return self._history(check_keys(keys), None, None, with_time=False).to_arrow()

    def scan_history(
        self,
        keys: list[str] | None = None,
        page_size: int = 1000,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> "HistoryScan":
        """Iterate over all rows in order of step, as dicts.

        Args:
            keys: Only rows that have all of these; the dicts hold them and `_step`.
            page_size: How many rows to make at a time.
            min_step: The first step.
            max_step: The step before which to stop.

        Raises:
            BadArgumentError: An argument has a wrong type or value.
        """
        wanted = check_keys(keys)
        for name, value in (("min_step", min_step), ("max_step", max_step)):
            if value is not None and not isinstance(value, int):
                raise BadArgumentError(f"{name} must be an int or None, not {value!r}")
        if (
            isinstance(page_size, bool)
            or not isinstance(page_size, int)
            or page_size < 1
        ):
            raise BadArgumentError(
                f"page_size must be a positive int, not {page_size!r}"
            )
        with_time = wanted is None or not _MADE_OF_TIME.isdisjoint(wanted)
        history = self._history(wanted, min_step, max_step, with_time)
        started = self.load().created_at if with_time else None
        return HistoryScan(self, history, wanted, page_size, started)

    def _sampled(
        self, samples: int, keys: list[str] | None, x_axis: str
    ) -> list[dict[str, Any]]:
        columns = None if keys is None else list(dict.fromkeys((x_axis, *keys)))
        with_time = columns is None or not _MADE_OF_TIME.isdisjoint(columns)
        history = self._history(columns, None, None, with_time)
        places = spread(len(history), samples)
        rows = list(with_runtime(history.take(places), self.load().created_at))
        if columns is None:
            return [row for row in rows if x_axis in row]
        if history.ranks is not None:
            columns.append(RANK)
        return [{key: row[key] for key in columns} for row in rows]

    def _history(
        self,
        keys: list[str] | None,
        min_step: int | None,
        max_step: int | None,
        with_time: bool,
    ) -> History:
        logged = None if keys is None else [key for key in keys if key not in _MADE]
        query = Query(
            keys=logged or None,
            join="inner" if logged else "outer",
            min_step=min_step,
            max_step=max_step,
            with_time=with_time,
        )
        found = reading(lambda: self._reader.history(self._key, query))
        if found is None:
            raise NotFoundError(f"Could not find run {self!r}")
        return replace(found, cells=()) if logged == [] else found

    def __repr__(self) -> str:
        try:
            state = self.state
        except Error:
            state = "not found"
        return f"<Run {'/'.join(self._key)} ({state})>"


@cache
def _say_once(text: str) -> None:
    say(text)


def reading(read: Callable[[], _Found]) -> _Found:
    """Return what `read` does; what goes wrong in the store is told as a CommError."""
    try:
        return read()
    except (StorageError, OSError, sqlite3.Error) as error:
        raise CommError(str(error), error) from error


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
