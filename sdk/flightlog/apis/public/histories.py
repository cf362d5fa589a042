"""The history of a run as it is asked for: samples, tables and scans."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from flightlog._say import say_once
from flightlog.apis.public.client import Client
from flightlog.apis.public.key_types import describe_keys
from flightlog.apis.public.reading import reading
from flightlog.errors import BadArgumentError, NotFoundError
from flightlog_storage.cells import RANK, RUNTIME, STEP, TIMESTAMP, History
from flightlog_storage.columns import Ints
from flightlog_storage.event import Kind
from flightlog_storage.history import Query
from flightlog_storage.points import Stream
from flightlog_storage.sampling import EXTREMES_ROWS, spread

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = (
    "Join",
    "Method",
    "RunHistory",
    "Sample",
    "check_count",
    "check_keys",
    "problem_of_keys",
)

Method = Literal["even", "minmax"]
Join = Literal["inner", "outer"]
_STREAMS = {
    "default": Stream.DEFAULT,
    "system": Stream.SYSTEM,
    "events": Stream.SYSTEM,  # As in W&B's guide.
}
_MADE = (STEP, RANK, TIMESTAMP, RUNTIME)  # Columns that are made here, not logged.


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What `Run.history` was asked for; see there."""

    samples: int = 500
    keys: list[str] | None = None
    x_axis: str = STEP
    stream: str = "default"
    method: Method = "even"
    join: Join = "inner"

    def check(self) -> None:
        """Refuse what is no problem of the keys.

        Raises:
            BadArgumentError: An argument has a wrong type or value.
        """
        check_count("samples", self.samples)
        if not isinstance(self.x_axis, str):
            raise BadArgumentError("x_axis must be a str")
        for name, value, known in (
            ("stream", self.stream, tuple(_STREAMS)),
            ("method", self.method, get_args(Method)),
            ("join", self.join, get_args(Join)),
        ):
            if value not in known:
                raise BadArgumentError(f"{name} {value!r} is none of {known}")
        if self.method == "minmax" and not self.problem():
            self._check_extremes()

    def _check_extremes(self) -> None:
        if not self.keys:
            raise BadArgumentError("method 'minmax' needs keys")
        at_least = EXTREMES_ROWS * (1 + len(self.keys))
        if self.samples < at_least:
            raise BadArgumentError(
                f"method 'minmax' of {len(self.keys)} keys needs at least "
                f"{at_least} samples, not {self.samples}"
            )

    def problem(self) -> str | None:
        """Return what is wrong with the keys: a line for the user, as in W&B."""
        problem = problem_of_keys(self.keys)
        if problem is None and self.keys and self.stream != "default":
            return "stream must be default when specifying keys"
        return problem

    def names(self) -> list[str] | None:
        """Return the columns that are asked for; None are all."""
        if not self.keys:
            return None
        return list(dict.fromkeys((self.x_axis, *self.keys)))


