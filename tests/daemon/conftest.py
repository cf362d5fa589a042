"""What the daemon's tests share: a home, a daemon that serves it, and its worker."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.system.harness import (
    kill_all,
    kill_daemon,
    make_home,
    start_daemon,
    status,
    worker_pid,
)

from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition
from flightlogd.wakes import Durable


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    yield home
    kill_all(home)


@pytest.fixture
def daemon(home: Home) -> "Iterator[subprocess.Popen[bytes]]":
    process = start_daemon(home)
    yield process
    kill_daemon(process)


@pytest.fixture
def idle(home: Home, daemon: "subprocess.Popen[bytes]") -> Home:
    """A home whose daemon has stopped its worker, for a test to do the work."""
    os.kill(worker_pid(home), signal.SIGSTOP)
    return home


@contextmanager
def refusing_blobs(home: Home) -> Iterator[None]:
    """Have the disk take no blob."""
    away = home.blobs.rename(home.root / "away")
    home.blobs.touch()  # So no folder can be made in it.
    yield
    home.blobs.unlink()
    away.rename(home.blobs)


def durable(home: Home) -> Durable:
    answer = status(home)
    end = LogPosition(answer["durable_segment"], answer["durable_position"])
    return Durable(end, answer["end_offset"])
