"""A spool's reserve: room that is set aside for the last events on a full disk.

It is a small chunk that is no chunk yet, written over in place: nothing of that needs
a new block. It becomes the spool's last chunk when it is needed, by a rename.
"""

import errno
import os
from pathlib import Path

from flightlog_storage.event import WriterId
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
    "adopt_reserve",
    "make_reserve",
    "note_in_reserve",
)

RESERVE_SIZE = 4096


def make_reserve(folder: Path, writer: WriterId) -> None:
    """Set the room aside.

    Raises:
        OSError: The disk has none.
    """
    _write(
        folder, os.O_CREAT | os.O_EXCL, _content(writer, b"").ljust(RESERVE_SIZE, b"\0")
    )


def note_in_reserve(folder: Path, writer: WriterId, event: bytes) -> None:
    """Put an event there, in place of the last; with one write, which no kill halves.

    Raises:
        OSError: There is no reserve any more, or it cannot be written.
    """
    _write(folder, 0, _content(writer, event))


def adopt_reserve(folder: Path) -> None:
    """Make what a dead writer noted the end of its spool.

    Raises:
        OSError: The disk fails.
    """
    reserve = reserve_path(folder)
    try:
        header = reserve.read_bytes()[:8]
    except FileNotFoundError:
        return
    if int.from_bytes(header, "little") > CHUNK_HEADER_SIZE:
        reserve.rename(chunk_path(folder, max(chunks(folder), default=0) + 1))


def _content(writer: WriterId, event: bytes) -> bytes:
    header = CHUNK_HEADER.pack(
        CHUNK_HEADER_SIZE + len(event), CHUNK_MAGIC, CHUNK_VERSION, 0, writer, 0
    )
    return header.ljust(CHUNK_HEADER_SIZE, b"\0") + event


def _write(folder: Path, flags: int, content: bytes) -> None:
    fd = os.open(reserve_path(folder), flags | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        if os.pwrite(fd, content, 0) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
