"""What finish() says of the archives that a run asked for."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.harness import (
    environment,
    is_folded,
    kill_daemon,
    make_home,
    run_state,
    start_daemon,
    status,
    wait_until,
    worker_pid,
)

from flightlog import Api, NotFoundError
from flightlog_storage.home import Home

# Asks for archives, and ends when it is told to.
TRAINER = """
import sys, flightlog
run = flightlog.init(entity="someone", project="project", id="run")
for path in sys.argv[1:]:
    run.log_dataset(path.rpartition("/")[2], path, save=True)
run.log_dataset("not saved", sys.argv[1])
assert run.flush(30)
print("logged", flush=True)
sys.stdin.readline()
run.finish()
run.finish()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    process = start_daemon(home)
    worker_pid(home)
    yield home
    kill_daemon(process)


def logged(home: Home, *paths: Path, quiet: str = "0") -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, *map(str, paths)],
        env=environment(home) | {"FLIGHTLOG_QUIET": quiet},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    return process


def said(process: "subprocess.Popen[str]") -> list[str]:
    """Have it end, and return what it says of archives."""
    _, errors = process.communicate("end\n", timeout=60)
    assert process.returncode == 0, errors
    return [line for line in errors.splitlines() if "archive" in line]


def has_done(home: Home, count: int) -> bool:
    state = run_state(home)
    assert state is not None
    return sum(asset.job is None for asset in state.assets.values()) == count


def test_an_archive_that_failed_is_told_with_its_reason(
    home: Home, tmp_path: Path
) -> None:
    gone, kept = tmp_path / "gone", tmp_path / "kept"
    for path in (gone, kept):
        path.mkdir()
    os.kill(worker_pid(home), signal.SIGSTOP)
    process = logged(home, gone, kept)
    gone.rmdir()
    os.kill(worker_pid(home), signal.SIGCONT)
    wait_until(lambda: has_done(home, 3))
    wait_until(lambda: is_folded(home))

    (line,) = said(process)

    assert "gone could not be archived" in line
    assert "No such file" in line
    assert "someone/project/run" in line


def test_what_is_on_its_way_is_told_unless_it_is_to_be_quiet(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    os.kill(worker_pid(home), signal.SIGSTOP)

    (line,) = said(logged(home, tmp_path / "data", tmp_path / "data"))
    quiet = said(logged(home, tmp_path / "data", quiet="1"))

    assert "2 of what is to be archived is on its way" in line
    assert "`flightlog jobs`" in line
    assert quiet == []


def test_what_a_deleted_run_asked_for_is_not_waited_for(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    os.kill(worker_pid(home), signal.SIGSTOP)
    said(logged(home, tmp_path / "data"))
    run = Api(home=home.root).run("someone/project/run")
    asset = run.assets.datasets[0]

    run.delete()

    with pytest.raises(NotFoundError, match="Could not find run"):
        asset.restore(tmp_path / "back")
    said(logged(home, tmp_path / "data"))  # Another run of that name.
    with pytest.raises(NotFoundError, match="was deleted"):
        asset.restore(tmp_path / "back")


def test_where_nothing_can_be_read_the_end_is_as_ever(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    process = logged(home, tmp_path / "data")
    wait_until(lambda: has_done(home, 2))
    os.kill(status(home)["materializer_pid"], signal.SIGSTOP)  # It would heal it.
    for path in home.root.glob("state.db-*"):  # All of it may be in the WAL.
        path.unlink()
    (tmp_path / "nonsense").write_bytes(b"nonsense" * 1000)
    (tmp_path / "nonsense").replace(home.state)

    (line,) = said(process)

    assert "1 of what is to be archived is on its way" in line


def test_a_run_whose_archives_are_done_says_nothing(home: Home, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    process = logged(home, tmp_path / "data")
    wait_until(lambda: has_done(home, 2))
    wait_until(lambda: is_folded(home))

    assert said(process) == []
