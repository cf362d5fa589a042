"""Parts: Parquet files of a run's points, one row a point.

A part is sorted by key, rank and step. Its row groups are cut at keys, and an index
in the file's metadata says where each key lies, so that one key is read without the
others. Pages and index carry checksums. docs/part_format.md describes the format.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flightlog_storage.arrow import arrow_of, strings_of
from flightlog_storage.columns import Column, Ints, columns_of
from flightlog_storage.event import Kind
from flightlog_storage.files import RealFiles
from flightlog_storage.points import Points, Stream

__all__ = (
    "GROUP_POINTS_MAX",
    "GROUP_POINTS_MIN",
    "GROUP_TEXT_SIZE_MAX",
    "INDEX_CHECKSUM_KEY",
    "INDEX_KEY",
    "INDEX_VERSION",
    "KIND_NAMES",
    "SCHEMA",
    "PartInfo",
    "Span",
    "write_columns",
    "write_part",
)

GROUP_POINTS_MIN = 16_384  # Smaller keys share a row group.
GROUP_POINTS_MAX = 524_288  # While one is written it takes some 150 bytes a point.
GROUP_TEXT_SIZE_MAX = 16 << 20
DIGESTS_KEPT_MAX = 4
INDEX_KEY = b"flightlog"
INDEX_CHECKSUM_KEY = b"flightlog.crc32"
INDEX_VERSION = 1
KIND_NAMES = tuple(kind.name.lower() for kind in Kind)

SCHEMA = pa.schema(
    [
        pa.field("key", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("kind", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    ]
)


class Span(NamedTuple):
    """Where consecutive points of one key and rank lie in a part, and what they are.

    Spans with the same `steps_digest` have the same steps; likewise times.
    """

    key: str
    rank: int
    group: int
    start: int
    points: int
    min_step: int
    max_step: int
    kinds: int  # Bit 1 << kind for each kind that occurs.
    has_texts: bool
    steps_digest: int
    times_digest: int


@dataclass(frozen=True, slots=True)
class PartInfo:
    """What a part holds; `sha256` is of the whole file, steps of the default stream."""

    name: str
    points: int
    size: int
    sha256: str
    min_step: int | None  # None without such points.
    max_step: int | None


def write_part(folder: Path, name: str, points: Points) -> PartInfo:
    """Write points as a part; it is durable and whole when this returns.

    Equal points give equal bytes: to repeat it after a crash does no harm.
    """
    return write_columns(folder, name, columns_of(points))


def write_columns(folder: Path, name: str, columns: Iterable[Column]) -> PartInfo:
    """Write columns, sorted by key, rank and step, as `write_part` does."""
    temporary = folder / f".tmp-{name}"
    try:
        with open(temporary, "w+b", opener=_private) as file:
            with _Writer(file) as writer:
                for column in columns:
                    writer.add(column)
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.rename(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    RealFiles().fsync_dir(folder)
    logged = [span for span in writer.spans if Stream.DEFAULT.holds(span.rank)]
    return PartInfo(
        name,
        sum(span.points for span in writer.spans),
        size,
        digest,
        min((span.min_step for span in logged), default=None),
        max((span.max_step for span in logged), default=None),
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Writer:
    """Gathers columns into row groups and writes the index last."""

    def __init__(self, sink: IO[bytes]) -> None:
        self.spans: list[Span] = []
        self._pending: list[Column] = []
        self._pending_count = 0
        self._group = 0
        self._digests = _Digests()
        self._file = pq.ParquetWriter(
            sink,
            SCHEMA,
            compression="zstd",
            use_dictionary=["key", "text", "kind"],  # pyright: ignore[reportArgumentType]
            column_encoding={
                "rank": "DELTA_BINARY_PACKED",
                "step": "DELTA_BINARY_PACKED",
                "time": "DELTA_BINARY_PACKED",
                "value": "BYTE_STREAM_SPLIT",
            },
            write_page_checksum=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._file.close()

    def add(self, column: Column) -> None:
        """Add a column; it follows those before in order of key, rank and step."""
        size = _group_size(column)
        for start in range(0, column.count, size):
            piece = column.slice(start, min(start + size, column.count))
            if self._pending and self._is_full(piece):
                self._write_group()
            self._pending.append(piece)
            self._pending_count += piece.count

    def _is_full(self, piece: Column) -> bool:
        """Whether the pending row group ends before this piece."""
        if self._pending_count + piece.count > GROUP_POINTS_MAX:
            return True
        if piece.texts is not None:
            size = sum(c.texts.nbytes for c in self._pending if c.texts is not None)
            if size + piece.texts.nbytes > GROUP_TEXT_SIZE_MAX:
                return True
        if self._pending[-1].key == piece.key:
            return False
        return max(self._pending_count, piece.count) >= GROUP_POINTS_MIN

    def _write_group(self) -> None:
        start = 0
        for column in self._pending:
            self.spans.append(self._span(column, start))
            start += column.count
        self._file.write_table(_table(self._pending), row_group_size=start)
        self._pending = []
        self._pending_count = 0
        self._group += 1

    def _span(self, column: Column, start: int) -> Span:
        assert column.times is not None
        kinds = 1 << Kind.FLOAT
        if column.kinds is not None:
            kinds = sum(1 << kind for kind in np.unique(column.kinds).tolist())
        return Span(
            column.key,
            column.rank,
            self._group,
            start,
            column.count,
            int(column.steps[0]),
            int(column.steps[-1]),
            kinds,
            column.texts is not None and column.texts.null_count < column.count,
            self._digests.of(column.steps),
            self._digests.of(column.times),
        )

    def _finish(self) -> None:
        if self._pending:
            self._write_group()
        spans = {name: [] for name in Span._fields} | dict(
            zip(Span._fields, map(list, zip(*self.spans, strict=True)), strict=False)
        )
        index = json.dumps(
            {"version": INDEX_VERSION, "spans": spans}, separators=(",", ":")
        )
        checksum = f"{zlib.crc32(index.encode()):08x}"
        self._file.add_key_value_metadata(
            {INDEX_KEY: index, INDEX_CHECKSUM_KEY: checksum}
        )


class _Digests:
    """Digests of arrays; an array equal to one of the last few is not hashed again."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], tuple[Ints, int]] = {}

    def of(self, numbers: Ints) -> int:
        form = (len(numbers), int(numbers[0]), int(numbers[-1]))
        known = self._known.get(form)
        if known and np.array_equal(known[0], numbers):
            return known[1]
        data = np.ascontiguousarray(numbers, "<i8").data
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=7).digest())
        if len(self._known) >= DIGESTS_KEPT_MAX:
            del self._known[next(iter(self._known))]
        self._known[form] = (numbers, digest)
        return digest


