"""Training that goes on without a daemon for longer than its spool may grow."""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from tests.system.harness import (
    daemon,
    environment,
    read_rows,
    run_state,
    small_home,
    wait_recorded,
)

from flightlog_storage.home import Home
from flightlog_storage.runstate import State

pytestmark = pytest.mark.once

COUNT = 20_000
TRAINER = """
import os, sys, flightlog
run = flightlog.init(entity="someone", project="project", id="run")
for n in range(20_000): run.log({"n": n, "text": "x" * 1000})
print("logged", flush=True)
sys.stdin.readline()
if sys.argv[1] == "kill": os.kill(os.getpid(), 9)
if sys.argv[1] == "go on":
    assert run.flush(60)
    for n in range(20_000, 20_100): run.log({"n": n, "text": "x" * 1000})
run.finish()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home on a disk of 64 MiB."""
    with small_home(tmp_path, "64m") as home:
        yield home


@contextmanager
def no_daemon(home: Home) -> Iterator[None]:
    """Have none serve the home: each finds it served."""
    with open(home.lock, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def trainer(home: Home, how: str) -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, how],
        env=environment(home) | {"FLIGHTLOG_SPOOL_SIZE_MAX": "8MiB"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("how", "status", "state"),
    [("finish", 0, State.FINISHED), ("kill", -signal.SIGKILL, State.CRASHED)],
)
def test_rows_beyond_the_cap_are_counted_to_the_end_of_the_run(
    home: Home, how: str, status: int, state: State
) -> None:
    with no_daemon(home), trainer(home, how) as process:
        assert line_of(process.stdout) == "logged"
        said = process.communicate("\n", timeout=60)[1]
        assert process.returncode == status
    assert said.count("rows are being dropped and counted") == 1
    assert "FLIGHTLOG_SPOOL_SIZE_MAX is 8,388,608" in said

    with daemon(home):
        wait_recorded(home, timeout_s=60)
        rows = [n for _, n in read_rows(home)]
        found = run_state(home)

    assert found is not None
    assert found.state is state
    assert rows == list(range(len(rows)))
    assert 7_000 < len(rows) == COUNT - found.lost_count


@pytest.mark.fault(12)
def test_a_spool_that_was_full_takes_rows_again(home: Home) -> None:
    with trainer(home, "go on") as process:
        with no_daemon(home):
            assert line_of(process.stdout) == "logged"
        with daemon(home):
            process.communicate("\n", timeout=90)
            assert process.returncode == 0
            wait_recorded(home, timeout_s=60)
            rows = [n for _, n in read_rows(home)]
            found = run_state(home)

    assert found is not None
    assert found.state is State.FINISHED
    assert rows[-100:] == list(range(COUNT, COUNT + 100))
    assert len(rows) == COUNT + 100 - found.lost_count
    assert found.lost_count > 0
