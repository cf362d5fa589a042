"""Compressed segments: the bytes of a sealed segment, at the same positions, in blocks.

Each block is compressed by itself. The segment's header and its footer are kept as
they are, and the index of the blocks is there twice. docs/log_format.md describes the
bytes.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from flightlog_storage.errors import HomeUnusable
from flightlog_storage.files import FileOps, read_around
from flightlog_storage.segment import SEGMENT_HEADER_SIZE

__all__ = (
    "BLOCK_SIZE",
    "Block",
    "Index",
    "compress_block",
    "index_faults",
    "index_size",
    "read_compressed",
    "read_index",
)

BLOCK_SIZE = 64 << 10  # What a wrong bit costs. Larger ones save nothing in rows.
BLOCK_SIZE_MAX = 1 << 24  # Of what is believed.
LEVEL = 3  # Higher ones take three times as long and save a hundredth.

_MAGIC = b"EVLZ"
_VERSION = 1
_ZSTD = 1
# magic, version, codec, block size, blocks, segment size, footer position, ends' crc,
# mark
_FIELDS = struct.Struct("<4sHHIIQQII")
_CRC = struct.Struct("<I")
_FIXED_SIZE = _FIELDS.size + _CRC.size
_ENTRY = struct.Struct("<II")


class Block(NamedTuple):
    """A block as it lies in the file: its size there, and the crc of that."""

    size: int
    crc: int


@dataclass(frozen=True)
class Index:
    """What a compressed segment is made of.

    `ends_crc` is the checksum of the segment's header and footer, which are not in the
    blocks. An index of which nothing is known any more has none.
    """

    size: int  # Of the segment, as it was.
    footer_position: int
    ends_crc: int
    blocks: tuple[Block, ...]
    block_size: int
    mark: int = 0  # Of who made it, who leaves it at that then.
    version: int = _VERSION

    @property
    def packed_size(self) -> int:
        """The size of the index itself, of which there are two."""
        return index_size(len(self.blocks))

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Where in the file each block begins, and the footer behind them."""
        begin = SEGMENT_HEADER_SIZE + self.packed_size
        return tuple(accumulate((block.size for block in self.blocks), initial=begin))

    @property
    def file_size(self) -> int:
        """The size of the file."""
        footer_size = self.size - self.footer_position
        return self.places[-1] + footer_size + self.packed_size

    def pack(self) -> tuple[bytes, bytes]:
        """Return the index as it stands before the blocks, and behind the footer."""
        entries = b"".join(_ENTRY.pack(*block) for block in self.blocks)
        fields = _FIELDS.pack(
            _MAGIC,
            self.version,
            _ZSTD,
            self.block_size,
            len(self.blocks),
            self.size,
            self.footer_position,
            self.ends_crc,
            self.mark,
        )
        fixed = fields + _CRC.pack(zlib.crc32(entries, zlib.crc32(fields)))
        return fixed + entries, entries + fixed

    def extent(self, number: int) -> tuple[int, int]:
        """Return the positions in the segment at which a block begins and ends."""
        begin = SEGMENT_HEADER_SIZE + number * self.block_size
        return begin, min(begin + self.block_size, self.footer_position)


# Of a file whose index is lost: all but the header is missing.
_LOST = Index(SEGMENT_HEADER_SIZE, SEGMENT_HEADER_SIZE, 0, (), BLOCK_SIZE)


def index_size(count: int) -> int:
    """Return the size of an index of so many blocks."""
    return _FIXED_SIZE + count * _ENTRY.size


def compress_block(data: bytes) -> tuple[bytes, Block]:
    """Return what is to be written of a block."""
    from pyarrow import Codec  # Late: the recorder never needs it.

    compressed: bytes = Codec("zstd", LEVEL).compress(data, asbytes=True)
    return compressed, Block(len(compressed), zlib.crc32(compressed))


def read_index(files: FileOps, fd: int, path: Path) -> Index | None:
    """Return the index of a compressed segment; None where both copies are damaged.

    Raises:
        HomeUnusable: A newer version of this package wrote it.
    """
    index = _first_index(files, fd) or _last_index(files, fd)
    if index is not None and index.version > _VERSION:
        raise HomeUnusable(path, f"its format {index.version} is too new")
    return index