def _group_size(column: Column) -> int:
    """Return how many points of a column a row group may hold."""
    if column.texts is None or column.texts.nbytes <= GROUP_TEXT_SIZE_MAX:
        return GROUP_POINTS_MAX
    pieces: int = -(-column.texts.nbytes // GROUP_TEXT_SIZE_MAX)
    return min(GROUP_POINTS_MAX, -(-column.count // pieces))


def _table(columns: list[Column]) -> pa.Table:
    """Return columns as rows of a part."""
    counts = [column.count for column in columns]
    places = np.repeat(np.arange(len(columns), dtype=np.int32), counts)
    ranks = np.repeat(np.array([c.rank for c in columns], np.int32), counts)
    times = np.concatenate([c.times for c in columns if c.times is not None])
    keys, codes = np.unique([c.key for c in columns], return_inverse=True)
    kinds = [
        np.zeros(c.count, np.int8) if c.kinds is None else c.kinds.astype(np.int8)
        for c in columns
    ]
    texts = [
        pa.nulls(c.count, pa.large_string()) if c.texts is None else c.texts
        for c in columns
    ]
    arrays = [
        _dictionary(codes.astype(np.int32)[places], keys.tolist()),
        arrow_of(ranks),
        arrow_of(np.concatenate([column.steps for column in columns])),
        arrow_of(times, pa.timestamp("us", "UTC")),
        arrow_of(np.concatenate([column.values for column in columns])),
        pa.concat_arrays(texts),
        _dictionary(np.concatenate(kinds), list(KIND_NAMES)),
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _dictionary(codes: "NDArray[Any]", words: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(
        arrow_of(codes), strings_of(words).cast(pa.string())
    )
