"""What one log() of three floats costs the training loop, beside its floor and peers.

The floor is one `msgpack.packb` of the same event, measured in the same process and
in the same way, taking turns. Further: import, init, finish, and with --kill the rows
that are left after SIGKILL right behind the last call.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from _harness import (
    PEERS,
    Daemon,
    Environment,
    Report,
    argument_parser,
    environments,
    percentile,
    run_verb,
    say,
    scratch_home,
)

__all__ = ("main",)

PEER_ROWS = 10_000
PACE_MS = 5.0
KILL_ROWS = 10_000
IMPORT_RUNS = 21
LIFE_RUNS = 7
ADOPTION_TIMEOUT_S = 20
PEER_TIMEOUT_S = 4


def measure_calls(
    report: Report, environment: Environment, arguments: argparse.Namespace
) -> None:
    """Time calls in a tight and in a paced loop."""
    ours = environment.name == "flightlog"
    tight_rows = arguments.rows if ours else min(arguments.rows, PEER_ROWS)
    for loop, rows, pace_ms in (
        ("tight", tight_rows, 0.0),
        (f"every {PACE_MS:g} ms", arguments.paced_rows, PACE_MS),
    ):
        with scratch_home(arguments.scratch) as home:
            options = {"rows": rows, "pace_ms": pace_ms, "floor": ours}
            taken = run_verb(environment, "time", home=home, **options)
            stop_daemon(environment, home)
        medians = {}
        for name, samples in taken["samples"].items():
            net = [max(0, sample - taken["timer_ns"]) / 1000 for sample in samples]
            medians[name] = statistics.median(net)
            report.add(
                f"µs a call, {loop}",
                tracker=name if name == "packb" else label(environment),
                median=medians[name],
                p99=percentile(net, 99),
                p999=percentile(net, 99.9),
                max=max(net),
                calls=len(net),
            )
        if ours:
            ratio = medians["flightlog"] / medians["packb"]
            report.check(f"log() / packb, {loop}", ratio, "x", 3)
            report.check(f"p99.9 of log(), {loop}", percentile(net, 99.9), "µs", 50)


def measure_life(
    report: Report, environment: Environment, arguments: argparse.Namespace
) -> None:
    """Time init, the first durable row and finish; for flightlog from cold, too."""
    ours = environment.name == "flightlog"
    cold, warm = [], []
    with scratch_home(arguments.scratch) as parent:
        for turn in range(LIFE_RUNS):
            home = parent / str(turn)
            home.mkdir()
            cold.append(run_verb(environment, "life", home=home, run="cold"))
            if ours:
                warm.append(run_verb(environment, "life", home=home, run="warm"))
            stop_daemon(environment, home)
    for state, lives in (("none", cold), ("running", warm)):
        if lives:
            report.add(
                "ms, medians",
                tracker=label(environment),
                daemon=state if ours else "-",
                import_=import_ms(environment),
                init=median_ms(lives, "init_s"),
                first_durable=median_ms(lives, "durable_s"),
                finish=median_ms(lives, "finish_s"),
            )
    if ours:
        figures = report.tables["ms, medians"]
        report.check("import over bare Python", figures[-1]["import_"], "ms", 60)
        report.check("init(), daemon running", figures[-1]["init"], "ms", 20)
        report.check(
            "init() that starts one, until it answers",
            figures[-2]["first_durable"],
            "ms",
            700,
        )
        report.check("finish() of a quiet run", figures[-1]["finish"], "ms", 30)


def median_ms(lives: list[dict[str, float | None]], key: str) -> float | None:
    times = [time_s for life in lives if (time_s := life[key]) is not None]
    return 1000 * statistics.median(times) if times else None


def import_ms(environment: Environment) -> float:
    """Return what the import costs over bare Python, both with warm caches."""
    times: dict[str, list[float]] = {"pass": [], f"import {environment.name}": []}
    for _ in range(IMPORT_RUNS):
        for code, taken in times.items():
            before = time.perf_counter()
            subprocess.run([environment.python, "-c", code], check=True)
            taken.append(time.perf_counter() - before)
    bare, imported = (statistics.median(taken[1:]) for taken in times.values())
    return 1000 * (imported - bare)


def measure_kill(
    report: Report, environment: Environment, arguments: argparse.Namespace
) -> None:
    """Kill a training process behind its last call and count what can be read."""
    for loop, rows, pace_ms in (("tight", KILL_ROWS, 0.0), ("1 ms", KILL_ROWS, 1.0)):
        with scratch_home(arguments.scratch) as home:
            run_verb(environment, "kill", home=home, rows=rows, pace_ms=pace_ms)
            kept = rows_kept(environment, home, rows)
            stop_daemon(environment, home)
        report.add(
            f"rows kept of {rows:,} after SIGKILL",
            tracker=label(environment),
            loop=loop,
            kept=kept,
        )
        if environment.name == "flightlog":
            report.check(f"rows kept, {loop}", kept, "rows", -rows)


def rows_kept(environment: Environment, home: Path, rows: int) -> int:
    """Count rows, giving the tracker's own helpers time to finish what they hold."""
    ours = environment.name == "flightlog"
    deadline = time.monotonic() + (ADOPTION_TIMEOUT_S if ours else PEER_TIMEOUT_S)
    kept = 0
    while kept < rows and time.monotonic() < deadline:
        with suppress(RuntimeError):  # Nothing there that its reader would open.
            kept = run_verb(environment, "count", home=home)["rows"]
        time.sleep(1)
    return kept


def stop_daemon(environment: Environment, home: Path) -> None:
    if environment.name == "flightlog":
        Daemon(home).control("stop")


def label(environment: Environment) -> str:
    return f"{environment.name} {environment.version}".strip()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--paced-rows", type=int, default=2_000)
    parser.add_argument("--kill", action="store_true", help="only kills")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--peers-dir", type=Path)
    parser.add_argument("--no-flightlog", action="store_true", help="only peers")
    arguments = parser.parse_args()
    # An import is to be measured with its bytecode there, as in daily use.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    report = Report("log_call", arguments.json)
    here = Path(sys.executable)
    trackers = [] if arguments.no_flightlog else [Environment("flightlog", here, "")]
    trackers += environments(arguments.peers, arguments.peers_dir)
    json_line = Environment("json line", here, "")
    for environment in [json_line, *trackers]:
        say(f"measuring {environment.name} …")
        if arguments.kill:
            measure_kill(report, environment, arguments)
            continue
        measure_calls(report, environment, arguments)
        if environment is not json_line:
            measure_life(report, environment, arguments)
    report.show()


if __name__ == "__main__":
    main()
