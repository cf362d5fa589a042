"""How the daemon grows: with writers, with the runs of a home, with its log.

For each: how long it takes to start, until a first row is durable; how long an ack
takes; rows a second; and memory. Homes of many runs and long logs are made through
storage itself, folded, and then served. Where /proc/sys/vm/drop_caches can be written
(by root) the first start finds nothing in memory.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import msgpack
from _harness import (
    Daemon,
    Environment,
    Report,
    argument_parser,
    run_verb,
    say,
    scratch_home,
)
from memory import sample
from runs_query import make_home

from flightlog.apis.public import Api
from flightlog_storage.codec import RunKey, encode_definitions, encode_event, encode_run
from flightlog_storage.event import RunStarted, WriterId
from flightlog_storage.eventlog import EventLog
from flightlog_storage.frame import Frame
from flightlog_storage.home import Home
from flightlog_storage.projector import Projector

__all__ = ("main",)

HERE = Environment("flightlog", Path(sys.executable), "")
START_MAX_S = 2.0  # On a log of 10 GB.
ACK_PACE_MS = 100.0
ACK_EVERY = 10
SECONDS = 10.0
WORDS = 6_000  # Of a text in the long log, some 40 kB.
FRAME_TEXTS = 16
BATCH_FRAMES = 16
RUN_GB = 0.25
START_TIMEOUT_S = 300.0


def start_s(home: Path, run: str) -> float:
    """Start the daemon by a first row; return the seconds until that was durable."""
    return float(run_verb(HERE, "life", home=home, run=run)["durable_s"])


def forget_files() -> bool:
    """Have nothing of any file in memory, where that can be asked for."""
    os.sync()
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def crowd(home: Path, count: int, pace_ms: float, every: int) -> dict[str, float]:
    """Have so many processes log at once, and return what they tell."""
    line = [sys.executable, Path(__file__).with_name("crowd.py"), home, count]
    options = ["--pace-ms", pace_ms, "--seconds", SECONDS, "--every", every]
    done = subprocess.run(
        [str(word) for word in [*line, *options]],
        check=True,
        input="\n",
        stdout=subprocess.PIPE,
        text=True,
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if told["ended"] != count:
        raise SystemExit(f"{count - told['ended']} of {count} processes failed")
    return told


def memory_mb(daemon: Daemon) -> dict[str, float]:
    return {f"{name}_mb": sample(pid)[0] for name, pid in daemon.refresh().pids.items()}


def measure_writers(report: Report, arguments: argparse.Namespace) -> None:
    for count in arguments.writers:
        say(f"{count:,} writers …")
        with scratch_home(arguments.scratch) as home, Daemon(home) as daemon:
            paced = crowd(home, count, ACK_PACE_MS, ACK_EVERY)
            memory = memory_mb(daemon)
        with scratch_home(arguments.scratch) as home, Daemon(home) as daemon:
            full = crowd(home, count, 0.0, sys.maxsize)
            peak = memory_mb(daemon)
        median, p99, longest = paced["ack_ms"]  # type: ignore[misc]
        report.add(
            f"writers; a row each {ACK_PACE_MS:g} ms, then at full speed",
            writers=count,
            ack_ms=median,
            ack_p99_ms=p99,
            ack_max_ms=longest,
            rows_s=full["rows"] / full["took_s"],
            **memory,
            materializer_mb_full=peak["materializer_mb"],
        )


def measure_runs(report: Report, arguments: argparse.Namespace) -> None:
    for runs in arguments.runs:
        with scratch_home(arguments.scratch) as folder:
            home = folder / "home"
            made_s = make_many_runs(home, runs)
            begun = time.monotonic()
            len(Api(home=home).runs("bench/query")[:50])
            page_s = time.monotonic() - begun
            serve(
                report,
                "runs of a home, each of 60 values",
                home,
                runs=runs,
                recorded_and_folded_s=made_s,
                first_page_ms=1000 * page_s,
                state_mb=(home / "state.db").stat().st_size / 1e6,
            )


def make_many_runs(home: Path, runs: int) -> float:
    """Record and fold runs, in memory, for each syncs twice; return the seconds."""
    memory = Path("/dev/shm")
    with scratch_home(memory if memory.is_dir() else None) as folder:
        begun = time.monotonic()
        make_home(folder / "home", runs)
        took_s = time.monotonic() - begun
        subprocess.run(["cp", "-a", folder / "home", home], check=True)
    return took_s


def measure_logs(report: Report, arguments: argparse.Namespace) -> None:
    for gigabytes in arguments.gigabytes:
        with scratch_home(arguments.scratch) as folder:
            begun = time.monotonic()
            home = make_long_log(folder / "home", gigabytes * 10**9)
            made_s = time.monotonic() - begun
            taken = serve(
                report, "GB of log", home, gb=gigabytes, recorded_and_folded_s=made_s
            )
            if gigabytes == 10:
                report.check("start on a log of 10 GB", taken, "s", START_MAX_S)


def serve(report: Report, title: str, home: Path, **figures: float) -> float:
    """Start the daemon of a home twice, measure it, and return its first start."""
    was_cold = forget_files()
    first_s = start_s(home, "first")
    daemon = Daemon(home)
    daemon.control("stop")
    again_s = start_s(home, "again")
    told = crowd(home, 1, ACK_PACE_MS, ACK_EVERY)
    report.add(
        title,
        **figures,
        start_cold_s=first_s if was_cold else None,
        start_s=again_s if was_cold else first_s,
        ack_ms=told["ack_ms"][0],  # type: ignore[index]
        **memory_mb(daemon),
    )
    daemon.control("stop")
    return first_s


def make_long_log(root: Path, size: int) -> Path:
    """Record so many bytes of texts, of a run each quarter of a GB, and fold them."""
    home = Home(root)
    home.create()
    log = EventLog.open(home.log, now_ns=lambda: 1, quarantine=home.quarantine)
    generator = random.Random(0)
    words = [generator.randbytes(3).hex() for _ in range(4096)]
    texts = [" ".join(generator.choices(words, k=WORDS)) for _ in range(FRAME_TEXTS)]
    projector = Projector(home)
    written, number = 0, -1
    while written < size:
        if written >= (number + 1) * RUN_GB * 1e9:
            number, sequence = number + 1, 1
            key = RunKey("bench", "long", f"run{number:04}", 0)
            payload = one_frame(key, texts)
        batch = []
        for _ in range(BATCH_FRAMES):
            start = [] if sequence > 1 else [started(key)]
            data, count = b"".join([*payload[:1], *start, *payload[1:]]), len(start)
            count += FRAME_TEXTS
            writer = WriterId(number.to_bytes(16))
            frame = Frame(len(data), zlib.crc32(data), count, writer, sequence)
            batch.append((frame, data))
            sequence += count
            written += len(data)
        log.append(batch)
        while projector.project(log.durable):
            pass
    projector.close()
    log.close()
    return root


def started(key: RunKey) -> bytes:
    entity, project, run, rank = key
    return encode_event(
        RunStarted(time=1.7e9, entity=entity, project=project, run=run, rank=rank)
    )


def one_frame(key: RunKey, texts: list[str]) -> list[bytes]:
    """Return a frame's definitions and its rows of one text each."""
    definitions = {-1: encode_run(key), 0: msgpack.packb((0, ("text",)))}
    rows = [msgpack.packb((0, step, 1.7e9, text)) for step, text in enumerate(texts)]
    return [encode_definitions(definitions), *rows]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--writers", nargs="*", type=int, default=[1, 8, 64, 512])
    parser.add_argument("--runs", nargs="*", type=int, default=[100, 10_000, 100_000])
    parser.add_argument("--gigabytes", nargs="*", type=int, default=[1, 10, 50])
    arguments = parser.parse_args()
    report = Report("growth", arguments.json)
    os.environ["FLIGHTLOG_QUIET"] = "1"
    measure_writers(report, arguments)
    measure_runs(report, arguments)
    measure_logs(report, arguments)
    report.show()


if __name__ == "__main__":
    main()
