"""Cells: a history's rows by column, and as Arrow tables or Python objects."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flightlog_storage.arrow import arrow_of, strings_of
from flightlog_storage.columns import Floats, Ints
from flightlog_storage.event import Kind
from flightlog_storage.points import Stream

__all__ = ("RANK", "RUNTIME", "STEP", "TIMESTAMP", "Cells", "History")

STEP = "_step"
RANK = "_rank"
TIMESTAMP = "_timestamp"
RUNTIME = "_runtime"
_WANDB = "_wandb"  # True in rows of system metrics, as in W&B.
BLOCK_ROWS = 32_768  # To be turned into Python objects at a time.

_NUMBERS = {Kind.FLOAT, Kind.INT, Kind.BOOL}


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """The values of one key: the row of each (None: one in every row, in order).

    `kinds` of None says that all are floats; `texts` of None that none has a text.
    """

    key: str
    rows: Ints | None
    values: Floats
    kinds: NDArray[np.uint8] | None = None
    texts: pa.LargeStringArray | None = None

    @classmethod
    def empty(cls, key: str) -> "Cells":
        """Return the cells of a key that no row has."""
        return cls(key, np.empty(0, np.int64), np.empty(0, np.float64))

    def present_kinds(self) -> set[Kind]:
        """Return the kinds that occur."""
        if self.kinds is None:
            return {Kind.FLOAT} if len(self.values) else set()
        return set(map(Kind, np.flatnonzero(np.bincount(self.kinds)).tolist()))

    def present_rows(self) -> Ints:
        """Return the rows whose value is not None."""
        rows = np.arange(len(self.values)) if self.rows is None else self.rows
        return rows if self.kinds is None else rows[self.kinds != Kind.NULL]

    def slice(self, start: int, stop: int) -> "Cells":
        """Return the cells of the rows from `start` up to `stop`."""
        rows = self.rows
        if rows is not None:
            first, last = np.searchsorted(rows, (start, stop)).tolist()
            rows = rows[first:last] - start
            rows = None if len(rows) == stop - start else rows
            start, stop = first, last
        return Cells(
            self.key,
            rows,
            self.values[start:stop],
            None if self.kinds is None else self.kinds[start:stop],
            None if self.texts is None else self.texts[start:stop],
        )

    def take(self, places: Ints) -> "Cells":
        """Return the cells of the rows at `places`, which ascend."""
        rows = None
        if self.rows is not None:
            found = np.searchsorted(self.rows, places)
            has = found < len(self.rows)
            has[has] = self.rows[found[has]] == places[has]
            rows = np.flatnonzero(has)
            places = found[has]
        return Cells(
            self.key,
            rows,
            self.values[places],
            None if self.kinds is None else self.kinds[places],
            None if self.texts is None else self.texts.take(pa.array(places)),
        )

    def objects(self) -> list[Any]:
        """Return the values as they were logged."""
        kinds = self.present_kinds()
        if kinds <= {Kind.FLOAT}:
            return _listed(self.values)
        if len(kinds) == 1:
            return self._objects_of(kinds.pop())
        result = np.empty(len(self.values), object)
        for kind in kinds:
            places = np.flatnonzero(self.kinds == kind)
            texts = None if self.texts is None else self.texts.take(arrow_of(places))
            part = Cells(self.key, None, self.values[places], None, texts)
            # One by one: numpy would take a list of equal lists for a matrix.
            for place, value in zip(
                places.tolist(), part._objects_of(kind), strict=True
            ):
                result[place] = value
        return _listed(result)

    def _objects_of(self, kind: Kind) -> list[Any]:
        match kind:
            case Kind.FLOAT:
                return _listed(self.values)
            case Kind.INT:
                return self._ints()
            case Kind.BOOL:
                return _listed(self.values != 0)
            case Kind.NULL:
                return [None] * len(self.values)
        texts: list[str] = [] if self.texts is None else self.texts.to_pylist()
        return list(map(json.loads, texts)) if kind is Kind.JSON else texts

    def _ints(self) -> list[int]:
        if self.texts is None or self.texts.null_count == len(self.texts):
            return _listed(self.values.astype(np.int64))
        return [
            int(value) if text is None else int(text)
            for value, text in zip(
                self.values.tolist(), self.texts.to_pylist(), strict=True
            )
        ]

    def to_arrow(self, row_count: int) -> pa.Array:
        """Return a column of `row_count` cells; see `History.to_arrow`."""
        kinds = self.present_kinds() - {Kind.NULL}
        if kinds == {Kind.BOOL}:
            return self._scatter(arrow_of(self.values != 0), row_count)
        if kinds == {Kind.INT}:
            try:
                return self._scatter(arrow_of(self._int64s()), row_count)
            except OverflowError:
                pass  # Larger than 64 bits: as floats, then.
        if kinds <= _NUMBERS:
            return self._scatter(arrow_of(self.values), row_count)
        if self.texts is not None and len(kinds) == 1:
            return self._scatter(self.texts.cast(pa.string()), row_count)
        texts = strings_of(list(map(_as_text, self.objects())))
        return self._scatter(texts.cast(pa.string()), row_count)

    def _int64s(self) -> Ints:
        """Return ints, and 0 for None."""
        if self.texts is None:
            return np.where(np.isnan(self.values), 0.0, self.values).astype(np.int64)
        return np.array([value or 0 for value in self.objects()], np.int64)

    def _scatter(self, values: pa.Array, row_count: int) -> pa.Array:
        """Return the values at their rows, and null elsewhere and for None."""
        has_nulls = self.kinds is not None and bool((self.kinds == Kind.NULL).any())
        if self.rows is None and not has_nulls:
            return values
        places = np.zeros(row_count, np.int64)
        absent = np.ones(row_count, np.bool_)
        rows = slice(None) if self.rows is None else self.rows
        places[rows] = np.arange(len(values))
        absent[rows] = False if self.kinds is None else self.kinds == Kind.NULL
        if len(values) == 0:
            return pa.nulls(row_count, values.type)
        return values.take(arrow_of(places, absent=absent))


def _listed(array: "NDArray[Any]") -> list[Any]:
    objects: list[Any] = array.tolist()
    return objects


def _as_text(value: Any) -> str | None:
    """Return what stands for a value in a column of mixed kinds."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Rows of a run in order of step and rank, by column.

    `ranks` of None says that all are of rank 0; `times` and `runtimes` of None that
    they were not asked for.
    """

    steps: Ints
    ranks: Ints | None
    times: Ints | None  # Microseconds since 1970, UTC.
    cells: tuple[Cells, ...]
    runtimes: Floats | None = None  # Seconds since the run began.
    stream: Stream = Stream.DEFAULT

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, places: Ints) -> "History":
        """Return the rows at `places`, which ascend."""
        return replace(
            self._identified(places),
            cells=tuple(cells.take(places) for cells in self.cells),
        )

    def _identified(self, places: "Ints | slice") -> "History":
        """Return what identifies the rows at `places`, without their cells."""
        return replace(
            self,
            steps=self.steps[places],
            ranks=None if self.ranks is None else self.ranks[places],
            times=None if self.times is None else self.times[places],
            cells=(),
            runtimes=None if self.runtimes is None else self.runtimes[places],
        )

    def to_arrow(self) -> pa.Table:
        """Return the rows as a table; what a row lacks, and None, is null.

        A column is float64, int64, bool or string if all its values are of that kind.
        Lists and dicts are JSON text. Numbers of mixed kinds, and ints beyond 64
        bits, become float64; numbers mixed with others become JSON text.
        """
        columns = self.identity()
        arrays = {name: arrow_of(numbers) for name, numbers in columns.items()}
        for cells in self.cells:
            arrays[cells.key] = cells.to_arrow(len(self))
        return pa.table(arrays)

    def to_dicts(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts of what was logged; what a row lacks is left out."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield from self.dicts(start, min(start + BLOCK_ROWS, len(self)))

    def identity(self) -> dict[str, "NDArray[Any]"]:
        """Return the columns that are not keys."""
        columns: dict[str, NDArray[Any]] = {}
        if self.stream is Stream.DEFAULT:
            columns[STEP] = self.steps
            if self.ranks is not None:
                columns[RANK] = self.ranks
        if self.times is not None:
            columns[TIMESTAMP] = self.times / 1e6
        if self.runtimes is not None:
            columns[RUNTIME] = self.runtimes
        if self.stream is Stream.SYSTEM:
            columns[_WANDB] = np.ones(len(self), np.bool_)
        return columns

    def dicts(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from `start` up to `stop`, as `to_dicts` does."""
        page = self._identified(slice(start, stop))
        identity = {name: each.tolist() for name, each in page.identity().items()}
        columns = [cells.slice(start, stop) for cells in self.cells]
        if all(cells.rows is None for cells in columns):
            lists = [*identity.values(), *(cells.objects() for cells in columns)]
            names = [*identity, *(cells.key for cells in columns)]
            return (
                dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)
            )
        rows = [
            dict(zip(identity, row, strict=True))
            for row in zip(*identity.values(), strict=True)
        ]
        for cells in columns:
            targets = rows
            if cells.rows is not None:
                targets = [rows[place] for place in cells.rows.tolist()]
            for row, value in zip(targets, cells.objects(), strict=True):
                row[cells.key] = value
        return iter(rows)
