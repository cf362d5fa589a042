"""The daemon's socket: bound by us or handed to us, then given to ZeroMQ."""

import os
import resource
import socket
import stat
from pathlib import Path

import zmq

from flightlog_storage.errors import HomeUnusable
from flightlog_storage.frame import HEADER_SIZE, PAYLOAD_SIZE_MAX
from flightlog_storage.home import check_closed

__all__ = ("Listener",)

BACKLOG = 1024
# libzmq aborts the process when accept runs out of descriptors: stop before.
UNBIND_SHARE = 0.7
REBIND_SHARE = 0.6
ENDPOINTS_MAX = 16  # Each holds a descriptor, those left behind as well.
QUEUED_FRAMES_MAX = 8  # Of one writer, in memory, before its socket is left unread.


class Listener:
    """A ROUTER socket on a Unix socket that we own.

    ZeroMQ's own bind would steal the path from another daemon and leave the mode to
    the umask; and only with a descriptor of our own can we stop accepting.
    """

    def __init__(self, path: Path, passed_fd: int | None = None) -> None:
        """Listen on `path`, or on the socket handed over as `passed_fd`.

        The caller holds the lock of the home: a socket file there is a dead one.

        Raises:
            OSError: The path cannot be bound.
            HomeUnusable: Others could connect to the socket that was handed over.
        """
        self._is_ours = passed_fd is None
        if passed_fd is None:
            self._listening = _bind(path)
            self.path = path
        else:
            self._listening = _take_over(passed_fd)
            self.path = Path(self._listening.getsockname())
        self._inode = _inode(self.path)
        self._context = zmq.Context()
        self._endpoints = 0
        self.is_accepting = False
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, QUEUED_FRAMES_MAX)
        self.socket.setsockopt(zmq.MAXMSGSIZE, PAYLOAD_SIZE_MAX + HEADER_SIZE)
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
        self._accept()

    def receive_nowait(self) -> tuple[bytes, int | None, list[bytes]]:
        """Return the next message: from which connection, of which uid, and its parts.

        The uid is the kernel's word, of the moment when the connection was made; one
        that this user namespace has no number for is the overflow uid, as a rule 65534.

        Raises:
            zmq.Again: There is none.
        """
        first = self.socket.recv(zmq.NOBLOCK, copy=False)
        parts = self.socket.recv_multipart() if first.more else []
        return first.bytes, _uid(first), parts

    def guard(self) -> str | None:
        """Stop or resume accepting as descriptors run short; return what was done.

        Also binds anew when the socket file is gone or somebody else's.
        """
        used = len(os.listdir("/proc/self/fd"))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if self.is_accepting and used > UNBIND_SHARE * limit:
            self._refuse()
            return f"{used} of {limit} descriptors in use: no new connections for now"
        if not self.is_accepting and used < REBIND_SHARE * limit:
            self._accept()
            return "connections are accepted again"
        if self._inode is None or _inode(self.path) != self._inode:
            self._replace()
            self._is_ours = True  # Also where one was handed over that nobody finds.
            self._accept()
            return "the socket file was gone: bound anew"
        return None

    def close(self) -> None:
        if self._is_ours and _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        self.socket.close(linger=200)
        self._listening.close()
        self._context.term()

    def _accept(self) -> None:
        if self._endpoints >= ENDPOINTS_MAX:
            self._unbind()
        # ZeroMQ closes the descriptor it is given; ours stays, with its backlog.
        self.socket.setsockopt(zmq.USE_FD, os.dup(self._listening.fileno()))
        self.socket.bind(f"ipc://{self.path}")
        self._endpoints += 1
        self.is_accepting = True

    def _refuse(self) -> None:
        """Let new connections wait in the backlog.

        An unbind would end the connections that there are, too. So ZeroMQ keeps the
        socket it has, which nobody finds any more, and a new one takes its path.
        """
        if self._is_ours:
            self._replace()
        else:
            self._unbind()
        self.is_accepting = False

    def _replace(self) -> None:
        self._listening.close()
        self._listening = _bind(self.path)
        self._inode = _inode(self.path)

    def _unbind(self) -> None:
        endpoint = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        self.socket.unbind(endpoint.rstrip(b"\0").decode())
        self._endpoints = 0


def _bind(path: Path) -> socket.socket:
    """Bind and listen; only the owner may connect, from the first moment on."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listening.fileno(), stat.S_IRUSR | stat.S_IWUSR)
        listening.bind(str(path))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _take_over(passed_fd: int) -> socket.socket:
    listening = socket.socket(fileno=passed_fd)
    try:
        os.set_inheritable(passed_fd, False)
        check_closed(Path(listening.getsockname()))
    except (OSError, HomeUnusable):
        listening.close()
        raise
    return listening


def _uid(frame: zmq.Frame) -> int | None:
    try:
        address = frame.get("Peer-Address")  # host:uid:gid:pid
        return int(str(address).split(":")[1])
    except (zmq.ZMQError, ValueError, IndexError):
        return None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
