"""A materializer that is hours behind: it stands still while all log, then goes on.

25 million rows are what 64 runs with a row each 20 ms log in two hours; here they come
as fast as they can. Meanwhile a reader folds what the materializer has not.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _harness import Daemon, Environment, Report, argument_parser, say, scratch_home
from memory import sample
from throughput import START_DELAY_S, Fleet

import flightlog

__all__ = ("main",)

LOOK_INTERVAL_S = 0.25
RECORDER_MAX_MB = 60
MATERIALIZER_MAX_MB = 300


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def catch_up(daemon: Daemon) -> tuple[float, float]:
    """Wait until all is folded; return seconds and the most megabytes it took."""
    begun, most_mb = time.monotonic(), 0.0
    while daemon.is_behind():
        most_mb = max(most_mb, sample(daemon.pids["materializer"])[0])
        time.sleep(LOOK_INTERVAL_S)
    return time.monotonic() - begun, most_mb


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=25_000_000, help="of all runs")
    parser.add_argument("--runs", type=int, default=4)
    arguments = parser.parse_args()
    report = Report("behind", arguments.json)
    here = Environment("flightlog", Path(sys.executable), "")
    of_each = arguments.rows // arguments.runs
    rows = of_each * arguments.runs
    with scratch_home(arguments.scratch) as home, Daemon(home) as daemon:
        say(f"{rows:,} rows …")
        with stopped(daemon.pids["materializer"]):
            start_at = time.monotonic() + START_DELAY_S
            fleet = Fleet(here, home, arguments.runs, rows=of_each, start_at=start_at)
            durable = fleet.next_words()
            fleet.next_words()
            fleet.wait()
            recorder_mb = sample(daemon.pids["recorder"])[0]
            began = time.monotonic()
            read = flightlog.Api(home=home).run(f"bench/{fleet.runs[0]}")
            length = read.history_arrow().num_rows
            read_s = time.monotonic() - began
        behind_s, materializer_mb = catch_up(daemon)
    if length != of_each:
        raise SystemExit(f"a reader found {length:,} of {of_each:,} rows")
    first_s = min(words["first_s"] for words in durable)
    report.add(
        "a materializer that was behind",
        rows=rows,
        durable_rows_s=rows / (max(words["durable_s"] for words in durable) - first_s),
        one_run_read_s=read_s,
        caught_up_s=behind_s,
        folded_rows_s=rows / behind_s,
    )
    report.check("recorder meanwhile", recorder_mb, "MB", RECORDER_MAX_MB)
    report.check("materializer after", materializer_mb, "MB", MATERIALIZER_MAX_MB)
    report.show()


if __name__ == "__main__":
    main()
