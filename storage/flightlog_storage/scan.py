"""Scanning: the frames of one segment in order, and the damage between them.

Nothing here raises for what a file holds. A wrong payload costs its own frame, whose
header says what was lost; a wrong header costs the bytes up to the next frame that
is whole.
"""

import zlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import NamedTuple

from flightlog_storage.errors import CorruptData
from flightlog_storage.event import WriterId
from flightlog_storage.frame import (
    ALIGNMENT,
    FRAME_MAGIC,
    HEADER_SIZE,
    PAYLOAD_SIZE_MAX,
    Frame,
    FrameType,
    padded_size,
    parse_header,
)
from flightlog_storage.segment import (
    FLAG_BATCH,
    SEGMENT_HEADER_SIZE,
    Damage,
    DamageKind,
    Footer,
    parse_footer,
)
from flightlog_storage.segment_file import BLOCK_SIZE, SegmentFile

__all__ = ("CUT_OFF", "Found", "Scan", "Scope", "find_footer", "find_salt")

FOOTER_SEARCH_SIZE = 64 << 10
CUT_OFF = "the frame is cut off"

_EVENTS = int(FrameType.EVENTS)
_FOOTER = int(FrameType.FOOTER)
_FOOTER_BYTE = bytes([_FOOTER])
_TYPE_POSITION = 28  # Of the frame's type in its header.
_MAGIC = FRAME_MAGIC.to_bytes(4, "little")
# Enough of a frame's header to step over it: crc, payload size, offset, count, type,
# writer. Making a Frame of each would take most of the time of such a walk.
_STEP = Struct("<4xII4xQIB3x16s")


