"""The same reads from flightlog's and its peers' local stores, side by side.

Each tracker writes the same runs through its own API, which is not timed, and reads
them in a fresh process: once cold (what a script pays from its first import on; the
page cache is warm), then again and again. Times of answers that differ are not shown.
"""

import argparse
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _harness import (
    Daemon,
    Environment,
    Report,
    argument_parser,
    environments,
    run_verb,
    say,
    scratch_home,
)

__all__ = ("main",)

BODY = Path(__file__).with_name("read_bodies.py")
PEERS = ("trackio", "aim", "mlflow")
LONG_KEYS = 3
ANSWER = ("count", "keys", "total")

Answers = dict[str, dict[str, Any]]


def titles(arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Return of each read: the part it reads, and what it is in words."""
    runs, rows = arguments.sweep_runs, arguments.sweep_rows
    return {
        "listing": ("listing", f"50 of {arguments.runs:,} runs, filtered and ordered"),
        "key": ("long", f"one key of {arguments.long_rows:,} rows, as a frame"),
        "rows": ("long", f"{LONG_KEYS} keys of {arguments.long_rows:,} rows, as dicts"),
        "frame": ("sweep", f"one key of {runs} runs of {rows:,} rows, as one frame"),
    }


def points(arguments: argparse.Namespace) -> dict[str, int]:
    """Return how many points each part holds."""
    return {
        "listing": arguments.runs,
        "long": LONG_KEYS * arguments.long_rows,
        "sweep": arguments.sweep_runs * arguments.sweep_rows,
    }


def body(environment: Environment, verb: str, home: Path, **options: Any) -> Any:
    return run_verb(environment, verb, body=BODY, home=home, **options)


def measure(
    environment: Environment, arguments: argparse.Namespace, missed: list[str]
) -> Answers:
    """Prepare the stores of one tracker and return what each read took and found."""
    sizes = {
        size: getattr(arguments, size)
        for size in ("runs", "long_rows", "sweep_runs", "sweep_rows")
    }
    answers: Answers = {}
    with scratch_home(arguments.scratch) as folder:
        for part, count in points(arguments).items():
            home = folder / part
            home.mkdir()
            say(f"{environment.name}: writing {part} …")
            try:
                body(environment, "prepare", home, part=part, **sizes)
                if environment.name == "flightlog":
                    settle(home, count)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                missed.append(f"{environment.name}: {part} was not written: {error}")
                continue
            for what, (of_part, _) in titles(arguments).items():
                if of_part == part:
                    answers.update(
                        read(
                            environment,
                            what,
                            home,
                            missed,
                            {**sizes, "turns": arguments.turns},
                        )
                    )
    return answers


def read(
    environment: Environment,
    what: str,
    home: Path,
    missed: list[str],
    options: dict[str, int],
) -> Answers:
    """Return what one read took and found, or nothing if it cannot be done."""
    say(f"{environment.name}: reading {what} …")
    try:
        return {what: body(environment, "read", home, what=what, **options)}
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        missed.append(f"{environment.name}: {what} was not read: {error}")
        return {}


def settle(home: Path, count: int) -> None:
    """Wait until all points are in Parquet, then stop the daemon that init() began."""
    daemon = Daemon(home).refresh()
    daemon.wait_settled(count)
    daemon.control("stop")


def compare(
    report: Report, title: str, sides: dict[str, dict[str, Any]], missed: list[str]
) -> None:
    """Add a table of one read; a side whose answer differs from ours is left out."""
    ours = next(iter(sides.values()))
    base_s = statistics.median(ours["times_s"])
    for name, taken in sides.items():
        if not all(math.isclose(taken[key], ours[key]) for key in ANSWER):
            differs = {key: (taken[key], ours[key]) for key in ANSWER}
            missed.append(f"{name}: {title}: another answer than flightlog: {differs}")
            continue
        median_s = statistics.median(taken["times_s"])
        report.add(
            f"ms: {title}",
            tracker=name,
            cold=1000 * taken["first_s"],
            best=1000 * min(taken["times_s"]),
            median=1000 * median_s,
            to_flightlog=median_s / base_s,
        )


def trackers(arguments: argparse.Namespace) -> Iterator[Environment]:
    yield Environment("flightlog", Path(sys.executable), "")
    yield from environments(arguments.peers, arguments.peers_dir, ("pandas",))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--long-rows", type=int, default=100_000)
    parser.add_argument("--sweep-runs", type=int, default=100)
    parser.add_argument("--sweep-rows", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--peers-dir", type=Path)
    arguments = parser.parse_args()
    report = Report("read_peers", arguments.json)
    missed: list[str] = []
    names = {}
    answers: dict[str, Answers] = {}
    for environment in trackers(arguments):
        names[environment.name] = f"{environment.name} {environment.version}".strip()
        answers[environment.name] = measure(environment, arguments, missed)
    missed.extend(
        f"{peer}: it cannot be installed here"
        for peer in arguments.peers
        if peer not in answers
    )
    if len(answers["flightlog"]) < len(titles(arguments)):
        sys.exit("\n".join(missed))
    for what, (_, title) in titles(arguments).items():
        sides = {names[n]: a[what] for n, a in answers.items() if what in a}
        compare(report, title, sides, missed)
    for line in missed:
        report.add("not measured", what=line)
    report.show()


if __name__ == "__main__":
    main()
