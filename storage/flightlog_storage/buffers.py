"""A chunk and its room on disk: set aside as a whole, or written to as it comes."""

import mmap
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

from flightlog_storage.home import file_system_type
from flightlog_storage.spool import CHUNK_HEADER_SIZE

__all__ = (
    "CHUNK_SIZE",
    "Chunk",
    "PlainBuffer",
    "allocate",
    "chunk_size",
    "is_mappable",
    "make_chunk",
)

CHUNK_SIZE = 4 << 20
SMALL_CHUNK_SIZE = 64 << 10  # On a disk that is nearly full.
# Here a successful fallocate means that a later store into the mapping cannot fail.
_MAPPABLE = frozenset(("ext2", "ext3", "ext4", "xfs", "tmpfs"))


class Chunk(NamedTuple):
    """A chunk that was made: under this path, so large, to be written to so."""

    path: Path
    size: int
    data: Any
    committed: Any


def is_mappable(folder: Path) -> bool:
    """Whether chunks in this folder may be mapped."""
    return file_system_type(folder) in _MAPPABLE


def chunk_size(need: int) -> int:
    """Return the size of a chunk that has room for `need` bytes."""
    return max(CHUNK_SIZE, CHUNK_HEADER_SIZE + need)


def make_chunk(path: Path, header: bytes, need: int, *, mapped: bool) -> Chunk:
    """Make a chunk that has room for `need` bytes, with this header.

    Raises:
        OSError: The disk refuses.
    """
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if not mapped:
            os.pwrite(fd, header, 0)
            size = chunk_size(need)
            return Chunk(path, size, PlainBuffer(fd, size), [0])
        mapping = _map(fd, need)
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    mapping[:CHUNK_HEADER_SIZE] = header
    committed = memoryview(mapping)[:8].cast("Q")
    return Chunk(path, len(mapping), mapping, committed)


def _map(fd: int, need: int) -> mmap.mmap:
    """Map a new chunk, smaller where the disk has no room for a whole one.

    Raises:
        OSError: It has not even that.
    """
    size = chunk_size(need)
    try:
        allocate(fd, size)
    except OSError:
        size = SMALL_CHUNK_SIZE
        if CHUNK_HEADER_SIZE + need > size:
            raise
        allocate(fd, size)
    return mmap.mmap(fd, size)


class PlainBuffer:
    """A chunk behind pwrite, where a mapping could kill the process on a full disk.

    A store commits by itself: between two steps of its own a signal handler may log.
    """

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._committed = CHUNK_HEADER_SIZE

    def __setitem__(self, where: slice, data: bytes) -> None:
        if where.stop > self._size:
            raise IndexError("the chunk is full")
        if where.stop - where.start != len(data):
            raise ValueError("a signal handler has logged in between")
        position = where.start
        while data:
            written = os.pwrite(self._fd, data, position)
            position += written
            data = data[written:]
        self._commit(where.start, where.stop)

    def end(self) -> None:
        """Take no more: the disk has refused."""
        self._size = self._committed

    def _commit(self, start: int, end: int) -> None:
        if end > self._committed:  # From here to the next line no handler can run.
            self._committed = end
        committed = 0
        try:
            while committed != self._committed:  # A handler may have gone further.
                committed = self._committed
                os.pwrite(self._fd, committed.to_bytes(8, "little"), 0)
        except OSError:
            if self._committed == end:
                self._committed = start
            raise

    def __del__(self) -> None:
        os.close(self._fd)


def allocate(fd: int, size: int) -> None:
    """Have the file system set `size` bytes aside, undisturbed by any timer.

    An interrupted fallocate starts anew: with a fast timer it would never end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