class Found(NamedTuple):
    """A frame and where it starts and ends in its segment."""

    frame: Frame
    position: int
    end: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of a segment to scan, and how.

    `expected` is the offset of the first frame, where it is known. `limit` is the
    first offset of the next segment: frames from there on were never acknowledged.
    `end` is a position to stop at. With `writers`, other writers' frames are stepped
    over. Without `payloads`, payloads are not read.
    """

    position: int = SEGMENT_HEADER_SIZE
    expected: int | None = None
    limit: int | None = None
    end: int | None = None
    writers: Container[WriterId] | None = None
    payloads: bool = True


class Scan:
    """One walk over a segment.

    After damage, frames are held back until one that starts a batch: that one was
    written when all before it was durable, so what is damaged was durable too. What
    is still held back at the end is `tail`: a batch that a crash may have cut.

    Afterwards `expected` is the offset that would follow, `end` the position where
    the tail starts, `footer` the footer if there was one.
    """

    def __init__(self, file: SegmentFile, salt: int, scope: Scope) -> None:
        self.file = file
        self.scope = scope
        self.expected = scope.expected
        self.end = scope.position
        self.footer: Footer | None = None
        self._salt = salt
        self._position = scope.position
        self.tail: list[Found | Damage] = []

    def __iter__(self) -> Iterator[Found | Damage]:
        stop = self.file.size
        if self.scope.end is not None:
            stop = min(stop, self.scope.end)
        while self._position < stop:
            if self.scope.writers is not None and self._step_over(self.scope.writers):
                continue
            frame = self._frame_at(self._position)
            if frame is None:
                self._resume(self._next_good(self._position + ALIGNMENT))
            elif self._is_beyond(frame):
                break
            elif why := self._payload_fault(frame, self._position):
                self._doubt(frame, why)
            elif self._is_usual(frame):
                yield self._step(frame)
            else:
                yield from self._accept(frame)

    def _is_beyond(self, frame: Frame) -> bool:
        limit = self.scope.limit
        return limit is not None and frame.offset >= limit and frame.type != _FOOTER

    def _step_over(self, writers: Container[WriterId]) -> bool:
        """Step over a whole frame of no interest; what is odd is left to others."""
        header = self.file.read(self._position, HEADER_SIZE)
        if len(header) < HEADER_SIZE or header[:4] != _MAGIC:
            return False
        crc, size, offset, count, kind, writer = _STEP.unpack_from(header)
        end = self._position + padded_size(size)
        limit = self.scope.limit
        if (
            kind != _EVENTS
            or offset != self.expected
            or writer in writers
            or end > self.file.size
            or size > PAYLOAD_SIZE_MAX
            or (limit is not None and offset >= limit)
            or self.tail
            or zlib.crc32(header[8:], self._salt) != crc
        ):
            return False
        self._position = self.end = end
        self.expected = offset + count
        return True

    def _frame_at(self, position: int) -> Frame | None:
        try:
            frame = parse_header(self.file.read(position, HEADER_SIZE), self._salt)
        except CorruptData:
            return None
        return frame if frame.offset >= (self.expected or 0) else None

    def _payload_fault(self, frame: Frame, position: int) -> str | None:
        if position + padded_size(frame.payload_size) > self.file.size:
            return CUT_OFF
        if not self.scope.payloads and frame.type != _FOOTER:
            return None
        payload = self.file.read(position + HEADER_SIZE, frame.payload_size)
        if zlib.crc32(payload) != frame.payload_crc:
            return "the payload does not match its checksum"
        return None

    def _is_usual(self, frame: Frame) -> bool:
        return frame.offset == self.expected and frame.type == _EVENTS and not self.tail

    def _step(self, frame: Frame) -> Found:
        position = self._position
        self._position = self.end = position + padded_size(frame.payload_size)
        self.expected = frame.offset + frame.count
        return Found(frame, position, self.end)

    def _accept(self, frame: Frame) -> Iterator[Found | Damage]:
        if frame.flags & FLAG_BATCH or frame.type == _FOOTER:
            yield from self._settle()
        hole = self._hole(frame)
        position, self._position = self._position, self._end_of(frame)
        self.expected = frame.offset_end
        found = Found(frame, position, self._position)
        if self.tail:
            self.tail += [*hole, found]
            return
        yield from hole
        self.end = self._position
        if frame.type == _EVENTS:
            yield found
        elif frame.type == _FOOTER:
            payload = self.file.read(position + HEADER_SIZE, frame.payload_size)
            self.footer = parse_footer(payload)

    def _settle(self) -> Iterator[Found | Damage]:
        """Yield what was held back: it was durable."""
        for item in self.tail:
            if isinstance(item, Damage):
                yield replace(item, kind=DamageKind.ROTTEN)
            elif item.frame.type == _EVENTS:
                yield item
        self.tail.clear()

    def _hole(self, frame: Frame) -> list[Damage]:
        if self.expected is None or frame.offset <= self.expected:
            return []
        why = "offsets are missing before this frame"
        count = frame.offset - self.expected
        return [self._damage(self._position, 0, DamageKind.ROTTEN, count, why)]

    def _doubt(self, frame: Frame, why: str) -> None:
        self.tail += self._hole(frame)
        end = min(self._end_of(frame), self.file.size)
        self.tail.append(
            Damage(
                segment=self.file.name,
                position=self._position,
                size=end - self._position,
                first_offset=frame.offset,
                count=frame.count,
                writer=frame.writer if frame.count else None,
                sequence=frame.sequence if frame.count else None,
                kind=DamageKind.TORN,
                why=why,
            )
        )
        self._position = end
        self.expected = frame.offset_end

    def _resume(self, found: tuple[int, Frame] | None) -> None:
        """Go on at the next good frame, or end."""
        start, count = self._position, None
        self._position = self.file.size if found is None else found[0]
        if found is not None and self.expected is not None:
            count = found[1].offset - self.expected
        size = self._position - start
        why = "no frame starts here"
        self.tail.append(self._damage(start, size, DamageKind.TORN, count, why))
        if found is not None:
            self.expected = found[1].offset

    def _next_good(self, position: int) -> tuple[int, Frame] | None:
        for candidate in _candidates(self.file, position):
            frame = self._frame_at(candidate)
            if frame is not None and not self._is_lame(frame, candidate):
                return candidate, frame
        return None

    def _is_lame(self, frame: Frame, position: int) -> bool:
        """Whether it is not a frame to resume at: here payloads always count."""
        end = position + padded_size(frame.payload_size)
        payload = self.file.read(position + HEADER_SIZE, frame.payload_size)
        return (
            end > self.file.size
            or self._is_beyond(frame)
            or zlib.crc32(payload) != frame.payload_crc
        )

    def _damage(
        self, position: int, size: int, kind: DamageKind, count: int | None, why: str
    ) -> Damage:
        return Damage(
            segment=self.file.name,
            position=position,
            size=size,
            first_offset=self.expected or 0,
            count=count,
            writer=None,
            sequence=None,
            kind=kind,
            why=why,
        )

    def _end_of(self, frame: Frame) -> int:
        return self._position + padded_size(frame.payload_size)


def find_footer(file: SegmentFile, salt: int) -> Footer | None:
    """Return the footer that ends a segment, found from its end, if it is whole."""
    if file.footer_position is not None:
        return _footer_at(file, file.footer_position, salt)
    size = FOOTER_SEARCH_SIZE
    while True:
        start = max(SEGMENT_HEADER_SIZE, file.size - size)
        data = file.read(start, file.size - start)
        at = data.rfind(_MAGIC)
        while at >= 0:
            if data[at + _TYPE_POSITION : at + _TYPE_POSITION + 1] == _FOOTER_BYTE:
                footer = _footer_at(file, start + at, salt)
                if footer is not None:
                    return footer
            at = data.rfind(_MAGIC, 0, at)
        if start == SEGMENT_HEADER_SIZE or size >= PAYLOAD_SIZE_MAX:
            return None
        size *= 16


def _footer_at(file: SegmentFile, position: int, salt: int) -> Footer | None:
    try:
        frame = parse_header(file.read(position, HEADER_SIZE), salt)
    except CorruptData:
        return None
    if frame.type != _FOOTER or position + padded_size(frame.payload_size) != file.size:
        return None
    payload = file.read(position + HEADER_SIZE, frame.payload_size)
    if zlib.crc32(payload) != frame.payload_crc:
        return None
    return parse_footer(payload)


def find_salt(file: SegmentFile, first_offset: int) -> int | None:
    """Return the salt of a segment whose header is lost, from a frame that is whole.

    A frame's header and its checksum give the one salt that makes them agree; that
    the payload agrees with the header too says that this is a frame.
    """
    for position in _candidates(file, SEGMENT_HEADER_SIZE):
        header = file.read(position, HEADER_SIZE)
        if len(header) < HEADER_SIZE:
            return None
        salt = _seed_of(header)
        try:
            frame = parse_header(header, salt)
        except CorruptData:
            continue
        payload = file.read(position + HEADER_SIZE, frame.payload_size)
        if (
            payload
            and zlib.crc32(payload) == frame.payload_crc
            and first_offset <= frame.offset <= first_offset + file.size
        ):
            return salt
    return None


def _seed_of(header: bytes) -> int:
    """Return the seed with which CRC-32 over the header gives its checksum."""
    table = _crc_table()
    index_of = {entry >> 24: index for index, entry in enumerate(table)}
    state = int.from_bytes(header[4:8], "little") ^ 0xFFFFFFFF
    for byte in reversed(header[8:]):
        index = index_of[state >> 24]
        state = ((state ^ table[index]) << 8 & 0xFFFFFFFF) | (index ^ byte)
    return state ^ 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0xEDB88320 if entry & 1 else 0)
        table.append(entry)
    return table


def _candidates(file: SegmentFile, position: int) -> Iterator[int]:
    """Yield the aligned positions from `position` on that hold a frame's magic."""
    while position < file.size:
        data = file.read(position, BLOCK_SIZE)
        at = data.find(_MAGIC)
        while at >= 0:
            if (position + at) % ALIGNMENT == 0:
                yield position + at
            at = data.find(_MAGIC, at + 1)
        # All starts are multiples of ALIGNMENT, so no magic that counts lies across.
        position += BLOCK_SIZE
