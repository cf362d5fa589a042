"""System metrics of real runs, taken by a real daemon."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.harness import (
    Trainer,
    daemon,
    environment,
    flightlogd,
    kill_daemon,
    make_home,
    read_rows,
    run_state,
    start_daemon,
    stop_daemon,
    wait_until,
)

import flightlog
from flightlog_storage.home import Home

OFTEN = {"FLIGHTLOG_SYSTEM_INTERVAL_S": "0.1"}
HANGS = """
import time

def nvmlInit():
    time.sleep(3600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    yield home
    flightlogd(home, "stop")  # Trainers start daemons, too.


def samples(home: Home) -> list[dict[str, Any]]:
    try:
        run = flightlog.Api(home=home.root).run("someone/project/run")
    except flightlog.NotFoundError:
        return []
    found: list[dict[str, Any]] = run.history(stream="system", pandas=False)
    return found


def test_a_run_is_sampled_from_its_start_to_its_end_also_by_the_next_daemon(
    home: Home,
) -> None:
    first = start_daemon(home, environ=OFTEN)
    trainer = Trainer(home, 5, how="wait")
    wait_until(lambda: len(samples(home)) >= 3)
    kill_daemon(first)
    before = samples(home)

    second = start_daemon(home, environ=OFTEN)
    wait_until(lambda: len(samples(home)) > len(before))
    trainer.go_on()
    trainer.wait()
    wait_until(lambda: not getattr(run_state(home), "active", True))
    after = samples(home)
    stop_daemon(second)

    times = [row["_timestamp"] for row in after]
    assert after[: len(before)] == before
    assert times == sorted(set(times))
    assert after[-1]["system.proc.memory.rssMB"] > 5
    assert read_rows(home) == [(n, n) for n in range(5)]
    state = run_state(home)
    assert state is not None
    assert (state.last_step, state.row_count, state.lost_count) == (4, 5, 0)
    assert not any(key.startswith("system") for key in state.summary)


def test_a_driver_that_hangs_keeps_nothing_else_waiting(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "pynvml.py").write_text(HANGS)
    path = os.pathsep.join([str(tmp_path), environment(home)["PYTHONPATH"]])
    with daemon(home, environ=OFTEN | {"PYTHONPATH": path}) as process:
        trainer = Trainer(home, 5, how="wait")
        wait_until(lambda: len(samples(home)) >= 3)
        trainer.go_on()
        trainer.wait()
        wait_until(lambda: read_rows(home) == [(n, n) for n in range(5)])

        assert stop_daemon(process) == 0

    said = home.daemon_log.read_text()
    assert said.count("GPUs: cannot be read: no answer within 2 s") == 1
    assert "materializer" not in said.replace("flightlogd.materializer", "")
