"""Wakes: the recorder's word to its other processes how far the log is durable."""

import os
import struct
from typing import NamedTuple

from flightlog_storage.logreader import LogPosition

__all__ = ("Durable", "read_wakes")

_WAKE = struct.Struct("<QQQ")  # The end of what is durable: segment, byte, offset.
READ_SIZE_MAX = 1 << 16


class Durable(NamedTuple):
    """How far the log is durable: `offset` is that of the next event.

    Behind the last event there may be the end of its segment, so that a position can
    be further than that up to which all is folded.
    """

    end: LogPosition
    offset: int

    def pack(self) -> bytes:
        """Return this as it is written to a pipe."""
        return _WAKE.pack(*self.end, self.offset)


def read_wakes(wake_fd: int) -> tuple[bool, Durable | None]:
    """Return whether the recorder is there, and what it told last.

    The descriptor must not block.
    """
    last: Durable | None = None
    while True:
        try:
            data = os.read(wake_fd, READ_SIZE_MAX - READ_SIZE_MAX % _WAKE.size)
        except BlockingIOError:
            return True, last
        if not data:
            return False, last
        *end, offset = _WAKE.unpack(data[-_WAKE.size :])
        last = Durable(LogPosition(*end), offset)
