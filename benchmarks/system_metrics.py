"""What system metrics cost: processor time and bytes of the log for each sample.

Runs that log nothing are open while the daemon samples often, and again while it takes
no samples; the difference is the samples'. The processor time is that of both
processes, from reading the machine to the state that is saved.
"""

import os
import time
from pathlib import Path

from _harness import Daemon, Report, argument_parser, say, scratch_home
from memory import sample

import flightlog

__all__ = ("main",)

INTERVAL_S = 1.0
INTERVAL_BY_DEFAULT_S = 15.0
START_S = 5.0
VARIABLE = "FLIGHTLOG_SYSTEM_INTERVAL_S"

Figures = dict[str, float]


def measure(
    count: int, seconds: float, scratch: Path | None, interval_s: float
) -> Figures:
    """Return what the daemon did in so many seconds."""
    os.environ[VARIABLE] = str(interval_s)
    with scratch_home(scratch) as home, Daemon(home) as daemon:
        runs = [
            flightlog.init(
                project="bench", id=f"run-{index}", home=home, reinit="create_new"
            )
            for index in range(count)
        ]
        time.sleep(START_S)
        cpu_s, size = daemon.cpu_s(), log_size(home)
        time.sleep(seconds)
        cpu_s, size = daemon.cpu_s() - cpu_s, log_size(home) - size
        megabytes, _ = sample(daemon.pids["materializer"])
        keys = len(flightlog.Api(home=home).run("bench/run-0").system_metrics)
        for run in runs:
            run.finish()
    return {"cpu_s": cpu_s, "size": size, "keys": keys, "materializer_mb": megabytes}


def log_size(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "log").iterdir())


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    report = Report("system metrics", arguments.json)
    samples = arguments.seconds / INTERVAL_S
    for count in arguments.runs:
        say(f"{count} runs, {arguments.seconds:g} s with samples and without …")
        on, off = (
            measure(count, arguments.seconds, arguments.scratch, interval_s)
            for interval_s in (INTERVAL_S, 0.0)
        )
        cpu_ms = (on["cpu_s"] - off["cpu_s"]) / samples * 1000
        report.add(
            "a sample of all runs",
            runs=count,
            keys=int(on["keys"]),
            cpu_ms=cpu_ms,
            cpu_percent_by_default=cpu_ms / 10 / INTERVAL_BY_DEFAULT_S,
            log_bytes_a_run=(on["size"] - off["size"]) / samples / count,
            materializer_mb=on["materializer_mb"],
            without_mb=off["materializer_mb"],
        )
    report.show()


if __name__ == "__main__":
    main()
