"""The recorder's side of the materializer process: start, wake, watch, restart."""

import logging
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import anyio
from anyio import to_thread

from flightlog_storage.eventlog import LogPosition

__all__ = ("WAKE", "Supervisor")

logger = logging.getLogger(__name__)

WAKE = struct.Struct("<QQ")  # A durable log position: segment, byte.
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 10.0
STABLE_AFTER_S = 30.0  # A process that lived so long starts over with the back-off.
STOP_TIMEOUT_S = 30.0


class Supervisor:
    """Keeps one materializer running and tells it how far the log is durable."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._wake_fd = -1
        self._told: LogPosition | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        process = self._process
        return (
            process.pid if process is not None and process.returncode is None else None
        )

    def tell(self, durable: LogPosition) -> None:
        """Pass a durable position on; one that finds the pipe full is told later."""
        if durable == self._told or self._wake_fd < 0:
            return
        try:
            os.write(self._wake_fd, WAKE.pack(*durable))
        except (BlockingIOError, BrokenPipeError):
            return
        self._told = durable

    async def run(self) -> None:
        """Keep a materializer running until cancelled."""
        backoff_s = BACKOFF_MIN_S
        while True:
            started = time.monotonic()
            self._start()
            assert self._process is not None
            status = await to_thread.run_sync(
                self._process.wait, abandon_on_cancel=True
            )
            if time.monotonic() - started > STABLE_AFTER_S:
                backoff_s = BACKOFF_MIN_S
            self.restarts += 1
            logger.error(
                "the materializer ended with status %s; again in %.1f s",
                status,
                backoff_s,
            )
            await anyio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def stop(self) -> None:
        """Let the materializer finish what is durable, then end it."""
        self._close_pipe()
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            logger.warning(
                "the materializer is far behind; it goes on at the next start"
            )
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._close_pipe()
        read_fd, self._wake_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        command = [sys.executable, "-P", "-m", "flightlogd", "materialize"]
        self._process = subprocess.Popen(
            [*command, "--home", str(self._root), "--wake-fd", str(read_fd)],
            stdin=subprocess.DEVNULL,
            pass_fds=(read_fd,),
        )
        os.close(read_fd)
        self._told = None

    def _close_pipe(self) -> None:
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1
