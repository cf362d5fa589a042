"""The recorder's side of its other processes: start, wake, watch, restart."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio
from anyio import to_thread

from flightlogd.wakes import Durable

__all__ = ("Supervisor", "stop_all")

logger = logging.getLogger(__name__)

BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 10.0
STABLE_AFTER_S = 30.0  # A process that lived so long starts over with the back-off.
STOP_TIMEOUT_S = 30.0
OOM_SCORE = 1000  # Where memory runs out, these end: no recorder, and no training.
START_GRACE_S = 5.0  # Beyond the pause, for a machine that is busy.


class Supervisor:
    """Keeps one process running and tells it how far the log is durable."""

    def __init__(self, name: str, command: str, root: Path) -> None:
        """`command` is that of `flightlogd` which the process runs."""
        self.name = name
        self._command = command
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None
        self._wake_fd = -1
        self._told: Durable | None = None
        self._start_by = 0.0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        process = self._process
        return (
            process.pid if process is not None and process.returncode is None else None
        )

    @property
    def is_kept(self) -> bool:
        """Whether the process runs, or is about to."""
        return self.pid is not None or time.monotonic() < self._start_by

    def tell(self, durable: Durable) -> None:
        """Pass on how far the log is durable; if the pipe is full, it is told later."""
        if durable == self._told or self._wake_fd < 0:
            return
        try:
            os.write(self._wake_fd, durable.pack())
        except (BlockingIOError, BrokenPipeError):
            return
        self._told = durable

    async def run(self) -> None:
        """Keep the process running until cancelled."""
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
            self._start_by = time.monotonic() + backoff_s + START_GRACE_S
            logger.error(
                "the %s ended with status %s; again in %.1f s",
                self.name,
                status,
                backoff_s,
            )
            await anyio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def finish(self) -> None:
        """Have the process finish what it is at, and end."""
        self._close_pipe()

    def stop(self, deadline: float) -> None:
        """End the process, when it has by itself or at a moment of the clock."""
        self.finish()
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.warning(
                "the %s is not done; it goes on at the next start", self.name
            )
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._close_pipe()
        read_fd, self._wake_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        command = [sys.executable, "-P", "-m", "flightlogd", self._command]
        self._process = subprocess.Popen(
            [*command, "--home", str(self._root), "--wake-fd", str(read_fd)],
            stdin=subprocess.DEVNULL,
            pass_fds=(read_fd,),
        )
        os.close(read_fd)
        self._told = None
        with suppress(OSError):
            score = Path(f"/proc/{self._process.pid}/oom_score_adj")
            score.write_text(f"{OOM_SCORE}")

    def _close_pipe(self) -> None:
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1


def stop_all(processes: Sequence[Supervisor]) -> None:
    """Let processes finish what they are at, all at once, and end them."""
    for process in processes:
        process.finish()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for process in processes:
        process.stop(deadline)
