"""What a daemon process is told at its start; nothing else reads the environment."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flightlog_storage.disk import parse_size
from flightlog_storage.durations import RETAIN_MIN_S, parse_time
from flightlog_storage.home import Home, choose_home

__all__ = ("VERSION", "DaemonConfig", "MetricsAddress", "read_config")

VERSION = "0.1.0"
SYSTEM_INTERVAL_S = 15.0
SYSTEM_INTERVAL_MIN_S = 0.1
SCRUB_INTERVAL_S = 7 * 86_400.0
SCRUB_INTERVAL_MIN_S = 0.1
FIRST_PASSED_FD = 3  # Where systemd puts the sockets that it opened.


LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "[::1]": "::1"}
MetricsAddress = Path | tuple[str, int]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DaemonConfig:
    """Where the daemon works and what it was handed.

    `watchdog_s` is how long the service manager waits for a sign of life.
    `system_interval_s` is between two samples of system metrics; 0: none are taken.
    `scrub_interval_s` is between two passes over what lies still; 0: none are made.
    `retain_s` is how long after their end runs are kept; None: until they are deleted.
    `low_water` is what is to stay free of the disk, in bytes; None: see `read_disk`.
    """

    home: Home
    passed_fd: int | None = None
    notify_address: str | None = None
    watchdog_s: float | None = None
    system_interval_s: float = SYSTEM_INTERVAL_S
    low_water: int | None = None
    metrics: MetricsAddress | None = None
    scrub_interval_s: float = SCRUB_INTERVAL_S
    retain_s: float | None = None


def read_config(home: str | None) -> DaemonConfig:
    """Return the configuration from the command line and the environment.

    Raises:
        HomeUnusable: The home named is on a network file system.
    """
    env = os.environ
    found = choose_home(home, env)
    return DaemonConfig(
        found,
        FIRST_PASSED_FD if _is_passed(env) else None,
        env.get("NOTIFY_SOCKET"),
        _watchdog(env),
        _interval(
            "FLIGHTLOG_SYSTEM_INTERVAL_S", env, SYSTEM_INTERVAL_S, SYSTEM_INTERVAL_MIN_S
        ),
        _low_water(env.get("FLIGHTLOG_LOW_WATER")),
        _metrics(found, env.get("FLIGHTLOG_METRICS", "")),
        _interval(
            "FLIGHTLOG_SCRUB_INTERVAL_S", env, SCRUB_INTERVAL_S, SCRUB_INTERVAL_MIN_S
        ),
        _retain(env.get("FLIGHTLOG_RETAIN", "")),
    )


def _metrics(home: Home, text: str) -> MetricsAddress | None:
    """Return where metrics are to be had; nowhere that another machine reaches."""
    if text == "socket":
        return home.root / "metrics.sock"
    host, _, port = text.rpartition(":")
    if host in LOOPBACK and port.isdecimal() and 0 < int(port) < 1 << 16:
        return LOOPBACK[host], int(port)
    if text:
        logger.warning(
            "FLIGHTLOG_METRICS is neither 'socket' nor a port of this machine's own, "
            "such as 127.0.0.1:9464: %r: there are no metrics",
            text,
        )
    return None


def _is_passed(env: Mapping[str, str]) -> bool:
    """Whether a service manager has handed a socket to this very process."""
    count = env.get("LISTEN_FDS", "")
    meant = env.get("LISTEN_PID") == str(os.getpid())
    return meant and count.isdecimal() and int(count) > 0


def _watchdog(env: Mapping[str, str]) -> float | None:
    """Return the patience of the service manager, if it is this process that it means.

    The two variables outlive the process that they were meant for, in its children.
    """
    meant = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    text = env.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if meant and text.isdecimal() and int(text) > 0 else None


def _interval(
    name: str, env: Mapping[str, str], default_s: float, least_s: float
) -> float:
    """Return the interval that is asked for; a slip must not keep a daemon down."""
    text = env.get(name) or str(default_s)
    try:
        seconds = float(text)
        if 0 <= seconds < math.inf:
            return seconds and max(seconds, least_s)
    except ValueError:
        pass
    logger.warning("%s is no number of seconds: %r", name, text)
    return default_s


def _retain(text: str) -> float | None:
    """Return how long runs are kept; what is no such time deletes nothing."""
    seconds = parse_time(text)
    if text and (seconds is None or seconds < RETAIN_MIN_S):
        logger.warning(
            "FLIGHTLOG_RETAIN is no time of a day or more, such as 90d: %r: no run "
            "is deleted for its age",
            text,
        )
        return None
    return seconds


def _low_water(text: str | None) -> int | None:
    size = parse_size(text) if text else None
    if text and size is None:
        logger.warning("FLIGHTLOG_LOW_WATER is no size: %r", text)
    return size
