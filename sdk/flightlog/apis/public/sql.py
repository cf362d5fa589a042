"""SQL over a home: one query, run by DuckDB on views that it cannot step out of."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from flightlog.apis.public.views import Views
from flightlog.errors import BadArgumentError, CommError, Error
from flightlog_storage.reader import HomeReader

if TYPE_CHECKING:
    import duckdb

__all__ = ("Limits", "Parameters", "run_query")

MEMORY_MB_MIN = 64
THREADS_MAX = 4
BATCH_ROWS = 65_536  # Of a result, to be fetched at a time.
INTERRUPT_INTERVAL_S = 0.05
TIMEOUT_S_MAX = 86_400.0

Parameters = Sequence[object] | Mapping[str, object]

# No file, no network, no code from elsewhere, nothing of the program that asks.
_SANDBOX: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "max_temp_directory_size": "0B",
}
_READING = ("SELECT", "EXPLAIN", "MULTI")  # MULTI is a PIVOT that finds its columns.
_OUT_OF_MEMORY = "Out of Memory Error"
_NOT_THE_QUERY = ("IO Error", "INTERNAL Error", "FATAL Error")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may take: seconds, and megabytes for its work and for its result."""

    timeout_s: float
    memory_mb: int

    def __post_init__(self) -> None:
        timeout_s, memory_mb = self.timeout_s, self.memory_mb
        if (
            isinstance(timeout_s, bool)
            or not isinstance(timeout_s, int | float)
            or not 0 < timeout_s <= TIMEOUT_S_MAX
        ):
            raise BadArgumentError(
                f"timeout_s must be a number of seconds up to {TIMEOUT_S_MAX:.0f}, "
                f"not {timeout_s!r}"
            )
        if (
            isinstance(memory_mb, bool)
            or not isinstance(memory_mb, int)
            or memory_mb < MEMORY_MB_MIN
        ):
            raise BadArgumentError(
                f"memory_mb must be an int of at least {MEMORY_MB_MIN}, "
                f"not {memory_mb!r}"
            )


def run_query(
    reader: HomeReader, query: str, parameters: Parameters | None, limits: Limits
) -> pa.Table:
    """Return the result of one query that reads.

    Raises:
        BadArgumentError: It is no such query, or DuckDB refuses it.
        CommError: It takes more than its limits, or the home cannot be read.
        Error: DuckDB is not installed.
    """
    if not isinstance(query, str):
        raise BadArgumentError(f"query must be a str, not {type(query).__qualname__}")
    if parameters is not None and (
        isinstance(parameters, str | bytes)
        or not isinstance(parameters, Sequence | Mapping)
    ):
        raise BadArgumentError("parameters must be a list, for ?, or a dict, for $name")
    engine = _Engine(limits)
    views = Views(reader, engine.check)

    def work() -> pa.Table:
        try:
            engine.register(views)
            return engine.fetch(query, parameters)
        except (engine.module.Error, pa.ArrowException, OSError) as error:
            if views.problem is not None and not engine.is_expired:
                problem = views.problem
                raise CommError(str(problem), problem) from problem
            engine.tell(error)

    with closing(engine.connection):
        return engine.limited(work)


class _Engine:
    """A database in memory that is there for one query."""

    def __init__(self, limits: Limits) -> None:
        self.module = _duckdb()
        self._limits = limits
        self._expired = threading.Event()
        threads = min(THREADS_MAX, len(os.sched_getaffinity(0)))
        sizes = {"memory_limit": f"{limits.memory_mb}MB", "threads": threads}
        self.connection = self.module.connect(config={**_SANDBOX, **sizes})

    @property
    def is_expired(self) -> bool:
        return self._expired.is_set()

    def register(self, views: Views) -> None:
        """Add the views; after this nothing in the database can be set any more."""
        self.connection.execute("SET TimeZone = 'UTC'")
        for name, dataset in views.datasets().items():
            self.connection.register(name, dataset)
        self.connection.execute("SET lock_configuration = true")

    def limited(self, work: Callable[[], pa.Table]) -> pa.Table:
        """Return what `work` does, interrupted when its time is over.

        It runs in a thread of its own: DuckDB, at work, would not hear of Ctrl-C.
        """
        with ThreadPoolExecutor(1, "flightlog-sql") as pool:
            future = pool.submit(work)
            try:
                wait([future], self._limits.timeout_s)
            finally:
                self._end(future)
            return future.result()

    def _end(self, future: "Future[pa.Table]") -> None:
        if not future.done():
            self._expired.set()
        # Again and again: an interrupt between two steps of DuckDB's is forgotten.
        while not future.done():
            self.connection.interrupt()
            wait([future], INTERRUPT_INTERVAL_S)

    def check(self) -> None:
        """End a scan whose query has run out of time."""
        if self.is_expired:
            raise TimeoutError("the query has run out of time")

    def fetch(self, query: str, parameters: Parameters | None) -> pa.Table:
        """Run a query and gather its result, up to the limit."""
        statement = self._statement(query)
        relation = self.connection.sql(statement, params=parameters)
        batches, size = [], 0
        with relation.to_arrow_reader(BATCH_ROWS) as reader:
            for batch in reader:
                self.check()
                batches.append(batch)
                size += batch.nbytes
                if size > self._limits.memory_mb * 1_000_000:
                    raise CommError(
                        f"the result is larger than {self._limits.memory_mb} MB: ask "
                        "for fewer rows or columns, aggregate, add LIMIT, or raise "
                        "memory_mb"
                    )
            return pa.Table.from_batches(batches, reader.schema)

    def _statement(self, query: str) -> "duckdb.Statement":
        statements: list[duckdb.Statement] = self.connection.extract_statements(query)
        if len(statements) != 1:
            raise BadArgumentError(
                f"one statement at a time, not {len(statements)}: a query that reads, "
                "as SELECT"
            )
        (statement,) = statements
        if statement.type.name not in _READING:
            raise BadArgumentError(
                f"{statement.type.name} is not for reading; what may be asked: SELECT, "
                "FROM, WITH, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN"
            )
        return statement

    def tell(self, error: Exception) -> NoReturn:
        """Raise what an error of DuckDB's, or of Arrow's for it, means to a caller."""
        text = str(error)
        if self.is_expired:
            raise CommError(
                f"the query took more than {self._limits.timeout_s:g} s: narrow it "
                "(run_id, key), or raise timeout_s",
                error,
            ) from error
        if isinstance(error, self.module.OutOfMemoryException) or (
            text.startswith(_OUT_OF_MEMORY)
        ):
            raise CommError(
                f"the query needs more than {self._limits.memory_mb} MB: narrow it "
                "(run_id, key), aggregate earlier, or raise memory_mb",
                error,
            ) from error
        if text.startswith(_NOT_THE_QUERY):
            raise CommError(text, error) from error
        raise BadArgumentError(text) from error


def _duckdb() -> Any:
    """Return the module, which is optional and takes a while to load."""
    try:
        import duckdb
    except ImportError as error:
        raise Error('SQL needs DuckDB: pip install "flightlog[sql]"') from error
    return duckdb
