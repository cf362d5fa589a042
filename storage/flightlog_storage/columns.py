"""Columns: the points of one metric of one rank in order of step, as arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flightlog_storage.arrow import arrow_of, strings_of
from flightlog_storage.points import Points, PointSeries

__all__ = ("Column", "Floats", "Ints", "columns_of", "concatenate", "is_increasing")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Points with steps that strictly increase.

    `times` may be left out when read; `kinds` of None says that all are floats;
    `texts` of None that no point has one. Columns may share arrays: never write.
    """

    key: str
    rank: int
    steps: Ints
    values: Floats
    times: Ints | None = None  # Microseconds since 1970.
    kinds: NDArray[np.uint8] | None = None
    texts: pa.LargeStringArray | None = None

    @property
    def count(self) -> int:
        return len(self.steps)

    def take(self, places: Ints) -> "Column":
        """Return the points at these places."""
        return replace(
            self,
            steps=self.steps[places],
            values=self.values[places],
            times=None if self.times is None else self.times[places],
            kinds=None if self.kinds is None else self.kinds[places],
            texts=None if self.texts is None else self.texts.take(arrow_of(places)),
        )

    def slice(self, start: int, stop: int) -> "Column":
        """Return the points from `start` up to `stop`."""
        if start <= 0 and stop >= self.count:
            return self
        return replace(
            self,
            steps=self.steps[start:stop],
            values=self.values[start:stop],
            times=None if self.times is None else self.times[start:stop],
            kinds=None if self.kinds is None else self.kinds[start:stop],
            texts=None if self.texts is None else self.texts[start:stop],
        )


def columns_of(points: Points, keys: Sequence[str] | None = None) -> Iterator[Column]:
    """Yield copies of the points of all or of some metrics, by key and rank."""
    if keys is None:
        yield from map(_column, points.series())
        return
    for key in sorted(set(keys)):
        yield from map(_column, points.get(key))


def _column(series: PointSeries) -> Column:
    # Copies: an array that a view looks into cannot grow.
    kinds = np.array(series.kinds, np.uint8)
    texts = None
    if series.texts:
        texts = strings_of([series.texts.get(i) for i in range(len(series.steps))])
    column = Column(
        series.name,
        series.rank,
        np.array(series.steps, np.int64),
        np.array(series.values, np.float64),
        np.array(series.times, np.int64),
        kinds if kinds.any() else None,
        texts,
    )
    return _in_order(column)


def concatenate(columns: Sequence[Column]) -> Column:
    """Return one column of several of the same key and rank, given in log order.

    Of points of one step the last one stays.
    """
    first = columns[0]
    if len(columns) == 1:
        return first
    return _in_order(
        Column(
            first.key,
            first.rank,
            np.concatenate([column.steps for column in columns]),
            np.concatenate([column.values for column in columns]),
            _concatenate_times(columns),
            _concatenate_kinds(columns),
            _concatenate_texts(columns),
        )
    )


def _concatenate_times(columns: Sequence[Column]) -> Ints | None:
    times = [column.times for column in columns if column.times is not None]
    return np.concatenate(times) if len(times) == len(columns) else None


def _concatenate_kinds(columns: Sequence[Column]) -> "NDArray[np.uint8] | None":
    if all(column.kinds is None for column in columns):
        return None
    return np.concatenate(
        [
            np.zeros(column.count, np.uint8) if column.kinds is None else column.kinds
            for column in columns
        ]
    )


def _concatenate_texts(columns: Sequence[Column]) -> pa.LargeStringArray | None:
    if all(column.texts is None for column in columns):
        return None
    return pa.concat_arrays(
        [
            pa.nulls(column.count, pa.large_string())
            if column.texts is None
            else column.texts
            for column in columns
        ]
    )


def _in_order(column: Column) -> Column:
    """Return the column sorted by step; of equal steps the last one stays."""
    if is_increasing(column.steps):
        return column
    order = np.argsort(column.steps, kind="stable")
    steps = column.steps[order]
    last = np.append(steps[1:] != steps[:-1], True)
    return column.take(order[last])


def is_increasing(steps: Ints) -> bool:
    """Whether each step is larger than the one before."""
    return bool((steps[1:] > steps[:-1]).all())
