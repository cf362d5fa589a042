"""Compression: the file of a sealed segment replaced by a smaller one.

Its bytes are the same, or such as stay of it when a run was deleted. A file gets its
name when it is whole, durable, read again and compared, and only then the old one goes.
So a kill or a loss of power at any point leaves one that is whole, or both; then the
compressed one counts, and the next time ends what was begun.
"""

import fcntl
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
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
    SEGMENT_SIZE_MAX,
    SegmentHeader,
    compressed_name,
    first_offset_of,
    leads_to,
    segment_name,
)
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.survey import survey_folder

__all__ = (
    "Compressed",
    "Sealed",
    "compress",
    "compressible",
    "has_room",
    "replacing",
    "rewrite",
    "sealed_segments",
)

SIZE_MIN = 64 << 10  # Of a segment that is worth it.
SHARE_MAX = 0.9  # Of its size that what comes of it may have.
FREE_MIN = 2 * SEGMENT_SIZE_MAX  # A new file is there before the old one goes.

Tick = Callable[[int], object]


class Sealed(NamedTuple):
    """A segment that is not written to any more, and the one that follows it."""

    header: SegmentHeader
    following: SegmentHeader


class Compressed(NamedTuple):
    """How large a segment is, and what its file takes now."""

    size: int
    file_size: int


class _Content(NamedTuple):
    """What a file is to hold, and how large it may be."""

    read: Callable[[int, int], bytes]  # So many bytes from a position of the segment.
    size: int
    footer_position: int
    mark: int
    file_size_max: float


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Be the only one that replaces files of a log.

    Raises:
        BlockingIOError: Another one is at it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def has_room(folder: Path) -> bool:
    """Whether a new file may be there for a moment beside the old one."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize >= FREE_MIN


def sealed_segments(folder: Path, files: FileOps, before: int) -> list[Sealed]:
    """Return the segments of a log before one of them, given by its first offset."""
    return [
        Sealed(header, following)
        for header, following in pairwise(survey_folder(folder, files).segments)
        if following.first_offset <= before
    ]


def compressible(folder: Path, files: FileOps, before: int) -> list[Sealed]:
    """Return those of them that are not compressed."""
    plain = {first_offset_of(n) for n in files.listdir(folder) if n.endswith(".log")}
    if not any(first < before for first in plain if first is not None):
        return []
    every = sealed_segments(folder, files, before)
    return [each for each in every if each.header.first_offset in plain]


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
    if not _is_done(files, folder, sealed):
        with closing(SegmentFile(files, plain, is_exact=True)) as file:
            footer, size = find_footer(file, sealed.header.salt), file.size
        if size < SIZE_MIN or footer is None or footer.size > size:
            return None
        source = files.open(plain)
        try:
            # What the disk does not give back now is not to be zeros for good.
            read = partial(_read_strictly, files, source)
            content = _Content(read, size, footer.size, 0, SHARE_MAX * size)
            if not _replace(files, folder, sealed, content, tick):
                return None
        finally:
            files.close(source)
    return _end(files, folder, sealed)


def rewrite(
    folder: Path,
    files: FileOps,
    sealed: Sealed,
    data: bytearray,
    mark: int,
    tick: Tick = int,
) -> Compressed | None:
    """Put other bytes in the place of a segment's, as many, with the same footer.

    `mark` is kept in the file, for who made the bytes. See `compress`.
    """
    with closing(SegmentFile(files, folder / sealed.header.name)) as file:
        footer = find_footer(file, sealed.header.salt)
        if footer is None or file.size != len(data):
            return None

    def read(size: int, position: int) -> bytes:
        return bytes(data[position : position + size])

    content = _Content(read, len(data), footer.size, mark, math.inf)
    if not _replace(files, folder, sealed, content, tick):
        return None
    return _end(files, folder, sealed)


def _read_strictly(files: FileOps, fd: int, size: int, position: int) -> bytes:
    return files.pread(fd, size, position)


def _is_done(files: FileOps, folder: Path, sealed: Sealed) -> bool:
    """Whether a kill came between the new file and the end of the old one."""
    target = folder / compressed_name(sealed.header.first_offset)
    try:
        with closing(SegmentFile(files, target, is_exact=True)) as file:
            return _is_sound(file, sealed)
    except FileNotFoundError:
        return False


def _end(files: FileOps, folder: Path, sealed: Sealed) -> Compressed:
    """Remove the plain file; if that is lost, it is done again."""
    with suppress(FileNotFoundError):
        files.unlink(folder / segment_name(sealed.header.first_offset))
    target = folder / compressed_name(sealed.header.first_offset)
    with closing(SegmentFile(files, target)) as file:
        return Compressed(file.size, file.file_size)


def _replace(
    files: FileOps, folder: Path, sealed: Sealed, content: _Content, tick: Tick
) -> bool:
    """Make the compressed file; return whether what was written may count."""
    target = folder / compressed_name(sealed.header.first_offset)
    temporary = target.with_name(f"{target.name}.tmp")
    with suppress(FileNotFoundError):
        files.unlink(temporary)  # What an earlier try may have left.
    try:
        file_size = _write(files, temporary, content, tick)
        if file_size > content.file_size_max or not _is_as_meant(
            files, temporary, sealed, content, tick
        ):
            files.unlink(temporary)
            return False
        files.rename(temporary, target)
    except BaseException:
        with suppress(OSError):
            files.unlink(temporary)
        raise
    files.fsync_dir(folder)
    return True


def _write(files: FileOps, target: Path, content: _Content, tick: Tick) -> int:
    """Write a file, and return its size when it is durable."""
    fd = files.create(target)
    try:
        blocks: list[Block] = []
        starts = range(SEGMENT_HEADER_SIZE, content.footer_position, BLOCK_SIZE)
        place = SEGMENT_HEADER_SIZE + index_size(len(starts))
        for start in starts:
            end = min(start + BLOCK_SIZE, content.footer_position)
            data, block = compress_block(content.read(end - start, start))
            write_all(files, fd, data, place)
            blocks.append(block)
            place += block.size
            tick(end - start)
        header = content.read(SEGMENT_HEADER_SIZE, 0)
        at = content.footer_position
        footer = content.read(content.size - at, at)
        index = Index(
            size=content.size,
            footer_position=at,
            ends_crc=zlib.crc32(header + footer),
            blocks=tuple(blocks),
            block_size=BLOCK_SIZE,
            mark=content.mark,
        )
        first, last = index.pack()
        write_all(files, fd, header + first, 0)
        write_all(files, fd, footer + last, place)
        files.fdatasync(fd)
        files.forget(fd)
    finally:
        files.close(fd)
    return index.file_size


def _is_as_meant(
    files: FileOps, path: Path, sealed: Sealed, content: _Content, tick: Tick
) -> bool:
    """Whether a file is sound, and has the bytes that it should have."""
    with closing(SegmentFile(files, path, is_exact=True)) as file:
        if file.size != content.size or not _is_sound(file, sealed):
            return False
        for position in range(0, file.size, BLOCK_SIZE):
            size = min(BLOCK_SIZE, file.size - position)
            if file.read(position, size) != content.read(size, position):
                return False
            tick(0)
    return True


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
