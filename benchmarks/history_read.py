"""Reading a run's history as Arrow, beside a plain wide Parquet file of the same rows.

The plain file is what one would write by hand: a column for the step and one for each
metric, pyarrow's defaults. Both sides are read in turns, from a warm page cache.
"""

import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from _harness import Daemon, Report, argument_parser, percentile, say, scratch_home

__all__ = ("main",)

KEYS = ("loss", "accuracy", "rate", "norm", "throughput")
RUN = "bench/history"
FLUSH_TIMEOUT_S = 120.0


def write_run(home: Path, rows: int) -> pa.Table:
    """Log a run of random walks and return the same rows as a wide table."""
    import flightlog

    generator = random.Random(0)
    columns = {key: [0.0] * rows for key in KEYS}
    last = dict.fromkeys(KEYS, 0.0)
    with flightlog.init(project="bench", id="history", home=home) as run:
        for step in range(rows):
            last = {key: last[key] + generator.gauss(0.0, 1.0) for key in KEYS}
            for key, value in last.items():
                columns[key][step] = value
            run.log(last)
        run.flush(FLUSH_TIMEOUT_S)
    return pa.table({"_step": pa.array(range(rows), pa.int64()), **columns})


def read_flightlog(home: Path, keys: list[str] | None) -> pa.Table:
    import flightlog

    return flightlog.Api(home=home).run(RUN).history_arrow(keys=keys)


def compare(
    report: Report,
    sides: dict[str, Callable[[], pa.Table]],
    turns: int,
    what: str,
    at_most: float,
) -> None:
    """Time both sides in turns and hold the ratio of their medians to a target."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    lengths = {side: read().num_rows for side, read in sides.items()}
    if len(set(lengths.values())) != 1:
        sys.exit(f"{what}: the sides differ in length: {lengths}")
    for _ in range(turns):
        for side, read in sides.items():
            before = time.perf_counter()
            read()
            taken[side].append(1000 * (time.perf_counter() - before))
    for side, times in taken.items():
        report.add(
            "ms a read",
            what=what,
            side=side,
            best=min(times),
            median=statistics.median(times),
            p90=percentile(times, 90),
        )
    ours, plain = (statistics.median(times) for times in taken.values())
    report.check(what, ours / plain, "x", at_most)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    report = Report("history_read", arguments.json)
    with scratch_home(arguments.scratch) as folder:
        home = folder / "home"
        with Daemon(home) as daemon:
            say("writing the run …")
            table = write_run(home, arguments.rows)
            daemon.wait_settled(arguments.rows * len(KEYS))
        plain = folder / "plain.parquet"
        parquet.write_table(table, plain)
        size = sum(path.stat().st_size for path in home.rglob("*.parquet"))
        report.add("MB on disk", side="flightlog", size=size / 1e6)
        report.add("MB on disk", side="plain file", size=plain.stat().st_size / 1e6)
        one = [KEYS[2]]
        for what, keys, columns, at_most in (
            ("one key of five", one, ["_step", *one], 1.5),
            ("all five keys", list(KEYS), None, 2.0),
        ):
            sides: dict[str, Callable[[], pa.Table]] = {
                "flightlog": partial(read_flightlog, home, keys),
                "plain file": partial(parquet.read_table, plain, columns=columns),
            }
            compare(report, sides, arguments.turns, what, at_most)
    report.show()


if __name__ == "__main__":
    main()
