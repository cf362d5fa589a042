"""An error in place of each system call that changes the disk, one after the other.

strace has the Nth call of a kind fail, for every N and every errno of a sick disk. What
was promised before stays, what fails is told, and all goes on when the disk is well.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.counts import count
from tests.effort import tries
from tests.simulation.recorded import can_trace
from tests.storage.recording import rows_of
from tests.system.harness import (
    Trainer,
    environment,
    flightlogd,
    history,
    run_state,
    wait_until,
)
from tests.system.recovered import (
    Recovered,
    assert_recovered,
    problems_of,
    state_of,
)
from tests.system.sweeps import (
    LIVES,
    RUNS,
    at_call,
    fold_under,
    recorded_runs,
    sweep,
)

from flightlog_storage.home import Home
from flightlog_storage.projector import Projector, reset_projections
from flightlog_storage.runstate import State
from flightlogd.wakes import Durable

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace"),
    pytest.mark.timeout(1200),
]

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
ROWS, PACE_S = 150, 0.004
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


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Recovered]:
    with closing(Recovered(tmp_path)) as place:
        yield place


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
        place.start_under(at_call(call, nth, f"error={error}"))
        trainer = Trainer(place.home, ROWS, PACE_S, run=run)

        assert trainer.wait() == 0

        place.ensure()
        assert trainer.returned == ROWS
        assert_recovered(place.home, ROWS, {State.FINISHED}, run)
        assert flightlogd(place.home, "stop").returncode == 0
    assert problems_of(place.home) == []


@pytest.mark.fault(11, 14, 16, 20, 54)
def test_any_call_of_a_materializer_may_fail(tmp_path: Path) -> None:
    recorded = recorded_runs(tmp_path)
    home, end = recorded.home, Durable(recorded.log.durable, recorded.log.end_offset)
    expected = [rows_of(home, run) for run in RUNS]
    assert all(len(rows) == 10 * LIVES for rows in expected)
    failed = 0
    for call, nth, error in failures(MATERIALIZER_CALLS, tries(8)):
        reset_projections(home)

        status, said = fold_under(home, end, at_call(call, nth, f"error={error}"))

        where = (call, nth, error, said)
        assert not status or said, where
        assert [rows_of(home, run) for run in RUNS] == expected, where
        projector = Projector(home)
        while projector.project(end.end):
            pass
        projector.close()
        assert [rows_of(home, run) for run in RUNS] == expected, where
        assert problems_of(home) == [], where
        assert len([*home.histories.glob("*/*")]) == len(RUNS), where
        failed += status != 0
    assert failed
