"""A process that serves a home with the recorded words of an older daemon.

`python -m tests.golden.old_daemon WIRE HOME SOCKET`; SIGTERM ends it.
"""

import json
import signal
import sys
from base64 import b64decode
from pathlib import Path

import zmq

from flightlog_storage.home import DaemonInfo, Home, HomeLock
from flightlog_storage.process import this_process

__all__ = ("serve",)


def serve(wire: Path, home: Home) -> None:
    """Answer greetings and questions as the last ones in `wire` were answered."""
    said = [
        [b64decode(part) for part in parts] for _, parts in json.loads(wire.read_text())
    ]
    about, refusal = said[-3], said[-1]
    home.create()
    lock = HomeLock(home)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(f"ipc://{home.socket}")
        lock.write(DaemonInfo(this_process(), str(home.socket), "0.0.1"))
        while True:
            peer, *parts = socket.recv_multipart()
            socket.send_multipart([peer, *(refusal if b"Hello" in parts[0] else about)])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve(Path(sys.argv[1]), Home(Path(sys.argv[2]), None, Path(sys.argv[3])))
