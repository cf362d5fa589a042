"""Reading parts: the index, the points of some keys, and whether a part is sound."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flightlog_storage.arrow import arrow_of, numpy_of
from flightlog_storage.columns import Column, Floats, Ints, is_increasing
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import Kind
from flightlog_storage.files import open_file
from flightlog_storage.parts import (
    INDEX_CHECKSUM_KEY,
    INDEX_KEY,
    INDEX_VERSION,
    KIND_NAMES,
    SCHEMA,
    Span,
)
from flightlog_storage.points import Stream

__all__ = ("Part", "Pick", "SharedArrays", "is_whole", "steps_form", "verify_part")

_Work = TypeVar("_Work")
_Done = TypeVar("_Done")
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

    def put_whole(self, span: Span) -> None:
        """Add the steps of a span without holes."""
        form = steps_form(span)
        if form not in self._arrays:
            self._arrays[form] = np.arange(span.min_step, span.max_step + 1)

    def get(self, form: tuple[int, ...]) -> Ints:
        return self._arrays[form]


def steps_form(span: Span) -> tuple[int, ...]:
    """Return what spans with the same steps have in common."""
    return (span.points, span.min_step, span.max_step, span.steps_digest)


def is_whole(span: Span) -> bool:
    """Whether a span's steps have no holes, so that they follow from its ends."""
    return span.max_step - span.min_step == span.points - 1


def _times_form(span: Span) -> tuple[int, ...]:
    return (span.points, span.times_digest)


class _Job(NamedTuple):
    """Spans of one row group, and the columns that must be read for them."""

    group: int
    spans: list[Span]
    names: list[str]


class Pick(NamedTuple):
    """Points of one span: their places within it, ascending, and their steps."""

    span: Span
    places: Ints
    steps: Ints


