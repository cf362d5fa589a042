"""Memory and descriptors of the daemon: many runs at once, then one after another.

The slope is a least-squares line through the second half of the samples: buffers and
caches have filled by then, so what still grows would grow for ever.
"""

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from _harness import Daemon, Environment, Report, argument_parser, say, scratch_home
from throughput import Fleet

import flightlog

__all__ = ("main",)

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_INTERVAL_S = 1.0
LIMITS_MB = {"recorder": 60.0, "materializer": 300.0}
START_S_A_RUN = 0.25  # An interpreter's start, on two cores that do it for all runs.
SLOPE_MAX_MB_MINUTE = 0.5
SHORT_RUN_ROWS = 20

Samples = dict[str, list[tuple[float, float, int]]]


def sample(pid: int) -> tuple[float, int]:
    """Return the resident megabytes and the open descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * PAGE_SIZE / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def watch(daemon: Daemon, until_s: float) -> Samples:
    """Sample both processes each second until a moment."""
    samples: Samples = defaultdict(list)
    while (now := time.monotonic()) < until_s:
        for name, pid in daemon.pids.items():
            samples[name].append((now, *sample(pid)))
        time.sleep(SAMPLE_INTERVAL_S)
    return samples


def slope(times: list[float], values: list[float]) -> float:
    half = len(times) // 2
    if len(times) - half < 2:
        return 0.0
    return 60 * statistics.linear_regression(times[half:], values[half:]).slope


def measure_at_once(report: Report, arguments: argparse.Namespace) -> None:
    """Sample the daemon while many runs log at once."""
    here = Environment("flightlog", Path(sys.executable), "")
    seconds = arguments.minutes * 60
    with scratch_home(arguments.scratch) as home, Daemon(home) as daemon:
        idle = {name: sample(pid) for name, pid in daemon.pids.items()}
        start_at = time.monotonic() + 2 + START_S_A_RUN * arguments.runs
        fleet = Fleet(
            here,
            home,
            arguments.runs,
            rows=int(seconds * 1000 / arguments.pace_ms),
            pace_ms=arguments.pace_ms,
            start_at=start_at,
        )
        say(f"{arguments.runs} runs log for {arguments.minutes:g} minutes …")
        time.sleep(max(0.0, start_at - time.monotonic()))
        samples = watch(daemon, start_at + seconds)
        fleet.wait()
    for name, taken in samples.items():
        times, sizes, descriptors = (
            list(column) for column in zip(*taken, strict=True)
        )
        grows = slope(times, sizes)
        report.add(
            f"{arguments.runs} runs, a row each {arguments.pace_ms:g} ms",
            process=name,
            idle_mb=idle[name][0],
            start_mb=sizes[0],
            median_mb=statistics.median(sizes),
            max_mb=max(sizes),
            mb_a_minute=grows,
            descriptors_max=max(descriptors),
            descriptors_last=descriptors[-1],
        )
        report.check(f"{name}, resident", max(sizes), "MB", LIMITS_MB[name])
        report.check(f"{name}, growth", grows, "MB a minute", SLOPE_MAX_MB_MINUTE)


def measure_one_by_one(report: Report, arguments: argparse.Namespace) -> None:
    """Sample the daemon as short runs follow each other: none may leave its share."""
    samples_max = 8
    every = max(1, arguments.short_runs // samples_max)
    with scratch_home(arguments.scratch) as home, Daemon(home) as daemon:
        for number in range(1, arguments.short_runs + 1):
            with flightlog.init(project="bench", id=f"{number}", home=home) as run:
                for row in range(SHORT_RUN_ROWS):
                    run.log({"loss": 1 / (row + 1), "accuracy": row * 1e-3})
            if number % every == 0:
                sizes = {name: sample(pid)[0] for name, pid in daemon.pids.items()}
                report.add("short runs, one after another", runs=number, **sizes)
    for name, size in sizes.items():
        report.check(f"{name} after {number:,} runs", size, "MB", LIMITS_MB[name])


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--pace-ms", type=float, default=20.0, help="between rows")
    parser.add_argument("--short-runs", type=int, default=24_000)
    arguments = parser.parse_args()
    report = Report("memory", arguments.json)
    os.environ["FLIGHTLOG_QUIET"] = "1"
    if arguments.minutes:
        measure_at_once(report, arguments)
    if arguments.short_runs:
        measure_one_by_one(report, arguments)
    report.show()


if __name__ == "__main__":
    main()
