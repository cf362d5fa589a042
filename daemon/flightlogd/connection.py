"""Connections of the materializer to the recorder, which takes it for a writer."""

import threading
import time

import zmq

from flightlog_storage.home import Home

__all__ = ("REPLY_TIMEOUT_S", "connect", "is_answered")

REPLY_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.1  # How soon a wait for a reply notices that it is to stop.


def connect(
    context: "zmq.Context[zmq.Socket[bytes]]", home: Home
) -> "zmq.Socket[bytes]":
    """Return a socket that is to be closed."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDTIMEO, int(REPLY_TIMEOUT_S * 1000))
    info = home.daemon()
    socket.connect(f"ipc://{info.socket if info else home.socket}")
    return socket


def is_answered(socket: "zmq.Socket[bytes]", stopping: threading.Event) -> bool:
    """Wait for a reply; False when none comes in time, or this process is to end."""
    deadline = time.monotonic() + REPLY_TIMEOUT_S
    while not socket.poll(int(POLL_INTERVAL_S * 1000)):
        if stopping.is_set() or time.monotonic() > deadline:
            return False
    return True
