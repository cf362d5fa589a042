"""The materializer process: follows the log, takes over from the dead, samples."""

import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pyarrow as pa
import zmq
from anyio import to_thread

from flightlog_storage.database import SavedPart
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import HomeUnusable, StorageError
from flightlog_storage.inotify import FolderEvent, FolderWatch
from flightlog_storage.logreader import LogPosition
from flightlog_storage.projector import Projector
from flightlog_storage.staging import sweep_staging
from flightlogd.adoption import Adopter
from flightlogd.config import DaemonConfig
from flightlogd.scrubber import Scrubber
from flightlogd.system import SystemSampler
from flightlogd.turns import take_turn
from flightlogd.wakes import read_wakes

__all__ = ("run",)

logger = logging.getLogger(__name__)

# Readers fold what is not yet folded themselves, so there is no hurry.
COMMIT_INTERVAL_S = 0.25
SCAN_INTERVAL_S = 0.25
SCAN_PAUSE_S = 0.005  # However many writers come.
SWEEP_INTERVAL_S = 60.0
VANISHED_INTERVAL_S = 4.0
LOOK_INTERVAL_S = 0.05  # At whether writers came or went, where there is no inotify.
# Ctrl-C and a stop of the whole service: the recorder says when it is time.
_IGNORED = (signal.SIGINT, signal.SIGTERM)


def run(config: DaemonConfig, wake_fd: int) -> None:
    """Project until the recorder closes the other end of `wake_fd`."""
    home = config.home
    home.create()  # A folder may have been deleted, which the last one died of.
    if not take_turn(home.root / "materializer.lock", wake_fd):
        return
    os.set_blocking(wake_fd, False)
    pa.set_memory_pool(pa.system_memory_pool())  # Which can give back what it freed.
    refused: Sequence[Exception] = ()
    try:
        with closing(Projector(home)) as projector:
            anyio.run(_serve, config, projector, wake_fd)
    except* (OSError, HomeUnusable, sqlite3.OperationalError) as group:
        refused = group.exceptions
    if refused:  # By the disk, say; whoever comes next may have better luck.
        logger.error("states and histories cannot be kept: %s", refused[0])
        sys.exit(1)


async def _serve(config: DaemonConfig, projector: Projector, wake_fd: int) -> None:
    home = config.home
    with anyio.open_signal_receiver(*_IGNORED):
        adopter = Adopter(home)
        room = DiskRoom(home, config.low_water)
        sampler = SystemSampler(home, config.system_interval_s, room)
        projections = _Projections(projector)
        scrubber = Scrubber(home, config.scrub_interval_s, projections.mend)
        async with anyio.create_task_group() as services:
            services.start_soon(_adopt, adopter, home.spool)
            services.start_soon(_sweep, home.staging)
            services.start_soon(_end_vanished, adopter, projections)
            services.start_soon(sampler.run)
            if config.scrub_interval_s:
                services.start_soon(_scrub, scrubber)
            try:
                await _follow(projections, wake_fd)
            finally:
                scrubber.stop()  # Its thread would be waited for, for hours.
            adopter.stop()
            sampler.stop()
            services.cancel_scope.cancel()


class _Projections:
    """The projector, for the two threads that need it: one at a time."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector
        self._lock = threading.Lock()
        self.is_behind = True

    def project(self, end: LogPosition) -> bool:
        with self._lock:
            self.is_behind = self._projector.project(end)
        return self.is_behind

    def mend(self, part: SavedPart) -> bool:
        with self._lock:
            return self._projector.mend(part)


async def _scrub(scrubber: Scrubber) -> None:
    """Read what lies still, now and then."""
    while True:
        await anyio.sleep(scrubber.pause_s)
        await to_thread.run_sync(scrubber.scrub)


async def _sweep(staging: Path) -> None:
    """Delete what processes had not stored when they died."""
    while True:
        if count := await to_thread.run_sync(sweep_staging, staging):
            logger.info("swept the staging folders of %d dead processes", count)
        await anyio.sleep(SWEEP_INTERVAL_S)


async def _end_vanished(adopter: Adopter, projections: _Projections) -> None:
    """Look for writers of which nothing is left; all they said has to be folded."""
    while True:
        await anyio.sleep(VANISHED_INTERVAL_S)
        if not projections.is_behind:
            with suppress(OSError, StorageError, zmq.ZMQError, sqlite3.Error):
                await to_thread.run_sync(adopter.end_vanished)  # Or the next time.


async def _follow(projections: _Projections, wake_fd: int) -> None:
    """Fold whatever the recorder says is durable, until it says no more."""
    end: LogPosition | None = None
    is_open = True
    while is_open:
        await anyio.wait_readable(wake_fd)
        is_open, told = read_wakes(wake_fd)
        end = told.end if told else end
        started = time.monotonic()
        if end is not None:
            while await to_thread.run_sync(projections.project, end):
                pass
        if is_open:
            await anyio.sleep(
                max(0.0, COMMIT_INTERVAL_S - (time.monotonic() - started))
            )


async def _adopt(adopter: Adopter, spool: Path) -> None:
    news = _news_of(spool)
    try:
        while True:
            seen_ns = os.stat(spool).st_mtime_ns
            if news is not None:
                news.drain()
            await to_thread.run_sync(adopter.scan)
            await anyio.sleep(SCAN_PAUSE_S)
            # A new writer is looked at soon: how it ends is seen only from then on.
            with anyio.move_on_after(SCAN_INTERVAL_S):
                if news is None:
                    await _changed(spool, seen_ns)
                else:
                    await anyio.wait_readable(news)
    finally:
        if news is not None:
            news.close()
        adopter.close()


def _news_of(spool: Path) -> FolderWatch | None:
    """Return what tells of new spools, or None where inotify is not to be had."""
    try:
        return FolderWatch([spool], FolderEvent.MOVED_TO)
    except OSError as error:
        logger.info("no inotify (%s): spools are looked for by the clock", error)
        return None


async def _changed(folder: Path, seen_ns: int) -> None:
    """Return once something came into the folder, or went, since it was seen."""
    while os.stat(folder).st_mtime_ns == seen_ns:  # noqa: ASYNC110  # Not by us.
        await anyio.sleep(LOOK_INTERVAL_S)
