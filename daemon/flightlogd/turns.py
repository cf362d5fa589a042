"""Turns: of each kind of process one serves a home at a time."""

import fcntl
import os
import select
from contextlib import suppress
from pathlib import Path

__all__ = ("take_turn",)

INTERVAL_S = 0.02  # How soon a lock that comes free is taken.


def take_turn(path: Path, wake_fd: int) -> bool:
    """Wait for a lock that this process then keeps; False when the recorder is gone.

    A predecessor may be at its last transaction or job, or hang.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    recorder = select.poll()
    recorder.register(wake_fd, 0)  # Of the end of the pipe alone, not of words in it.
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if recorder.poll(INTERVAL_S * 1000):
            return False
