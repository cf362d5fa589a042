"""A writer at work: its spool, its sender, and what to do when the disk refuses."""

import os
import time
from contextlib import suppress
from pathlib import Path

from flightlog._say import say
from flightlog._sender import Sender
from flightlog_storage.budget import refusal
from flightlog_storage.codec import RunKey, encode_event
from flightlog_storage.event import Event, Gap
from flightlog_storage.home import Home
from flightlog_storage.process import this_process
from flightlog_storage.protocol import TOKEN_SIZE, writer_of
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_room import SpoolCaps
from flightlog_storage.spool_writer import SpoolWriter

__all__ = ("Recording", "encoded")


class Recording:
    """One writer's way from the training loop to the daemon."""

    def __init__(
        self, home: Home, run: RunKey, forked: bool, caps: SpoolCaps | None = None
    ) -> None:
        """Open the spool and start the sender.

        Raises:
            OSError: The spool cannot be opened.
        """
        token = os.urandom(TOKEN_SIZE)
        owner = SpoolOwner(writer_of(token), this_process(), run, forked)
        self.spool = SpoolWriter(home.spool, owner, lambda: None, caps)
        self.dropped_count = 0
        self._reported_count = 0
        self._refusal = ""
        self._dropped_at = 0.0  # The first that is not reported.
        self._sender = Sender(home, self.spool, token)
        self._sender.on_round = self._report_drops
        self.spool.wake = self._sender.wake
        self._has_warned = False

    @property
    def folder(self) -> Path:
        return self.spool.folder

    def start(self) -> None:
        self._sender.start()

    def record(self, event: Event) -> None:
        """Append an event; a disk that refuses costs the event, never an exception.

        Raises:
            ValueError: It is too large.
        """
        self.put(encoded(event))

    def put(self, event: bytes) -> None:
        """Append an event that was encoded, or drop it."""
        try:
            self.spool.put(event)
        except OSError as error:
            self.drop(error)

    def take_over(self, count: int, since: float, error: OSError) -> None:
        """Count what was lost before there was a spool."""
        with self.spool.lock:
            self.dropped_count += count
            self._dropped_at = since
            self._refusal = error.strerror or str(error)
            self._report_drops()

    def drop(self, error: OSError) -> None:
        """Count a row that the disk refused, and say so once.

        The count is noted where it survives this process, also a kill of it.
        """
        with self.spool.lock:
            if self.dropped_count == self._reported_count:
                self._dropped_at = time.time()
            self.dropped_count += 1
            self._refusal = error.strerror or str(error)
            self.spool.note(self._gap())
        if not self._has_warned:
            self._has_warned = True
            say(
                f"the spool cannot be written ({error}): rows are being dropped and "
                "counted; training goes on"
            )

    def flush(self, timeout_s: float | None) -> bool:
        self.spool.ask_again()
        self._report_drops()
        return self._sender.flush(timeout_s)

    def finish(
        self, event: Event | None, timeout_s: float, *, is_left: bool = False
    ) -> bool:
        """Append the last event, if any, and give the sender time; True when durable.

        What is not durable by then is sent on as long as the process lives, and taken
        from the spool by the daemon when it does not. A spool that `is_left` stays
        when all of it is durable, for the daemon to say how the process ended.
        """
        with self.spool.lock:  # No row may be dropped between the count and the end.
            self._report_drops()
            for _ in range(self.spool.give_up_deferred()):
                self.drop(OSError("no room"))
            self._reported_count = self.dropped_count  # Else noted: seal() tells it.
            try:
                self.spool.seal(b"" if event is None else encode_event(event))
            except OSError as error:
                self.drop(error)
        self._sender.close(keeps_spool=is_left)
        deadline = time.monotonic() + timeout_s
        is_durable = self._sender.flush(timeout_s)
        self._sender.join(max(0.0, deadline - time.monotonic()))
        return is_durable

    def _report_drops(self) -> None:
        if self.dropped_count == self._reported_count:
            return
        with self.spool.lock, suppress(OSError):  # Or it stays noted.
            self.spool.put(self._gap())
            self._reported_count = self.dropped_count
            self.spool.note(b"")

    def _gap(self) -> bytes:
        """Return the event that counts what was dropped and not yet reported."""
        count = self.dropped_count - self._reported_count
        reason = f"the spool was refused: {self._refusal}"
        return encode_event(Gap(time=self._dropped_at, count=count, reason=reason))


def encoded(event: Event) -> bytes:
    """Return an event as a spool holds it.

    Raises:
        ValueError: It is too large.
    """
    data = encode_event(event)
    if why := refusal(data):
        raise ValueError(f"{type(event).__name__}: {why}: write them to a file")
    return data
