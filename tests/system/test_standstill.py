"""Processes that stand still, and hold on to what others need."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.system.harness import (
    Trainer,
    assert_whole,
    daemon,
    is_ended,
    is_folded,
    kill_all,
    make_home,
    read_rows,
    run_state,
    start_daemon,
    status,
    stop_daemon,
    stopped,
    wait_until,
)

from flightlog_storage.home import Home
from flightlog_storage.runstate import State
from flightlogd.adoption import Adopter

pytestmark = pytest.mark.once

ROWS = 10_000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    yield home
    kill_all(home)


def helpers(home: Home) -> tuple[int, int]:
    """Return the pids of materializer and worker when both are at work."""
    for name in ("materializer.lock", "worker.lock"):
        wait_until((home.root / name).exists)
    found = wait_until(lambda: status(home))
    return found["materializer_pid"], found["worker_pid"]


@pytest.mark.fault(26)
def test_a_trainer_that_stands_still_is_not_dead(home: Home) -> None:
    with daemon(home):
        trainer = Trainer(home, ROWS)
        trainer.expect("ready")
        with stopped(trainer.process.pid):
            Trainer(home, 10, how="kill", run="dies").wait()
            wait_until(lambda: state_of(home, "dies") is State.CRASHED)

            state = state_of(home)
        assert state is State.RUNNING
        assert_whole(home, trainer, ROWS)


def state_of(home: Home, run: str = "run") -> State | None:
    found = run_state(home, run)
    return None if found is None else found.state


@pytest.mark.fault(26)
def test_a_daemon_that_stands_still_keeps_no_trainer_waiting(home: Home) -> None:
    with daemon(home) as process:
        trainer = Trainer(home, ROWS, how="wait")
        trainer.expect("ready")
        with stopped(process.pid, *helpers(home)):
            trainer.expect("logged")
        trainer.go_on()

        assert_whole(home, trainer, ROWS)
        assert process.poll() is None


@pytest.mark.fault(33)
def test_a_materializer_that_stands_still_keeps_nobody_waiting(home: Home) -> None:
    with daemon(home):
        materializer, _ = helpers(home)
        with stopped(materializer):
            assert_whole(home, Trainer(home, ROWS), ROWS)  # Readers fold it themselves.
            assert not is_folded(home)

        wait_until(lambda: is_folded(home))
        assert len(read_rows(home)) == ROWS
        assert status(home)["materializer_restarts"] == 0


@pytest.mark.fault(33)
def test_a_writer_whose_end_is_not_folded_yet_has_not_vanished(home: Home) -> None:
    with daemon(home):
        materializer, _ = helpers(home)
        trainer = Trainer(home, ROWS, how="wait")
        trainer.wait_for(ROWS)
        wait_until(lambda: run_state(home) and is_folded(home))
        with stopped(materializer):
            trainer.go_on()
            assert_whole(home, trainer, ROWS)
            assert not is_folded(home)
            with closing(Adopter(home)) as adopter:
                adopter.end_vanished()

        wait_until(lambda: is_folded(home))
        state = run_state(home)
        assert state is not None
        assert (state.state, state.lost_count) == (State.FINISHED, 0)


@pytest.mark.fault(24)
def test_children_of_a_dead_daemon_keep_the_next_one_from_nothing(home: Home) -> None:
    first = start_daemon(home)
    left = helpers(home)
    with stopped(*left):
        first.kill()
        first.wait()

        second = start_daemon(home)
        assert_whole(home, Trainer(home, ROWS), ROWS)
        assert status(home)["pid"] == second.pid

    wait_until(lambda: all(map(is_ended, left)))
    wait_until(lambda: is_folded(home))
    assert stop_daemon(second) == 0


@pytest.mark.fault(51)
def test_a_locked_database_keeps_nobody_waiting(home: Home) -> None:
    with daemon(home):
        assert Trainer(home, 10, run="before").wait() == 0
        wait_until(lambda: is_folded(home))
        with closing(sqlite3.connect(home.state, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert_whole(home, Trainer(home, ROWS), ROWS)
            other.execute("ROLLBACK")

        wait_until(lambda: is_folded(home))
        assert len(read_rows(home)) == ROWS
