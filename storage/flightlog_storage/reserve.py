"""A spool's reserve: room that is set aside for the last events on a full disk.

It is a small chunk that is no chunk yet, written over in place: nothing of that needs
a new block. It becomes the spool's last chunk when it is needed, by a rename.
"""

import errno
import mmap
import os
from pathlib import Path

from flightlog_storage.event import WriterId
from flightlog_storage.files import read_file
from flightlog_storage.spool import (
    CHUNK_HEADER,
    CHUNK_HEADER_SIZE,
    CHUNK_MAGIC,
    CHUNK_VERSION,
    chunk_path,
    chunks,
    reserve_path,
)

__all__ = (
    "RESERVE_SIZE",
    "Reserve",
    "adopt_reserve",
)

RESERVE_SIZE = 4096


class Reserve:
    """The room of a writer that is at work."""

    def __init__(self, folder: Path, writer: WriterId, *, is_mappable: bool) -> None:
        """Set the room aside.

        Raises:
            OSError: The disk has none.
        """
        self._path = reserve_path(folder)
        self._writer = writer
        self._noted = b""
        self._mapping: mmap.mmap | None = None
        content = _content(writer, b"").ljust(RESERVE_SIZE, b"\0")
        self._write(os.O_CREAT | os.O_EXCL | os.O_RDWR, content, is_mappable)

    def move(self, folder: Path) -> None:
        """Be told that the spool's folder has another name."""
        self._path = reserve_path(folder)

    def note(self, event: bytes) -> None:
        """Put an event there, in place of the last; no kill halves it.

        One that differs in a few bytes, as a count that has grown, is a store into
        memory: on a full disk any write may take longer than a loop may wait.

        Raises:
            OSError: There is no reserve any more, or it cannot be written.
        """
        if self._mapping is not None and 8 <= len(event) == len(self._noted):
            old, new = (int.from_bytes(each, "little") for each in (self._noted, event))
            changed = old ^ new
            first = ((changed & -changed).bit_length() - 1) // 8
            last = (changed.bit_length() - 1) // 8
            if last - first < 8:
                start = max(0, min(first, len(event) - 8))
                at = CHUNK_HEADER_SIZE + start
                self._mapping[at : at + 8] = event[start : start + 8]
                self._noted = event
                return
        self._write(os.O_WRONLY, _content(self._writer, event), False)
        self._noted = event

    def _write(self, flags: int, content: bytes, maps: bool) -> None:
        fd = os.open(self._path, flags | os.O_CLOEXEC, 0o600)
        try:
            if os.pwrite(fd, content, 0) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if maps:
                self._mapping = mmap.mmap(fd, RESERVE_SIZE)
        finally:
            os.close(fd)


def adopt_reserve(folder: Path) -> None:
    """Make what a dead writer noted the end of its spool.

    Raises:
        OSError: The disk fails.
    """
    reserve = reserve_path(folder)
    try:
        header = read_file(reserve)[:8]
    except FileNotFoundError:
        return
    if int.from_bytes(header, "little") > CHUNK_HEADER_SIZE:
        reserve.rename(chunk_path(folder, max(chunks(folder), default=0) + 1))


def _content(writer: WriterId, event: bytes) -> bytes:
    header = CHUNK_HEADER.pack(
        CHUNK_HEADER_SIZE + len(event), CHUNK_MAGIC, CHUNK_VERSION, 0, writer, 0
    )
    return header.ljust(CHUNK_HEADER_SIZE, b"\0") + event
