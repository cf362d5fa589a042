"""Homes after kills and losses of power: what must be true of them."""

import subprocess
from pathlib import Path

from tests.counts import count
from tests.system.harness import (
    KEY,
    flightlogd,
    frames_in_log,
    kill_all,
    kill_daemon,
    make_home,
    read_rows,
    run_state,
    start_daemon,
    status,
    wait_recorded,
    wait_until,
)

from flightlog.cli.blob_checks import check_blobs
from flightlog.cli.contents import read_contents
from flightlog.cli.damages import check_log
from flightlog.cli.files import check_projections
from flightlog.cli.findings import Findings
from flightlog_storage.home import Home
from flightlog_storage.runstate import State

__all__ = (
    "Recovered",
    "assert_log_is_contiguous",
    "assert_recovered",
    "problems_of",
    "state_of",
)


class Recovered:
    """A home whose daemons come and go; ended, whatever is left of them."""

    def __init__(self, folder: Path) -> None:
        self.home = make_home(folder)
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> "subprocess.Popen[bytes]":
        process = start_daemon(self.home)
        self._daemons.append(process)
        return process

    def start_under(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a daemon that a command runs, and wait until it serves or has ended."""
        process = start_daemon(self.home, wait=False, prefix=command)
        self._daemons.append(process)
        wait_until(lambda: process.poll() is not None or status(self.home))
        return process

    def ensure(self) -> None:
        """Have a daemon serve, whoever started it."""
        done = flightlogd(self.home, "start")
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        for process in self._daemons:
            kill_daemon(process)
        kill_all(self.home)


def state_of(home: Home, run: str) -> State | None:
    found = run_state(home, run)
    return None if found is None else found.state


def assert_recovered(
    home: Home, returned: int, states: set[State], run: str = KEY[2]
) -> None:
    """Check that each row is there once; the next one may be, its call was cut off."""
    wait_recorded(home)
    wait_until(lambda: state_of(home, run) in states, what=f"for {states}")
    rows = read_rows(home, run)
    assert rows == [(n, n) for n in range(len(rows))]
    assert returned <= len(rows) <= returned + 1
    count("rows, each there once", len(rows))
    assert_log_is_contiguous(home)
    state = run_state(home, run)
    assert state is not None
    assert state.row_count == len(rows), "folded once each, too"
    assert state.lost_count == 0


def assert_log_is_contiguous(home: Home) -> None:
    last: dict[bytes, int] = {}
    for stored in frames_in_log(home):
        frame = stored.frame
        assert frame.sequence == last.get(frame.writer, 0) + 1
        last[frame.writer] = frame.sequence_end - 1


def problems_of(home: Home) -> list[str]:
    """Return what `flightlog verify --full` finds."""
    findings = Findings()
    check_log(home, findings)
    check_projections(home, findings, full=True)
    check_blobs(home, read_contents(home), findings, full=True)
    return [f"{problem.where}: {problem.what}" for problem in findings.problems]
