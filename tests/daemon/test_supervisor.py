import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from tests.system.harness import wait_until

from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition
from flightlogd import supervisor as module
from flightlogd.supervisor import Supervisor, stop_all
from flightlogd.wakes import Durable, read_wakes


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[None]:
    async with anyio.create_task_group() as services:
        services.start_soon(supervisor.run)
        try:
            yield
        finally:
            services.cancel_scope.cancel()
            stop_all([supervisor])


async def pid_of(supervisor: Supervisor, other_than: int | None = None) -> int:
    def found() -> bool:
        return supervisor.pid not in (None, other_than)

    await to_thread.run_sync(wait_until, found)
    assert supervisor.pid is not None
    return supervisor.pid


@pytest.mark.anyio
async def test_one_that_was_killed_is_restarted(home: Home) -> None:
    supervisor = Supervisor("materializer", "materialize", home.root)
    async with running(supervisor):
        first = await pid_of(supervisor)
        os.kill(first, signal.SIGKILL)

        second = await pid_of(supervisor, other_than=first)

        assert supervisor.restarts == 1
        assert second != first
        assert supervisor.is_kept


@pytest.mark.anyio
async def test_restarts_become_rarer(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    real = anyio.sleep

    async def note(pause_s: float) -> None:
        pauses.append(pause_s)
        await real(0)

    supervisor = Supervisor("materializer", "materialize", home.root)
    async with running(supervisor):
        pid = await pid_of(supervisor)
        with monkeypatch.context() as patches:
            patches.setattr(anyio, "sleep", note)
            for _ in range(9):
                os.kill(pid, signal.SIGKILL)
                pid = await pid_of(supervisor, other_than=pid)

    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(pauses) == module.BACKOFF_MAX_S


@pytest.mark.anyio
async def test_stopped_in_order_it_ends_by_itself(home: Home) -> None:
    supervisor = Supervisor("materializer", "materialize", home.root)
    async with running(supervisor):
        await pid_of(supervisor)
        process = supervisor._process
        assert process is not None

    assert process.returncode == 0


def test_what_finds_the_pipe_full_is_told_later(home: Home) -> None:
    supervisor = Supervisor("materializer", "materialize", home.root)
    read_fd, supervisor._wake_fd = os.pipe()
    os.set_blocking(supervisor._wake_fd, False)
    durable = [Durable(LogPosition(0, n), n // 2) for n in range(5000)]
    for each in durable:
        supervisor.tell(each)
    os.read(read_fd, 1 << 20)

    supervisor.tell(durable[-1])

    ready, _, _ = select.select([read_fd], [], [], 0)
    assert ready, "the last position was dropped and is told now"
    os.set_blocking(read_fd, False)
    assert read_wakes(read_fd) == (True, durable[-1])
    supervisor.tell(durable[-1])
    assert select.select([read_fd], [], [], 0)[0] == [], "and once is enough"
    os.close(read_fd)
    stop_all([supervisor])


def test_told_before_anybody_listens_nothing_happens(home: Home) -> None:
    supervisor = Supervisor("materializer", "materialize", home.root)

    supervisor.tell(Durable(LogPosition(0, 1), 1))
    assert not supervisor.is_kept
    stop_all([supervisor])

    assert supervisor.pid is None


# Ends when its pipe is closed and the process is gone that it is given.
WAITS = """
import contextlib, os, select, sys
os.read(int(sys.argv[1]), 1)
with contextlib.suppress(ProcessLookupError):  # It may have gone already.
    if len(sys.argv) > 2:
        select.select([os.pidfd_open(int(sys.argv[2]))], [], [])
"""


def waiting(home: Home, *others: int) -> Supervisor:
    """Return one whose process ends after the others."""
    supervisor = Supervisor("some", "some", home.root)
    read_fd, supervisor._wake_fd = os.pipe()
    pids = map(str, others)
    supervisor._process = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(read_fd), *pids], pass_fds=[read_fd]
    )
    os.close(read_fd)
    return supervisor


@pytest.mark.parametrize("is_reversed", [False, True])
def test_no_process_waits_for_the_end_of_another(home: Home, is_reversed: bool) -> None:
    first = waiting(home)
    assert first.pid is not None
    both = [first, waiting(home, first.pid)]

    stop_all(both[::-1] if is_reversed else both)

    assert [each._process and each._process.returncode for each in both] == [0, 0]
