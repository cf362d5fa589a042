"""The one background thread of a writer: it brings the spool to the daemon."""

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import zmq

from flightlog._daemon import DaemonStarter, find_socket
from flightlog._say import say
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.home import DaemonInfo, Home
from flightlog_storage.protocol import Delivery, decode_reply
from flightlog_storage.spool import remove_spool
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter

__all__ = ("Sender",)

# Rows wait so long for company; when these have passed without one, `log()` has to wake
# the thread. Each end of a wait costs up to 0.25 ms of CPU, in every idle process.
GATHER_S = (0.02, 0.04, 0.08)
RECONNECT_S = 0.05
SILENCE_S = 0.2  # Without a word for so long, look whether the daemon still lives.


class Sender:
    """Sends what the spool holds until it is told to stop.

    The thread is a daemon thread: it keeps no process alive, and whatever it has not
    sent when the process ends is taken from the spool by the daemon.
    """

    def __init__(self, home: Home, spool: SpoolWriter, token: bytes) -> None:
        self._home = home
        # Found here first, for that imports: a child forked while the thread imports
        # would wait for the import for ever.
        find_socket(home)
        self._spool = spool
        self._starter = DaemonStarter(home)
        self._delivery = Delivery(spool.writer, SpoolReader(spool.folder), token)
        self._news = _Bell()
        self._durable = threading.Condition()
        self._is_closing = False
        self._keeps_spool = False
        self._is_over = False
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._daemon: DaemonInfo | None = None
        self._has_complained = False
        self._refusal: str | None = None  # That was told.
        self._has_looked = False
        self._hurry = 0
        self._thread = threading.Thread(
            target=self._run, name="flightlog-sender", daemon=True
        )
        self.on_round: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._news.ring()

    def flush(self, timeout_s: float | None) -> bool:
        """Wait until all that is in the spool now is durable; False on time-out."""
        target = (self._spool.chunk, self._spool.position)
        with self._durable:
            self._hurry += 1
            self._news.ring()
            try:
                self._durable.wait_for(
                    lambda: (
                        self._delivery.durable >= target
                        or self._is_over
                        or self._refused
                    ),
                    timeout_s,
                )
                return self._delivery.durable >= target
            finally:
                self._hurry -= 1

    def close(self, *, keeps_spool: bool = False) -> None:
        """Ask the thread to end when all is durable; it then deletes the spool."""
        self._keeps_spool = keeps_spool
        self._is_closing = True
        self._news.ring()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    @property
    def _refused(self) -> bool:
        return self._delivery.refused is not None

    def _run(self) -> None:
        try:
            self._deliver()
            if self._is_done():
                # Else there is something for the daemon to tell of.
                if not self._delivery.damage and not self._keeps_spool:
                    remove_spool(self._spool.folder)
                self._spool.close()
        except Exception as error:  # noqa: BLE001  # Where this service ends.
            say(f"the sender stopped, the daemon will take the spool: {error!r}")
        finally:
            self._delivery.close()
            self._disconnect()
            if self._context is not None:
                self._context.term()  # Ends its own thread; waits for nothing.
            with self._durable:
                self._is_over = True
                self._durable.notify_all()

    def _deliver(self) -> None:
        while not self._is_done():
            self._spool.room.look()
            is_refused = self._spool.make_room()
            if self._refused and not self._is_served_by_another():
                return
            if self._socket is None and not self._connect():
                self._news.wait(RECONNECT_S)
                continue
            self._pump()
            self.on_round()
            if self._socket is None:
                continue
            if self._delivery.is_waiting:
                self._wait_for_reply()
            else:
                self._wait_for_rows(is_refused=is_refused)

    def _is_served_by_another(self) -> bool:
        """Wait for another daemon than the one that refused; False at the end."""
        self._disconnect()
        if self._refusal != self._delivery.refused:
            self._refusal = self._delivery.refused
            say(
                f"the daemon refused this writer: {self._refusal}. Nothing is lost: "
                "the spool keeps the rows until another daemon serves the home "
                "(`flightlogd stop` ends this one, and the next is started by itself)"
            )
        while not self._is_closing:
            self._news.wait(SILENCE_S)
            self._spool.room.look()
            self._spool.make_room()
            daemon = self._home.daemon()
            if daemon != self._daemon or (daemon and not daemon.process.is_alive()):
                self._delivery.refused = None
                return True
        return False

    def _is_done(self) -> bool:
        return self._is_closing and self._delivery.durable >= (
            self._spool.chunk,
            self._spool.position,
        )

    def _pump(self) -> None:
        """Send what the window allows."""
        assert self._socket is not None
        while frames := self._delivery.next(time.monotonic()):
            try:
                self._socket.send_multipart(frames)
            except zmq.Again:
                self._disconnect()
                return

    def _wait_for_reply(self) -> None:
        if self._receive_all():
            return
        if self._delivery.is_overdue(time.monotonic()) or self._daemon_is_gone():
            self._disconnect()

    def _daemon_is_gone(self) -> bool:
        daemon = self._home.daemon()
        return daemon != self._daemon or not (daemon and daemon.process.is_alive())

    def _receive_all(self) -> bool:
        """Wait for replies, for a while; return whether there was one."""
        assert self._socket is not None
        flags = 0
        with suppress(zmq.Again):
            while True:
                data = self._socket.recv(flags)
                flags = zmq.NOBLOCK
                try:
                    reply = decode_reply(data)
                except MalformedEvent as error:
                    say(f"from the daemon: {error}")
                    continue
                self._delivery.receive(reply, time.monotonic())
        if not flags:
            return False
        if self._home.socket_override is not None and not self._has_looked:
            self._has_looked = True
            self._look_whose_daemon()
        with self._durable:
            self._durable.notify_all()
        return True

    def _look_whose_daemon(self) -> None:
        """Say so when the socket that was named is the daemon's of another home."""
        daemon = self._home.daemon()
        if daemon is None or not daemon.process.is_alive():
            say(
                f"the daemon at {self._home.socket} serves another home than "
                f"{self._home.root}: what is logged goes there, and is read there"
            )

    def _wait_for_rows(self, *, is_refused: bool) -> None:
        """Gather rows for a moment; after some empty ones sleep until woken."""
        if self._hurry or self._is_closing:
            with self._durable:
                self._durable.notify_all()
        for pause_s in GATHER_S:
            is_rung = self._news.wait(pause_s)
            if is_rung or is_refused or self._has_rows():
                return
        self._spool.idle = True
        if not self._has_rows():  # Or a row came before `idle` was seen.
            self._news.wait(None)
        self._spool.idle = False

    def _has_rows(self) -> bool:
        return self._delivery.durable < (self._spool.chunk, self._spool.position)

    def _connect(self) -> bool:
        path = find_socket(self._home)
        if path is None:
            problem = self._starter.start(time.monotonic())
            if problem and not self._has_complained:
                self._has_complained = True
                say(f"{problem}; the spool keeps the rows")
            return False
        if self._context is None:
            self._context = zmq.Context()
        self._daemon = self._home.daemon()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
        self._socket.setsockopt(zmq.SNDTIMEO, 1000)
        self._socket.setsockopt(zmq.RCVTIMEO, int(SILENCE_S * 1000))
        self._socket.connect(f"ipc://{path}")
        try:
            self._socket.send_multipart(self._delivery.hello(time.monotonic()))
        except zmq.Again:  # It listens but does not answer yet.
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None


class _Bell:
    """Wakes a thread from anywhere, also from a signal handler inside `ring`.

    An Event would not do: its lock, held by what the handler interrupts, is not free.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._poll = select.poll()
        self._poll.register(self._read_fd, select.POLLIN)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # It has been rung often enough.
            os.write(self._write_fd, b"!")

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until it was rung since the last wait; False at the time-out."""
        is_rung = bool(self._poll.poll(None if timeout_s is None else timeout_s * 1000))
        with suppress(BlockingIOError):
            os.read(self._read_fd, 4096)
        return is_rung

    def __del__(self) -> None:
        # Not before: a late ring must not write into somebody else's descriptor.
        os.close(self._read_fd)
        os.close(self._write_fd)
