"""A chunk's room on disk: set aside as a whole, or written to as it comes."""

import os
import signal

from flightlog_storage.spool import CHUNK_HEADER_SIZE

__all__ = ("PlainBuffer", "allocate")


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
