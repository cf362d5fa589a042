"""SIGKILL in place of each system call that matters, one after the other.

strace ends a process at its Nth call of a kind, which is then not made. A home is used
again after each kill, so that what one left is recovered by what the next one ends.
"""

import signal
from pathlib import Path

import pytest
from tests.counts import count
from tests.effort import tries
from tests.system.harness import Trainer, flightlogd, wait_recorded
from tests.system.recovered import Recovered, assert_recovered, problems_of
from tests.system.sweeps import MARKS, Folded, at_call, sweep, train_under

from flightlog_storage.runstate import State

pytestmark = MARKS

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
ROLLING_ROWS = 300_000  # More than a chunk of the spool.


def killed_at(call: str, number: int) -> list[str]:
    """Return a command that kills what it runs in place of its Nth call of a kind."""
    return at_call(call, number, "signal=SIGKILL")


@pytest.mark.fault(3)
def test_recorder_killed_in_place_of_any_call(place: Recovered) -> None:
    kills = 0
    for call, nth in sweep(RECORDER_CALLS, tries(3)):
        recorder = train_under(place, f"{call}-{nth}", killed_at(call, nth))
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
        wait_recorded(place.home)
        if trainer.returned:
            ended = {State.FINISHED, State.CRASHED} if is_done else {State.CRASHED}
            assert_recovered(place.home, trainer.returned, ended, run)
    assert kills
    count("kills", kills)
    assert flightlogd(place.home, "stop").returncode == 0
    assert problems_of(place.home) == []


@pytest.mark.fault(3, 54, 62)
def test_materializer_killed_in_place_of_any_call(tmp_path: Path) -> None:
    folded = Folded(tmp_path)
    kills = 0
    for call, nth in sweep(MATERIALIZER_CALLS, tries(4)):
        status, _ = folded.again(killed_at(call, nth))
        kills += status == -signal.SIGKILL
    assert kills
    count("kills", kills)
