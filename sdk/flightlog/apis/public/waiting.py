"""Waiting for a run's end: woken by what is recorded, not by a clock."""

import math
import threading
import time
from collections.abc import Callable

from flightlog.errors import BadArgumentError, CommError
from flightlog_storage.home import Home
from flightlog_storage.inotify import FolderEvent, FolderWatch
from flightlog_storage.runstate import RunState, State

__all__ = ("wait_for_end", "watch_home")

# A look without a word from the kernel: a process may have died while no daemon is
# there to record it, and some file systems tell nothing.
LOOK_INTERVAL_S = 2.0
# A busy log wakes without end: one look in so long is enough.
QUIET_S = 0.05
CLOCK_S = 0.25
_NOT_ENDED = (State.PENDING, State.RUNNING, State.PREEMPTING)
_EVENTS = FolderEvent.MODIFIED | FolderEvent.CREATED | FolderEvent.DELETED


def wait_for_end(home: Home, read: Callable[[], RunState], timeout: object) -> None:
    """Return when the run that `read` reads has ended.

    Raises:
        BadArgumentError: `timeout` is no number of seconds and not None.
        CommError: It has not ended by then; `exc` is a TimeoutError.
    """
    if timeout is not None and not (
        isinstance(timeout, int | float)
        and not isinstance(timeout, bool)
        and not math.isnan(timeout)
    ):
        raise BadArgumentError(
            f"timeout must be a number of seconds or None, not {timeout!r}"
        )
    deadline = float("inf") if timeout is None else time.monotonic() + timeout
    with watch_home(home) as watch:
        while True:
            state = read().state
            if state not in _NOT_ENDED:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                message = f"the run has not ended in {timeout} s: it is {state}"
                raise CommError(message, TimeoutError(message))
            if watch.wait(min(left, LOOK_INTERVAL_S)):
                _settle(watch)


class _Clock:
    """What wakes where the system has no inotify to spare."""

    def __enter__(self) -> "_Clock":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def wait(self, timeout_s: float) -> bool:
        threading.Event().wait(min(timeout_s, CLOCK_S))
        return False


def watch_home(home: Home) -> FolderWatch | _Clock:
    """Return what wakes when something is recorded or logged into a new spool."""
    try:
        return FolderWatch([home.log, home.spool], _EVENTS)
    except OSError:
        return _Clock()


def _settle(watch: FolderWatch | _Clock) -> None:
    """Let a burst of changes pass: what came meanwhile is seen by the next look."""
    end = time.monotonic() + QUIET_S
    while (left := end - time.monotonic()) > 0 and watch.wait(left):
        pass
