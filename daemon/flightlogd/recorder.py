"""The recorder: frames in, log, ack. The part that must never stop taking data in."""

import logging
import os
import signal
import time
from collections.abc import Callable

import anyio
import zmq
from anyio import to_thread

from flightlog_storage.errors import HomeLocked
from flightlog_storage.eventlog import AppendFailed
from flightlog_storage.home import HomeLock
from flightlog_storage.protocol import Refused, Reply, encode
from flightlogd.intake import Intake, Message
from flightlogd.listener import Listener

__all__ = ("Recorder",)

logger = logging.getLogger(__name__)

BATCH_MESSAGES_MAX = 4096
BATCH_SIZE_MAX = 4 << 20
BATCH_INTERVAL_S = 0.002  # At least: frames of many writers are synced together.
ROOT = 0  # Who may do all that we may, anyway.
GUARD_INTERVAL_S = 0.1
LOOK_INTERVAL_S = 0.5
DRAIN_TIMEOUT_S = 2.0  # For what still arrives at the end: a flood must not prevent it.
FAILURE_PAUSE_S = 0.5  # After the disk refused, before it is asked again.


class Recorder:
    """The service around an intake: takes all that has arrived, then acts once."""

    def __init__(
        self,
        lock: HomeLock,
        listener: Listener,
        intake: Intake,
        appended: Callable[[], None],
    ) -> None:
        """`appended` is called after each batch that became durable."""
        self._lock = lock
        self._listener = listener
        self._intake = intake
        self._appended = appended
        self._is_failing = False
        self._turned_at = time.monotonic()

    @property
    def silence_s(self) -> float:
        """For how long this has been at one batch, or at nothing."""
        return time.monotonic() - self._turned_at

    def state(self) -> str:
        """Return how it goes, in words."""
        if self._is_failing:
            return "the disk refuses what is logged; the writers keep their spools"
        events = self._intake.counters.events
        return f"{self._intake.active_writers} writers, {events} events since the start"

    async def run(self) -> None:
        """Serve until cancelled."""
        descriptor = self._listener.socket.getsockopt(zmq.FD)
        assert isinstance(descriptor, int)
        while True:
            self._turned_at = time.monotonic()
            # The descriptor tells of changes only, so look before waiting for one.
            while messages := self._arrived():
                begun = time.monotonic()
                with anyio.CancelScope(shield=True):
                    await self._take(messages)
                self._turned_at = time.monotonic()
                until_s = begun + BATCH_INTERVAL_S - self._turned_at
                await anyio.sleep(max(0.0, until_s))
            # And other calls on the socket may use a change up: look now and then.
            with anyio.move_on_after(LOOK_INTERVAL_S):
                await anyio.wait_readable(descriptor)

    async def guard(self) -> None:
        """Watch over the lock, descriptors and the socket file until cancelled."""
        while True:
            await anyio.sleep(GUARD_INTERVAL_S)
            self._keep_lock()
            self._guard()
            self._appended()

    def _keep_lock(self) -> None:
        try:
            if self._lock.keep():
                logger.warning("daemon.lock was gone: made anew")
        except HomeLocked:
            # Not one byte more: the log is another's now. What was not acknowledged is
            # in the spools, and the other processes end with this one.
            logger.error("daemon.lock was gone, and another daemon has it: ending")
            os._exit(1)
        except OSError:
            pass  # With the home, or on a full disk: it is tried again.

    def _guard(self) -> None:
        try:
            done = self._listener.guard()
        except OSError as error:
            # No new writer would find this daemon. The next one has another socket.
            logger.error("the socket cannot be made anew (%s): stopping", error)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if done:
            logger.warning("%s", done)

    def drain(self) -> None:
        """Take what has arrived, at the end, when nothing waits any more."""
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < deadline and (messages := self._arrived()):
            try:
                self._answer(self._intake.take(messages))
            except AppendFailed as error:
                logger.error("%s; the writers keep their spools", error)
                return

    async def _take(self, messages: list[Message]) -> None:
        self._keep_lock()  # Before each batch: two daemons must not write one log.
        try:
            replies = await to_thread.run_sync(self._intake.take, messages)
        except AppendFailed as error:
            if not self._is_failing:
                logger.error("%s; the writers keep their spools", error)
            self._is_failing = True
            # What needs no disk is answered: how the daemon is, what is durable so far.
            requests = [message for message in messages if len(message.parts) == 1]
            self._answer(self._intake.take(requests))
            await anyio.sleep(FAILURE_PAUSE_S)
            return
        if self._is_failing:
            logger.warning("the event log can be written again")
            self._is_failing = False
        self._answer(replies)
        self._appended()
        if any(len(message.parts) == 1 for message in messages):
            self._guard()  # New connections: in a storm the next look is too late.

    def _arrived(self) -> list[Message]:
        messages: list[Message] = []
        size = 0
        for _ in range(BATCH_MESSAGES_MAX):
            try:
                peer, uid, parts = self._listener.receive_nowait()
            except zmq.Again:
                break
            if uid in (os.getuid(), ROOT):
                messages.append(Message(peer, parts))
            else:
                self._turn_away(peer, uid)
            size += sum(map(len, parts))
            if size >= BATCH_SIZE_MAX:
                break
        return messages

    def _turn_away(self, peer: bytes, uid: int | None) -> None:
        """Refuse what another user says, who could open a socket that is not theirs."""
        self._intake.counters.refused += 1
        reason = f"this daemon is of uid {os.getuid()}, and you come as uid {uid}"
        self._answer([(peer, Refused(reason))])

    def _answer(self, replies: list[tuple[bytes, Reply | bytes]]) -> None:
        for peer, reply in replies:
            data = reply if isinstance(reply, bytes) else encode(reply)
            try:
                self._listener.socket.send_multipart([peer, data], zmq.NOBLOCK)
            except zmq.ZMQError:
                logger.debug("a writer left before its answer")
