"""The collector: deletes now and then what nothing in the home needs any more.

Checkpoints that replace one another would fill the disk otherwise.
"""

import logging
import threading

from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.errors import StorageError
from flightlog_storage.home import Home
from flightlogd.lane import Stopped
from flightlogd.wakes import Durable

__all__ = ("FIRST_AFTER_S", "INTERVAL_S", "Collector")

logger = logging.getLogger(__name__)

FIRST_AFTER_S = 300.0
INTERVAL_S = 3600.0
# Where the materializer is further behind, as after a replay, it is let go first.
BEHIND_EVENTS_MAX = 1_000_000


class Collector:
    """Looks for garbage whenever the log has grown, and deletes it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stopping = threading.Event()
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
        # Loaded only here: a worker that has nothing to do is to be small.
        from flightlog_storage.garbage import collect, find_garbage

        try:
            garbage = find_garbage(self._home, tick=self._tick)
            collected = collect(garbage, self._tick)
        except Stopped:
            return
        except (StorageError, OSError) as error:
            logger.warning("nothing is deleted that nobody needs: %s", error)
            return
        if collected.count:
            shown = f"{collected.size:,}"
            logger.info("deleted %d files of %s bytes", collected.count, shown)
        for path, why in collected.failed[:10]:
            logger.warning("%s cannot be deleted: %s", path, why)
        if not garbage.young_count and not collected.failed:
            self._collected_at = durable.offset

    def stop(self) -> None:
        """Have `collect` end soon, from another thread."""
        self._stopping.set()

    def _tick(self) -> None:
        if self._stopping.is_set():
            raise Stopped
