"""SIGKILL in place of each system call that matters, one after the other.

strace ends a process at its Nth call of a kind, which is then not made. A home is used
again after each kill, so that what one left is recovered by what the next one ends.
"""

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.counts import count
from tests.effort import tries
from tests.simulation.recorded import can_trace
from tests.storage.recording import rows_of
from tests.system.harness import Trainer, flightlogd, wait_until
from tests.system.recovered import (
    Recovered,
    assert_recovered,
    is_settled,
    problems_of,
)
from tests.system.sweeps import (
    LIVES,
    RUNS,
    at_call,
    fold_under,
    recorded_runs,
    sweep,
)

from flightlog_storage.projector import Projector, reset_projections
from flightlog_storage.runstate import State
from flightlogd.wakes import Durable

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace"),
    pytest.mark.timeout(1200),
]

# So often each of them may be made by a thread of the process before it is killed.
RECORDER_CALLS = {
    "pwrite64": 60,
    "fdatasync": 60,
    "sendto": 60,
    "rename": 4,
    "fsync": 9,
}
MATERIALIZER_CALLS = {
    "pwrite64": 300,
    "fdatasync": 60,
    "fsync": 40,
    "rename": 12,
    "unlink": 24,
    "write": 300,
}
TRAINER_CALLS = {
    "fallocate": 4,
    "rename": 4,
    "mkdir": 6,
    "pwrite64": 12,
    "sendto": 30,
    "unlink": 4,
    "munmap": 30,
}
ROWS, PACE_S = 150, 0.004
ROLLING_ROWS = 300_000  # More than a chunk of the spool.


def killed_at(call: str, number: int) -> list[str]:
    """Return a command that kills what it runs in place of its Nth call of a kind."""
    return at_call(call, number, "signal=SIGKILL")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Recovered]:
    with closing(Recovered(tmp_path)) as place:
        yield place


@pytest.mark.fault(3)
def test_recorder_killed_in_place_of_any_call(place: Recovered) -> None:
    kills = 0
    for call, nth in sweep(RECORDER_CALLS, tries(3)):
        run = f"{call}-{nth}"
        recorder = place.start_under(killed_at(call, nth))
        trainer = Trainer(place.home, ROWS, PACE_S, run=run)

        assert trainer.wait() == 0

        place.ensure()
        assert trainer.returned == ROWS
        assert_recovered(place.home, ROWS, {State.FINISHED}, run)
        assert flightlogd(place.home, "stop").returncode == 0
        kills += recorder.wait() == -signal.SIGKILL
    assert kills
    count("kills", kills)
    assert problems_of(place.home) == []


@pytest.mark.fault(1)
def test_trainer_killed_in_place_of_any_call(place: Recovered) -> None:
    kills = 0
    place.start()
    for call, nth in sweep(TRAINER_CALLS, tries(3)):
        run = f"{call}-{nth}"
        trainer = Trainer(
            place.home, ROLLING_ROWS, run=run, prefix=killed_at(call, nth)
        )

        status = trainer.wait()

        is_done = trainer.returned == ROLLING_ROWS  # And perhaps was killed later.
        kills += status == -signal.SIGKILL
        assert is_done or status == -signal.SIGKILL
        wait_until(lambda: is_settled(place.home), what="for what it left to go")
        if trainer.returned:
            ended = {State.FINISHED, State.CRASHED} if is_done else {State.CRASHED}
            assert_recovered(place.home, trainer.returned, ended, run)
    assert kills
    count("kills", kills)
    assert flightlogd(place.home, "stop").returncode == 0
    assert problems_of(place.home) == []


@pytest.mark.fault(3, 54, 62)
def test_materializer_killed_in_place_of_any_call(tmp_path: Path) -> None:
    recorded = recorded_runs(tmp_path)
    home, end = recorded.home, Durable(recorded.log.durable, recorded.log.end_offset)
    expected = [rows_of(home, run) for run in RUNS]
    assert all(len(rows) == 10 * LIVES for rows in expected)
    kills = 0
    for call, nth in sweep(MATERIALIZER_CALLS, tries(4)):
        reset_projections(home)

        status, _ = fold_under(home, end, killed_at(call, nth))
        kills += status == -signal.SIGKILL

        assert [rows_of(home, run) for run in RUNS] == expected, (call, nth)
        projector = Projector(home)
        while projector.project(end.end):
            pass
        projector.close()
        assert [rows_of(home, run) for run in RUNS] == expected, (call, nth)
        assert problems_of(home) == [], (call, nth)
        assert len([*home.histories.glob("*/*")]) == len(RUNS), (call, nth)
    assert kills
    count("kills", kills)
