"""Many writers, kills of everything and a disk that fills, for a long time.

A writer logs 0, 1, 2 … and counts, in a file that outlives it, which calls returned. It
is killed or ends, and another takes its place: half of them with a run of their own,
half to go on with the same one. Recorder, materializer and worker are killed and
stopped, too, one by one and all at once; twice the disk is full. At the end each row
that was accepted must be there once, or be counted as lost by its run.

The home is on a disk of its own, an ext4 image, where one can be mounted (by root);
else no disk is filled, which is said. Exit code 1: a row is missing or there twice.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from _harness import Daemon, Report, argument_parser, disk_image, say, scratch_home

import flightlog

__all__ = ("main",)

PROJECT = "soak"
KILL_INTERVAL_S = 0.5
SAMPLE_INTERVAL_S = 2.0
STOP_S = 2.0
FULL_S = 20.0
AT_REST_SHARE = 0.25  # Of the time, at its end, the daemon is left alone and measured.
DISK_SIZE = 2 << 30
SETTLE_TIMEOUT_S = 300
SLOPE_MAX_MB_MINUTE = 1.0
CLI = "from flightlog.cli import main; main()"
WRITER = Path(__file__).with_name("soak_writer.py")
VERBS = {"run": "recorder", "materialize": "materializer", "work": "worker"}
# What happens at random, and how often: that is, to writers nine times in ten.
KILLS = {
    "writer": 90,
    "recorder": 2,
    "materializer": 3,
    "worker": 2,
    "recorder stopped": 1,
    "materializer stopped": 1,
    "daemon": 1,
    "all": 1,
}


@dataclass
class Life:
    """One process that logged: how many calls of log() returned."""

    run: str
    number: int
    counter: Path

    @property
    def returned(self) -> int:
        return int.from_bytes(self.counter.read_bytes(), "little")


@dataclass
class Slot:
    """A place for a writer, which is never empty for long."""

    number: int
    lives: list[Life] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self, home: Path, folder: Path, pace_s: float) -> None:
        life = len(self.lives)
        resumes = self.number % 2
        run = f"{self.number}" if resumes else f"{self.number}-{life}"
        counter = folder / f"{self.number}-{life}"
        counter.write_bytes(bytes(8))
        self.lives.append(Life(run, life, counter))
        with (folder / "writers.log").open("ab") as words:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, WRITER, home, counter, run, str(life)),
                    *(str(pace_s), "resume" if resumes else "new"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
            )

    def is_over(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def end(self, with_signal: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(with_signal)


@dataclass
class Soak:
    """The writers, the daemon and what is done to them."""

    home: Path
    folder: Path
    arguments: argparse.Namespace
    slots: list[Slot]
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[float, str, int, float, int]] = field(default_factory=list)
    stopped: list[tuple[float, psutil.Process]] = field(default_factory=list)

    def run(self, ballast: "Ballast") -> None:
        """Let all this go on for its time; at its end the writers finish."""
        begun = time.monotonic()
        whole_s = self.arguments.minutes * 60
        busy_s = whole_s * (1 - AT_REST_SHARE)
        next_kill_s = next_sample_s = 0.0
        while (now_s := time.monotonic() - begun) < whole_s:
            self.fill_places()
            self.wake(now_s)
            if now_s >= next_kill_s:
                self.kill(now_s, "writer" if now_s > busy_s else self.choose())
                next_kill_s = now_s + self.random.expovariate(1 / KILL_INTERVAL_S)
            if now_s >= next_sample_s:
                self.sample(now_s)
                next_sample_s = now_s + SAMPLE_INTERVAL_S
            self.done["the disk is full"] += ballast.turn(
                now_s / busy_s, FULL_S / busy_s
            )
            time.sleep(0.02)
        ballast.empty()
        self.wake(float("inf"))
        for slot in self.slots:
            slot.end(signal.SIGTERM)
        for slot in self.slots:
            if slot.process is not None:
                slot.process.wait(60)

    def fill_places(self) -> None:
        for slot in self.slots:
            if slot.is_over():
                slot.start(self.home, self.folder, self.arguments.pace_ms / 1000)

    def choose(self) -> str:
        return self.random.choices(list(KILLS), list(KILLS.values()))[0]

    def kill(self, now_s: float, what: str) -> None:
        """Do one of `KILLS`; the first writer is spared, to be measured."""
        self.done[what] += 1
        daemon = processes(self.home)
        if what in ("writer", "all"):
            for slot in self.random.sample(self.slots[1:], 8 if what == "all" else 1):
                slot.end(signal.SIGKILL)
        if what in ("daemon", "all"):
            targets = list(daemon.values())
        else:
            targets = [daemon[name] for name in [what.split()[0]] if name in daemon]
        for process in targets:
            with suppress(psutil.NoSuchProcess):
                if what.endswith("stopped"):
                    process.suspend()
                    self.stopped.append((now_s + STOP_S, process))
                else:
                    process.kill()

    def wake(self, now_s: float) -> None:
        for until_s, process in self.stopped[:]:
            if now_s >= until_s:
                self.stopped.remove((until_s, process))
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def sample(self, now_s: float) -> None:
        measured = processes(self.home)
        first = self.slots[0].process
        if first is not None:
            with suppress(psutil.NoSuchProcess):
                measured["a writer"] = psutil.Process(first.pid)
        for name, process in measured.items():
            with suppress(psutil.Error):
                memory = process.memory_info().rss / 1e6
                self.samples.append(
                    (now_s, name, process.pid, memory, process.num_fds())
                )


def processes(home: Path) -> dict[str, psutil.Process]:
    """Return the daemon's processes that there are."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "flightlogd" in words and str(home) in words:
            verb = words[words.index("flightlogd") + 1]
            found[VERBS.get(verb, verb)] = process
    return found