class Part:
    """An open part; it can be read even if its file is deleted meanwhile."""

    def __init__(self, path: Path, stream: Stream | None = None) -> None:
        """Open a part; its spans are those of one stream, or all."""
        self.name = path.name
        with self.telling_corruption():
            os.close(open_file(path))  # Arrow waits for a pipe.
            self._file = pa.OSFile(str(path))
            self._parquet = self._open()
            self._metadata = self._parquet.metadata
            spans = self._read_index()
        self.spans = (
            spans if stream is None else [s for s in spans if stream.holds(s.rank)]
        )
        self._cached: tuple[int, pa.Table] | None = None

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(
        self, spans: Sequence[Span], shared: SharedArrays, *, with_time: bool
    ) -> list[Column]:
        """Return the points of some spans, in the spans' order."""
        for span in filter(is_whole, spans):
            shared.put_whole(span)
        jobs = list(self._jobs(spans, shared, with_time))
        tables = self._each(jobs, self._read_job, sum(span.points for span in spans))
        columns: list[Column] = []
        for job, table in zip(jobs, tables, strict=True):
            # Those that read the arrays come before those that share them.
            with self.telling_corruption():
                columns += [
                    self._column(table, s, shared, with_time) for s in job.spans
                ]
        return columns

    def take(self, picks: Sequence[Pick], *, with_time: bool) -> list[Column]:
        """Return some points of some spans; holds few row groups at a time."""
        groups: dict[int, list[Pick]] = {}
        for pick in picks:
            groups.setdefault(pick.span.group, []).append(pick)
        names = ["value", "time"] if with_time else ["value"]

        def take(reader: pq.ParquetFile, own: list[Pick]) -> list[Column]:
            spans = [pick.span for pick in own]
            job = _Job(spans[0].group, spans, [*names, *_names_by_kind(spans)])
            return self._taken(self._read_job(reader, job), own)

        points = sum(pick.span.points for pick in picks)
        taken = self._each(list(groups.values()), take, points)
        return [column for columns in taken for column in columns]

    def map_values(
        self, spans: Sequence[Span], do: Callable[[Span, Floats], _Done]
    ) -> list[_Done]:
        """Return what `do` makes of each span's values; in threads if they are many."""
        groups: dict[int, list[Span]] = {}
        for span in spans:
            groups.setdefault(span.group, []).append(span)

        def work(reader: pq.ParquetFile, own: list[Span]) -> list[_Done]:
            table = self._read_job(reader, _Job(own[0].group, own, ["value"]))
            values = numpy_of(_array(table, "value"), np.float64)
            return [do(s, values[s.start : s.start + s.points]) for s in own]

        points = sum(span.points for span in spans)
        done = self._each(list(groups.values()), work, points)
        return [each for own in done for each in own]

    def read_whole(self, span: Span) -> Column:
        """Return the points of one span; neighbours in its group are remembered."""
        if self._cached is None or self._cached[0] != span.group:
            group = self._metadata.row_group(span.group)
            names = [name for name in SCHEMA.names if name not in ("key", "rank")]
            table = self._read_group(span.group, names)
            if group.num_rows == span.points:
                return self._column(table, span, SharedArrays(), True)
            self._cached = (span.group, table)
        with self.telling_corruption():
            return self._column(self._cached[1], span, SharedArrays(), True)

    def read_group(self, group: int) -> pa.Table:
        """Return all columns of one row group."""
        return self._read_group(group, SCHEMA.names)

    def read_steps(self, group: int) -> Ints:
        """Return the steps of one row group."""
        return _numbers(self._read_group(group, ["step"]), "step")

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._file,
            metadata=metadata,
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
            steps = {steps_form(s) for s in members if steps_form(s) not in shared}
            if not steps <= claimed:
                names.append("step")
            times = {_times_form(s) for s in members if _times_form(s) not in shared}
            if with_time and not times <= claimed:
                names.append("time")
            names += _names_by_kind(members)
            claimed |= steps | times
            yield _Job(group, members, names)

    def _read_group(self, group: int, names: list[str]) -> pa.Table:
        return self._read_job(self._parquet, _Job(group, [], names))

    def _each(
        self,
        works: Sequence[_Work],
        do: Callable[[pq.ParquetFile, _Work], _Done],
        points: int,
    ) -> list[_Done]:
        """Return what `do` makes of each; in threads if there are many points."""
        if len(works) < THREADS_MAX or points < THREADS_POINTS_MIN:
            return [do(self._parquet, work) for work in works]
        # A reader for each thread, as two may not share one; to make one costs a copy
        # of the index, which is large where there are many keys.
        own = [self._open(self._metadata) for _ in range(1, THREADS_MAX)]
        readers = [self._parquet, *own]
        shares = [works[start::THREADS_MAX] for start in range(THREADS_MAX)]
        with ThreadPoolExecutor(THREADS_MAX) as pool:
            done = list(
                pool.map(
                    lambda reader, share: [do(reader, work) for work in share],
                    readers,
                    shares,
                )
            )
        return [done[n % THREADS_MAX][n // THREADS_MAX] for n in range(len(works))]

    def _read_job(self, reader: pq.ParquetFile, job: _Job) -> pa.Table:
        with self.telling_corruption():
            # Arrow's own threads can abort a process that exits soon after.
            table = reader.read_row_groups([job.group], job.names, use_threads=False)
            for name in job.names:
                if table.schema.field(name).type != SCHEMA.field(name).type:
                    raise CorruptData(self.name, 0, f"the type of {name} has changed")
            if any(s.start + s.points > table.num_rows for s in job.spans):
                raise CorruptData(self.name, 0, "a row group has lost rows")
            return table

    def _taken(self, table: pa.Table, picks: list[Pick]) -> list[Column]:
        """Return the points that were picked of a row group."""
        with self.telling_corruption():
            places = np.concatenate([pick.span.start + pick.places for pick in picks])
            values = numpy_of(_array(table, "value"), np.float64)[places]
            names = table.column_names
            times = _numbers(table, "time")[places] if "time" in names else None
            kinds = _codes(table)[places] if "kind" in names else None
            texts = None
            if "text" in names:
                texts = _array(table, "text").take(arrow_of(places))
        columns = []
        start = 0
        for span, own, steps in picks:
            part = slice(start, start + len(own))
            start = part.stop
            columns.append(
                Column(
                    span.key,
                    span.rank,
                    steps,
                    values[part],
                    None if times is None else times[part],
                    _kinds_of(span, len(own), None if kinds is None else kinds[part]),
                    texts[part] if texts is not None and span.has_texts else None,
                )
            )
        return columns

    def _column(
        self, table: pa.Table, span: Span, shared: SharedArrays, with_time: bool
    ) -> Column:
        piece = table.slice(span.start, span.points)
        names = table.column_names
        if "step" in names:
            steps = shared.put(steps_form(span), _numbers(piece, "step"))
        else:
            steps = shared.get(steps_form(span))
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


def _names_by_kind(spans: Sequence[Span]) -> list[str]:
    """Return the columns that tell more of these points than their numbers do."""
    names = []
    if any(span.kinds.bit_count() > 1 for span in spans):
        names.append("kind")
    if any(span.has_texts for span in spans):
        names.append("text")
    return names


def _kinds(table: pa.Table, span: Span) -> "NDArray[np.uint8] | None":
    codes = _codes(table) if span.kinds.bit_count() > 1 else None
    return _kinds_of(span, span.points, codes)


def _kinds_of(
    span: Span, count: int, codes: "NDArray[np.uint8] | None"
) -> "NDArray[np.uint8] | None":
    if span.kinds == 1 << Kind.FLOAT:
        return None
    if span.kinds.bit_count() == 1:
        return np.full(count, span.kinds.bit_length() - 1, np.uint8)
    return codes


def _codes(table: pa.Table) -> "NDArray[np.uint8]":
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
    with open(path, "rb", opener=open_file) as file:
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
