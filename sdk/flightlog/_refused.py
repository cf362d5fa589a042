"""A run without a spool, for the disk refuses one: what waits, and what is lost."""

import time

from flightlog._recording import Recording
from flightlog._say import say
from flightlog_storage.codec import packer
from flightlog_storage.frame import EVENT_SIZE_MAX
from flightlog_storage.spool_writer import REFUSAL_S, SpoolWriter

__all__ = ("NoSpool", "Refused")


class NoSpool(SpoolWriter):
    """In place of a spool: closed, so that whoever logs asks for another one."""

    __slots__ = ()

    def __init__(self) -> None:
        self.shapes = {}
        self.is_open = self.idle = False
        self.pack = packer().pack
        self._lock_fd = -1
        self.new_lock()


class Refused:
    """What there is of a run as long as the disk refuses it a spool.

    What is said of the run waits in memory until there is room; rows are counted.
    """

    def __init__(self) -> None:
        self.since = 0.0
        self._error: OSError | None = None
        self._asked_s = 0.0
        self._lost_count = 0
        self._waiting: list[bytes] = []
        self._room = EVENT_SIZE_MAX

    def check(self) -> None:
        """Let the disk be asked, now and then: to refuse takes it milliseconds.

        Raises:
            OSError: What it said, not so long ago.
        """
        if self._error is None:
            return
        if time.monotonic() < self._asked_s + REFUSAL_S:
            raise OSError(*self._error.args)
        self._asked_s = time.monotonic()

    def ask_again(self) -> None:
        """Let the disk be asked the next time."""
        self._asked_s = -REFUSAL_S

    def note(self, error: OSError, run: str) -> None:
        """Take note of what the disk says, and tell it once."""
        self._asked_s = time.monotonic()
        self._error = error
        if not self.since:
            self.since = time.time()
            say(
                f"run {run} cannot be recorded ({error}): training goes on; rows are "
                "lost, and counted, until there is room"
            )

    def keep(self, event: bytes) -> None:
        """Have an event wait; one too many is lost."""
        if len(event) > self._room:
            self.drop()
            return
        self._room -= len(event)
        self._waiting.append(event)

    def drop(self) -> None:
        self._lost_count += 1

    def tell(self, recording: Recording) -> None:
        """Record what waits, and how much is lost."""
        for event in self._waiting:
            recording.put(event)
        if self._error is not None:
            recording.take_over(self._lost_count, self.since, self._error)

    def tell_end(self, run: str) -> None:
        """Tell that there was no room until the end."""
        if self.since:
            say(
                f"run {run}: the disk refused all of it, {self._lost_count:,} rows, "
                "which are lost"
            )
