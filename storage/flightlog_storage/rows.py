"""Rows: a payload's events taken apart, its rows turned into columns.

Most rows repeat the form of the row before; such stretches are taken apart by numpy
(see layout.py), all others one by one. Both give the same answer.
"""

from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from flightlog_storage.budget import (
    FRAME_POINTS_MAX,
    ROW_POINTS_MAX,
    check_cost,
    is_cheap,
)
from flightlog_storage.codec import (
    Shapes,
    decode_event,
    read_definitions,
    unpacker,
)
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import Event, Kind, Malformed, Rows, Series, Unknown
from flightlog_storage.layout import Layout, read_layout
from flightlog_storage.values import INT_EXACT_MAX, Path, integer, leaves, scalar

__all__ = ("TIME_MAX_S", "decode")

TIME_MAX_S = 253_402_300_799.0  # The last second of the year 9999.
STRETCH_ROWS_MIN = 16
STRETCH_ROWS_FIRST = 64
STRETCH_GROWTH = 8  # How far beyond what matched so far to look, at most.
WAIT_ROWS_MAX = 1024  # Between two looks for a stretch.

_UNREADABLE = (TypeError, ValueError, RecursionError, msgpack.UnpackException)


def decode(
    payload: bytes, count: int
) -> Iterator[tuple[int, Event | Unknown | Malformed | Rows]]:
    """Yield what a frame's payload holds, each with its first event's index.

    Never raises, whatever the bytes: what cannot be decoded, or would take too much
    memory, comes as Malformed.
    """
    try:
        is_counted = not is_cheap(payload)
        if is_counted:
            check_cost(payload)
        stream = unpacker(payload)
        shapes = read_definitions(stream)
    except (MalformedEvent, msgpack.BufferFull) as error:
        yield 0, Malformed(str(error) or repr(error), payload, count)
        return
    decoder = _Decoder(payload, count, stream, _Builder(shapes), is_counted=is_counted)
    yield from decoder.items()


class _Decoder:
    """Walks over a payload's events; rows gather in the builder on the way."""

    def __init__(
        self,
        payload: bytes,
        count: int,
        stream: msgpack.Unpacker,
        rows: "_Builder",
        *,
        is_counted: bool,
    ) -> None:
        """Walk over the events behind the definitions.

        `is_counted`: of each event, what it would take is counted first.
        """
        self._payload = payload
        self._count = count
        self._stream = stream
        self._rows = rows
        self._is_counted = is_counted
        self._index = 0
        self._broken = False
        self._wait = 0  # Rows to take before the next look for a stretch,
        self._penalty = STRETCH_ROWS_MIN  # and how many after a look in vain.

    def items(self) -> Iterator[tuple[int, Event | Unknown | Malformed | Rows]]:
        rows = self._rows
        while self._index < self._count:
            item = self._take()
            if item is None:
                continue
            if rows.count:
                yield self._index - rows.count, rows.finish()
            yield self._index, item
            self._index += 1
        if rows.count:
            yield self._index - rows.count, rows.finish()
        if not self._broken and self._stream.tell() < len(self._payload):
            rest = self._payload[self._stream.tell() :]
            reason = f"{len(rest)} bytes after the last event"
            yield max(self._count - 1, 0), Malformed(reason, rest, 0)

    def _take(self) -> Event | Unknown | Malformed | None:
        """Return the next event, or None when it was a row or a stretch of rows."""
        start = self._stream.tell()
        try:
            if self._is_counted:
                check_cost(self._payload, start)
            value = self._stream.unpack()
        except _UNREADABLE as error:
            return self._break_off(start, error)
        except MalformedEvent as error:
            return self._step_over(start, error)
        if type(value) is list:
            try:
                self._rows.add(value)
            except MalformedEvent as error:
                return Malformed(str(error), self._payload[start : self._stream.tell()])
            self._index += 1
            self._follow(start, value[0])
            return None
        raw = self._payload[start : self._stream.tell()]
        if type(value) is not dict:
            return Malformed("neither a row nor a map", raw)
        try:
            return decode_event(value)
        except (ValueError, TypeError, RecursionError) as error:
            return Malformed(f"the event cannot be converted: {error!r}", raw)

    def _step_over(self, start: int, why: MalformedEvent) -> Malformed:
        """Return the event at `start` as one that nothing is made of."""
        try:
            self._stream.skip()
        except _UNREADABLE as error:
            return self._break_off(start, error)
        return Malformed(str(why), self._payload[start : self._stream.tell()])

    def _break_off(self, start: int, error: Exception) -> Malformed:
        """Return all from `start` on as one malformed event, the last of the frame."""
        left = self._count - self._index
        self._count = self._index
        self._broken = True
        reason = f"the last {left} events cannot be read: {error!r}"
        return Malformed(reason, self._payload[start:], left)

    def _follow(self, start: int, shape: int) -> None:
        """Take the rows that have the form of the one at `start`, if they are many."""
        if self._wait > 0:
            self._wait -= 1
            return
        end = self._stream.tell()
        size = end - start
        last = end + (STRETCH_ROWS_MIN - 1) * size
        if (
            self._count - self._index < STRETCH_ROWS_MIN
            or last + size > len(self._payload)
            or self._payload[last : last + 2] != self._payload[start : start + 2]
            or not self._rows.has_distinct_keys(shape)
        ):
            return
        layout = read_layout(self._payload[start:end])
        taken = self._take_stretch(layout, end, shape) if layout else 0
        if taken:
            self._penalty = STRETCH_ROWS_MIN
            self._index += taken
            self._stream.read_bytes(taken * size)
            return
        self._wait = self._penalty
        self._penalty = min(2 * self._penalty, WAIT_ROWS_MAX)

    def _take_stretch(self, layout: Layout, position: int, shape: int) -> int:
        """Add the stretch at `position` to the rows; return how many rows it has."""
        taken = 0
        window = STRETCH_ROWS_FIRST
        while True:
            # Growing windows: bytes compared in vain stay a multiple of those taken.
            window = min(window, self._count - self._index - taken)
            count = layout.matching(self._payload, position, window)
            if taken + count < STRETCH_ROWS_MIN:
                return taken
            bytes_at = self._payload, position
            added = self._rows.add_stretch(shape, layout, bytes_at, count)
            taken += added
            position += added * layout.size
            if added < window or taken == self._count - self._index:
                return taken
            window *= STRETCH_GROWTH


