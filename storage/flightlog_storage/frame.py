"""Frames: one writer's batch of events with its header.

The frame is the unit of sending, appending, checksums and de-duplication. Its layout
is described in docs/log_format.md.
"""

import struct
import zlib
from enum import IntEnum

import msgspec

from flightlog_storage.errors import CorruptData, LimitExceeded
from flightlog_storage.event import WriterId

__all__ = (
    "ALIGNMENT",
    "EVENT_SIZE_MAX",
    "FLAG_CARRIED",
    "FLAG_EMPTIED",
    "FLAG_GAP",
    "FRAME_MAGIC",
    "HEADER_SIZE",
    "PAYLOAD_SIZE_MAX",
    "Frame",
    "FrameType",
    "pack_frame",
    "padded_size",
    "parse_header",
)

ALIGNMENT = 8
HEADER_SIZE = 64
PAYLOAD_SIZE_MAX = 16 << 20
EVENT_SIZE_MAX = 7 << 20  # With the definition of its shape it must fit a payload.
FLAG_GAP = 1  # The writer says: the events before these are gone.
FLAG_CARRIED = 4  # From another home: what it says is owed is not to be done here.
FLAG_EMPTIED = 8  # Its run was deleted, and its rows have no values any more.
FRAME_MAGIC = 0x4D524647  # "GFRM" little-endian: bytes 47 46 52 4d

# magic, header crc | payload size, payload crc, offset, count, type, codec, flags,
# writer, sequence, received_ns
_PREFIX = struct.Struct("<II")
_REST = struct.Struct("<IIQIBBH16sQq")
assert _PREFIX.size + _REST.size == HEADER_SIZE


class FrameType(IntEnum):
    EVENTS = 1
    FOOTER = 6


class Frame(msgspec.Struct, frozen=True):
    """A frame's header; the payload travels beside it.

    `sequence` and `offset` are those of the first event; `offset` and `received_ns`
    are 0 until the recorder gives them.
    """

    payload_size: int
    payload_crc: int
    count: int
    writer: WriterId
    sequence: int
    offset: int = 0
    received_ns: int = 0
    type: int = FrameType.EVENTS
    codec: int = 0
    flags: int = 0

    @property
    def sequence_end(self) -> int:
        """The sequence after the last event's."""
        return self.sequence + self.count

    @property
    def offset_end(self) -> int:
        """The offset after the last event's."""
        return self.offset + self.count

    def pack(self, salt: int = 0) -> bytes:
        """Return the 64 header bytes, their checksum seeded with `salt`."""
        rest = _REST.pack(
            self.payload_size,
            self.payload_crc,
            self.offset,
            self.count,
            self.type,
            self.codec,
            self.flags,
            self.writer,
            self.sequence,
            self.received_ns,
        )
        return _PREFIX.pack(FRAME_MAGIC, zlib.crc32(rest, salt)) + rest


def pack_frame(
    writer: WriterId, sequence: int, count: int, payload: bytes, flags: int = 0
) -> tuple[bytes, bytes]:
    """Return (header, payload) as a writer sends them.

    Raises:
        LimitExceeded: The payload is larger than PAYLOAD_SIZE_MAX.
    """
    if len(payload) > PAYLOAD_SIZE_MAX:
        raise LimitExceeded("a frame's payload", len(payload), PAYLOAD_SIZE_MAX)
    crc = zlib.crc32(payload)
    frame = Frame(len(payload), crc, count, writer, sequence, flags=flags)
    return frame.pack(), payload


def parse_header(data: bytes, salt: int = 0, where: str = "frame") -> Frame:
    """Return the header in `data`, which has HEADER_SIZE bytes or more.

    Raises:
        CorruptData: The magic, the checksum or a field is wrong.
    """
    if len(data) < HEADER_SIZE:
        raise CorruptData(where, 0, f"{len(data)} of {HEADER_SIZE} header bytes")
    magic, crc = _PREFIX.unpack_from(data)
    if magic != FRAME_MAGIC:
        raise CorruptData(where, 0, "no frame starts here")
    if zlib.crc32(data[_PREFIX.size : HEADER_SIZE], salt) != crc:
        raise CorruptData(where, 0, "the header does not match its checksum")
    (size, payload_crc, offset, count, type_, codec, flags, writer, sequence, ns) = (
        _REST.unpack_from(data, _PREFIX.size)
    )
    if size > PAYLOAD_SIZE_MAX:
        raise CorruptData(where, 0, f"payload size {size:,} is over the limit")
    return Frame(
        size,
        payload_crc,
        count,
        WriterId(writer),
        sequence,
        offset,
        ns,
        type_,
        codec,
        flags,
    )


def padded_size(payload_size: int) -> int:
    """Return the bytes a frame with such a payload takes in a segment."""
    size = HEADER_SIZE + payload_size
    return size + -size % ALIGNMENT
