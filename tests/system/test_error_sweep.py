"""An error in place of each system call that changes the disk, one after the other.

strace has the Nth call of a kind fail, for every N and every errno of a sick disk. What
was promised before stays, what fails is told, and all goes on when the disk is well.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.counts import count
from tests.effort import tries
from tests.system.harness import (
    environment,
    flightlogd,
    history,
    run_state,
    wait_until,
)
from tests.system.recovered import (
    Recovered,
    problems_of,
    state_of,
)
from tests.system.sweeps import MARKS, Folded, at_call, sweep, train_under

from flightlog_storage.home import Home
from flightlog_storage.runstate import State

pytestmark = MARKS

ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
# So often each of them may be made by a thread of the process before it fails.
RECORDER_CALLS = {"pwrite64": 40, "fdatasync": 40, "rename": 4, "fsync": 9}
MATERIALIZER_CALLS = {
    "pwrite64": 300,
    "fdatasync": 60,
    "fsync": 40,
    "rename": 12,
    "unlink": 24,
    "mkdir": 4,
    "ftruncate": 4,
}
TRAINER_CALLS = {
    "fallocate": 3,
    "ftruncate": 2,
    "mkdir": 8,
    "pwrite64": 6,
    "rename": 8,
    "fsync": 10,
    "utimensat": 4,
    "unlink": 6,
    "ioctl": 12,
    "flock": 4,
    "sendfile": 3,
}
ROLLING_ROWS = 150_000  # More than a chunk of the spool.
REFUSED = 7
TRAINER = f"""
import sys
import flightlog
folder, run = sys.argv[1:]
try:
    run = flightlog.init(entity="someone", project="project", id=run)
except flightlog.UsageError as error:
    sys.stderr.write(str(error))
    sys.exit({REFUSED})
for n in range({ROLLING_ROWS}):
    run.log({{"n": n, "half": n / 2}})
run.save(folder + "/weights")
artifact = flightlog.Artifact("weights", type="model")
artifact.add_file(folder + "/weights")
run.log_artifact(artifact)
run.finish()
"""


def failures(calls: dict[str, int], most: int) -> Iterator[tuple[str, int, str]]:
    """Yield which call is to fail with which error: so often, or each with each."""
    everywhere = [(*each, error) for each in sweep(calls, 1 << 30) for error in ERRORS]
    for each in random.Random(most).sample(everywhere, min(most, len(everywhere))):
        count("calls that failed")
        yield each


@pytest.mark.fault(12, 14, 20)
def test_any_call_of_a_trainer_may_fail(place: Recovered, tmp_path: Path) -> None:
    place.start()
    (tmp_path / "weights").write_bytes(b"w" * 5000)
    for call, nth, error in failures(TRAINER_CALLS, tries(4)):
        run = f"{call}-{nth}-{error}"
        fault = at_call(call, nth, f"error={error}")

        done = subprocess.run(
            [*fault, sys.executable, "-c", TRAINER, str(tmp_path), run],
            env=environment(place.home) | {"FLIGHTLOG_QUIET": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

        try:
            assert_told(place.home, run, done.returncode, done.stderr)
        except BaseException as failed:
            failed.add_note(f"{run}: {done.stderr}")
            raise
    assert flightlogd(place.home, "stop").returncode == 0
    assert problems_of(place.home) == []


def assert_told(home: Home, run: str, status: int, said: str) -> None:
    """Check that training went on, and that what is not there is told."""
    assert status in (0, REFUSED), said
    spools = home.spool.glob
    wait_until(lambda: not any(spools("[!.]*")), what="for what it left to go")
    if status == REFUSED:
        assert said, "refused, and not told why"
        return
    ended = {State.FINISHED, State.CRASHED}
    wait_until(lambda: state_of(home, run) in ended, what=f"for {ended}")
    state = run_state(home, run)
    assert state is not None
    found = history(home, run)
    assert found is not None
    rows = [(row["n"], row["half"]) for row in found.to_dicts()]
    assert rows == [(n, n / 2) for n, _ in rows]
    assert len({n for n, _ in rows}) == len(rows) == state.row_count
    assert len(rows) + state.lost_count >= ROLLING_ROWS, "lost, and not counted"
    assert "Traceback" not in said


@pytest.mark.fault(11, 14, 16, 20)
def test_any_call_of_a_recorder_may_fail(place: Recovered) -> None:
    for call, nth, error in failures(RECORDER_CALLS, tries(4)):
        run = f"{call}-{nth}-{error}"
        train_under(place, run, at_call(call, nth, f"error={error}"))
    assert problems_of(place.home) == []


@pytest.mark.fault(11, 14, 16, 20, 54)
def test_any_call_of_a_materializer_may_fail(tmp_path: Path) -> None:
    folded = Folded(tmp_path)
    failed = 0
    for call, nth, error in failures(MATERIALIZER_CALLS, tries(8)):
        status, said = folded.again(at_call(call, nth, f"error={error}"))
        assert not status or said, (call, nth, error)
        failed += status != 0
    assert failed
