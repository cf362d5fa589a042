"""The worker, with a real recorder and materializer around it."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio import from_thread
from tests.daemon.conftest import durable, refusing_blobs
from tests.effort import tries
from tests.system.harness import (
    environment,
    kill_daemon,
    run_state,
    start_daemon,
    status,
    stop_daemon,
    wait_until,
    worker_pid,
)

from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home
from flightlog_storage.runfiles import OwedFile
from flightlog_storage.runstate import RunState
from flightlog_storage.staging import staging_folder
from flightlogd import lane
from flightlogd import worker as module
from flightlogd.main import Status
from flightlogd.worker import DEATHS_MAX, Deaths, Worker

# Logs images of the sizes 1, 2, 3 … and says when each call has returned.
LOGGER = """
import sys, flightlog, numpy as np
run = flightlog.init(entity="someone", project="project", id="run")
for n in range(1, int(sys.argv[1]) + 1):
    run.log_image("x", np.random.default_rng(n).random((n, 300, 3)))
run.finish()
"""


@pytest.fixture
def worker(idle: Home) -> Iterator[Worker]:
    """A worker in this process; the daemon's own has stopped."""
    worker = Worker(idle)
    yield worker
    worker.close()


def log_images(home: Home, count: int) -> None:
    subprocess.run(
        [sys.executable, "-c", LOGGER, str(count)],
        env=environment(home),
        check=True,
        timeout=60,
    )


def state(home: Home) -> RunState:
    found = run_state(home)
    assert found is not None
    return found


def has_made(home: Home, count: int) -> bool:
    return len(state(home).files) >= count


def is_all_folded(home: Home) -> bool:
    return state(home).state == "finished"


def owed_as_folded(home: Home) -> int:
    """Return how many files are owed as a worker sees it."""
    try:
        with Database.open_reader(home.state) as database:
            return len(database.owed_files(1000))
    except HomeUnusable:
        return 0  # Not made yet.


def work(worker: Worker, home: Home, until: Callable[[], bool]) -> None:
    """Have the worker look again and again, as its process does."""
    worker.durable = durable(home)

    def worked() -> bool:
        worker.work()
        return until()

    wait_until(worked)


def assert_all_made(home: Home, count: int) -> None:
    files = state(home).files
    assert len(files) == count
    store = BlobStore(home.blobs)
    for file in files.values():
        assert check_blob(store, file.blob, file.size, full=True) is None
    assert state(home).lost_count == 0


def swept(home: Home) -> int:
    """Return how many files a worker finds to sweep, once all is done."""
    worker = Worker(home)
    worker.durable = durable(home)
    try:
        worker.sweep()  # What it finds now, it deletes the next time.
        return worker.sweep()
    finally:
        worker.close()


@pytest.mark.fault(3)
@pytest.mark.parametrize("seed", range(tries(3)))
def test_a_worker_killed_at_any_moment_loses_nothing(
    home: Home, daemon: "subprocess.Popen[bytes]", seed: int
) -> None:
    chance = random.Random(seed)
    log_images(home, 60)

    for _ in range(4):
        least = min(60, len(state(home).files) + chance.randrange(9))
        wait_until(partial(has_made, home, least))
        with suppress(ProcessLookupError):  # Dead already, and not yet restarted.
            os.kill(worker_pid(home), signal.SIGKILL)

    wait_until(lambda: not state(home).owed)
    assert_all_made(home, 60)
    wait_until(lambda: not os.listdir(home.inbox) or swept(home))
    assert not os.listdir(home.inbox)


def test_what_was_owed_when_the_daemon_stopped_is_made_by_the_next(home: Home) -> None:
    daemon = start_daemon(home)
    os.kill(worker_pid(home), signal.SIGSTOP)
    log_images(home, 5)
    wait_until(lambda: len(state(home).owed) == 5)
    kill_daemon(daemon)

    daemon = start_daemon(home)
    try:
        wait_until(lambda: not state(home).owed)
        assert_all_made(home, 5)
        wait_until(lambda: not os.listdir(home.inbox))
    finally:
        kill_daemon(daemon)


def test_what_was_owed_when_the_log_was_closed_is_made_though_nothing_follows(
    home: Home,
) -> None:
    daemon = start_daemon(home)
    worker = worker_pid(home)
    os.kill(worker, signal.SIGSTOP)
    log_images(home, 1)
    wait_until(lambda: owed_as_folded(home) == 1 and is_all_folded(home))
    home.blobs.rename(home.root / "away")
    home.blobs.touch()  # So it cannot be made now.
    os.kill(worker, signal.SIGCONT)
    stop_daemon(daemon)
    home.blobs.unlink()
    (home.root / "away").rename(home.blobs)

    daemon = start_daemon(home)
    try:
        wait_until(lambda: not state(home).owed)
        assert_all_made(home, 1)
    finally:
        kill_daemon(daemon)


