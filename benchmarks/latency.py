"""What a log() costs when something is wrong: each fault beside a quiet machine.

A training process logs three floats in a tight loop and then one each 5 ms, with one
`msgpack.packb` of the same event in turn as the floor: what the machine itself takes
from a process meanwhile is in that. Each fault lasts as long as the calls.

Root is needed to fill a disk, `strace` to slow one down; what is missing is said.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from _harness import (
    Daemon,
    Environment,
    Report,
    argument_parser,
    disk_image,
    percentile,
    run_verb,
    say,
    scratch_home,
)

import flightlog

__all__ = ("main",)

P999_MAX_US = 100
MAX_MS = 50
PACE_MS = 5.0
SYNC_DELAY_S = 5
SMALL_DISK_SIZE = 96 << 20
CROWD = 1_000
HERE = Environment("flightlog", Path(sys.executable), "")


@contextmanager
def nothing(folder: Path, _: argparse.Namespace) -> Iterator[Path]:
    """Have a daemon, and nothing else."""
    with Daemon(folder):
        yield folder


@contextmanager
def slow_disk(folder: Path, _: argparse.Namespace) -> Iterator[Path]:
    """Have each sync of the daemon take seconds."""
    if not shutil.which("strace"):
        raise OSError("strace is not here")
    with Daemon(folder):
        pass  # It makes the home without haste.
    calls = "fsync,fdatasync"
    delay = f"{calls}:delay_enter={SYNC_DELAY_S * 1_000_000}"
    line = [
        *("strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"),
        *("-e", f"trace={calls}", "-e", f"inject={delay}"),
        *(sys.executable, "-m", "flightlogd", "run", "--home", folder),
    ]
    with process_group(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        time.sleep(4 * SYNC_DELAY_S)  # It syncs some times before it answers.
        yield folder


@contextmanager
def full_disk(folder: Path, _: argparse.Namespace) -> Iterator[Path]:
    """Have not a byte free from the moment that there is a run."""
    with disk_image(folder, SMALL_DISK_SIZE) as disk:
        if disk is None:
            raise OSError("no disk can be mounted")
        home = disk / "home"
        home.mkdir(mode=0o700)
        over = threading.Event()
        filler = threading.Thread(target=keep_full, args=(disk, home / "spool", over))
        with Daemon(home):
            filler.start()
            try:
                yield home
            finally:
                over.set()
                filler.join()
                (disk / "ballast").unlink()


def keep_full(disk: Path, spool: Path, over: threading.Event) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        while not over.wait(0.2):
            if any(not path.name.startswith(".") for path in spool.iterdir()):
                for block in (1 << 20, 1 << 12, 1 << 9):
                    with suppress(OSError):
                        while ballast.write(bytes(block)):
                            pass


@contextmanager
def no_daemon(folder: Path, _: argparse.Namespace) -> Iterator[Path]:
    """Have no daemon, nor let one start: another holds its lock."""
    with (folder / "daemon.lock").open("w") as lock:
        os.fchmod(lock.fileno(), 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@contextmanager
def crowd(folder: Path, arguments: argparse.Namespace) -> Iterator[Path]:
    """Have a thousand other processes that log a row a second."""
    body = Path(__file__).with_name("crowd.py")
    line = [sys.executable, body, folder, str(arguments.crowd), "--seconds", "600"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with Daemon(folder), process_group(line, **streams) as process:
        assert process.stdin
        assert process.stdout
        say(f"{json.loads(process.stdout.readline())['ready']:,} processes log")
        process.stdin.write(b"\n")
        process.stdin.flush()
        yield folder


@contextmanager
def archive(folder: Path, arguments: argparse.Namespace) -> Iterator[Path]:
    """Have the daemon archive a large checkpoint of another run."""
    source = folder / "checkpoint"
    source.mkdir()
    noise = os.urandom(1 << 20)
    for number in range(arguments.archive_gb * 4):
        with (source / f"layer-{number}.bin").open("wb") as file:
            for block in range(256):
                file.write(f"{number} {block}".encode().ljust(16) + noise[16:])
    os.sync()
    home = folder / "home"
    with Daemon(home), flightlog.init(project="archive", home=home) as run:
        run.log_pretrained("model", path_or_uri=source, save=True, force_save=True)
        read = flightlog.Api(home=home).run(run.path)
        yield home
        if read.assets.pretrained[-1].saved:
            raise OSError("the archive was done before the calls were: give it more GB")
        run.finish(exit_code=0)


@contextmanager
def process_group(
    line: Sequence[str | Path], **streams: int
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a process, and kill it with all that it has started."""
    process = subprocess.Popen(line, start_new_session=True, **streams)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


FAULTS = {
    "nothing": nothing,
    "each sync takes 5 s": slow_disk,
    "the disk is full": full_disk,
    "no daemon": no_daemon,
    "1,000 other writers": crowd,
    "an archive of a checkpoint": archive,
}


def measure(
    report: Report, name: str, pace_ms: float, arguments: argparse.Namespace
) -> None:
    """Time calls in one loop while a fault lasts."""
    loop = f"every {PACE_MS:g} ms" if pace_ms else "tight"
    rows = arguments.paced_rows if pace_ms else arguments.rows
    options = {"rows": rows, "pace_ms": pace_ms, "floor": True}
    with (
        scratch_home(arguments.scratch) as folder,
        FAULTS[name](folder, arguments) as home,
    ):
        taken = run_verb(HERE, "time", home=home, **options)
    net = {
        side: [max(0, sample - taken["timer_ns"]) / 1000 for sample in samples]
        for side, samples in taken["samples"].items()
    }
    ours, floor = net["flightlog"], net["packb"]
    report.add(
        f"µs a call, {loop}",
        fault=name,
        median=statistics.median(ours),
        p99=percentile(ours, 99),
        p999=percentile(ours, 99.9),
        max=max(ours),
        packb_p999=percentile(floor, 99.9),
        packb_max=max(floor),
    )
    report.check(f"p99.9, {loop}: {name}", percentile(ours, 99.9), "µs", P999_MAX_US)
    report.check(f"longest, {loop}: {name}", max(ours) / 1000, "ms", MAX_MS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="in the tight loop")
    parser.add_argument("--paced-rows", type=int, default=4_000)
    parser.add_argument("--crowd", type=int, default=CROWD)
    parser.add_argument("--archive-gb", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=FAULTS, default=list(FAULTS))
    arguments = parser.parse_args()
    report = Report("latency", arguments.json)
    os.environ["FLIGHTLOG_QUIET"] = "1"
    for name in arguments.only:
        say(f"{name} …")
        try:
            for pace_ms in (0.0, PACE_MS):
                measure(report, name, pace_ms, arguments)
        except OSError as error:
            say(f"{name}: left out: {error}")
    report.show()


if __name__ == "__main__":
    main()
