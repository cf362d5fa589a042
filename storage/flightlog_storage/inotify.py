"""Being woken by the kernel when something in a folder changes."""

import ctypes
import os
import select
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ("FolderEvent", "FolderWatch")

_READ_SIZE = 1 << 16


class FolderEvent(IntFlag):
    """What in a folder to be woken for; the kernel's numbers."""

    MODIFIED = 0x002
    MOVED_TO = 0x080
    CREATED = 0x100
    DELETED = 0x200


class FolderWatch:
    """Watches folders by inotify; a context manager. Tells that, not what, happened."""

    def __init__(self, folders: Iterable[Path], events: FolderEvent) -> None:
        """Begin to watch; folders that do not exist are left out.

        Raises:
            OSError: The system has no inotify, or no more of it.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = _check(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            for folder in folders:
                if folder.is_dir():
                    name = os.fsencode(folder)
                    _check(libc.inotify_add_watch(self._fd, name, int(events)))
        except OSError:
            self.close()
            raise

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "inotify")
    return result