def test_where_nothing_is_owed_a_worker_waits_for_news(home: Home) -> None:
    daemon = start_daemon(home)
    log_images(home, 1)
    wait_until(lambda: is_all_folded(home) and not state(home).owed)
    stop_daemon(daemon)
    daemon = start_daemon(home)
    worker = Worker(home)
    try:
        worker.durable = durable(home)

        assert worker.work(), "behind the last event there is the end of the segment"
    finally:
        worker.close()
        kill_daemon(daemon)


@pytest.mark.anyio
async def test_while_nothing_is_owed_looks_become_rarer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    worker = Worker(home)
    has_jobs = iter((False,) * 6 + (True, False))

    def work() -> bool:
        worker.has_jobs = next(has_jobs)
        return False

    async def note(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 8:
            services.cancel_scope.cancel()

    monkeypatch.setattr(worker, "work", work)
    monkeypatch.setattr(anyio, "sleep", note)
    async with anyio.create_task_group() as services:
        services.start_soon(module._work, worker)

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.1, 0.2]
    worker.close()


@pytest.mark.fault(39)
def test_where_memory_runs_out_the_recorder_ends_last(
    home: Home, daemon: "subprocess.Popen[bytes]"
) -> None:
    pids = (worker_pid(home), status(home)["materializer_pid"], daemon.pid)
    scores = [Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in pids]

    assert scores == ["1000\n", "1000\n", "0\n"]


def test_a_daemon_of_before_there_was_a_worker_can_be_asked(
    home: Home, daemon: "subprocess.Popen[bytes]"
) -> None:
    answer = status(home)
    del answer["worker_pid"], answer["worker_restarts"]

    assert msgspec.convert(answer, Status).worker_pid is None


@pytest.mark.fault(34)
def test_a_job_that_kills_the_worker_again_and_again_is_given_up(
    home: Home, worker: Worker
) -> None:
    log_images(home, 2)
    wait_until(lambda: len(state(home).owed) == 2)
    deadly = next(iter(state(home).owed))
    deaths = Deaths(home.root / "worker.job")
    for _ in range(DEATHS_MAX):
        deaths.begin(deadly)

    work(worker, home, lambda: not state(home).owed)

    assert len(state(home).files) == 1
    assert state(home).lost_count == 1
    assert not os.listdir(home.inbox)


# What no writer of ours says is a syntax error to NumPy, and nothing a job may expect.
ODD = """
import time, flightlog
from flightlog_storage.event import FileRequested, Pixels
from flightlog_storage.inbox import make_token, put_in_inbox
run = flightlog.init(entity="someone", project="project", id="run")
token = make_token(run.life.writing("test").folder.name, 9)
put_in_inbox(run.home.inbox / token, [b"1234"])
pixels = Pixels(dtype="(1,", shape=[2, 2], format="png", quality=90)
run.life.record(
    FileRequested(time=time.time(), name="odd", token=token, size=4, pixels=pixels)
)
run.finish()
"""


def test_a_job_that_fails_unexpectedly_again_and_again_is_given_up(
    home: Home, worker: Worker
) -> None:
    command = [sys.executable, "-c", ODD]
    subprocess.run(command, env=environment(home), check=True, timeout=60)
    wait_until(lambda: owed_as_folded(home) == 1)
    worker.durable = durable(home)

    for _ in range(DEATHS_MAX):
        with pytest.raises(SyntaxError):  # Which ends the process.
            worker.work()
    work(worker, home, lambda: not state(home).owed)

    assert state(home).lost_count == 1


def test_deaths_count_for_one_job_and_not_after_it(tmp_path: Path) -> None:
    path = tmp_path / "worker.job"

    assert [Deaths(path).begin("a") for _ in range(3)] == [0, 1, 2]
    assert Deaths(path).begin("b") == 0
    Deaths(path).end()
    assert Deaths(path).begin("b") == 0
    for damaged in (b"\xff rubbish", b"b x"):
        path.write_bytes(damaged)
        assert Deaths(path).begin("b") == 0


def test_a_disk_that_refuses_is_tried_again(
    home: Home, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "RETRY_S", 0.0)
    log_images(home, 1)
    wait_until(lambda: owed_as_folded(home) == 1)

    with refusing_blobs(home):
        work(worker, home, lambda: True)
    assert state(home).owed

    work(worker, home, lambda: not state(home).owed)

    assert_all_made(home, 1)
    wait_until(lambda: not os.listdir(home.inbox))


def test_a_disk_may_refuse_for_as_long_as_it_likes(
    home: Home, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "RETRY_S", 0.0)
    log_images(home, 1)
    wait_until(lambda: owed_as_folded(home) == 1)

    with refusing_blobs(home):
        for _ in range(DEATHS_MAX + 2):
            work(worker, home, lambda: True)
    assert len(os.listdir(staging_folder(home.staging))) == 0
    work(worker, home, lambda: not state(home).owed)

    assert_all_made(home, 1)