class _Column:
    """A series while it grows."""

    __slots__ = ("kinds", "path", "steps", "texts", "times", "values")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = array("q")
        self.times = array("q")
        self.values = array("d")
        self.kinds = bytearray()
        self.texts: dict[int, str] = {}

    def series(self) -> Series:
        kinds = bytes(self.kinds) if any(self.kinds) else b""
        return Series(self.path, self.steps, self.times, self.values, kinds, self.texts)


class _Builder:
    """Consecutive rows, by column."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._columns_left = ROW_POINTS_MAX  # That may be made yet of this payload.
        self._points_left = FRAME_POINTS_MAX
        self._start()

    def _start(self) -> None:
        self._steps = array("q")
        self._time = 0.0
        self._columns: dict[Path, _Column] = {}
        # The columns of each shape's keys.
        self._columns_by_shape: dict[int, list[_Column]] = {}
        # Those with points, in order of the first one; shapes whose columns all are.
        self._filled: dict[_Column, None] = {}
        self._settled: set[int] = set()

    @property
    def count(self) -> int:
        return len(self._steps)

    def finish(self) -> Rows:
        """Return the rows so far; the next ones start anew."""
        series = tuple(column.series() for column in self._filled)
        rows = Rows(self._steps, self._time, series)
        self._start()
        return rows

    def add(self, row: list[Any]) -> None:
        """Add one row.

        Raises:
            MalformedEvent: The row is refused as a whole.
        """
        columns = self._check(row)
        points: list[_Point] = []
        is_settled = row[0] in self._settled
        for column, value in zip(columns, islice(row, 3, None), strict=True):
            if type(value) is float:
                points.append((column, value, 0, None))
            elif type(value) is dict:
                points.extend(self._points(column.path, value))
                is_settled = False
            else:
                points.append((column, *scalar(value)))
        if not is_settled:
            found = dict.fromkeys(column for column, *_ in points)
            self._filled.update(found)
            if found.keys() == {*columns}:
                self._settled.add(row[0])
        step = row[1]
        time = round(row[2] * 1e6)
        for column, number, kind, text in points:
            if text is not None:
                column.texts[len(column.values)] = text
            column.steps.append(step)
            column.times.append(time)
            column.values.append(number)
            column.kinds.append(kind)
        self._steps.append(step)
        self._time = float(row[2])

    def _check(self, row: list[Any]) -> list[_Column]:
        """Return the columns of the row's keys."""
        if len(row) < 3:
            raise MalformedEvent("a row without shape, step or time")
        shape, step, time = row[:3]
        keys = self._shapes.get(shape) if type(shape) is int else None
        if keys is None:
            raise MalformedEvent(f"a row of an unknown shape: {shape!r:.40}")
        if len(keys) != len(row) - 3:
            raise MalformedEvent(f"{len(row) - 3} values for {len(keys)} keys")
        if type(step) is not int or not -(2**63) <= step < 2**63:
            raise MalformedEvent(f"not a step: {step!r:.40}")
        if type(time) not in (float, int) or not 0 <= time <= TIME_MAX_S:
            raise MalformedEvent(f"not a time: {time!r:.40}")
        self._points_left -= len(keys)
        if self._points_left < 0:
            raise MalformedEvent(f"more than {FRAME_POINTS_MAX:,} values in one frame")
        return self._of_shape(shape)

    def _of_shape(self, shape: int) -> list[_Column]:
        columns = self._columns_by_shape.get(shape)
        if columns is None:
            columns = [self._column((key,)) for key in self._shapes[shape]]
            self._columns_by_shape[shape] = columns
        return columns

    def _column(self, path: Path) -> _Column:
        column = self._columns.get(path)
        if column is None:
            if not self._columns_left:
                raise MalformedEvent(f"more than {ROW_POINTS_MAX:,} keys in one frame")
            self._columns_left -= 1
            column = self._columns[path] = _Column(path)
        return column

    def _points(self, path: Path, value: dict[Any, Any]) -> "Iterator[_Point]":
        """Yield the points in a dict."""
        found = list(islice(leaves(path, value), ROW_POINTS_MAX + 1))
        if len(found) > ROW_POINTS_MAX:
            raise MalformedEvent(f"more than {ROW_POINTS_MAX:,} values")
        self._points_left -= len(found)
        for leaf_path, leaf in found:
            yield (self._column(leaf_path), *scalar(leaf))

    def has_distinct_keys(self, shape: int) -> bool:
        """Whether values of one shape can be added column by column."""
        columns = self._of_shape(shape)
        return len({column.path for column in columns}) == len(columns)

    @np.errstate(invalid="ignore")
    def add_stretch(
        self, shape: int, layout: Layout, bytes_at: tuple[bytes, int], count: int
    ) -> int:
        """Add up to `count` rows of one layout; return how many were valid.

        `bytes_at` is the payload and the position in it of the first row.
        """
        times = layout.column(*bytes_at, count, layout.time).astype(np.float64)
        steps = layout.column(*bytes_at, count, layout.step).astype(np.int64)
        valid = (times >= 0) & (times <= TIME_MAX_S)
        if layout.step.format == ">u8":
            valid &= steps >= 0  # Else it was too large and has wrapped.
        if not valid.all():
            count = int(valid.argmin())
        if layout.values:
            count = min(count, max(0, self._points_left) // len(layout.values))
            self._points_left -= count * len(layout.values)
        steps_bytes = steps[:count].tobytes()
        times_bytes = np.rint(times[:count] * 1e6).astype(np.int64).tobytes()
        for column, field in zip(self._of_shape(shape), layout.values, strict=True):
            column.steps.frombytes(steps_bytes)
            column.times.frombytes(times_bytes)
            _extend(column, layout.column(*bytes_at, count, field), field.kind)
        if count:
            self._steps.frombytes(steps_bytes)
            self._time = float(times[count - 1])
        return count


_Point = tuple[_Column, float, int, str | None]


def _extend(column: _Column, encoded: "NDArray[Any]", kind: Kind) -> None:
    """Append one stretch's values to their column."""
    match kind:
        case Kind.BOOL:
            numbers = (encoded == 0xC3).astype(np.float64)
        case Kind.NULL:
            numbers = np.full(len(encoded), np.nan)
        case _:
            numbers = encoded.astype(np.float64)
    if kind is Kind.INT:
        first = len(column.values)
        for index in np.flatnonzero(np.abs(numbers) >= INT_EXACT_MAX).tolist():
            text = integer(int(encoded[index]))[2]
            if text is not None:
                column.texts[first + index] = text
    column.values.frombytes(numbers.tobytes())
    column.kinds.extend(bytes([kind]) * len(encoded))
