"""What a sweep of system calls needs: at which of them, and who makes them."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.recorded import can_trace
from tests.storage.recording import Recorded, fold, rows_of
from tests.system.harness import (
    Trainer,
    environment,
    flightlogd,
    folded_offset,
    wait_until,
)
from tests.system.recovered import Recovered, assert_recovered, problems_of

from flightlog_storage.home import Home
from flightlog_storage.projector import reset_projections
from flightlog_storage.runstate import State
from flightlogd.wakes import Durable

__all__ = ("MARKS", "Folded", "at_call", "fold_under", "sweep", "train_under")

MARKS = [
    pytest.mark.once,
    pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace"),
    pytest.mark.timeout(1200),
]
RUNS = ("a", "b")
LIVES = 3
ROWS, PACE_S = 150, 0.004
WAIT_TIMEOUT_S = 60


def at_call(call: str, number: int, fault: str) -> list[str]:
    """Return a command that has the Nth call of a kind of what it runs go wrong.

    What that starts itself is left alone.
    """
    inject = f"inject={call}:{fault}:when={number}"
    quiet = ("-o", "/dev/null", "-f", "-b", "execve")
    return ["strace", *quiet, "-e", f"trace={call}", "-e", inject]


def sweep(calls: dict[str, int], count: int) -> list[tuple[str, int]]:
    """Return which calls are to go wrong: so many of them, or each."""
    chance = random.Random(count)
    everywhere = [(call, n) for call, most in calls.items() for n in range(1, most + 1)]
    return sorted(chance.sample(everywhere, min(count, len(everywhere))))


def train_under(
    place: Recovered, run: str, under: list[str]
) -> "subprocess.Popen[bytes]":
    """Train while a command runs the recorder, and check that each row is there once.

    Returns that recorder; if it has ended, another followed. That is stopped.
    """
    recorder = place.start_under(under)
    trainer = Trainer(place.home, ROWS, PACE_S, run=run)

    assert trainer.wait() == 0

    place.ensure()
    assert trainer.returned == ROWS
    assert_recovered(place.home, ROWS, {State.FINISHED}, run)
    assert flightlogd(place.home, "stop").returncode == 0
    return recorder


def fold_under(home: Home, end: Durable, under: list[str]) -> tuple[int, str]:
    """Have a materializer fold all, as the recorder would.

    Returns how it ended and what it said.
    """
    read_fd, wake_fd = os.pipe()
    materializer = subprocess.Popen(
        [
            *(*under, sys.executable, "-m", "flightlogd", "materialize"),
            *("--home", str(home.root), "--wake-fd", str(read_fd)),
        ],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(read_fd,),
        text=True,
    )
    os.close(read_fd)
    os.write(wake_fd, end.pack())
    wait_until(
        lambda: materializer.poll() is not None or folded_offset(home) == end.offset
    )
    os.close(wake_fd)
    _, said = materializer.communicate(timeout=WAIT_TIMEOUT_S)
    return materializer.returncode, said


class Folded:
    """A log that is folded over and over: parts are made, merged and deleted."""

    def __init__(self, folder: Path) -> None:
        recorded = Recorded(folder)
        for life in range(LIVES):
            for run in RUNS:
                writer = recorded.start(run, name=f"{run}{life}")
                recorded.rows(writer, *((life * 10 + n, n / 7) for n in range(10)))
                recorded.finish(writer)
        recorded.log.close()
        self._home = recorded.home
        self._end = Durable(recorded.log.durable, recorded.log.end_offset)
        self._rows = self._read()
        assert all(len(rows) == 10 * LIVES for rows in self._rows)

    def again(self, under: list[str]) -> tuple[int, str]:
        """Fold all anew, by a materializer that a command runs; then go on from there.

        Returns how the materializer ended and what it said.
        """
        home = self._home
        reset_projections(home)

        status, said = fold_under(home, self._end, under)

        where = (under, said)
        assert self._read() == self._rows, where
        fold(home, self._end.end)
        assert self._read() == self._rows, where
        assert problems_of(home) == [], where
        assert len([*home.histories.glob("*/*")]) == len(RUNS), where
        return status, said

    def _read(self) -> list[list[tuple[int, float]]]:
        return [rows_of(self._home, run) for run in RUNS]
