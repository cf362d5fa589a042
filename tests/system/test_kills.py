"""SIGKILL of anything at any moment: what log() returned from is there, once."""

import fcntl
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial

import pytest
from tests.counts import count
from tests.effort import tries
from tests.system.harness import (
    Trainer,
    environment,
    flightlogd,
    is_ended,
    kill_daemon,
    read_rows,
    run_state,
    status,
    stop_daemon,
    wait_until,
)
from tests.system.recovered import (
    Recovered,
    assert_log_is_contiguous,
    assert_recovered,
)

from flightlog_storage.home import Home
from flightlog_storage.projector import reset_projections
from flightlog_storage.runstate import State

# Changes a run through the read API, and says after each call what has returned.
EDITOR = """
import sys
from flightlog import Api
api = Api()
run = api.create_run(run_id="edited", project="project", entity="someone")
for n in range(int(sys.argv[1])):
    run.config[f"key{n}"] = n
    run.summary["n"] = n
    run.tags = [f"tag{n}"]
    run.update()
    extra = api.create_run(run_id=f"extra{n}", project="project", entity="someone")
    if n % 2:
        extra.delete()
    print(n, flush=True)
"""
EDITS = 20

SEEDS = range(tries(3))
ROWS = 10_000
PACED_ROWS, PACE_S = 300, 0.002


@pytest.mark.fault(1, 40)
@pytest.mark.parametrize(
    ("rows", "pace_s"), [(ROWS, 0.0), (PACED_ROWS, PACE_S)], ids=["fast", "paced"]
)
def test_trainer_killed_right_after_its_last_log_loses_nothing(
    place: Recovered, rows: int, pace_s: float
) -> None:
    place.start()
    # Whose process was killed is seen by the materializer, once it is there.
    wait_until((place.home.root / "materializer.lock").exists)
    trainer = Trainer(place.home, rows, pace_s, how="kill")

    assert trainer.wait() == -signal.SIGKILL

    count("kills")
    assert trainer.returned == rows
    assert_recovered(place.home, rows, {State.CRASHED})
    state = run_state(place.home)
    assert state is not None
    if pace_s:  # A life too short to be seen leaves no word of its signal.
        assert state.signal == signal.SIGKILL


@pytest.mark.parametrize("how", ["finish", "kill"])
def test_daemon_absent_for_the_whole_run_costs_nothing(
    place: Recovered, how: str
) -> None:
    with open(place.home.lock, "ab") as lock:  # Daemons that are started step aside.
        fcntl.flock(lock, fcntl.LOCK_EX)
        trainer = Trainer(place.home, ROWS, how=how)
        trainer.wait()
    assert len(read_rows(place.home)) == ROWS, "readable from the spool already"

    place.start()

    ended = State.FINISHED if how == "finish" else State.CRASHED
    assert_recovered(place.home, ROWS, {ended})


@pytest.mark.fault(1, 40)
@pytest.mark.parametrize("pace_s", [0.0, PACE_S], ids=["fast", "paced"])
@pytest.mark.parametrize("seed", SEEDS)
def test_trainer_killed_at_any_moment(
    place: Recovered, seed: int, pace_s: float
) -> None:
    chance = random.Random(seed)
    place.start()
    rows = 1_000_000 if not pace_s else 10_000
    trainer = Trainer(place.home, rows, pace_s)
    trainer.expect("ready")
    least = chance.randrange(1, 300 if pace_s else 100_000)
    trainer.wait_for(least)

    trainer.kill()
    count("kills")
    trainer.wait()

    assert_recovered(place.home, trainer.returned, {State.CRASHED})