@dataclass
class Ballast:
    """Fills a disk, at these shares of the time, for a while."""

    disk: Path | None
    at: list[float]
    until: float | None = None

    def turn(self, now: float, duration: float) -> bool:
        """Do what is due; return whether the disk has just been filled."""
        if self.disk is None:
            return False
        if self.until is not None and now >= self.until:
            self.empty()
        if self.until is not None or not self.at or now < self.at[0]:
            return False
        self.until = self.at.pop(0) + duration
        with suppress(OSError), (self.disk / "ballast").open("wb", 0) as ballast:
            for block in (1 << 20, 1 << 12, 1 << 9):
                with suppress(OSError):
                    while ballast.write(bytes(block)):
                        pass
        return True

    def empty(self) -> None:
        """Make room again, if the disk is full."""
        if self.disk is not None and self.until is not None:
            self.until = None
            (self.disk / "ballast").unlink()


def settle(daemon: Daemon) -> None:
    """Start the daemon and wait until it has taken in and folded all."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    daemon.control("start")
    while time.monotonic() < deadline:
        time.sleep(1)
        with suppress(subprocess.CalledProcessError):  # It does not answer yet.
            figures = daemon.status()["figures"] or {"lag_events": 1}
            if not figures["lag_events"] and not figures["spools"]:
                return
    raise TimeoutError("the daemon did not get through with it")


def judge(report: Report, home: Path, slots: list[Slot]) -> bool:
    """Compare what was accepted with what can be read; say whether all is well."""
    api = flightlog.Api(home=home)
    lives: dict[str, list[Life]] = {}
    for slot in slots:
        for life in slot.lives:
            lives.setdefault(life.run, []).append(life)
    totals: Counter[str] = Counter()
    for run, processes_of_run in lives.items():
        totals += judge_run(api, run, processes_of_run)
    report.add(
        "rows",
        processes=sum(len(slot.lives) for slot in slots),
        runs=len(lives),
        accepted=totals["accepted"],
        read=totals["read"],
        dropped_and_counted=totals["counted"],
        lost=totals["lost"],
        doubled=totals["doubled"],
    )
    report.check("rows lost without a word", totals["lost"], "", 0)
    report.check("rows that are there twice", totals["doubled"], "", 0)
    return not totals["lost"] and not totals["doubled"]


def judge_run(api: "flightlog.Api", run: str, lives: list[Life]) -> Counter[str]:
    """Count a run's rows; one whose call did not return may be there or not."""
    accepted = {(life.number, n) for life in lives for n in range(life.returned)}
    try:
        found = api.run(f"{PROJECT}/{run}")
    except ValueError:  # Killed before its first row, or there was no room for one.
        return Counter(accepted=len(accepted), lost=len(accepted))
    rows = Counter(
        (int(row["life"]), int(row["n"]))
        for row in found.scan_history(keys=["life", "n"])
    )
    missing = len(accepted - rows.keys())
    counted = min(found.lost_count, missing)
    if missing > counted:
        say(f"{run}: {missing - counted} of {len(accepted)} rows are missing")
    return Counter(
        accepted=len(accepted),
        read=len(rows),
        counted=counted,
        lost=missing - counted,
        doubled=rows.total() - len(rows),
    )


