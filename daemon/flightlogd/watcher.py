"""The watcher: has each watch that is open looked after."""

import logging
import os
import threading

from flightlog_storage.artifact_state import RunName
from flightlog_storage.database import Database
from flightlog_storage.disk import DiskRoom
from flightlog_storage.event import Event
from flightlog_storage.home import Home
from flightlog_storage.watches import OpenWatch
from flightlogd.lane import Follower
from flightlogd.watching import Watching

__all__ = ("Watcher",)

logger = logging.getLogger(__name__)

WATCHES_MAX = 256  # At once; each is a thread. Others wait until one has ended.
NOTIFIED_MAX = 32  # A quarter of the inotify instances that a user often may have.
TOLD_TIMEOUT_S = 5.0


class Watcher(Follower[OpenWatch]):
    """Begins and ends watches as the log says. They look by themselves meanwhile."""

    def __init__(self, home: Home, room: DiskRoom) -> None:
        super().__init__(home)
        self._room = room
        self._host = os.uname().nodename
        self._telling = threading.Lock()
        self._watchings: dict[str, Watching] = {}
        self._elsewhere: set[str] = set()  # Tokens of watches of other machines.

    def read(self, database: Database, limit: int) -> list[tuple[RunName, OpenWatch]]:
        return database.open_watches(limit)

    def work(self) -> bool:
        durable = self.durable
        if durable is None:
            return True
        folded, found = self.owed(WATCHES_MAX)
        if not self.is_current(folded, durable):
            return False
        for token in self._watchings.keys() - {owed.token for _, owed in found}:
            self._watchings.pop(token).stop()
        for run, owed in found:
            self._serve(run, owed)
        return folded >= durable.offset

    def stop(self) -> None:
        super().stop()
        for watching in [*self._watchings.values()]:
            watching.stop()

    def close(self) -> None:
        # One that is being told is waited for; the recorder mostly answers at once.
        if self._telling.acquire(timeout=TOLD_TIMEOUT_S):
            super().close()

    def _serve(self, run: RunName, owed: OpenWatch) -> None:
        if owed.host not in ("", self._host):
            if owed.token not in self._elsewhere:
                self._elsewhere.add(owed.token)
                logger.warning(
                    "outputs of %s are on %s, not here", "/".join(run), owed.host
                )
            return
        watching = self._watchings.get(owed.token)
        if watching is None:
            watching = Watching(
                self._home,
                run,
                owed.watch,
                self._tell,
                self._room,
                is_notified=len(self._watchings) < NOTIFIED_MAX,
            )
            self._watchings[owed.token] = watching
            watching.start()
        if owed.is_over:
            watching.end()

    def _tell(self, run: RunName, event: Event) -> None:
        with self._telling:
            self._reporter.tell(run, event)
