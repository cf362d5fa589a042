"""`flightlog jobs`, with a real daemon whose worker is stopped where it matters."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.test_cli import call, data, environment
from tests.system.harness import (
    kill_daemon,
    make_home,
    start_daemon,
    wait_until,
    worker_pid,
)

from flightlog_storage.home import Home
from flightlog_storage.progress import read_progress

pytestmark = pytest.mark.once

LOGGER = """
import sys, flightlog
with flightlog.init(project="demo", id="run") as run:
    for path in sys.argv[1:]:
        run.log_dataset(path.rpartition("/")[2], path, save=True)
    run.log_image("x", b"image")
"""


WAIT = """
from flightlog.cli import job_list, main
watch = job_list.watch_home
def told(home):
    print("waiting", flush=True)
    return watch(home)
job_list.watch_home = told
main(["jobs", "--wait"])
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    process = start_daemon(home)
    yield home
    kill_daemon(process)


def log(home: Home, *paths: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", LOGGER, *map(str, paths)],
        env=environment(home.root) | {"FLIGHTLOG_SOCKET": str(home.socket)},
        check=True,
        timeout=60,
    )


def waiting(home: Home) -> "subprocess.Popen[str]":
    """Return a `flightlog jobs --wait` that has begun to wait."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAIT],
        env=environment(home.root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    return process


def jobs(home: Home, *options: str) -> Any:
    return data(call(home.root, "jobs", "--json", *options), "flightlog.jobs/1")


def test_what_waits_is_listed_and_waited_for(home: Home, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"a")
    os.kill(worker_pid(home), signal.SIGSTOP)
    log(home, tmp_path / "data")

    listed = call(home.root, "jobs")
    found = jobs(home)["owed"]
    os.kill(worker_pid(home), signal.SIGCONT)
    waited = call(home.root, "jobs", "--wait")

    # In the order of their times, which two threads give.
    assert sorted((job["state"], job["job"]) for job in found) == [
        ("waiting", "archive"),
        ("waiting", "file"),
    ]
    assert all(job["since"] and job["run"] == "ada/demo/run" for job in found)
    assert listed.stdout.splitlines()[0].split("\t")[:3] == ["STATE", "JOB", "NAME"]
    assert "0 running, 2 waiting, 0 failed" in listed.stderr
    assert waited.returncode == 0
    assert "0 running, 0 waiting, 0 failed" in waited.stderr
    assert jobs(home) == {"owed": [], "failed": []}
    assert not home.progress.exists()


def test_the_archive_that_runs_says_how_far_it_is(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("a", "b"):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 30)  # Of zeros, that take no room to read.
    log(home, folder)

    wait_until(lambda: (seen := read_progress(home.progress)) and seen.size > 0)
    os.kill(worker_pid(home), signal.SIGSTOP)
    (job,) = [job for job in jobs(home)["owed"] if job["job"] == "archive"]
    line = call(home.root, "jobs").stdout.splitlines()[-1]
    os.kill(worker_pid(home), signal.SIGKILL)

    assert job["state"] == "running"
    assert 0 < job["progress"]["bytes"] <= job["progress"]["bytes_total"] == 2 << 30
    assert job["progress"]["files"] <= job["progress"]["files_total"] == 2
    assert job["progress"]["bytes_per_second"] > 0
    assert line.startswith("running\tarchive\tdata\t")
    assert "of 2.1 GB" in line
    assert "of 2 files" in line


def test_what_a_killed_worker_said_counts_no_more(home: Home, tmp_path: Path) -> None:
    with (tmp_path / "data").open("wb") as file:
        file.truncate(1 << 30)
    log(home, tmp_path / "data")
    wait_until(lambda: read_progress(home.progress))
    kept = home.progress.read_bytes()

    assert jobs(home, "--wait")["owed"] == []
    dead = kept.replace(b'"start_time":', b'"start_time":1')
    home.progress.write_bytes(dead)

    assert read_progress(home.progress) is None


def test_what_failed_is_told_with_its_reason(home: Home, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.kill(worker_pid(home), signal.SIGSTOP)
    log(home, tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    process = waiting(home)
    os.kill(worker_pid(home), signal.SIGCONT)

    waited, _ = process.communicate(timeout=60)
    again = call(home.root, "jobs", "--wait")

    for told in (waited, call(home.root, "jobs").stdout):
        assert "failed: dataset gone of ada/demo/run" in told
        assert "No such file" in told
    assert (process.returncode, again.returncode) == (1, 0)
    assert again.stdout == "", "it failed before"
    (failed,) = jobs(home)["failed"]
    assert (failed["job"], failed["name"]) == ("dataset", "gone")


def test_ctrl_c_ends_the_wait_and_not_the_jobs(home: Home, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a")
    os.kill(worker_pid(home), signal.SIGSTOP)
    log(home, tmp_path / "data")
    process = waiting(home)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors.strip()) == (130, "")
    assert len(jobs(home)["owed"]) == 2


WATCHER = """
import sys, flightlog
run = flightlog.init(entity="ada", project="demo", id="run")
run.watch_outputs(output_dirs=sys.argv[1])
assert run.flush(30)
print("watching", flush=True)
sys.stdin.readline()
"""


def test_a_watch_is_listed_and_waited_for_only_when_its_run_is_over(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "outputs").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(tmp_path / "outputs")],
        env=environment(home.root) | {"FLIGHTLOG_SOCKET": str(home.socket)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "watching\n"

    (job,) = jobs(home)["owed"]
    waited = call(home.root, "jobs", "--wait")
    process.kill()
    process.communicate()
    wait_until(lambda: jobs(home)["owed"] == [])

    assert (job["state"], job["job"]) == ("watching", "watch")
    assert job["name"] == str(tmp_path / "outputs")
    assert waited.returncode == 0
    assert "1 watching" in waited.stderr
