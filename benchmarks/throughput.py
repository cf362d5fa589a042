"""Many processes at full speed into one daemon: durable, readable, and its whole price.

Time runs from the first log() to the moment when flush() has returned in all
processes, and to the last row read back. The CPU is that of all processes, from log()
to Parquet that can be queried, but for the reader's.
"""

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _harness import (
    PEERS,
    Daemon,
    Environment,
    Report,
    argument_parser,
    command,
    environments,
    run_verb,
    say,
    scratch_home,
)

import flightlog

__all__ = ("main",)

KEYS = 3
PEER_ROWS = 10_000  # A process: most peers would take minutes for what we take.
START_DELAY_S = 3.0
PEER_START_DELAY_S = 12.0  # Eight imports of up to a second each, on two cores.
PR_SET_CHILD_SUBREAPER = 36

Figures = dict[str, Any]


class Fleet:
    """Training processes that start together; each tells when it is done with what."""

    def __init__(
        self, environment: Environment, home: Path, processes: int, **options: object
    ) -> None:
        self.runs = [f"run-{index}" for index in range(processes)]
        self._name = environment.name
        self._complaints = (home / "complaints").open("w+")
        self._processes = [
            subprocess.Popen(
                command(environment, "stream", home=home, run=run, **options),
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
            )
            for run in self.runs
        ]

    def next_words(self) -> list[Figures]:
        """Wait for one more line from each process."""
        lines = [
            process.stdout.readline() if process.stdout else ""
            for process in self._processes
        ]
        if not all(lines):
            self._complaints.seek(0)
            last = self._complaints.read()[-1000:]
            raise RuntimeError(f"{self._name}: {lines.count('')} died: {last}")
        return [json.loads(line) for line in lines]

    def wait(self) -> None:
        for process in self._processes:
            process.wait()


def measure_flightlog(report: Report, arguments: argparse.Namespace, read: str) -> None:
    """Run one fleet and read everything back in one way as soon as it is durable."""
    here = Environment("flightlog", Path(sys.executable), "")
    rows = arguments.rows * arguments.processes
    with scratch_home(arguments.scratch) as home, Daemon(home) as daemon:
        api = flightlog.Api(home=home)
        cpu_before_s = daemon.cpu_s()
        start_at = time.monotonic() + START_DELAY_S
        fleet = Fleet(
            here, home, arguments.processes, rows=arguments.rows, start_at=start_at
        )
        durable = fleet.next_words()
        read_rows = READ[read](api, fleet.runs)
        read_s = time.monotonic()
        finished = fleet.next_words()
        fleet.wait()
        daemon_cpu_s = daemon.wait_settled(rows * KEYS) - cpu_before_s
    if read_rows != rows:
        raise SystemExit(f"{read} read {read_rows:,} of {rows:,} rows")
    first_s = min(words["first_s"] for words in durable)
    logged_s = max(words["logged_s"] for words in durable) - first_s
    durable_s = max(words["durable_s"] for words in durable) - first_s
    trainer_cpu_s = sum(words["cpu_s"] for words in finished)
    report.add(
        f"flightlog: {arguments.processes} processes, {rows:,} rows",
        read_with=read,
        logged_s=logged_s,
        durable_s=durable_s,
        readable_s=read_s - first_s,
        durable_rows_s=rows / durable_s,
        readable_rows_s=rows / (read_s - first_s),
        trainers_cpu_us=trainer_cpu_s / rows * 1e6,
        daemon_cpu_us=daemon_cpu_s / rows * 1e6,
        cpu_us=(trainer_cpu_s + daemon_cpu_s) / rows * 1e6,
    )
    report.check(f"durable ({read})", rows / durable_s, "rows/s", -250_000)
    report.check(f"readable with {read}", rows / (read_s - first_s), "rows/s", -200_000)
    cpu_us = (trainer_cpu_s + daemon_cpu_s) / rows * 1e6
    report.check(f"CPU a row ({read})", cpu_us, "µs", 10)


def read_as_arrow(api: "flightlog.Api", runs: list[str]) -> int:
    return sum(api.run(f"bench/{run}").history_arrow().num_rows for run in runs)


def read_as_rows(api: "flightlog.Api", runs: list[str]) -> int:
    return sum(1 for run in runs for _ in api.run(f"bench/{run}").scan_history())


READ: dict[str, Callable[["flightlog.Api", list[str]], int]] = {
    "history_arrow": read_as_arrow,
    "scan_history": read_as_rows,
}


def measure_peer(
    report: Report, environment: Environment, arguments: argparse.Namespace
) -> None:
    """Run one fleet of a peer; its helper processes end with it and are counted."""
    with scratch_home(arguments.scratch) as home, reaped_descendants():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start_at = time.monotonic() + PEER_START_DELAY_S
        fleet = Fleet(
            environment,
            home,
            arguments.processes,
            rows=arguments.peer_rows,
            start_at=start_at,
        )
        durable = fleet.next_words()
        finished = fleet.next_words()
        fleet.wait()
        reap()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        kept = sum(count(environment, home, fleet.runs))
    rows = arguments.peer_rows * arguments.processes
    first_s = min(words["first_s"] for words in durable)
    finished_s = max(words["finished_s"] for words in finished) - first_s
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cpu_s -= sum(words["cpu_before_s"] for words in finished)
    report.add(
        f"peers: {arguments.processes} processes, {rows:,} rows",
        tracker=f"{environment.name} {environment.version}",
        finished_s=finished_s,
        rows_s=rows / finished_s,
        cpu_us=cpu_s / rows * 1e6,
        rows_kept=kept,
    )


def count(environment: Environment, home: Path, runs: list[str]) -> Iterator[int]:
    if environment.name in ("trackio", "swanlab"):  # Their files do not name the run.
        runs = runs[:1]
    for run in runs:
        yield run_verb(environment, "count", home=home, run=run)["rows"]


@contextmanager
def reaped_descendants() -> Iterator[None]:
    """Make orphans below us our children, so that their CPU is counted."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def reap(timeout_s: float = 20.0) -> None:
    """Wait for descendants that outlive the training processes."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            return
    say("a helper process still runs; its CPU is missing from the figures")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=250_000, help="of each process")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--peers", nargs="*", default=(), choices=PEERS)
    parser.add_argument("--peer-rows", type=int, default=PEER_ROWS)
    parser.add_argument("--peers-dir", type=Path)
    parser.add_argument("--no-flightlog", action="store_true", help="only peers")
    arguments = parser.parse_args()
    report = Report("throughput", arguments.json)
    for read in () if arguments.no_flightlog else READ:
        say(f"measuring flightlog, read with {read} …")
        measure_flightlog(report, arguments, read)
    for environment in environments(arguments.peers, arguments.peers_dir):
        say(f"measuring {environment.name} …")
        try:
            measure_peer(report, environment, arguments)
        except RuntimeError as error:
            say(f"skipped: {error}")
    report.show()


if __name__ == "__main__":
    main()