def index_faults(files: FileOps, fd: int) -> Iterator[str]:
    """Yield what is wrong with the file and costs nothing as yet."""
    first, last = _first_index(files, fd), _last_index(files, fd)
    index = first or last
    if index is None:
        yield "its index is damaged"
        return
    if first is None or last is None:
        which = "first" if first is None else "second"
        yield f"the {which} copy of its index is damaged"
    if files.size(fd) != index.file_size:
        yield f"its file has {files.size(fd):,} bytes, not {index.file_size:,}"
    ends = read_compressed(files, fd, index, 0, SEGMENT_HEADER_SIZE)
    ends += read_compressed(files, fd, index, index.footer_position, index.size)
    if zlib.crc32(ends) != index.ends_crc:
        yield "its header or footer does not match its checksum"


def read_compressed(
    files: FileOps, fd: int, index: Index | None, begin: int, end: int
) -> bytes:
    """Return the segment's bytes between two positions; zeros for what is damaged."""
    index = index or _LOST
    pieces = []
    if begin < SEGMENT_HEADER_SIZE:
        part_end = min(end, SEGMENT_HEADER_SIZE)
        pieces.append(_read(files, fd, begin, part_end - begin))
        begin = part_end
    while begin < min(end, index.footer_position):
        number = (begin - SEGMENT_HEADER_SIZE) // index.block_size
        block_begin, block_end = index.extent(number)
        block = _read_block(files, fd, index, number)
        pieces.append(block[begin - block_begin : end - block_begin])
        begin = block_end
    if begin < end:
        place = index.places[-1] + begin - index.footer_position
        pieces.append(_read(files, fd, place, end - begin))
    return b"".join(pieces)


def _read_block(files: FileOps, fd: int, index: Index, number: int) -> bytes:
    from pyarrow import Codec  # Late: the recorder never needs it.

    begin, end = index.extent(number)
    size, crc = index.blocks[number]
    data = read_around(files, fd, size, index.places[number])
    if zlib.crc32(data) != crc:
        return bytes(end - begin)
    try:
        found: bytes = Codec("zstd").decompress(data, end - begin, asbytes=True)
    except OSError:  # As what is no zstd is told.
        return bytes(end - begin)
    return found


def _read(files: FileOps, fd: int, position: int, size: int) -> bytes:
    """Read bytes that are there as they are; zeros for those that are not."""
    return read_around(files, fd, size, position).ljust(size, b"\0")


def _first_index(files: FileOps, fd: int) -> Index | None:
    """Return the copy of the index before the blocks, if it is sound."""
    at = SEGMENT_HEADER_SIZE
    fixed = read_around(files, fd, _FIXED_SIZE, at)
    size = _entries_size(fixed, files.size(fd))
    return _parse(fixed, read_around(files, fd, size, at + _FIXED_SIZE))


def _last_index(files: FileOps, fd: int) -> Index | None:
    """Return the copy that ends the file, if it is sound."""
    file_size = files.size(fd)
    end = max(0, file_size - _FIXED_SIZE)
    fixed = read_around(files, fd, _FIXED_SIZE, end)
    size = min(end, _entries_size(fixed, file_size))
    return _parse(fixed, read_around(files, fd, size, end - size))


def _entries_size(fixed: bytes, file_size: int) -> int:
    """Return how large the entries say to be, which is not believed beyond reason."""
    if len(fixed) < _FIXED_SIZE:
        return 0
    count: int = _FIELDS.unpack_from(fixed)[4]
    return min(count * _ENTRY.size, file_size)


def _parse(fixed: bytes, entries: bytes) -> Index | None:
    if len(fixed) < _FIXED_SIZE:
        return None
    fields, (crc,) = fixed[: _FIELDS.size], _CRC.unpack_from(fixed, _FIELDS.size)
    magic, version, codec, block_size, count, size, footer_position, ends_crc, mark = (
        _FIELDS.unpack(fields)
    )
    if magic != _MAGIC or len(entries) != count * _ENTRY.size:
        return None
    if zlib.crc32(entries, zlib.crc32(fields)) != crc:
        return None
    blocks = tuple(Block(*entry) for entry in _ENTRY.iter_unpack(entries))
    index = Index(size, footer_position, ends_crc, blocks, block_size, mark, version)
    is_known = version > _VERSION or (codec == _ZSTD and _fits(index))
    return index if is_known else None


def _fits(index: Index) -> bool:
    """Whether what the index says of the segment can be so."""
    if not 0 < index.block_size <= BLOCK_SIZE_MAX:
        return False
    size = index.footer_position - SEGMENT_HEADER_SIZE
    return 0 <= size <= index.size - SEGMENT_HEADER_SIZE and len(index.blocks) == -(
        -size // index.block_size
    )
