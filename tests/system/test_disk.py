"""A daemon on a disk that becomes nearly full, and has room again."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.system.harness import (
    KEY,
    Trainer,
    daemon,
    environment,
    flightlogd,
    read_rows,
    run_state,
    small_home,
    status,
    wait_until,
)

from flightlog_storage.history import Query
from flightlog_storage.home import Home
from flightlog_storage.points import Stream
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState

pytestmark = pytest.mark.once

MIB = 1 << 20
SETTINGS = {"FLIGHTLOG_LOW_WATER": "24MiB", "FLIGHTLOG_SYSTEM_INTERVAL_S": "0.1"}
# Wants a folder archived, another one watched, and an image encoded.
LOGGER = """
import sys, flightlog, numpy
run = flightlog.init(entity="someone", project="project", id="bulk")
run.log_dataset("data", sys.argv[1], save=True)
run.watch_outputs(output_dirs=sys.argv[2], interval_sec=0.05, min_age_sec=0)
run.log_image("x", numpy.zeros((4, 4), "uint8"))
assert run.flush(60)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home on a disk of 64 MiB."""
    with small_home(tmp_path, "64m") as home:
        yield home


def is_low(home: Home) -> bool:
    return bool(status(home)["disk"]["is_low"])


def lines(home: Home, words: str) -> int:
    return home.daemon_log.read_text().count(words)


def bulk(home: Home) -> RunState:
    """Return the run whose image has been encoded, and nothing else of it."""

    def found() -> RunState | None:
        state = run_state(home, "bulk")
        is_there = state is not None and not state.active and len(state.files) == 1
        return state if is_there and state is not None and not state.owed else None

    state = wait_until(found)
    assert isinstance(state, RunState)
    return state


def samples(home: Home) -> list[dict[str, Any]]:
    """Return what is recorded of the machine for the run."""
    found = HomeReader(home).history(KEY, Query(stream=Stream.SYSTEM))
    return [] if found is None else [*found.to_dicts()]


@contextmanager
def nearly_full(home: Home) -> Iterator[Path]:
    """Serve the home with less than 24 of 64 MiB free, until what is given is gone."""
    filler = home.root / "files"
    filler.write_bytes(bytes(48 * MIB))
    with daemon(home, environ=SETTINGS):
        wait_until(lambda: is_low(home))
        yield filler


@pytest.mark.fault(11)
def test_rows_are_taken_and_system_metrics_are_left_out(home: Home) -> None:
    with nearly_full(home) as filler:
        trainer = Trainer(home, 1000, how="wait")
        trainer.expect("ready")
        trainer.expect("logged")
        wait_until(lambda: len(samples(home)) > 2)
        shown = flightlogd(home, "status").stdout
        while_full = samples(home)

        filler.unlink()
        wait_until(lambda: "system.memory_percent" in samples(home)[-1])
        wait_until(lambda: lines(home, "has room again"))
        trainer.go_on()

        assert trainer.wait() == 0
        assert len(read_rows(home)) == 1000
        assert re.search(r"(?m)^disk_is_low +True$", shown)
        assert all(row["system.samples.left_out"] == 1 for row in while_full)
        assert all("system.memory_percent" not in row for row in while_full)
        assert lines(home, "is nearly full") == lines(home, "has room again") == 1


@pytest.mark.fault(11)
def test_archives_and_outputs_wait_and_images_do_not(
    home: Home, tmp_path: Path
) -> None:
    folders = tmp_path / "data", tmp_path / "outputs"
    for folder in folders:
        folder.mkdir()
        (folder / "a.pt").write_bytes(folder.name.encode())
    with nearly_full(home) as filler:
        subprocess.run(
            [sys.executable, "-c", LOGGER, *folders],
            env=environment(home) | SETTINGS,
            check=True,
            timeout=60,
        )
        before = bulk(home)

        filler.unlink()
        wait_until(lambda: not bulk(home).watches, timeout_s=60)

        assert len(before.watches) == 1
        assert [asset.job for asset in before.assets.values()] == ["archive"]
        kept = bulk(home).assets.values()
        assert [asset.is_saved for asset in kept] == [True, True]
        assert status(home)["worker_restarts"] == 0


def test_an_archive_that_would_fill_the_disk_keeps_no_other_waiting(
    home: Home, tmp_path: Path
) -> None:
    folders = tmp_path / "data", tmp_path / "outputs"
    for folder, size in zip(folders, (50 * MIB, 5), strict=True):
        folder.mkdir()
        with (folder / "a.pt").open("wb") as file:
            file.truncate(size)
    with daemon(home, environ=SETTINGS):
        subprocess.run(
            [sys.executable, "-c", LOGGER, *folders],
            env=environment(home) | SETTINGS,
            check=True,
            timeout=60,
        )
        wait_until(lambda: len(bulk(home).assets) == 2)
        wait_until(lambda: lines(home, "would make the disk nearly full"))

        assert not is_low(home)
        assert [asset.is_saved for asset in bulk(home).assets.values()] == [False, True]
