"""Being woken by the kernel when something in a folder changes."""

import ctypes
import os
import select
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path
from typing import Self

__all__ = ("FolderEvent", "FolderWatch", "is_told_of_all")

_READ_SIZE = 1 << 16
_LIBC = ctypes.CDLL(None, use_errno=True)
_STATFS_SIZE = 256  # Twice what any kernel writes.
# Of this machine alone; by their magic numbers, as statfs(2) has them.
_LOCAL_FILE_SYSTEMS = frozenset(
    (
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x2FC12FC1,  # zfs
        0xF2F52010,  # f2fs
        0xCA451A4E,  # bcachefs
        0x794C7630,  # overlayfs
    )
)


class FolderEvent(IntFlag):
    """What in a folder to be woken for; the kernel's numbers."""

    MODIFIED = 0x002
    ATTRIBUTES_CHANGED = 0x004
    WRITTEN = 0x008  # What was open for that is closed.
    MOVED_FROM = 0x040
    MOVED_TO = 0x080
    CREATED = 0x100
    DELETED = 0x200
    SELF_DELETED = 0x400
    SELF_MOVED = 0x800
    ONCE = 0x80000000  # The first of all these, and no more.


class FolderWatch:
    """Watches folders by inotify; a context manager. Tells that, not what, happened."""

    def __init__(self, folders: Iterable[Path], events: FolderEvent) -> None:
        """Begin to watch; folders that do not exist are left out.

        Raises:
            OSError: The system has no inotify, or no more of it.
        """
        self._events = events
        self._fd: int = _check(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            for folder in folders:
                if folder.is_dir():
                    self.add(folder)
        except OSError:
            self.close()
            raise

    def add(self, folder: str | Path) -> None:
        """Watch one more folder; one that is watched already is watched anew.

        Raises:
            OSError: It is not there or may not be read; ENOSPC: the system watches no
                more.
        """
        name = os.fsencode(folder)
        _check(_LIBC.inotify_add_watch(self._fd, name, int(self._events)))

    def fileno(self) -> int:
        """Return the descriptor that is readable when something happened."""
        return self._fd

    def drain(self) -> None:
        """Forget what happened so far."""
        try:
            while os.read(self._fd, _READ_SIZE):
                pass
        except BlockingIOError:
            pass

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until something happens and drain; False if nothing does in time."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        happened = bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
        self.drain()
        return happened

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_told_of_all(folder: str) -> bool:
    """Whether nobody changes a folder without the kernel of this machine.

    Raises:
        OSError: It is not there.
    """
    status = ctypes.create_string_buffer(_STATFS_SIZE)
    _check(_LIBC.statfs(os.fsencode(folder), status))
    return ctypes.c_ulong.from_buffer(status).value in _LOCAL_FILE_SYSTEMS


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "inotify")
    return result
