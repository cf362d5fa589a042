"""Reading parts: the index, the points of some keys, and whether a part is sound."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flightlog_storage.arrow import numpy_of
from flightlog_storage.columns import Column, Ints, is_increasing
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import Kind
from flightlog_storage.parts import (
    INDEX_CHECKSUM_KEY,
    INDEX_KEY,
    INDEX_VERSION,
    KIND_NAMES,
    SCHEMA,
    Span,
)

__all__ = ("Part", "SharedArrays", "verify_part")

THREADS_MAX = 2
THREADS_POINTS_MIN = 131_072  # Below, starting threads costs more than it gives.


class SharedArrays:
    """Steps and times read so far, by digest: what many keys share is read once."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[int, ...], Ints] = {}

    def __contains__(self, form: tuple[int, ...]) -> bool:
        return form in self._arrays

    def put(self, form: tuple[int, ...], array: Ints) -> Ints:
        """Return the array that stands for all of this form."""
        return self._arrays.setdefault(form, array)

    def get(self, form: tuple[int, ...]) -> Ints:
        return self._arrays[form]


def _steps_form(span: Span) -> tuple[int, ...]:
    return (span.points, span.min_step, span.max_step, span.steps_digest)


def _times_form(span: Span) -> tuple[int, ...]:
    return (span.points, span.times_digest)


class _Job(NamedTuple):
    """Spans of one row group, and the columns that must be read for them."""

    group: int
    spans: list[Span]
    names: list[str]


class Part:
    """An open part; it can be read even if its file is deleted meanwhile."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        with self.telling_corruption():
            self._file = pa.OSFile(str(path))
            self._metadata = self._open().metadata
            self.spans = self._read_index()
        self._cached: tuple[int, pa.Table] | None = None

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(
        self, spans: Sequence[Span], shared: SharedArrays, *, with_time: bool
    ) -> list[Column]:
        """Return the points of some spans, in the spans' order."""
        jobs = list(self._jobs(spans, shared, with_time))
        points = sum(span.points for span in spans)
        if len(jobs) > 1 and points >= THREADS_POINTS_MIN:
            with ThreadPoolExecutor(THREADS_MAX) as pool:
                tables = list(pool.map(self._read_job, jobs))
        else:
            tables = [self._read_job(job) for job in jobs]
        columns: list[Column] = []
        for job, table in zip(jobs, tables, strict=True):
            # Those that read the arrays come before those that share them.
            with self.telling_corruption():
                columns += [
                    self._column(table, s, shared, with_time) for s in job.spans
                ]
        return columns

    def read_whole(self, span: Span) -> Column:
        """Return the points of one span; neighbours in its group are remembered."""
        if self._cached is None or self._cached[0] != span.group:
            group = self._metadata.row_group(span.group)
            names = [name for name in SCHEMA.names if name not in ("key", "rank")]
            table = self._read_job(_Job(span.group, [span], names))
            if group.num_rows == span.points:
                return self._column(table, span, SharedArrays(), True)
            self._cached = (span.group, table)
        with self.telling_corruption():
            return self._column(self._cached[1], span, SharedArrays(), True)

    def read_group(self, group: int) -> pa.Table:
        """Return all columns of one row group."""
        return self._read_job(_Job(group, [], SCHEMA.names))

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._file,
            metadata=getattr(self, "_metadata", None),
            pre_buffer=False,
            page_checksum_verification=True,
        )

    def _read_index(self) -> list[Span]:
        metadata = self._metadata.metadata or {}
        encoded = metadata.get(INDEX_KEY, b"")
        checksum = metadata.get(INDEX_CHECKSUM_KEY, b"")
        if f"{zlib.crc32(encoded):08x}".encode() != checksum:
            raise CorruptData(self.name, 0, "the index does not match its checksum")
        index = json.loads(encoded)
        if index["version"] != INDEX_VERSION:
            raise CorruptData(self.name, 0, f"index version {index['version']}")
        columns = [index["spans"][name] for name in Span._fields]
        spans = list(map(Span._make, zip(*columns, strict=True)))
        if sum(span.points for span in spans) != self._metadata.num_rows:
            raise CorruptData(self.name, 0, "the index does not match the rows")
        return spans

    def _jobs(
        self, spans: Sequence[Span], shared: SharedArrays, with_time: bool
    ) -> Iterator[_Job]:
        """Yield what to read, group by group; no shared array is read twice."""
        groups: dict[int, list[Span]] = {}
        for span in spans:
            groups.setdefault(span.group, []).append(span)
        claimed: set[tuple[int, ...]] = set()
        for group, members in groups.items():
            names = ["value"]
            steps = {_steps_form(s) for s in members if _steps_form(s) not in shared}
            if not steps <= claimed:
                names.append("step")
            times = {_times_form(s) for s in members if _times_form(s) not in shared}
            if with_time and not times <= claimed:
                names.append("time")
            if any(span.kinds.bit_count() > 1 for span in members):
                names.append("kind")
            if any(span.has_texts for span in members):
                names.append("text")
            claimed |= steps | times
            yield _Job(group, members, names)

    def _read_job(self, job: _Job) -> pa.Table:
        with self.telling_corruption():
            # Arrow's own threads can abort a process that exits soon after.
            table = self._open().read_row_groups(
                [job.group], columns=job.names, use_threads=False
            )
            for name in job.names:
                if table.schema.field(name).type != SCHEMA.field(name).type:
                    raise CorruptData(self.name, 0, f"the type of {name} has changed")
            return table

    def _column(
        self, table: pa.Table, span: Span, shared: SharedArrays, with_time: bool
    ) -> Column:
        if span.start + span.points > table.num_rows:
            raise CorruptData(self.name, 0, "a row group has lost rows")
        piece = table.slice(span.start, span.points)
        names = table.column_names
        if "step" in names:
            steps = shared.put(_steps_form(span), _numbers(piece, "step"))
        else:
            steps = shared.get(_steps_form(span))
        if steps[0] != span.min_step or steps[-1] != span.max_step:
            raise CorruptData(self.name, 0, f"the steps of {span.key!r} have changed")
        times = None
        if with_time and "time" in names:
            times = shared.put(_times_form(span), _numbers(piece, "time"))
        elif with_time:
            times = shared.get(_times_form(span))
        texts = _array(piece, "text") if span.has_texts else None
        values = numpy_of(_array(piece, "value"), np.float64)
        kinds = _kinds(piece, span)
        return Column(span.key, span.rank, steps, values, times, kinds, texts)

    @contextmanager
    def telling_corruption(self) -> Iterator[None]:
        """Turn what Arrow raises for damaged bytes into CorruptData."""
        try:
            yield
        except (pa.ArrowException, LookupError, TypeError, ValueError) as error:
            raise CorruptData(self.name, 0, str(error)) from error
        except OSError as error:
            if error.errno is not None:  # The disk's, not Arrow's.
                raise
            raise CorruptData(self.name, 0, str(error)) from error


