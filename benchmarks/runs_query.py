"""Finding runs: a home of many runs, filtered, ordered and read page by page.

The home is made through storage itself, without a daemon: one frame a run into the
event log, which is then folded.
"""

import random
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
from _harness import Report, argument_parser, percentile, say, scratch_home

from flightlog.apis.public import Api
from flightlog_storage.codec import RunKey, encode_definitions, encode_event, encode_run
from flightlog_storage.event import ConfigUpdated, RunFinished, RunStarted, WriterId
from flightlog_storage.eventlog import EventLog
from flightlog_storage.frame import Frame
from flightlog_storage.home import Home
from flightlog_storage.projector import Projector

__all__ = ("main",)

KEYS = 30  # In config, and as many in the summary.
BATCH_FRAMES = 200
SAY_EVERY = 10_000
FILTER = {
    "state": "finished",
    "config.optimizer": "adam",
    "config.lr": {"$gte": 1e-4},
    "summary_metrics.loss": {"$lt": 0.9},
    "tags": {"$in": ["night"]},
}
ORDER = "-summary_metrics.loss"


def make_home(root: Path, runs: int) -> Home:
    """Record `runs` finished runs and fold them."""
    home = Home(root)
    home.create()
    log = EventLog.open(home.log, now_ns=lambda: 1, quarantine=home.quarantine)
    generator = random.Random(0)
    frames = []
    projector = Projector(home)
    for number in range(runs):
        frames.append(one_run(generator, number))
        if len(frames) == BATCH_FRAMES or number == runs - 1:
            log.append(frames)
            frames = []
            while projector.project(log.durable):
                pass
        if number % SAY_EVERY == SAY_EVERY - 1:
            say(f"{number + 1:,} runs recorded")
    projector.close()
    log.close()
    return home


def one_run(generator: random.Random, number: int) -> tuple[Frame, bytes]:
    """Return the one frame of a run: config, a row, its end."""
    name, start = f"run{number:06d}", 1.7e9 + number
    config: dict[str, Any] = {f"c{i}": generator.random() for i in range(KEYS - 3)}
    config["lr"] = 10 ** generator.uniform(-5, -1)
    config["optimizer"] = generator.choice(("adam", "sgd", "lion"))
    config["model"] = {"depth": generator.randrange(1, 99)}
    keys = ("loss", *(f"s{i}" for i in range(KEYS - 1)))
    events = [
        encode_event(
            RunStarted(
                time=start,
                entity="bench",
                project="query",
                run=name,
                rank=0,
                tags=[generator.choice(("night", "day"))],
            )
        ),
        encode_event(ConfigUpdated(time=start, changes=config)),
        msgpack.packb((0, 0, start, *(generator.random() for _ in keys))),
        encode_event(RunFinished(time=start + 60, exit_code=int(number % 10 == 0))),
    ]
    key = encode_run(RunKey("bench", "query", name, 0))
    definitions = {-1: key, 0: msgpack.packb((0, keys))}
    payload = encode_definitions(definitions) + b"".join(events)
    writer = WriterId(number.to_bytes(16))
    return Frame(len(payload), zlib.crc32(payload), len(events), writer, 1), payload


def timed(report: Report, what: str, turns: int, read: Callable[[], object]) -> float:
    """Time a read and add it to the report; return the median in ms."""
    times = []
    for _ in range(turns):
        before = time.perf_counter()
        read()
        times.append(1000 * (time.perf_counter() - before))
    report.add(
        "ms",
        what=what,
        best=min(times),
        median=statistics.median(times),
        p90=percentile(times, 90),
    )
    return statistics.median(times)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    report = Report("runs_query", arguments.json)
    with scratch_home(arguments.scratch) as folder:
        before = time.perf_counter()
        home = make_home(folder / "home", arguments.runs)
        made = time.perf_counter() - before
        report.add(
            "home",
            runs=arguments.runs,
            made_s=made,
            state_mb=home.state.stat().st_size / 1e6,
        )
        path = "bench/query"

        def first_page(**query: Any) -> object:
            return Api(home=home.root).runs(path, **query)[:50]

        def iterate(**query: Any) -> int:
            runs = Api(home=home.root).runs(path, **query)
            return sum(bool(run.config) + bool(run.summary) for run in runs)

        page = timed(
            report,
            "first page, filtered and ordered",
            arguments.turns,
            lambda: first_page(filters=FILTER, order=ORDER),
        )
        timed(
            report,
            "first page, ordered",
            arguments.turns,
            lambda: first_page(order=ORDER),
        )
        timed(report, "first page, as it is", arguments.turns, first_page)
        every = timed(report, "all runs", 3, iterate)
        timed(report, "all runs, ordered", 3, lambda: iterate(order=ORDER))
        if arguments.runs == 10_000:
            report.check("first page, filtered and ordered", page, "ms", 30)
            report.check("all runs", every / 1000, "s", 2)
    report.show()


if __name__ == "__main__":
    main()
