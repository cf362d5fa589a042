"""What a daemon process is told at its start; nothing else reads the environment."""

import os
from dataclasses import dataclass

from flightlog_storage.home import Home, choose_home

__all__ = ("VERSION", "DaemonConfig", "read_config")

VERSION = "0.1.0"
FIRST_PASSED_FD = 3  # Where systemd puts the sockets that it opened.


@dataclass(frozen=True)
class DaemonConfig:
    """Where the daemon works and what it was handed."""

    home: Home
    passed_fd: int | None = None
    notify_address: str | None = None


def read_config(home: str | None) -> DaemonConfig:
    """Return the configuration from the command line and the environment.

    Raises:
        HomeUnusable: The home named is on a network file system.
    """
    env = os.environ
    passed = env.get("LISTEN_PID") == str(os.getpid()) and env.get("LISTEN_FDS", "0")
    return DaemonConfig(
        choose_home(home, env),
        FIRST_PASSED_FD if passed and int(passed) > 0 else None,
        env.get("NOTIFY_SOCKET"),
    )