def tell_memory(report: Report, soak: Soak, from_s: float) -> None:
    """Report memory and descriptors: at most, and how they grew where nothing died."""
    for name in (*VERBS.values(), "a writer"):
        taken = [each for each in soak.samples if each[1] == name]
        last = taken[-1][2] if taken else None
        rest = [each for each in taken if each[0] >= from_s and each[2] == last]
        if len(rest) < 2:
            continue
        half = rest[len(rest) // 3 :]
        slope = (
            60
            * statistics.linear_regression(
                [each[0] for each in half], [each[3] for each in half]
            ).slope
        )
        report.add(
            "memory and descriptors",
            process=name,
            lives=len({each[2] for each in taken}),
            max_mb=max(each[3] for each in taken),
            first_mb=half[0][3],
            last_mb=half[-1][3],
            mb_a_minute=slope,
            descriptors_first=half[0][4],
            descriptors_last=half[-1][4],
            descriptors_max=max(each[4] for each in taken),
        )
        report.check(f"{name}, growth", slope, "MB a minute", SLOPE_MAX_MB_MINUTE)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--pace-ms", type=float, default=20.0, help="between rows")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument(
        "--keep", type=Path, help="a copy of the home, if rows are lost"
    )
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}")
    report = Report("soak", arguments.json)
    with (
        scratch_home(arguments.scratch) as folder,
        disk_image(folder, DISK_SIZE) as disk,
    ):
        home = (disk or folder) / "home"
        home.mkdir(mode=0o700)
        os.environ["FLIGHTLOG_QUIET"] = "1"
        slots = [Slot(number) for number in range(arguments.writers)]
        soak = Soak(home, folder, arguments, slots, random.Random(arguments.seed))
        soak.run(Ballast(disk, [1 / 3, 2 / 3]))
        settle(Daemon(home))
        well = judge(report, home, slots)
        rest_s = arguments.minutes * 60 * (1 - AT_REST_SHARE)
        tell_memory(report, soak, rest_s)
        report.add("done to them", **dict(sorted(soak.done.items())))
        sound = subprocess.run(
            [sys.executable, "-c", CLI, "verify", "--full", "--home", home],
            check=False,
            capture_output=True,
            text=True,
        )
        report.check("exit code of flightlog verify --full", sound.returncode, "", 0)
        say(sound.stdout[-2000:] + sound.stderr[-2000:])
        with suppress(subprocess.CalledProcessError):
            Daemon(home).control("stop")
        if arguments.keep and not well:
            shutil.copytree(
                folder, arguments.keep, ignore=shutil.ignore_patterns("image")
            )
    report.show()
    raise SystemExit(0 if well and not sound.returncode else 1)


if __name__ == "__main__":
    main()