def test_a_file_that_cannot_be_read_keeps_only_those_of_its_name_waiting(
    home: Home, worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_config_files(home, tmp_path, "a", "a", "b")
    wait_until(lambda: owed_as_folded(home) == 3)
    first, *_ = sorted(home.inbox.iterdir(), key=lambda path: int(path.name[33:]))
    first.rename(home.root / "away")
    first.symlink_to(first.name)  # The system refuses to look at it.

    work(worker, home, lambda: len(state(home).files) == 1)
    assert list(state(home).files) == ["config/b"]
    assert len(state(home).owed) == 2
    worker._refused[first.name] = lane._Refused(0.0, 100.0)  # It is time.
    work(worker, home, lambda: worker._refused[first.name].pause_s == 200.0)
    (home.root / "away").replace(first)
    worker._refused[first.name] = lane._Refused(0.0, 2 * lane.RETRY_MAX_S)
    work(worker, home, lambda: not state(home).owed)

    assert state(home).files["config/a"].blob == hashlib.sha256(b"1").hexdigest()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def log_config_files(home: Home, folder: Path, *names: str) -> None:
    """Log config files of these names, each with the number of its place in it."""
    code = """
import sys, pathlib, flightlog
run = flightlog.init(entity="someone", project="project", id="run")
for number, path in enumerate(map(pathlib.Path, sys.argv[1:])):
    path.write_text(str(number))
    run.log_config(config_files=path)
run.finish()
"""
    subprocess.run(
        [sys.executable, "-c", code, *(str(folder / name) for name in names)],
        env=environment(home),
        check=True,
        timeout=60,
    )


def test_a_full_disk_keeps_all_waiting(
    home: Home, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def refuse(run: object, owed: OwedFile) -> None:
        tried.append(owed.token)
        raise OSError(errno.ENOSPC, "No space left on device")

    log_images(home, 2)
    wait_until(lambda: owed_as_folded(home) == 2)
    monkeypatch.setattr(worker, "do", refuse)

    work(worker, home, lambda: bool(tried))
    worker.work()

    assert len(tried) == 1


def test_what_a_predecessor_said_is_waited_for(
    home: Home,
    daemon: "subprocess.Popen[bytes]",
    worker: Worker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_images(home, 1)
    wait_until(lambda: owed_as_folded(home) == 1)
    materializer = status(home)["materializer_pid"]
    os.kill(materializer, signal.SIGSTOP)
    work(worker, home, lambda: not os.listdir(home.inbox))
    successor = Worker(home)
    successor.durable = durable(home)

    assert not successor.work(), "it is not known yet what is owed"
    os.kill(materializer, signal.SIGCONT)
    work(successor, home, lambda: not state(home).owed)
    successor.close()

    assert_all_made(home, 1)
    assert not caplog.records, "nothing was lost"


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_is_missing_in_the_inbox_is_told_as_lost(
    home: Home, worker: Worker, how: str
) -> None:
    log_images(home, 1)
    wait_until(lambda: bool(state(home).owed))
    (path,) = home.inbox.iterdir()
    if how == "gone":
        path.unlink()
    else:
        os.truncate(path, 10)

    work(worker, home, lambda: not state(home).owed)

    assert (state(home).files, state(home).lost_count) == ({}, 1)
    assert not os.listdir(home.inbox)


def test_the_inbox_is_swept_of_what_nobody_asked_for(
    home: Home, worker: Worker
) -> None:
    log_images(home, 2)
    wait_until(lambda: is_all_folded(home) and not list(home.spool.iterdir()))
    (home.inbox / f"{'ab' * 16}-0").touch()
    (home.inbox / "stray").touch()
    worker.durable = durable(home)

    assert worker.sweep() == 0, "it may have been left just now"
    assert wait_until(worker.sweep) == 2
    assert len(os.listdir(home.inbox)) == 2, "these are owed"


@pytest.mark.anyio
async def test_an_inbox_that_is_gone_for_a_while_ends_no_worker(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SWEEP_INTERVAL_S", 0.001)
    swept: list[int] = []
    worker = Worker(home)
    home.inbox.rename(home.root / "aside")

    def sweep() -> int:
        if "cannot be swept" in caplog.text and not swept:
            (home.root / "aside").rename(home.inbox)
        swept.append(Worker.sweep(worker))
        from_thread.run_sync(services.cancel_scope.cancel)
        return 0

    monkeypatch.setattr(worker, "sweep", sweep)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as services:
            services.start_soon(module._sweep, worker)

    assert swept == [0]
    worker.close()
