"""What the benchmarks share: statistics, reports, peers' environments, the daemon."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as parquet
from rich.console import Console
from rich.table import Table

__all__ = (
    "PEERS",
    "Daemon",
    "Environment",
    "Report",
    "argument_parser",
    "command",
    "disk_image",
    "environments",
    "percentile",
    "run_verb",
    "say",
    "scratch_home",
)

BODY = Path(__file__).with_name("peers.py")
PEERS = ("trackio", "wandb", "tensorboardX", "swanlab")
INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 900
SETTLE_TIMEOUT_S = 120
QUIET_S = 1.0
QUIET_CPU_SHARE = 0.03  # Of one core: a daemon below this has caught up.

Figures = dict[str, Any]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the sample below which `percent` of them lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def say(text: str) -> None:
    """Talk to the person who waits; stdout is for the results."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Report:
    """Tables of figures: drawn for people, or one JSON object."""

    benchmark: str
    as_json: bool
    tables: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, table: str, **figures: object) -> None:
        """Add one row to a table; the first row's keys are its columns."""
        self.tables.setdefault(table, []).append(figures)

    def check(self, what: str, value: float, unit: str, at_most: float) -> None:
        """Add a figure that has a target; a negative target is a lower bound."""
        met = value <= at_most if at_most >= 0 else value >= -at_most
        target = f"{'≤' if at_most >= 0 else '≥'} {abs(at_most):g} {unit}"
        self.add("targets", what=what, value=value, target=target, met=met)

    def show(self) -> None:
        """Print the whole report."""
        head = {
            "benchmark": self.benchmark,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
        }
        if self.as_json:
            print(json.dumps({**head, "tables": self.tables}))
            return
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(f"{self.benchmark} · {head['date']} · {head['machine']}")
        for title, rows in self.tables.items():
            table = Table(title=title, title_justify="left")
            for index, column in enumerate(rows[0]):
                table.add_column(column, justify="right" if index else "left")
            for row in rows:
                table.add_row(*(shown(row.get(column)) for column in rows[0]))
            console.print(table)


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return (
        "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
    )


def machine() -> str:
    """Describe the machine in words."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, pyarrow {version('pyarrow')}"
    )


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--scratch", type=Path, help="folder for homes (default: the system's)"
    )
    return parser


@dataclass(frozen=True)
class Environment:
    """A tracker and the interpreter that can import it."""

    name: str
    python: Path
    version: str


def environments(
    names: Sequence[str], peers_dir: Path | None, also: Sequence[str] = ()
) -> Iterator[Environment]:
    """Yield an environment for each peer; what cannot be installed is said, skipped.

    Each gets the packages of `also`, too.
    """
    folder = peers_dir or Path(tempfile.gettempdir()) / "flightlog-benchmark-peers"
    for name in names:
        python = folder / name / "bin/python"
        try:
            if not python.exists():
                say(f"installing {name} …")
                run([sys.executable, "-m", "venv", folder / name], INSTALL_TIMEOUT_S)
            missing = [each for each in (name, *also) if not installed(python, each)]
            if missing:
                pip = [python, "-m", "pip", "install", "--quiet", *missing]
                run(pip, INSTALL_TIMEOUT_S)
            found = installed(python, name)
        except (OSError, subprocess.SubprocessError) as error:
            say(f"{name}: skipped, it cannot be installed here ({error})")
            continue
        yield Environment(name, python, found or "unknown version")


def installed(python: Path, name: str) -> str | None:
    """Return the version of a package in another environment."""
    code = f"from importlib.metadata import version; print(version({name!r}))"
    done = subprocess.run(
        [python, "-c", code], check=False, capture_output=True, text=True
    )
    return done.stdout.strip() or None


def command(
    environment: Environment, verb: str, *, body: Path = BODY, **options: object
) -> list[str]:
    """Return the command line of one process of a tracker."""
    line = [str(environment.python), str(body), environment.name, verb]
    for option, value in options.items():
        flag = "--" + option.replace("_", "-")
        if value is not False:
            line += [flag] if value is True else [flag, str(value)]
    return line


def run_verb(
    environment: Environment, verb: str, *, body: Path = BODY, **options: object
) -> Figures:
    """Run one process of a tracker and return what it printed, merged."""
    done = subprocess.run(
        command(environment, verb, body=body, **options),
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    if done.returncode and verb != "kill":
        raise RuntimeError(f"{environment.name} {verb}: {done.stderr[-2000:]}")
    figures: Figures = {}
    for line in done.stdout.splitlines():
        figures.update(json.loads(line))
    return figures


def run(line: Sequence[object], timeout_s: float) -> str:
    done = subprocess.run(
        [str(word) for word in line],
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    return done.stdout


@dataclass
class Daemon:
    """The flightlog daemon of one home, seen from outside."""

    home: Path
    pids: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.control("start")
        return self.refresh()

    def __exit__(self, *_: object) -> None:
        self.control("stop")

    def refresh(self) -> Self:
        """Learn who the processes are."""
        status = self.status()
        self.pids = {
            "recorder": status["pid"],
            "materializer": status["materializer_pid"],
        }
        return self

    def status(self) -> Figures:
        """Return what `flightlogd status --json` says."""
        status: Figures = json.loads(self.control("status", "--json"))["data"]
        return status

    def is_behind(self) -> bool:
        """Whether there are rows that the materializer has not folded."""
        figures = self.status().get("figures")
        return figures is None or bool(figures["lag_events"])

    def control(self, verb: str, *options: str) -> str:
        """Run `flightlogd VERB` on this home and return what it printed."""
        line = [sys.executable, "-m", "flightlogd", verb, *options, "--home", self.home]
        return run(line, 60)

    def cpu_s(self) -> float:
        """Return the processor time of the daemon's processes so far."""
        return sum(process_cpu_s(pid) for pid in self.pids.values())

    def wait_settled(self, points: int) -> float:
        """Wait until `points` are in Parquet and nothing works; return the CPU then."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            before = self.cpu_s()
            time.sleep(QUIET_S)
            after = self.cpu_s()
            if after - before < QUIET_CPU_SHARE * QUIET_S and self.points() >= points:
                return before
        raise TimeoutError(f"{self.points()} of {points} points in Parquet")

    def points(self) -> int:
        """Return how many points the Parquet parts of the home hold."""
        total = 0
        for path in self.home.rglob("*.parquet"):
            try:
                total += parquet.read_metadata(path).num_rows
            except FileNotFoundError:
                continue  # Compacted away since the folder was listed.
        return total


def process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def scratch_home(parent: Path | None) -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="flightlog-benchmark-", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@contextmanager
def disk_image(folder: Path, size: int) -> Iterator[Path | None]:
    """Mount a new ext4 file system of such a size; None where it cannot be done."""
    image, mount = folder / "image", folder / "disk"
    mount.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(size)
        run(["mkfs.ext4", "-q", "-m", "0", image], RUN_TIMEOUT_S)
        run(["mount", "-o", "loop", image, mount], RUN_TIMEOUT_S)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"no disk of its own, which needs root: {error}")
        yield None
        return
    try:
        yield mount
    finally:
        run(["umount", "-l", mount], RUN_TIMEOUT_S)
