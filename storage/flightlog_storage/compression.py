"""Compression: the file of a sealed segment replaced by a smaller one, bytes the same.

A file gets its name when it is whole, durable, read again and compared, and only then
the old one goes. So a kill or a loss of power at any point leaves one that is whole,
or both; then the compressed one counts, and the next time ends what was begun.

There must be only one that does this in a home.
"""

import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from flightlog_storage.compressed import (
    BLOCK_SIZE,
    Block,
    Index,
    compress_block,
    index_size,
)
from flightlog_storage.files import FileOps, write_all
from flightlog_storage.logreader import walk_segment
from flightlog_storage.scan import Found, Scope, find_footer
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    compressed_name,
    first_offset_of,
    leads_to,
    segment_name,
)
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.survey import survey_folder

__all__ = ("Compressed", "Sealed", "compress", "compressible")

SIZE_MIN = 64 << 10  # Of a segment that is worth it.
SHARE_MAX = 0.9  # Of its size that what comes of it may have.

Tick = Callable[[int], object]


class Sealed(NamedTuple):
    """A segment that is not written to any more, and the one that follows it."""

    header: SegmentHeader
    following: SegmentHeader


class Compressed(NamedTuple):
    """How large a segment is, and what its file takes now."""

    size: int
    file_size: int


def compressible(folder: Path, files: FileOps, before: int) -> list[Sealed]:
    """Return the segments of a log that are not compressed, before one of them.

    That one is given by its first offset.
    """
    plain = {first_offset_of(n) for n in files.listdir(folder) if n.endswith(".log")}
    if not any(first < before for first in plain if first is not None):
        return []
    return [
        Sealed(header, following)
        for header, following in pairwise(survey_folder(folder, files).segments)
        if header.first_offset in plain and following.first_offset <= before
    ]


def compress(
    folder: Path, files: FileOps, sealed: Sealed, tick: Tick = int
) -> Compressed | None:
    """Replace the file of a segment; one that is small, or not sound, is left: None.

    Args:
        tick: Called with the number of bytes that are done; what it raises ends this.

    Raises:
        OSError: The disk refuses; the segment is as it was.
    """
    plain = folder / segment_name(sealed.header.first_offset)
    target = folder / compressed_name(sealed.header.first_offset)
    if not _is_done(files, target, sealed):
        temporary = target.with_name(f"{target.name}.tmp")
        with suppress(FileNotFoundError):
            files.unlink(temporary)  # What an earlier try may have left.
        try:
            if not _make(files, plain, temporary, sealed, tick):
                with suppress(FileNotFoundError):
                    files.unlink(temporary)
                return None
            files.rename(temporary, target)
        except BaseException:
            with suppress(OSError):
                files.unlink(temporary)
            raise
        files.fsync_dir(folder)
    files.unlink(plain)  # If that is lost, it is done again.
    with closing(SegmentFile(files, target)) as file:
        return Compressed(file.size, file.file_size)


def _is_done(files: FileOps, target: Path, sealed: Sealed) -> bool:
    """Whether a kill came between the new file and the end of the old one."""
    try:
        with closing(SegmentFile(files, target, is_exact=True)) as file:
            return _is_sound(file, sealed)
    except FileNotFoundError:
        return False


def _make(
    files: FileOps, plain: Path, temporary: Path, sealed: Sealed, tick: Tick
) -> bool:
    """Write the compressed file, and return whether it may take the other's place."""
    with closing(SegmentFile(files, plain, is_exact=True)) as file:
        footer = find_footer(file, sealed.header.salt)
        size = file.size
    if size < SIZE_MIN or footer is None or footer.size > size:
        return False
    source = files.open(plain)
    try:
        file_size = _write(files, source, temporary, (size, footer.size), tick)
        if file_size > SHARE_MAX * size:
            return False
        with closing(SegmentFile(files, temporary, is_exact=True)) as file:
            return _is_sound(file, sealed) and _is_same(files, source, file, tick)
    finally:
        files.close(source)


def _write(
    files: FileOps, source: int, target: Path, sizes: tuple[int, int], tick: Tick
) -> int:
    """Write a segment, given its size with and without the footer; return the file's.

    What the disk does not give back now is not to be zeros for good: that is raised.
    """
    size, footer_position = sizes
    fd = files.create(target)
    try:
        blocks: list[Block] = []
        starts = range(SEGMENT_HEADER_SIZE, footer_position, BLOCK_SIZE)
        place = SEGMENT_HEADER_SIZE + index_size(len(starts))
        for start in starts:
            end = min(start + BLOCK_SIZE, footer_position)
            data, block = compress_block(files.pread(source, end - start, start))
            write_all(files, fd, data, place)
            blocks.append(block)
            place += block.size
            tick(end - start)
        header = files.pread(source, SEGMENT_HEADER_SIZE, 0)
        footer = files.pread(source, size - footer_position, footer_position)
        ends_crc = zlib.crc32(header + footer)
        index = Index(size, footer_position, ends_crc, tuple(blocks), BLOCK_SIZE)
        first, last = index.pack()
        write_all(files, fd, header + first, 0)
        write_all(files, fd, footer + last, place)
        files.fdatasync(fd)
        files.forget(fd)
    finally:
        files.close(fd)
    return index.file_size


def _is_sound(file: SegmentFile, sealed: Sealed) -> bool:
    """Whether a file has nothing wrong in it, and is the one before the next."""
    header = sealed.header
    if not file.is_compressed or file.faults():
        return False
    footer = find_footer(file, header.salt)
    if footer is None or not leads_to(footer, sealed.following):
        return False
    if file.read(0, SEGMENT_HEADER_SIZE) != header.pack():
        return False
    scope = Scope(expected=header.first_offset)
    return all(
        isinstance(item, Found)
        for item in walk_segment(file, header, sealed.following, scope)
    )


def _is_same(files: FileOps, source: int, file: SegmentFile, tick: Tick) -> bool:
    """Whether a file has the bytes of another."""
    for position in range(0, file.size, BLOCK_SIZE):
        data = files.pread(source, BLOCK_SIZE, position)
        if file.read(position, BLOCK_SIZE) != data:
            return False
        tick(0)
    return file.size == files.size(source)
