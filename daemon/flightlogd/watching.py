"""Watching: a thread that looks for the outputs of a run, again and again.

Each watch has its own, for a folder may hang, or take hours to archive: no other run is
to wait for that. Looks that are of no use, as far as the kernel tells, are left out.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

from flightlog_storage.archive import Archive
from flightlog_storage.artifact_state import RunName
from flightlog_storage.assets import Asset
from flightlog_storage.database import Database
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import Event, OutputsWatchStopped
from flightlog_storage.folder_news import FolderNews
from flightlog_storage.home import Home
from flightlog_storage.outputs import Memory, Scan, Scanner
from flightlog_storage.watches import Watch
from flightlogd.lane import RETRY_S, Stopped

__all__ = ("Watching",)

logger = logging.getLogger(__name__)

LAST_LOOKS_MAX = 3  # At what cannot be archived, once the run has ended.
ROOM_INTERVAL_S = 2.0  # At whether the disk has room, while it has none.
# Looks come at least that often, for the kernel does not tell of all.
LEFT_OUT_INTERVALS_MAX = 10
LEFT_OUT_MAX_S = 300.0


class Watching:
    """A watch at work; to be started, ended with its run, or stopped."""

    def __init__(
        self,
        home: Home,
        run: RunName,
        watch: Watch,
        tell: Callable[[RunName, Event], None],
        room: DiskRoom,
        *,
        is_notified: bool = True,
    ) -> None:
        """`tell` has the recorder make an event durable, or raises an OSError.

        While the disk has no `room` it does not look. Without `is_notified` it looks
        at each interval.
        """
        self._home = home
        self._run = run
        self._watch = watch
        self._report = tell
        self._room = room
        self._news = threading.Event()
        self._is_over = False
        self._is_stopped = False
        self._last_looks = 0
        self._quiet_until = 0.0  # As long as there is no news of the folders.
        self._folders = FolderNews(watch.looking.dirs, self._warn, is_able=is_notified)
        self._scanner = Scanner(
            watch.looking,
            Archive(home, self._tick, room=room),
            self._warn,
            self._tick,
            Memory(),
            self._folders.scandir,
        )
        # Not waited for: it may hang where nothing can wake it.
        self._thread = threading.Thread(
            target=self._serve, name="flightlogd-watching", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Look for the last time: the one who writes the outputs has ended."""
        if not self._is_over:
            self._is_over = True
            self._news.set()

    def stop(self) -> None:
        """Look no more; a look that is under way is left."""
        self._is_stopped = True
        self._news.set()

    def _serve(self) -> None:
        with closing(self._folders):
            due = time.monotonic()
            while not self._is_stopped:
                self._news.clear()
                is_last = self._is_over
                try:
                    pause_s = self._look(is_last)
                except Stopped:
                    return
                except Exception:  # A watch that ends silently would lose the rest.
                    logger.exception("outputs of %s cannot be looked for", self._name)
                    pause_s = RETRY_S
                if pause_s is None:
                    return
                now = time.monotonic()
                # In step with the first look, however long each takes.
                due = now + pause_s if is_last else _next(due, pause_s, now)
                self._news.wait(due - now)

    def _look(self, is_last: bool) -> float | None:
        """Look, if need be; return how long to wait then, None if that was the last."""
        if self._room.is_low:
            return ROOM_INTERVAL_S
        started = time.monotonic()
        if not is_last and started < self._quiet_until and self._folders.is_quiet():
            return self._watch.interval_s
        self._quiet_until = 0.0
        self._folders.begin()
        with _Known(self._home, self._run) as known:
            scan = self._scanner.scan(known.find, self._put, is_last=is_last)
        if scan.error is not None:
            logger.warning("outputs of %s: %s; again", self._name, scan.error)
        if scan.is_settled:
            left_out_s = LEFT_OUT_INTERVALS_MAX * self._watch.interval_s
            self._quiet_until = started + min(left_out_s, LEFT_OUT_MAX_S)
        if not is_last:
            return self._watch.interval_s
        return None if self._has_ended(scan) else RETRY_S

    def _has_ended(self, scan: Scan) -> bool:
        """Say that the watch has ended, if it has; return whether it is said."""
        if scan.error is not None:
            return False
        self._last_looks += 1
        if scan.failed and self._last_looks < LAST_LOOKS_MAX:
            return False
        for key in scan.failed:
            logger.error("output %s of %s is lost", key, self._name)
        event = OutputsWatchStopped(
            time=time.time(), token=self._watch.token, failed=len(scan.failed)
        )
        try:
            self._put(event)
        except OSError as error:
            logger.warning("outputs of %s: %s; again", self._name, error)
            return False
        return True

    def _put(self, event: Event) -> None:
        self._report(self._run, event)

    @property
    def _name(self) -> str:
        return "/".join(self._run)

    def _warn(self, text: str) -> None:
        logger.warning("outputs of %s: %s", self._name, text)

    def _tick(self) -> None:
        if self._is_stopped:
            raise Stopped


class _Known:
    """What state.db says was archived; opened when it is asked."""

    def __init__(self, home: Home, run: RunName) -> None:
        self._home = home
        self._run = run
        self._database: Database | None = None

    def find(self, key: str) -> Asset | None:
        """Return what was archived last of an output.

        There is no snapshot of the database around this: a look may take hours.
        """
        try:
            if self._database is None:
                self._database = Database.open_reader(self._home.state)
        except HomeUnusable:
            return None  # Then it is read again: equal bytes are one.
        return self._database.last_output(self._run, key)

    def __enter__(self) -> "_Known":
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()


def _next(due: float, interval_s: float, now: float) -> float:
    """Return when the next look is due; those that were missed are left out."""
    return due + interval_s * max(1, -((due - now) // interval_s))
