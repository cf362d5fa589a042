"""The lock of the blobs: held by all who store, and alone by who deletes.

Many share it: what they store, or find to be there, they also name in an event before
they let go. Who deletes waits until nobody does, so that it never sees the one without
the other. It is held alone for moments only.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ("LOCK_TIMEOUT_S", "alone", "begin_of_time", "shared")

LOCK_TIMEOUT_S = 30.0  # For those who store just now.
RETRY_S = 0.005


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock with others; waits for who holds it alone.

    Raises:
        OSError: The file cannot be made.
    """
    fd = _opened(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        _close(fd)


@contextmanager
def alone(path: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock when nobody else does.

    Raises:
        TimeoutError: Somebody holds it all the time.
        OSError: The file cannot be made.
    """
    fd = _opened(path)
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    try:
        while not _is_taken(fd):
            if time.monotonic() > deadline:
                raise TimeoutError("something is being stored all the time")
            pause.wait(RETRY_S)
        yield
    finally:
        _close(fd)


def begin_of_time(path: Path) -> int:
    """Return the time now, as a file beside the lock would have it, in nanoseconds.

    What is stored later is not older, however coarse the file system's times are.
    """
    fd = _opened(path)
    try:
        now = time.time_ns()
        os.utime(fd, ns=(now, now))
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _is_taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close(fd: int) -> None:
    # Said, not left to the close: a child that was forked meanwhile has it open, too.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
