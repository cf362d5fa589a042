"""What the daemon's tests share: a home, and a daemon that serves it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.harness import kill_daemon, make_home, start_daemon

from flightlog_storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def daemon(home: Home) -> "Iterator[subprocess.Popen[bytes]]":
    process = start_daemon(home)
    yield process
    kill_daemon(process)
