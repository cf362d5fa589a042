"""The worker process: does what the log says is owed.

It may be killed at any point. Files are made in one lane, assets archived in another;
outputs are looked for in threads of their own, one more deletes what nothing needs, and
one compresses the log.
A file that its process dies of, again and again, is given up.
"""

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import anyio
from anyio import to_thread

from flightlog_storage.artifact_state import RunName
from flightlog_storage.blobs import Blob, BlobStore
from flightlog_storage.database import Database
from flightlog_storage.disk import DiskRoom
from flightlog_storage.event import FileFailed, FileSaved
from flightlog_storage.home import Home
from flightlog_storage.inbox import inbox_path, orphans
from flightlog_storage.runfiles import OwedFile
from flightlogd.archiver import Archiver
from flightlogd.collector import FIRST_AFTER_S, INTERVAL_S, Collector
from flightlogd.compressor import Compressor
from flightlogd.config import DaemonConfig
from flightlogd.lane import Lane
from flightlogd.turns import take_turn
from flightlogd.wakes import read_wakes
from flightlogd.watcher import Watcher

__all__ = ("run",)

logger = logging.getLogger(__name__)

ALL = 1 << 31
NICENESS = 10  # The training on the same cores comes first.
DEATHS_MAX = 5  # Of this process, over one job.
LOOK_INTERVAL_S = 0.1  # At whether the materializer has come as far as the log.
LOOK_INTERVAL_MAX_S = 1.0  # While what is logged all the time owes nothing.
SWEEP_INTERVAL_S = 60.0
COMPRESS_INTERVAL_S = 10.0  # Between two looks for sealed segments.
COMPRESS_PAUSE_S = 1.0  # Between two of them.
_IGNORED = (signal.SIGINT, signal.SIGTERM)  # The recorder says when it is time.


def run(config: DaemonConfig, wake_fd: int) -> None:
    """Work until the recorder closes the other end of `wake_fd`."""
    home = config.home
    if not take_turn(home.root / "worker.lock", wake_fd):
        return
    os.nice(NICENESS)
    os.set_blocking(wake_fd, False)
    room = DiskRoom(home, config.low_water)
    # Files of the inbox take no room: what they are made of is deleted then.
    worker, archiver, watcher = Worker(home), Archiver(home, room), Watcher(home, room)
    keepers = (Collector(home, config.retain_s), Compressor(home))
    try:
        anyio.run(_serve, worker, archiver, watcher, keepers, wake_fd)
    finally:
        worker.close()
        archiver.close()
        watcher.close()


async def _serve(
    worker: "Worker",
    archiver: Archiver,
    watcher: Watcher,
    keepers: tuple[Collector, Compressor],
    wake_fd: int,
) -> None:
    collector, compressor = keepers
    with anyio.open_signal_receiver(*_IGNORED):
        async with anyio.create_task_group() as services:
            services.start_soon(_work, worker)
            services.start_soon(_work, archiver)
            services.start_soon(_work, watcher)
            services.start_soon(_sweep, worker)
            services.start_soon(_collect, collector)
            services.start_soon(_compress, compressor)
            is_open = True
            while is_open:
                await anyio.wait_readable(wake_fd)
                is_open, told = read_wakes(wake_fd)
                for lane in (worker, archiver, watcher):
                    lane.durable = told or lane.durable
                    lane.news.set()
                for keeper in keepers:
                    keeper.durable = told or keeper.durable
            for each in (worker, archiver, watcher, *keepers):
                each.stop()
            services.cancel_scope.cancel()


async def _work(lane: "Worker | Archiver | Watcher") -> None:
    """Do what is owed whenever the log has grown."""
    pause_s = LOOK_INTERVAL_S
    while True:
        lane.news = anyio.Event()
        is_done = await to_thread.run_sync(lane.work)
        looked_at = time.monotonic()
        if is_done:
            await lane.news.wait()
        is_quiet = time.monotonic() - looked_at > LOOK_INTERVAL_MAX_S
        if lane.has_jobs or is_quiet:
            pause_s = LOOK_INTERVAL_S
        await anyio.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_INTERVAL_MAX_S)


async def _sweep(worker: "Worker") -> None:
    """Delete what nobody will ask for."""
    while True:
        await anyio.sleep(SWEEP_INTERVAL_S)
        try:
            count = await to_thread.run_sync(worker.sweep)
        except OSError as error:  # No reason to end the archive that is under way.
            logger.warning("the inbox cannot be swept: %s", error)
            continue
        if count:
            logger.info("swept %d files that nobody had asked for", count)


async def _collect(collector: Collector) -> None:
    """Delete what nothing needs any more."""
    await anyio.sleep(FIRST_AFTER_S)
    while True:
        await to_thread.run_sync(collector.collect)
        await anyio.sleep(INTERVAL_S)


async def _compress(compressor: Compressor) -> None:
    """Compress what is sealed."""
    while True:
        is_more = await to_thread.run_sync(compressor.compress)
        await anyio.sleep(COMPRESS_PAUSE_S if is_more else COMPRESS_INTERVAL_S)


class Worker(Lane[OwedFile]):
    """Makes the files that are owed, of what lies in the inbox."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._deaths = Deaths(home.job)
        self._left: set[str] = set()  # What the last sweep found to be nobody's.

    def read(self, database: Database, limit: int) -> list[tuple[RunName, OwedFile]]:
        return database.owed_files(limit)

    def sweep(self) -> int:
        """Delete what has been nobody's for a while; return how many files that is."""
        durable = self.durable
        found = orphans(self._home.inbox, self._home.spool)
        folded, jobs = self.owed(ALL)
        found -= {owed.token for _, owed in jobs}
        # Now, and also when all that its writer may have said of it was folded.
        nobodys = found & self._left if durable and folded >= durable.offset else set()
        self._left = found - nobodys
        for name in nobodys:
            (self._home.inbox / name).unlink(missing_ok=True)
        return len(nobodys)

    def do(self, run: RunName, owed: OwedFile) -> None:
        try:
            self._make(run, owed)
        except OSError:
            self._deaths.end()  # The disk or the recorder refused: this process lives.
            raise
        self._deaths.end()

    def _make(self, run: RunName, owed: OwedFile) -> None:
        # Loaded for the first job only: idle, this process is to be small.
        from flightlogd.jobs import JobFailed, make_file

        event: FileSaved | FileFailed
        blobs: list[Blob] = []
        try:
            if self._deaths.begin(owed.token) >= DEATHS_MAX:
                raise JobFailed(f"the worker died of it {DEATHS_MAX} times")
            event = make_file(self._home, owed)
            blobs.append((event.blob, event.size))
        except JobFailed as error:
            logger.error("%s of run %s is lost: %s", owed.name, "/".join(run), error)
            event = FileFailed(time=time.time(), token=owed.token, reason=str(error))
        with BlobStore(self._home.blobs).naming(blobs):
            self._reporter.tell(run, event)
        with suppress(ValueError):
            inbox_path(self._home.inbox, owed.token).unlink(missing_ok=True)


class Deaths:
    """Counts how often this process has died over the job that it is at."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, token: str) -> int:
        """Note that a job begins; return how often it ended with the process."""
        try:
            last, count = self._path.read_text().split()
            deaths = int(count) + 1 if last == token else 0
        except (OSError, ValueError):
            deaths = 0
        self._path.touch(mode=0o600)
        self._path.write_text(f"{token} {deaths}")
        return deaths

    def end(self) -> None:
        with suppress(OSError):  # A disk that is read-only now: there is no job, then.
            self._path.unlink()
