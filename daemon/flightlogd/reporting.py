"""Reports: what the daemon says of a run, as an editor of it."""

import os
import threading

import zmq

from flightlog_storage.codec import (
    EDITOR_RANK,
    RUN_SHAPE,
    RunKey,
    encode_definitions,
    encode_event,
    encode_run,
)
from flightlog_storage.event import Event, WriterId
from flightlog_storage.frame import pack_frame
from flightlog_storage.home import Home
from flightlog_storage.protocol import (
    Ack,
    Hello,
    Refused,
    Reply,
    Welcome,
    decode_reply,
    encode,
)
from flightlogd.connection import connect, is_answered

__all__ = ("Reporter",)

WRITERS_MAX = 256  # Then writers are given up: the log knows each of them for ever.

_Run = tuple[str, str, str]  # Entity, project, id.


class Reporter:
    """Has the recorder make events durable, one at a time."""

    def __init__(self, home: Home, stopping: threading.Event) -> None:
        self._home = home
        self._stopping = stopping
        self._writers: dict[_Run, WriterId] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def tell(self, run: _Run, event: Event) -> None:
        """Return when the event is durable.

        Raises:
            OSError: The recorder does not answer, or refuses; the event may yet be in
                the log.
        """
        if len(self._writers) >= WRITERS_MAX:
            self._writers.clear()
        writer = self._writers.setdefault(run, WriterId(os.urandom(16)))
        shape = encode_run(RunKey(*run, EDITOR_RANK))
        payload = encode_definitions({RUN_SHAPE: shape}) + encode_event(event)
        with connect(self._context, self._home) as socket:
            socket.send(encode(Hello(writer, self._home.key)))
            match self._reply(socket):
                case Welcome(last=last):
                    frame = pack_frame(writer, last + 1, 1, payload)
                case reply:
                    raise ConnectionError(f"the recorder says {reply}")
            socket.send_multipart(list(frame))
            match self._reply(socket):
                case Ack(last=durable) if durable > last:
                    return
                case reply:
                    raise ConnectionError(f"the recorder says {reply}")

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _reply(self, socket: "zmq.Socket[bytes]") -> Reply:
        if not is_answered(socket, self._stopping):
            raise TimeoutError("the recorder does not answer")
        reply = decode_reply(socket.recv())
        if isinstance(reply, Refused):
            raise ConnectionRefusedError(reply.reason)
        return reply
