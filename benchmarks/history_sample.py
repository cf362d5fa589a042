"""Samples, scans and frames of histories: long ones, wide ones and many of them.

All are read through the API, from a warm page cache, while the daemon idles.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _harness import Daemon, Report, argument_parser, percentile, say, scratch_home

__all__ = ("main",)

LONG_KEYS = ("loss", "rate", "norm")
SWEEP_KEYS = ("loss", "accuracy")
FLUSH_TIMEOUT_S = 600.0
WIDE_CALL_KEYS = 1000  # So many of a wide run's keys are logged by one call.


def write_long(home: Path, rows: int, keys: Sequence[str], name: str) -> None:
    """Log a run of random walks."""
    import flightlog

    generator = random.Random(0)
    values = dict.fromkeys(keys, 0.0)
    with flightlog.init(project="bench", id=name, home=home) as run:
        for _ in range(rows):
            for key in keys:
                values[key] += generator.random() - 0.5
            run.log(values)
        run.flush(FLUSH_TIMEOUT_S)


def write_wide(home: Path, key_count: int, calls: int) -> None:
    """Log a run of many keys, each in some of the rows."""
    import flightlog

    keys = [f"layer/{number}" for number in range(key_count)]
    with flightlog.init(project="bench", id="wide", home=home) as run:
        for call in range(calls):
            for start in range(0, key_count, WIDE_CALL_KEYS):
                own = keys[start : start + WIDE_CALL_KEYS]
                run.log(dict.fromkeys(own, float(call)))
        run.flush(FLUSH_TIMEOUT_S)


def write_sweep(home: Path, runs: int, rows: int) -> None:
    """Log runs of equal length into a project of their own."""
    import flightlog

    for number in range(runs):
        name = f"run-{number}"
        with flightlog.init(project="sweep", id=name, home=home) as run:
            for row in range(rows):
                run.log(dict.fromkeys(SWEEP_KEYS, row + number / 7))
            run.flush(FLUSH_TIMEOUT_S)


class Clock:
    """Times calls, and holds their medians to targets."""

    def __init__(self, report: Report, turns: int) -> None:
        self._report = report
        self._turns = turns

    def median_s(self, what: str, read: Callable[[], Any]) -> float:
        """Return the median time of a call, after one that does not count."""
        read()
        taken = []
        for _ in range(self._turns):
            before = time.perf_counter()
            read()
            taken.append(time.perf_counter() - before)
        self._report.add(
            "seconds",
            what=what,
            best=min(taken),
            median=statistics.median(taken),
            p90=percentile(taken, 90),
        )
        return statistics.median(taken)

    def check(self, what: str, read: Callable[[], Any], at_most_s: float) -> None:
        self._report.check(what, self.median_s(what, read), "s", at_most_s)


def measure(home: Path, clock: Clock, report: Report, scanned: int) -> None:
    import flightlog

    api = flightlog.Api(home=home)
    long, wide = api.run("bench/long"), api.run("bench/wide")
    sweep, three = api.runs("sweep"), api.run("bench/three")
    keys = [LONG_KEYS[0]]
    for method in ("even", "minmax"):
        clock.check(
            f"500 samples of a key, {method}",
            lambda method=method: long.history(keys=keys, pandas=False, method=method),
            0.3,
        )
    taken_s = clock.median_s(
        "scan of 3 keys as dicts",
        lambda: sum(1 for _ in three.scan_history(keys=list(LONG_KEYS))),
    )
    report.check("scan of 3 keys as dicts", scanned / taken_s, "rows/s", -500_000)
    clock.median_s("frame of 3 keys, all rows", lambda: three.history(samples=scanned))
    clock.check("ten rows of a wide run", lambda: wide.history(10, pandas=False), 5.0)
    clock.median_s("scan of a wide run", lambda: sum(1 for _ in wide.scan_history()))
    for format_ in ("polars", "pandas", "arrow", "default"):
        what = f"histories of all rows, {format_}"
        read = lambda f=format_: sweep.histories(10**6, format=f)  # noqa: E731
        if format_ == "polars":
            clock.check(what, read, 1.0)
        else:
            clock.median_s(what, read)
    clock.median_s("history_keys of 3 keys", lambda: three.history_keys)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--scanned", type=int, default=1_000_000)
    parser.add_argument("--wide-keys", type=int, default=100_000)
    parser.add_argument("--wide-calls", type=int, default=20)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--run-rows", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    report = Report("history_sample", arguments.json)
    with scratch_home(arguments.scratch) as folder:
        home = folder / "home"
        with Daemon(home) as daemon:
            say("writing the runs …")
            write_long(home, arguments.rows, LONG_KEYS[:1], "long")
            write_long(home, arguments.scanned, LONG_KEYS, "three")
            write_wide(home, arguments.wide_keys, arguments.wide_calls)
            write_sweep(home, arguments.runs, arguments.run_rows)
            daemon.wait_settled(
                arguments.rows
                + arguments.scanned * len(LONG_KEYS)
                + arguments.wide_keys * arguments.wide_calls
                + arguments.runs * arguments.run_rows * len(SWEEP_KEYS)
            )
            say("reading …")
            clock = Clock(report, arguments.turns)
            measure(home, clock, report, arguments.scanned)
    report.show()


if __name__ == "__main__":
    main()