class RunHistory:
    """The history of one run, read anew each time it is asked for."""

    def __init__(
        self,
        client: Client,
        run: tuple[str, str, str],
        started: Callable[[], float],
    ) -> None:
        """Remember whose history it is; `started` tells when the run was created."""
        self._client = client
        self._run = run
        self._started = started

    def sample(self, wanted: Sample) -> History:
        """Return the sampled rows."""
        stream = _STREAMS[wanted.stream]
        names = wanted.names()
        if names is None and wanted.x_axis not in _MADE:
            history = self._history(None, stream=stream)
            history = history.take(_rows_with(history, wanted.x_axis))
            return history.take(spread(len(history), wanted.samples))
        extremes_of: list[str] | None = None
        if wanted.method == "minmax":
            # Runtimes are made of times, later.
            made = {RUNTIME: TIMESTAMP}
            extremes_of = [made.get(key, key) for key in wanted.keys or ()]
        sample = (wanted.samples, extremes_of)
        return self._history(names, wanted.join, sample=sample, stream=stream)

    def read(
        self,
        keys: list[str] | None = None,
        min_step: int | None = None,
        max_step: int | None = None,
    ) -> History:
        """Return all rows that have all of the keys, and what was asked for of them.

        Raises:
            NotFoundError: There is no such run any more.
        """
        return self._history(keys, bounds=(min_step, max_step))

    def _history(
        self,
        keys: list[str] | None,
        join: Join = "inner",
        bounds: tuple[int | None, int | None] = (None, None),
        sample: tuple[int, list[str] | None] | None = None,
        stream: Stream = Stream.DEFAULT,
    ) -> History:
        logged = None if keys is None else [key for key in keys if key not in _MADE]
        query = Query(
            keys=logged or None,
            join=join if logged else "outer",
            min_step=bounds[0],
            max_step=bounds[1],
            with_time=keys is None or not {TIMESTAMP, RUNTIME}.isdisjoint(keys),
            stream=stream,
        )
        found = self._read(query, sample)
        if query.join == "inner" and not len(found):
            self._tell_of_no_common_row(query)
        if logged == []:
            found = replace(found, cells=())
        return self._made(found, keys)

    def _read(
        self, query: Query, sample: tuple[int, list[str] | None] | None = None
    ) -> History:
        """Return the rows, or so many of them, maybe with some keys' extremes."""
        reader = self._client.reader
        if sample is None:
            found = reading(lambda: reader.history(self._run, query))
        else:
            found = reading(lambda: reader.sample(self._run, query, *sample))
        if found is None:
            name = "/".join(self._run)
            raise NotFoundError(f"Could not find run <Run {name} (not found)>")
        return found

    def _made(self, history: History, keys: list[str] | None) -> History:
        """Return the history with the columns that are not logged, as asked for."""
        wanted = (TIMESTAMP, RUNTIME) if keys is None else keys
        if RANK in wanted and history.ranks is None:
            history = replace(history, ranks=np.zeros(len(history), np.int64))
        if history.times is None:
            return history
        if RUNTIME in wanted:
            runtimes = np.maximum(history.times / 1e6 - self._started(), 0.0)
            history = replace(history, runtimes=runtimes)
        return history if TIMESTAMP in wanted else replace(history, times=None)

    def _tell_of_no_common_row(self, query: Query) -> None:
        """Say once why nothing was found, if each of the keys has rows of its own."""
        if query.keys is None or len(query.keys) < 2:
            return
        cells = self._read(replace(query, join="outer", with_time=False)).cells
        if all(each.present_kinds() - {Kind.NULL} for each in cells):
            keys = ", ".join(map(repr, query.keys))
            say_once(
                f"{'/'.join(self._run)}: no row has all of {keys}, though each has "
                'rows of its own; history(join="outer") gives those that have any'
            )

    def table(self, keys: list[str] | None) -> "pa.Table":
        """Return all rows as an Arrow table."""
        history = self.read(keys)
        if keys is None:
            history = replace(history, times=None, runtimes=None)
        return history.to_arrow()

    def keys(self) -> dict[str, Any]:
        """Return which keys were logged; see `Run.history_keys`."""
        return describe_keys(self._read(Query()))


def _rows_with(history: History, key: str) -> Ints:
    """Return the places of the rows that have a value of a key."""
    for cells in history.cells:
        if cells.key == key:
            return cells.present_rows()
    return np.empty(0, np.int64)


def check_count(name: str, count: object) -> None:
    """Refuse what is no positive int.

    Raises:
        BadArgumentError: It is none.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise BadArgumentError(f"{name} must be a positive int, not {count!r}")


def problem_of_keys(keys: object) -> str | None:
    """Return what is wrong with keys: a line for the user."""
    if keys is not None and not isinstance(keys, list):
        return "keys must be specified in a list"
    if keys and not all(isinstance(key, str) for key in keys):
        return "keys argument must be a list of strings"
    return None


def check_keys(keys: object) -> list[str] | None:
    """Return keys, each once; None for all.

    Raises:
        BadArgumentError: They are no list of str.
    """
    problem = problem_of_keys(keys)
    if problem:
        raise BadArgumentError(problem)
    return list(dict.fromkeys(keys)) or None if isinstance(keys, list) else None
