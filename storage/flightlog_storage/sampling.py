"""Sampling: which rows of a history stand for all of them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from flightlog_storage.cells import Cells, History
from flightlog_storage.columns import Floats, Ints

__all__ = (
    "EXTREMES_ROWS",
    "Found",
    "Places",
    "Steps",
    "bucket_limit",
    "bucket_starts",
    "extremes",
    "find_extremes",
    "spread",
)

Steps = Ints | range  # Ascending; a range where there are no holes.

EXTREMES_ROWS = 2  # Of each bucket and key: the lowest and the highest.
_WIDTH_BITS = 4  # A bucket's width has so many significant bits.
_WIDTH_MAX = 1 << 62


def spread(count: int, samples: int) -> Ints:
    """Return `samples` of `count` places, evenly spaced, with both ends.

    One is the last.
    """
    if samples >= count:
        return np.arange(count)
    if samples == 1:
        return np.array([count - 1])
    return np.arange(samples) * (count - 1) // (samples - 1)


def extremes(history: History, keys: Sequence[str], samples: int) -> Ints:
    """Return the places of at most `samples` rows that hide no spike.

    They are the first and the last row and, of each bucket of steps, those of the
    lowest and the highest value of each key: the first of equal ones. NaN is neither,
    but a bucket without any number keeps its first row.
    """
    if len(history) <= samples:
        return np.arange(len(history))
    wanted = set(keys)
    starts = bucket_starts([history.steps], bucket_limit(keys, samples))
    places = Places(len(history))
    for cells in history.cells:
        if cells.key in wanted:
            places.add(cells.key, find_extremes(starts, _values(cells, len(history))))
    for name, numbers in history.identity().items():
        if name in wanted:
            places.add(name, find_extremes(starts, numbers.astype(np.float64)))
    return places.all()


def _values(cells: Cells, row_count: int) -> Floats:
    """Return a value for each row; NaN where there is no number."""
    if cells.rows is None:
        return cells.values
    values = np.full(row_count, np.nan)
    values[cells.rows] = cells.values
    return values


class Extreme(NamedTuple):
    """The lowest value of a part of a bucket, or the highest with its sign changed.

    Of several the least counts: NaN comes last, and of equal ones the first.
    """

    is_nan: bool
    value: float
    place: int


Found = tuple[int, Extreme, Extreme]  # A bucket, its lowest and its highest value.


def find_extremes(starts: Ints, values: Floats, offset: int = 0) -> list[Found]:
    """Return the extremes of each bucket, as far as these rows' values go.

    The first of these rows is at `offset`, where `starts` begins at 0.
    """
    first = int(np.searchsorted(starts, offset, "right")) - 1
    inner = starts[first + 1 : np.searchsorted(starts, offset + len(values))] - offset
    bounds = [0, *inner.tolist(), len(values)]
    found = []
    for bucket, (start, stop) in enumerate(pairwise(bounds), first):
        piece = values[start:stop]
        low, high = int(piece.argmin()), int(piece.argmax())
        if np.isnan(piece[low]):  # One NaN is enough for that.
            if np.isnan(piece).all():
                nothing = Extreme(True, 0.0, offset + start)
                found.append((bucket, nothing, nothing))
                continue
            low, high = int(np.nanargmin(piece)), int(np.nanargmax(piece))
        lowest = Extreme(False, float(piece[low]), offset + start + low)
        highest = Extreme(False, -float(piece[high]), offset + start + high)
        found.append((bucket, lowest, highest))
    return found


class Places:
    """The places of rows that hide no spike, gathered piece by piece in any order."""

    def __init__(self, row_count: int) -> None:
        self._row_count = row_count
        self._least: dict[tuple[str, bool, int], Extreme] = {}

    def add(self, key: str, found: Iterable[Found]) -> None:
        """Take in what `find_extremes` has found of a key."""
        for bucket, *extremes in found:
            for is_high, extreme in enumerate(extremes):
                name = (key, bool(is_high), bucket)
                self._least[name] = min(extreme, self._least.get(name, extreme))

    def all(self) -> Ints:
        """Return the places, ascending, with both ends."""
        places = {extreme.place for extreme in self._least.values()}
        return np.array(sorted(places | {0, self._row_count - 1}), np.int64)


def bucket_limit(keys: Sequence[str], samples: int) -> int:
    """Return how many buckets there may be."""
    return (samples - EXTREMES_ROWS) // (EXTREMES_ROWS * len(set(keys)))


def bucket_starts(blocks: Sequence[Steps], limit: int) -> Ints:
    """Return where the buckets of ascending steps start, at most `limit` of them.

    A bucket holds the steps from a multiple of its width to the next one. The width is
    the smallest that will do, of those with four significant bits. So the buckets
    depend on the steps alone, and not on how these came here, block by block.
    """
    assert limit > 0, "no bucket is none of a width"
    chunks, exponent = _chunks(blocks, limit)
    # A bucket less than 16 chunks wide touches two such blocks at most, so that each
    # width of this exponent gives more than `limit` buckets.
    while len(_starts(chunks >> _WIDTH_BITS)) > 2 * limit:
        chunks = _distinct(chunks >> 1)
        exponent += 1
    for width in _widths(exponent):
        starts = _starts(chunks // width)
        if len(starts) <= limit:
            return _rows_before(blocks, chunks[starts] << exponent)
    return np.zeros(1, np.int64)


def _chunks(blocks: Sequence[Steps], limit: int) -> tuple[Ints, int]:
    """Return the numbers of the chunks of steps that have any, and their exponent.

    Long blocks are taken in coarse chunks at once; still the rule above holds of all
    smaller ones.
    """
    exponent = 0
    if sum(map(len, blocks)) > 1 << 2 * _WIDTH_BITS:
        coarse = _distinct(_shifted(blocks, 2 * _WIDTH_BITS))
        while len(coarse) > 2 * limit:
            exponent += _WIDTH_BITS
            coarse = _distinct(coarse >> _WIDTH_BITS)
    return _distinct(_shifted(blocks, exponent)), exponent


def _shifted(blocks: Sequence[Steps], exponent: int) -> Ints:
    return np.concatenate(
        [
            np.arange(steps[0] >> exponent, (steps[-1] >> exponent) + 1)
            if isinstance(steps, range)
            else _distinct(steps >> exponent)
            for steps in blocks
        ]
    )


def _rows_before(blocks: Sequence[Steps], steps: Ints) -> Ints:
    """Return how many rows there are before each of some steps."""
    count = np.zeros(len(steps), np.int64)
    for block in blocks:
        if isinstance(block, range):
            count += np.clip(steps - block[0], 0, len(block))
        else:
            count += np.searchsorted(block, steps)
    return count


def _widths(exponent: int) -> Iterator[int]:
    """Yield the widths from an exponent on, ascending, in chunks of that exponent."""
    if exponent == 0:
        yield from range(1, 1 << (_WIDTH_BITS - 1))
    shift = 0
    while (1 << (_WIDTH_BITS + shift + exponent)) <= _WIDTH_MAX:
        for digits in range(1 << (_WIDTH_BITS - 1), 1 << _WIDTH_BITS):
            yield digits << shift
        shift += 1


def _starts(numbers: Ints) -> Ints:
    """Return the places at which ascending numbers differ from the one before."""
    if not len(numbers):
        return np.empty(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(numbers[1:] != numbers[:-1]) + 1))


def _distinct(numbers: Ints) -> Ints:
    return numbers[_starts(numbers)]
