"""The materializer process: follows the log, and takes over what the dead left."""

import fcntl
import logging
import os
import signal
import time
from pathlib import Path

import anyio
import pyarrow as pa
from anyio import to_thread

from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition
from flightlog_storage.projector import Projector
from flightlogd.adoption import Adopter
from flightlogd.supervisor import WAKE

__all__ = ("run",)

logger = logging.getLogger(__name__)

# Readers fold what is not yet folded themselves, so there is no hurry.
COMMIT_INTERVAL_S = 0.25
SCAN_INTERVAL_S = 0.25
LOOKS_A_SCAN = 5  # At whether writers came or went.
WAKE_SIZE_MAX = 1 << 16
# Ctrl-C and a stop of the whole service: the recorder says when it is time.
_IGNORED = (signal.SIGINT, signal.SIGTERM)


def run(home: Home, wake_fd: int) -> None:
    """Project until the recorder closes the other end of `wake_fd`."""
    lock = os.open(
        home.root / "materializer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    fcntl.flock(lock, fcntl.LOCK_EX)  # A predecessor may be in its last transaction.
    os.set_blocking(wake_fd, False)
    pa.set_memory_pool(pa.system_memory_pool())  # Which can give back what it freed.
    projector = Projector(home)
    try:
        anyio.run(_serve, home, projector, wake_fd)
    finally:
        projector.close()


async def _serve(home: Home, projector: Projector, wake_fd: int) -> None:
    with anyio.open_signal_receiver(*_IGNORED):
        adopter = Adopter(home)
        async with anyio.create_task_group() as services:
            services.start_soon(_adopt, adopter, home.spool)
            await _follow(projector, wake_fd)
            adopter.stop()
            services.cancel_scope.cancel()


async def _follow(projector: Projector, wake_fd: int) -> None:
    """Fold whatever the recorder says is durable, until it says no more."""
    end: LogPosition | None = None
    is_open = True
    while is_open:
        await anyio.wait_readable(wake_fd)
        is_open, told = _read_wakes(wake_fd)
        end = told or end
        started = time.monotonic()
        if end is not None:
            while await to_thread.run_sync(projector.project, end):
                pass
        if is_open:
            await anyio.sleep(
                max(0.0, COMMIT_INTERVAL_S - (time.monotonic() - started))
            )


def _read_wakes(wake_fd: int) -> tuple[bool, LogPosition | None]:
    """Return whether the recorder is there, and the last position it told."""
    last: LogPosition | None = None
    while True:
        try:
            data = os.read(wake_fd, WAKE_SIZE_MAX - WAKE_SIZE_MAX % WAKE.size)
        except BlockingIOError:
            return True, last
        if not data:
            return False, last
        last = LogPosition(*WAKE.unpack(data[-WAKE.size :]))


async def _adopt(adopter: Adopter, spool: Path) -> None:
    try:
        while True:
            seen_ns = os.stat(spool).st_mtime_ns
            await to_thread.run_sync(adopter.scan)
            # A new writer is looked at soon: how it ends is seen only from then on.
            for _ in range(LOOKS_A_SCAN):
                await anyio.sleep(SCAN_INTERVAL_S / LOOKS_A_SCAN)
                if os.stat(spool).st_mtime_ns != seen_ns:
                    break
    finally:
        adopter.close()
