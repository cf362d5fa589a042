"""The collector: deletes now and then what nothing in the home needs any more.

Runs that are older than was asked for, rows of deleted runs in the log, and blobs that
nothing names. Checkpoints that replace one another would fill the disk otherwise.
"""

import logging
import sqlite3
import threading
import time
from contextlib import closing

from flightlog_storage.artifact_state import RunName
from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.errors import StorageError
from flightlog_storage.event import RunDeleted
from flightlog_storage.home import Home
from flightlogd.lane import Stopped
from flightlogd.reporting import Reporter
from flightlogd.wakes import Durable

__all__ = ("FIRST_AFTER_S", "INTERVAL_S", "Collector")

logger = logging.getLogger(__name__)

FIRST_AFTER_S = 300.0
INTERVAL_S = 3600.0
# Where the materializer is further behind, as after a replay, it is let go first.
BEHIND_EVENTS_MAX = 1_000_000


class Collector:
    """Looks for garbage whenever the log has grown, and deletes it."""

    def __init__(self, home: Home, retain_s: float | None = None) -> None:
        """`retain_s` is how long runs are kept after their end; None: for ever."""
        self._home = home
        self._retain_s = retain_s
        self._stopping = threading.Event()
        self._old: set[RunName] = set()  # Runs that were too old at the last look.
        self._collected_at: int | None = None  # How far the log was, if all was taken.
        self.durable: Durable | None = None

    def collect(self) -> None:
        """Delete what there is, and tell of it."""
        durable = self.durable
        if durable is None or durable.offset == self._collected_at:
            return
        if (
            read_checkpoint(self._home.state).offset + BEHIND_EVENTS_MAX
            < durable.offset
        ):
            return
        is_all = self._delete_old_runs()
        is_all &= self._empty_log()
        is_all &= self._collect_garbage()
        if is_all:
            self._collected_at = durable.offset

    def _delete_old_runs(self) -> bool:
        """Delete runs that were too old an hour ago, too; return whether none is left.

        Twice, for the clock may be wrong for a while.
        """
        if self._retain_s is None:
            return True
        from flightlog_storage.retention import old_runs

        try:
            old = old_runs(self._home, self._retain_s, time.time())
            with closing(Reporter(self._home, self._stopping)) as reporter:
                for run, heard_at in old:
                    if run in self._old:
                        event = RunDeleted(time=time.time(), if_quiet_since=heard_at)
                        reporter.tell(run, event)
                        logger.info("deleted run %s: it is too old", "/".join(run))
        except (StorageError, OSError, sqlite3.Error) as error:
            logger.warning("old runs are not deleted: %s", error)
            return False
        self._old = {run for run, _ in old} - self._old
        return not self._old

    def _empty_log(self) -> bool:
        """Take the rows of deleted runs out of the log; return whether all are."""
        # Loaded only here: a worker that has nothing to do is to be small.
        from flightlog_storage.emptying import empty

        try:
            done = empty(self._home, self._tick)
        except (Stopped, BlockingIOError):
            return False
        except (StorageError, OSError, sqlite3.Error) as error:
            logger.warning("rows of deleted runs stay in the log: %s", error)
            return False
        if done.frames:
            shown = f"{done.freed:,}"
            logger.info(
                "emptied %d frames of deleted runs: the log is %s bytes smaller",
                done.frames,
                shown,
            )
        return not done.is_partial

    def _collect_garbage(self) -> bool:
        """Delete blobs and leftovers; return whether all that there is was deleted."""
        from flightlog_storage.garbage import collect, find_garbage

        try:
            garbage = find_garbage(self._home, tick=self._tick)
            collected = collect(garbage, self._tick)
        except Stopped:
            return False
        except (StorageError, OSError) as error:
            logger.warning("nothing is deleted that nobody needs: %s", error)
            return False
        if collected.count:
            shown = f"{collected.size:,}"
            logger.info("deleted %d files of %s bytes", collected.count, shown)
        for path, why in collected.failed[:10]:
            logger.warning("%s cannot be deleted: %s", path, why)
        return not garbage.young_count and not collected.failed

    def stop(self) -> None:
        """Have `collect` end soon, from another thread."""
        self._stopping.set()

    def _tick(self, size: int = 0) -> None:
        if self._stopping.is_set():
            raise Stopped
