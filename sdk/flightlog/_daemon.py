"""The daemon as a trainer sees it: where it listens, and starting one."""

import os
import struct
import sys
from contextlib import suppress
from pathlib import Path

from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home, check_closed

__all__ = ("DaemonStarter", "find_socket")

_SHELL = "/bin/sh"
ROOT = 0  # Whose service manager listens for a daemon that is not there yet.


def find_socket(home: Home) -> str | None:
    """Return the path of a socket on which a daemon listens, if there is one.

    The daemon's own word comes first: it may have been handed its socket.
    """
    info = home.daemon()
    candidates = [str(home.socket)] if info is None else [info.socket, str(home.socket)]
    for path in candidates:
        if _listens(path):
            return path
    return None


class DaemonStarter:
    """Starts a home's daemon, at most once in RETRY_S."""

    RETRY_S = 5.0

    def __init__(self, home: Home) -> None:
        self._home = home
        self._started_at: float | None = None

    def start(self, now: float) -> str | None:
        """Start a daemon, which steps aside if there is one; return why it cannot be.

        It lives on when this process ends: it has a session of its own.
        """
        if self._started_at is not None and now - self._started_at < self.RETRY_S:
            return None
        self._started_at = now
        # Nothing of the folder that training was started in is to be imported.
        daemon = [sys.executable, "-P", "-m", "flightlogd", "run", "--home"]
        try:
            self._home.create()
            self._home.create_socket_folder()
            # By way of a shell that ends at once: the daemon is no child of ours.
            pid = os.posix_spawn(
                _SHELL,
                [_SHELL, "-c", '"$@" &', _SHELL, *daemon, str(self._home.root)],
                _environment(),
                file_actions=_redirect(str(self._home.daemon_log)),
                setsid=True,
            )
        except (OSError, HomeUnusable) as error:
            return f"no daemon can be started: {error}"
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        return None


def _environment() -> dict[str, str]:
    """Return the environment without what a service manager meant for this process."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "NOTIFY_SOCKET" and not name.startswith("LISTEN_")
    }


def _redirect(output: str) -> list[tuple[int, int, str, int, int] | tuple[int, ...]]:
    """Return what posix_spawn is to do with stdin, stdout and stderr."""
    # A pipe in its place is not waited for.
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
    return [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, append, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]


def _listens(path: str) -> bool:
    import socket  # Late: `import flightlog` has to be light.

    try:
        check_closed(Path(path).parent)  # Else another may answer, and now or later.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
            who = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except (OSError, HomeUnusable):
        return False
    _, uid, _ = struct.unpack("iII", who)
    return uid in (os.getuid(), ROOT)