@pytest.mark.fault(3, 39)
@pytest.mark.parametrize("pace_s", [0.0, PACE_S], ids=["fast", "paced"])
@pytest.mark.parametrize("seed", SEEDS)
def test_recorder_killed_at_any_moment(
    place: Recovered, seed: int, pace_s: float
) -> None:
    chance = random.Random(seed)
    recorder = place.start()
    rows = 1000 if pace_s else 200_000
    trainer = Trainer(place.home, rows, pace_s)
    for _ in range(2):
        least = min(rows, trainer.returned + chance.randrange(rows // 3))
        trainer.wait_for(least)
        recorder.kill()
        count("kills")
        recorder.wait()
        recorder = place.start()

    assert trainer.wait() == 0

    assert trainer.returned == rows
    assert_recovered(place.home, rows, {State.FINISHED})


def living_materializer(home: Home) -> int | None:
    """Return its process id; of one that was just killed the recorder may not know."""
    pid: int | None = status(home)["materializer_pid"]
    return None if pid is None or is_ended(pid) else pid


@pytest.mark.fault(3)
@pytest.mark.parametrize("seed", SEEDS)
def test_materializer_killed_at_any_moment(place: Recovered, seed: int) -> None:
    chance = random.Random(seed)
    daemon = place.start()
    rows = 300_000
    trainer = Trainer(place.home, rows)
    for _ in range(3):
        least = min(rows, trainer.returned + chance.randrange(rows // 5))
        trainer.wait_for(least)
        pid = wait_until(lambda: living_materializer(place.home))
        os.kill(pid, signal.SIGKILL)
        count("kills")
        wait_until(partial(is_ended, pid))

    assert trainer.wait() == 0

    assert_recovered(place.home, rows, {State.FINISHED})
    assert stop_daemon(daemon) == 0
    assert len(read_rows(place.home)) == rows


@pytest.mark.fault(4)
@pytest.mark.parametrize("pace_s", [0.0, PACE_S], ids=["fast", "paced"])
@pytest.mark.parametrize("seed", SEEDS)
def test_all_killed_at_once(place: Recovered, seed: int, pace_s: float) -> None:
    chance = random.Random(seed)
    daemon = place.start()
    trainer = Trainer(place.home, 1_000_000, pace_s)
    trainer.expect("ready")
    least = chance.randrange(1, 200 if pace_s else 100_000)
    trainer.wait_for(least)

    trainer.kill()
    kill_daemon(daemon)
    count("kills", 4)
    trainer.wait()
    returned = trainer.returned
    assert returned <= len(read_rows(place.home)) <= returned + 1, "before recovery too"
    place.ensure()

    assert_recovered(place.home, returned, {State.CRASHED})


@pytest.mark.fault(3)
@pytest.mark.parametrize("seed", SEEDS)
def test_changes_survive_kills_of_the_daemon(place: Recovered, seed: int) -> None:
    chance = random.Random(seed)
    place.ensure()
    editor = subprocess.Popen(
        [sys.executable, "-c", EDITOR, str(EDITS)],
        env=environment(place.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while editor.poll() is None:
        info = place.home.daemon()
        assert info is not None
        found = status(place.home).get("materializer_pid")
        with suppress(ProcessLookupError):
            os.kill(chance.choice([info.process.pid, found or info.process.pid]), 9)
            count("kills")
        with suppress(subprocess.TimeoutExpired):
            editor.wait(chance.uniform(0.05, 1.0))
        place.ensure()
    output, errors = editor.communicate()

    assert editor.returncode == 0, errors
    assert output.split() == [str(n).encode() for n in range(EDITS)]
    assert_edited(place.home)
    stopped = flightlogd(place.home, "stop")
    assert stopped.returncode == 0, stopped.stderr
    reset_projections(place.home)
    assert_edited(place.home)


def assert_edited(home: Home) -> None:
    state = run_state(home, "edited")
    assert state is not None
    assert state.config == {f"key{n}": n for n in range(EDITS)}
    assert state.summary["n"] == EDITS - 1
    assert state.tags == [f"tag{EDITS - 1}"]
    for n in range(EDITS):
        assert (run_state(home, f"extra{n}") is None) == bool(n % 2)
    assert_log_is_contiguous(home)
