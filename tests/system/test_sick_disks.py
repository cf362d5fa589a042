"""Disks that refuse, fail or are slow under the real daemon: strace plays them."""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.system.harness import (
    KEY,
    Trainer,
    assert_whole,
    daemon,
    frames_in_log,
    is_folded,
    make_home,
    read_rows,
    status,
    wait_until,
)

from flightlog_storage.database import Database
from flightlog_storage.home import Home
from flightlog_storage.projector import reset_projections

ROWS = 100_000
REFUSED = "keep their spools"
HEALED = "written again"
TRACES = ["strace", "-o", os.devnull, "true"]


def can_trace() -> bool:
    return bool(shutil.which("strace")) and not subprocess.call(TRACES)


pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace"),
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@contextmanager
def sick(pid: int, fault: str) -> Iterator[None]:
    """Have calls of a process fail, or wait, as long as the context lasts."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", os.devnull, "-e", f"inject={fault}", "-p", str(pid)],
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    try:
        assert select.select([tracer.stderr], [], [], 30)[0], "strace says nothing"
        assert b"attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.stderr.close()
        tracer.wait(30)


def told(home: Home, words: str) -> bool:
    return words in home.daemon_log.read_text()


@pytest.mark.fault(15)
def test_a_batch_whose_sync_fails_goes_into_a_new_segment(home: Home) -> None:
    with daemon(home) as process:
        assert Trainer(home, 10, run="before").wait() == 0
        trainer = Trainer(home, ROWS, how="wait")
        trainer.expect("ready")
        with sick(process.pid, "fdatasync:error=EIO:when=1"):
            trainer.expect("logged")
            wait_until(lambda: told(home, REFUSED) and told(home, HEALED))
        trainer.go_on()

        assert_whole(home, trainer, ROWS)
        assert len(list(home.log.iterdir())) > 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("pwrite64:error=ENOSPC", id="full"),
        pytest.param("pwrite64:error=EDQUOT", id="beyond the quota"),
        pytest.param("pwrite64:error=EIO", id="writes fail"),
        pytest.param("fdatasync:error=EIO", id="syncs fail"),
        pytest.param("pwrite64,fdatasync,ftruncate:error=EROFS", id="read-only"),
    ],
)
@pytest.mark.fault(11, 14, 16, 20)
def test_a_disk_that_refuses_for_long_costs_nothing(home: Home, fault: str) -> None:
    with daemon(home) as process:
        trainer = Trainer(home, ROWS, how="wait")
        trainer.expect("ready")
        with sick(process.pid, fault):
            trainer.expect("logged")
            wait_until(lambda: told(home, REFUSED))
            counters = status(home)["counters"]
            again = wait_until(lambda: failed_again(home, counters["append_failures"]))

            assert again["events"] == counters["events"], "nothing counts as taken"
            assert process.poll() is None
        wait_until(lambda: told(home, HEALED))
        trainer.go_on()

        assert_whole(home, trainer, ROWS)


def failed_again(home: Home, count: int) -> dict[str, int] | None:
    counters: dict[str, int] = status(home)["counters"]
    return counters if counters["append_failures"] > count else None


@pytest.mark.fault(18)
def test_a_segment_that_cannot_be_read_keeps_nobody_waiting(home: Home) -> None:
    for run in ("first", "second"):
        with daemon(home):
            assert Trainer(home, 1000, run=run).wait() == 0
    segment = min(home.log.iterdir())
    home.state.unlink()  # So that all of the log has to be read.
    fault = ["strace", "-D", "-f", "-o", os.devnull, "-P", str(segment)]

    with daemon(home, prefix=[*fault, "-e", "inject=pread64:error=EIO"]):
        trainer = Trainer(home, 1000)

        assert_whole(home, trainer, 1000)
        wait_until(lambda: is_folded(home))
        with Database.open_reader(home.state) as database:
            assert [row.id for row in database.find_runs()] == ["second", KEY[2]]

    assert told(home, "cannot be read: Input/output error")
    assert len(read_rows(home, "second")) == 1000
    reset_projections(home)
    assert len(read_rows(home, "first")) == 1000, "the disk is mended"


@pytest.mark.fault(32)
def test_nobody_waits_for_a_slow_disk_but_the_acks(home: Home) -> None:
    with daemon(home) as process:
        trainer = Trainer(home, ROWS, how="wait")
        trainer.expect("ready")
        with sick(process.pid, "fdatasync:delay_enter=5000000"):
            trainer.expect("logged")

            assert sum(stored.frame.count for stored in frames_in_log(home)) < ROWS
        trainer.go_on()

        assert_whole(home, trainer, ROWS)
