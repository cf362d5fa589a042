"""The daemon as a trainer sees it: where it listens, and starting one."""

import os
import sys
from contextlib import suppress

from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home

__all__ = ("DaemonStarter", "find_socket")

_SHELL = "/bin/sh"


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
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, append, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]


def _listens(path: str) -> bool:
    import socket  # Late: `import flightlog` has to be light.

    try:
        if os.stat(os.path.dirname(path) or ".").st_uid != os.getuid():
            return False  # Somebody else's folder: not our daemon, whoever answers.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
    except OSError:
        return False
    return True
