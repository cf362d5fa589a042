"""A lane: jobs of one kind, done one at a time, in the order of the log.

A job is done when the event that says so is in the log; until then it is done again,
with the same outcome. One that the disk refuses keeps none waiting but later ones of
its name; where the disk is full, or no recorder answers, all wait.
"""

import errno
import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Generic, NamedTuple, Protocol, TypeVar

import anyio

from flightlog_storage.artifact_state import RunName
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home
from flightlogd.reporting import Reporter
from flightlogd.wakes import Durable

__all__ = ("Follower", "Lane", "Stopped")

logger = logging.getLogger(__name__)

JOBS_READ_MAX = 64
RETRY_S = 30.0  # After a disk or a recorder refused.
RETRY_MAX_S = 960.0  # A job that is refused again waits twice as long, up to this.

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Stopped(Exception):
    """A job was left, for the process is to end."""


class Owed(Protocol):
    """What a job is told from others by, and called."""

    @property
    def token(self) -> str: ...

    @property
    def name(self) -> str: ...


_Owed = TypeVar("_Owed", bound=Owed)


class Follower(ABC, Generic[_Owed]):
    """Knows what state.db says is owed, and says what was done."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stopping = threading.Event()
        self._reporter = Reporter(home, self._stopping)
        self._heard: int | None = None  # Up to where the log was durable at a look.
        self.has_jobs = False  # At the last look.
        self.durable: Durable | None = None
        self.news = anyio.Event()

    @abstractmethod
    def read(self, database: Database, limit: int) -> list[tuple[RunName, _Owed]]:
        """Return what is owed, oldest first."""

    @abstractmethod
    def work(self) -> bool:
        """Do what there is to do; return whether the log is known to owe no more."""

    def owed(self, limit: int) -> tuple[int, list[tuple[RunName, _Owed]]]:
        """Return up to where the log is folded, and what is owed as of then."""
        try:
            database = Database.open_reader(self._home.state)
        except HomeUnusable:
            return 0, []  # Nothing is folded yet.
        with database, database.snapshot():
            return database.checkpoint().offset, self.read(database, limit)

    def is_current(self, folded: int, durable: Durable) -> bool:
        """Whether what is owed is known as of the last look, or better.

        What is not folded may say that it is done: by a predecessor, or long ago, if
        all is folded anew.
        """
        if self._heard is None:
            self._heard = durable.offset
        if folded < self._heard:
            return False
        self._heard = durable.offset
        return True

    def stop(self) -> None:
        """Have `work` end soon, from another thread."""
        self._stopping.set()

    def close(self) -> None:
        self._reporter.close()


class _Refused(NamedTuple):
    """When a job is to be tried again, and how long that is after it was refused."""

    until: float
    pause_s: float


class Lane(Follower[_Owed]):
    """Does the jobs that state.db says are owed."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._retry_at = 0.0
        self._refused: dict[str, _Refused] = {}  # By token.
        self._done: set[str] = set()  # Tokens that state.db still takes for owed.

    @abstractmethod
    def do(self, run: RunName, owed: _Owed) -> None:
        """Do a job and say so.

        Raises:
            OSError: It is to be tried again later.
            Stopped: It was left.
        """

    def work(self) -> bool:
        """Do the jobs there are; return whether the log is known to owe no more."""
        durable = self.durable
        if durable is None or time.monotonic() < self._retry_at:
            return durable is None
        # What is refused must not be all that is read.
        folded, jobs = self.owed(JOBS_READ_MAX + len(self._refused))
        self.has_jobs = bool(jobs)
        if not self.is_current(folded, durable):
            return False
        tokens = {owed.token for _, owed in jobs}
        self._done &= tokens
        self._refused = {t: self._refused[t] for t in tokens & self._refused.keys()}
        self._do_all(jobs)
        return not jobs and folded >= durable.offset

    def _do_all(self, jobs: list[tuple[RunName, _Owed]]) -> None:
        self.has_jobs = False
        held: set[tuple[RunName, str]] = set()  # Of two of a name, the later counts.
        for run, owed in jobs:
            if (run, owed.name) in held or not self._is_due(owed):
                held.add((run, owed.name))
                continue
            self.has_jobs = True
            if owed.token in self._done:
                continue
            if self._stopping.is_set() or not self._is_tried(run, owed):
                return
            if owed.token not in self._done:
                held.add((run, owed.name))

    def _is_tried(self, run: RunName, owed: _Owed) -> bool:
        """Do a job; return whether the next one may follow."""
        try:
            self.do(run, owed)
        except OSError as error:
            return self._is_refused_alone(owed, error)
        except Stopped:
            return False
        self._done.add(owed.token)
        return True

    def _is_due(self, owed: _Owed) -> bool:
        refused = self._refused.get(owed.token)
        return refused is None or refused.until <= time.monotonic()

    def _is_refused_alone(self, owed: _Owed, error: OSError) -> bool:
        """Note when to try again: this job, or all, if no other would fare better."""
        is_alone = error.errno not in _FULL and not isinstance(
            error, ConnectionError | TimeoutError
        )
        pause_s = RETRY_S
        if is_alone:
            before = self._refused.get(owed.token)
            if before is not None:
                pause_s = min(2 * before.pause_s, RETRY_MAX_S)
            self._refused[owed.token] = _Refused(time.monotonic() + pause_s, pause_s)
        else:
            self._retry_at = time.monotonic() + RETRY_S
        logger.warning("%s: %s; again in %.0f s", owed.name, error, pause_s)
        return is_alone
