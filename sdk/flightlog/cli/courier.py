"""The courier: brings frames of several writers to the recorder, in their order.

To the recorder it is each writer in turn. It waits until a group of frames is durable
before it sends the next; what is in the log already is not sent again, so it may be
killed at any point and its work be begun anew.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Self

import zmq

from flightlog._daemon import DaemonStarter, find_socket
from flightlog.errors import CommError
from flightlog_storage.carried import CarriedFrame
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import WriterId
from flightlog_storage.home import Home
from flightlog_storage.protocol import (
    RETRY_S,
    WINDOW_SIZE_MAX,
    Hello,
    Refused,
    Welcome,
    decode_reply,
    encode,
)

__all__ = ("Courier",)

PATIENCE_S = 60.0  # Without a frame that becomes durable.
GROUP_FRAMES_MAX = 1_024
LOOK_INTERVAL_S = 0.05
POLL_MS = 200


class Courier:
    """A connection to the recorder of a home, made anew when it is lost."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._starter = DaemonStarter(home)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._key = b""
        self._window = WINDOW_SIZE_MAX
        self.is_reordered = False  # The disk refused a frame and took a later one.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)

    def deliver(self, frames: Iterable[CarriedFrame]) -> Iterator[int]:
        """Bring the frames, and yield how many bytes are done, group by group.

        Raises:
            CommError: The recorder refuses them, or none takes them in time.
        """
        group: list[CarriedFrame] = []
        size = 0
        for carried in frames:
            if group and (
                size + len(carried.payload) > self._window
                or len(group) == GROUP_FRAMES_MAX
            ):
                self._bring(group)
                yield size
                group, size = [], 0
            group.append(carried)
            size += len(carried.payload)
        if group:
            self._bring(group)
            yield size

    def _bring(self, group: list[CarriedFrame]) -> None:
        """Return when all of a group is durable."""
        deadline = time.monotonic() + PATIENCE_S
        left = group
        while left:
            last = self._send(left)
            if last is not None:
                are_there = [
                    f.frame.sequence_end <= last[f.frame.writer] + 1 for f in left
                ]
                if not any(are_there) and time.monotonic() > deadline:
                    break
                self.is_reordered |= sorted(are_there, reverse=True) != are_there
                if any(are_there):
                    deadline = time.monotonic() + PATIENCE_S
                left = [
                    f
                    for f, is_there in zip(left, are_there, strict=True)
                    if not is_there
                ]
            elif time.monotonic() > deadline:
                break
        if left:
            raise CommError(
                f"no daemon recorded anything within {PATIENCE_S:.0f} s (see "
                f"{self._home.daemon_log}); what is recorded stays: do it again"
            )

    def _send(self, group: list[CarriedFrame]) -> dict[WriterId, int] | None:
        """Send frames; return up to where their writers are durable, if it is said."""
        socket = self._connected()
        if socket is None:
            return None
        try:
            said = 0
            speaker: WriterId | None = None
            for carried in group:
                frame = carried.to_record()
                if frame.writer != speaker:
                    speaker = frame.writer
                    socket.send(encode(Hello(speaker, self._key)))
                    said += 1
                socket.send_multipart([frame.pack(), carried.payload])
            # Once more each: when that is answered, all before it is durable.
            writers = list(dict.fromkeys(each.frame.writer for each in group))
            for writer in writers:
                socket.send(encode(Hello(writer, self._key)))
            for _ in range(said):
                self._welcome(socket)
            return {writer: self._welcome(socket) for writer in writers}
        except (zmq.Again, MalformedEvent):
            socket.close(linger=0)
            self._socket = None
            return None

    def _welcome(self, socket: "zmq.Socket[bytes]") -> int:
        """Return the last sequence of the next writer that is welcomed.

        Raises:
            zmq.Again: Nobody answers.
            CommError: It is refused.
        """
        until = time.monotonic() + RETRY_S
        while True:
            while not socket.poll(POLL_MS):
                if time.monotonic() > until:
                    raise zmq.Again
            match decode_reply(socket.recv()):
                case Welcome(last=last, window=window):
                    self._window = window
                    return last
                case Refused(reason=reason):
                    if self._key != self._home.key:  # That of a daemon before this one.
                        raise zmq.Again
                    raise CommError(f"the daemon refused it: {reason}")

    def _connected(self) -> "zmq.Socket[bytes] | None":
        if self._socket is not None:
            return self._socket
        path = find_socket(self._home)
        if path is None:
            problem = self._starter.start(time.monotonic())
            if problem is not None:
                raise CommError(problem)
            threading.Event().wait(LOOK_INTERVAL_S)
            return None
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDTIMEO, int(RETRY_S * 1000))
        self._key = self._home.key
        socket.connect(f"ipc://{path}")
        self._socket = socket
        return socket
