"""Asking a running daemon how it is."""

import msgspec
import zmq

from flightlog_storage.home import Home
from flightlog_storage.protocol import StatusRequest, encode
from flightlogd.main import Status

__all__ = ("ask_status",)


def ask_status(home: Home, timeout_s: float) -> Status | None:
    """Return the daemon's status, or None when none answers in time."""
    info = home.daemon()
    if info is None or not info.process.is_alive():
        return None
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{info.socket}")
        socket.send(encode(StatusRequest()))
        if not socket.poll(int(timeout_s * 1000)):
            return None
        return msgspec.json.decode(socket.recv(), type=Status)
