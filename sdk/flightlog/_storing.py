"""Storing: the background thread that brings files into blobs, one after the other."""

import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from flightlog.errors import CommError
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import Staged
from flightlog_storage.event import FileSaved
from flightlog_storage.home import Home

__all__ = ("Job", "Pending", "Storing", "keep_file")


class Job(NamedTuple):
    """Something to do, and whom to tell when it cannot be done."""

    do: Callable[[], object]
    failed: Callable[[Exception], None]


class Storing:
    """Does jobs in the order in which they come, in a thread made for the first.

    A signal handler may come in anywhere, and submit or close, too.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._has_thread = False
        self._is_closed = False
        self._left = 0

    def prepare(self) -> None:
        """Make the thread for what comes at the end of the process.

        Raises:
            RuntimeError: The process is ending, and cannot make one (Python 3.12).
        """
        with self._lock:
            if self._has_thread or self._is_closed:
                return
            self._has_thread = True
            # A daemon thread: the run's end waits for it, and not longer than so.
            thread = threading.Thread(
                target=self._run, name="flightlog-storing", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                self._has_thread = False
                raise
            self._thread = thread

    def submit(self, job: Job) -> None:
        with self._lock:
            if self._is_closed:  # From here to `put` no handler can run.
                job.failed(TimeoutError("the run is ending"))
                return
            try:
                self.prepare()
            except RuntimeError as error:
                job.failed(error)
                return
            self._left += 1
            self._jobs.put(job)

    def close(self, timeout_s: float) -> int:
        """Wait for the jobs, at most so long; return how many are not done.

        What is submitted from now on fails.
        """
        with self._lock:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._left

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.do()
            except Exception as error:  # noqa: BLE001  # Where this service ends.
                job.failed(error)
            with self._lock:
                self._left -= 1


class Pending:
    """An artifact on its way: done when the event that says so is in the spool."""

    def __init__(
        self, home: Home, token: str, flush: Callable[[float | None], bool]
    ) -> None:
        """`token` is the event's; `flush` waits until all in the spool is durable."""
        self.home = home
        self.token = token
        self._flush = flush
        self._is_recorded = threading.Event()
        self._error: Exception | None = None

    def settle(self, error: Exception | None = None) -> None:
        """Say that it is recorded, or why it is not and will not be."""
        self._error = error
        self._is_recorded.set()

    def wait(self, timeout_s: float | None) -> None:
        """Return when it is durable in the log.

        Raises:
            CommError: It was not recorded, or is not durable after `timeout_s`; then
                `exc` is a TimeoutError.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        is_recorded = self._is_recorded.wait(timeout_s)
        if self._error is not None:
            raise CommError(f"it was not logged: {self._error}", self._error)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not is_recorded or not self._flush(left):
            message = "it is not logged yet, and its run has ended"
            if timeout_s is not None:
                message = f"it is not logged after {timeout_s} s"
            raise CommError(message, TimeoutError(message))


def keep_file(store: BlobStore, staged: Staged, name: str, now: float) -> FileSaved:
    """Make a staged file a blob; return the event that makes it a file of a run."""
    store.keep(staged)
    digests = staged.digests
    return FileSaved(
        time=now,
        name=name,
        blob=digests.sha256,
        digest=digests.md5,
        size=digests.size,
    )