def _array(table: pa.Table, name: str) -> Any:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numbers(table: pa.Table, name: str) -> Ints:
    return numpy_of(_array(table, name), np.int64)


def _kinds(table: pa.Table, span: Span) -> "NDArray[np.uint8] | None":
    if span.kinds == 1 << Kind.FLOAT:
        return None
    if span.kinds.bit_count() == 1:
        return np.full(span.points, span.kinds.bit_length() - 1, np.uint8)
    column = _array(table, "kind")
    codes = [KIND_NAMES.index(name) for name in column.dictionary.to_pylist()]
    kinds: NDArray[np.uint8] = np.array(codes, np.uint8)[
        numpy_of(column.indices, np.int8)
    ]
    return kinds


def verify_part(path: Path, sha256: str | None = None) -> list[str]:
    """Return what is wrong with a part, having read all of it; nothing: `[]`."""
    problems = []
    try:
        if sha256 is not None and _sha256(path) != sha256:
            problems.append("the file does not match its sha256")
        with Part(path) as part:
            for group in range(part.spans[-1].group + 1 if part.spans else 0):
                with part.telling_corruption():
                    problems += _verify_group(part, group)
            keys = [(s.key, s.rank, s.min_step) for s in part.spans]
            if keys != sorted(keys):
                problems.append("keys are out of order")
    except (CorruptData, OSError) as error:
        problems.append(str(error))
    return problems


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify_group(part: Part, group: int) -> Iterator[str]:
    table = part.read_group(group)
    spans = [span for span in part.spans if span.group == group]
    if sum(span.points for span in spans) != table.num_rows:
        yield f"row group {group} has {table.num_rows} rows"
        return
    for span in spans:
        piece = table.slice(span.start, span.points)
        steps = _numbers(piece, "step")
        where = f"row group {group}, {span.key!r} of rank {span.rank}"
        if not is_increasing(steps):
            yield f"{where}: steps are out of order"
        if (steps[0], steps[-1]) != (span.min_step, span.max_step):
            yield f"{where}: steps are not those of the index"
        if piece.column("key").unique().to_pylist() != [span.key]:
            yield f"{where}: other keys among its points"
        if piece.column("rank").unique().to_pylist() != [span.rank]:
            yield f"{where}: other ranks among its points"
