"""Segments: the append-only files of frames that the event log is made of.

A segment is a header, frames, and once it is sealed a footer. docs/log_format.md
describes the bytes.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from enum import Enum

import msgspec

from flightlog_storage.errors import CorruptData
from flightlog_storage.event import WriterId
from flightlog_storage.frame import (
    ALIGNMENT,
    Frame,
    FrameType,
    padded_size,
)

__all__ = (
    "FLAG_BATCH",
    "FLAG_GAP",
    "FLAG_SKIPPED",
    "SEGMENT_HEADER_SIZE",
    "SEGMENT_MAGIC",
    "SEGMENT_SIZE_MAX",
    "SEGMENT_VERSION",
    "Damage",
    "DamageKind",
    "Footer",
    "SegmentHeader",
    "compressed_name",
    "first_offset_of",
    "leads_to",
    "mend_segment_header",
    "missing_offsets",
    "pack_footer",
    "pack_padded",
    "parse_footer",
    "parse_segment_header",
    "segment_name",
)

SEGMENT_MAGIC = b"EVLG"
SEGMENT_VERSION = 1
SEGMENT_HEADER_SIZE = 64
SEGMENT_SIZE_MAX = 64 << 20  # But for a batch that is larger.

FLAG_GAP = 1  # In a frame: the writer says that the events before this are gone.
FLAG_BATCH = 2  # In a frame: the log made it the first of a batch.
FLAG_SKIPPED = 1  # In a segment: offsets before the first one were given up.

# magic, version, flags, log id, number, first offset, salt, previous crc, created_ns
_FIELDS = struct.Struct("<4sHH16sQQIIQ4x")
_CRC = struct.Struct("<I")
assert _FIELDS.size + _CRC.size == SEGMENT_HEADER_SIZE

_NAME = re.compile(r"(\d{20})\.logz?", re.ASCII)
_NO_WRITER = WriterId(bytes(16))


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself in its first 64 bytes."""

    log_id: bytes
    number: int
    first_offset: int
    salt: int
    previous_crc: int  # The crc of the header of the segment before; 0 in the first.
    created_ns: int
    flags: int = 0
    version: int = SEGMENT_VERSION

    @property
    def name(self) -> str:
        """The name of the segment's file."""
        return segment_name(self.first_offset)

    @property
    def skipped(self) -> bool:
        """Whether offsets before the first one were given up on purpose."""
        return bool(self.flags & FLAG_SKIPPED)

    @property
    def crc(self) -> int:
        """The header's checksum, which the next segment repeats."""
        return zlib.crc32(self._fields())

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        return self._fields() + _CRC.pack(self.crc)

    def _fields(self) -> bytes:
        return _FIELDS.pack(
            SEGMENT_MAGIC,
            self.version,
            self.flags,
            self.log_id,
            self.number,
            self.first_offset,
            self.salt,
            self.previous_crc,
            self.created_ns,
        )


class DamageKind(Enum):
    """`TORN`: the end of the log, cut by a crash before it was acknowledged.
    `ROTTEN`: what was written whole and cannot be read any more.
    """

    TORN = "torn"
    ROTTEN = "rotten"


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a segment that cannot be read, and what is known to be lost by it.

    `count` is the number of offsets lost, from `first_offset` on: 0 where no event was
    hit, None where nothing after tells. `writer` and `sequence` are known where only a
    payload was hit. `size` is 0 where bytes are missing altogether.
    """

    segment: str
    position: int
    size: int
    first_offset: int
    count: int | None
    writer: WriterId | None
    sequence: int | None
    kind: DamageKind
    why: str


class Footer(msgspec.Struct, frozen=True):
    """What a sealed segment holds: the last sequence of each of its writers, its
    events, its offsets, and its size without the footer.
    """

    writers: dict[bytes, int]
    events: int
    first_offset: int
    end_offset: int
    size: int


def segment_name(first_offset: int) -> str:
    """Return the name of the segment that starts at an offset."""
    return f"{first_offset:020d}.log"


def compressed_name(first_offset: int) -> str:
    """Return its name once it is compressed."""
    return f"{first_offset:020d}.logz"


def first_offset_of(name: str) -> int | None:
    """Return the offset in a segment's name, or None if it is no such name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def leads_to(footer: Footer, following: SegmentHeader) -> bool:
    """Whether a segment with this footer can be the one before another."""
    return footer.end_offset == following.first_offset or (
        following.skipped and footer.end_offset < following.first_offset
    )


def missing_offsets(segment: str, position: int, first_offset: int, end: int) -> Damage:
    """Return the damage of offsets that no segment holds."""
    return Damage(
        segment=segment,
        position=position,
        size=0,
        first_offset=first_offset,
        count=end - first_offset,
        writer=None,
        sequence=None,
        kind=DamageKind.ROTTEN,
        why="offsets are missing before the next segment",
    )


def parse_segment_header(data: bytes, where: str = "segment") -> SegmentHeader:
    """Return the header in the first 64 bytes of `data`.

    Raises:
        CorruptData: They are no header, or do not match their checksum.
    """
    if len(data) < SEGMENT_HEADER_SIZE:
        raise CorruptData(where, 0, f"{len(data)} of {SEGMENT_HEADER_SIZE} bytes")
    (crc,) = _CRC.unpack_from(data, _FIELDS.size)
    if zlib.crc32(data[: _FIELDS.size]) != crc:
        raise CorruptData(where, 0, "the header does not match its checksum")
    magic, version, flags, log_id, number, first_offset, salt, previous, created_ns = (
        _FIELDS.unpack_from(data)
    )
    if magic != SEGMENT_MAGIC:
        raise CorruptData(where, 0, "no segment starts here")
    return SegmentHeader(
        log_id, number, first_offset, salt, previous, created_ns, flags, version
    )


def mend_segment_header(data: bytes) -> SegmentHeader | None:
    """Return the header that `data` was before one bit of it changed, if that is so."""
    wrong = bytearray(data[:SEGMENT_HEADER_SIZE])
    for index in range(len(wrong)):
        for bit in range(8):
            wrong[index] ^= 1 << bit
            try:
                return parse_segment_header(bytes(wrong))
            except CorruptData:
                wrong[index] ^= 1 << bit
    return None


def pack_padded(frame: Frame, payload: bytes, salt: int) -> tuple[bytes, bytes, bytes]:
    """Return a frame as it stands in a segment: header, payload, zeros."""
    padding = padded_size(frame.payload_size) - frame.payload_size
    return frame.pack(salt), payload, bytes(padding % ALIGNMENT)


def pack_footer(footer: Footer, salt: int, now_ns: int) -> bytes:
    """Return the frame that seals a segment."""
    payload = msgspec.msgpack.encode(footer)
    frame = Frame(
        payload_size=len(payload),
        payload_crc=zlib.crc32(payload),
        count=0,
        writer=_NO_WRITER,
        sequence=0,
        offset=footer.end_offset,
        received_ns=now_ns,
        type=FrameType.FOOTER,
    )
    return b"".join(pack_padded(frame, payload, salt))


def parse_footer(payload: bytes) -> Footer | None:
    """Return the footer in a footer frame's payload, or None if it is none."""
    try:
        return msgspec.msgpack.decode(payload, type=Footer)
    except msgspec.MsgspecError:
        return None
