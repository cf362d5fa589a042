"""Layouts: where the values lie in rows whose bytes all have one form.

Rows of one shape mostly repeat one form: the same msgpack types in the same places.
A stretch of such rows is a matrix of bytes, from which each value is a column, so
numpy takes it apart without looking at single rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flightlog_storage.event import Kind

__all__ = ("Field", "Layout", "read_layout")


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a row: `marker & mask == expected` says that it has this form."""

    marker: int  # Byte offset in the row, as all positions here.
    mask: int
    expected: int
    start: int
    size: int  # Of marker and value.
    format: str  # Of numpy.
    kind: Kind


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a row that is `[shape, step, time, value, …]`."""

    size: int
    head: bytes  # Array header and shape, the same in every row.
    step: Field
    time: Field
    values: tuple[Field, ...]

    def column(
        self, payload: bytes, position: int, count: int, field: Field
    ) -> "NDArray[np.generic]":
        """Return one value of `count` rows that start at `position`, as a view."""
        return np.ndarray(
            (count,), field.format, payload, position + field.start, (self.size,)
        )

    def matching(self, payload: bytes, position: int, count: int) -> int:
        """Return how many rows from `position` on have this form, at most `count`."""
        count = min(count, (len(payload) - position) // self.size)
        same = np.ones(count, np.bool_)
        for place, mask, expected in self._markers():
            column: NDArray[np.uint8] = np.ndarray(
                (count,), np.uint8, payload, position + place, (self.size,)
            )
            same &= (column if mask == 0xFF else column & mask) == expected
        return count if same.all() else int(same.argmin())

    def _markers(self) -> list[tuple[int, int, int]]:
        head = [(place, 0xFF, byte) for place, byte in enumerate(self.head)]
        fields = (self.step, self.time, *self.values)
        return head + [(one.marker, one.mask, one.expected) for one in fields]


# Marker: size of marker and value, numpy format, kind.
_FIXED = {
    0xCA: (5, ">f4", Kind.FLOAT),
    0xCB: (9, ">f8", Kind.FLOAT),
    0xCC: (2, ">u1", Kind.INT),
    0xCD: (3, ">u2", Kind.INT),
    0xCE: (5, ">u4", Kind.INT),
    0xCF: (9, ">u8", Kind.INT),
    0xD0: (2, ">i1", Kind.INT),
    0xD1: (3, ">i2", Kind.INT),
    0xD2: (5, ">i4", Kind.INT),
    0xD3: (9, ">i8", Kind.INT),
}


def read_layout(row: bytes) -> Layout | None:
    """Return the layout of a valid encoded row, or None if a value's size can vary."""
    position = 3 if row[0] == 0xDC else 1
    if row[0] == 0xDD:
        return None
    shape = _read_field(row, position)
    if shape is None:
        return None
    position = head_size = position + shape.size
    fields = []
    while position < len(row):
        field = _read_field(row, position)
        if field is None:
            return None
        fields.append(field)
        position += field.size
    if fields[1].format != ">f8":
        return None
    return Layout(len(row), row[:head_size], fields[0], fields[1], tuple(fields[2:]))


def _read_field(row: bytes, at: int) -> Field | None:
    marker = row[at]
    if marker in _FIXED:
        size, form, kind = _FIXED[marker]
        return Field(at, 0xFF, marker, at + 1, size, form, kind)
    if marker < 0x80:
        return Field(at, 0x80, 0, at, 1, ">u1", Kind.INT)
    if marker >= 0xE0:
        return Field(at, 0xE0, 0xE0, at, 1, ">i1", Kind.INT)
    if marker in (0xC2, 0xC3):
        return Field(at, 0xFE, 0xC2, at, 1, ">u1", Kind.BOOL)
    if marker == 0xC0:
        return Field(at, 0xFF, 0xC0, at, 1, ">u1", Kind.NULL)
    return None
