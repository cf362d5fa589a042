"""The training process that is measured: one body for flightlog and its peers.

Each tracker's own environment runs this file, so it imports nothing but the standard
library before it knows which tracker it is:

    python peers.py NAME VERB --home FOLDER --run NAME [--rows N] [--pace-ms N] …

Verbs print JSON, one object a line: `time` (nanoseconds of each call), `stream` (full
speed or paced, when it was logged, durable and finished), `life` (init to finish),
`kill` (dies by SIGKILL right behind its last call), `count` (rows that can be read).
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import sqlite3
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ("main",)

PROJECT = "bench"
WARM_UP_CALLS = 300
FLUSH_TIMEOUT_S = 120.0
LEVELDB_BLOCK_SIZE = 32 * 1024
LEVELDB_HEADER_SIZE = 7  # Of the file and, by chance, of each record too.

Row = dict[str, float]


@dataclass(frozen=True)
class Tracker:
    """A running tracker: `flush`, where it has one, waits until all rows are safe."""

    log: Callable[[Row], object]
    finish: Callable[[], object]
    flush: Callable[[], object] | None = None


def open_flightlog(home: Path, run: str) -> Tracker:
    import flightlog

    opened = flightlog.init(project=PROJECT, id=run, home=home)
    return Tracker(opened.log, opened.finish, partial(opened.flush, FLUSH_TIMEOUT_S))


def open_json_lines(home: Path, run: str) -> Tracker:
    """What many write by hand: one JSON object a line, handed to the system."""
    file = (home / f"{run}.jsonl").open("w")

    def log(row: Row) -> None:
        file.write(json.dumps(row) + "\n")
        file.flush()

    return Tracker(log, file.close, partial(os.fsync, file.fileno()))


def open_trackio(home: Path, run: str) -> Tracker:
    import trackio

    opened = trackio.init(
        project=PROJECT, name=run, embed=False, auto_log_gpu=False, auto_log_cpu=False
    )
    return Tracker(opened.log, trackio.finish)


def open_wandb(home: Path, run: str) -> Tracker:
    import wandb

    settings = wandb.Settings(x_disable_stats=True, disable_git=True, console="off")
    opened = wandb.init(
        project=PROJECT, id=run, mode="offline", dir=home, settings=settings
    )
    return Tracker(opened.log, opened.finish)


def open_tensorboardx(home: Path, run: str) -> Tracker:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(home / run))
    steps = iter(range(sys.maxsize))

    def log(row: Row) -> None:
        step = next(steps)
        for key, value in row.items():
            writer.add_scalar(key, value, step)

    return Tracker(log, writer.close, writer.flush)


def open_swanlab(home: Path, run: str) -> Tracker:
    import swanlab

    probe = swanlab.Settings.Probe(monitor=False)
    swanlab.merge_settings(swanlab.Settings(probe=probe))
    swanlab.init(project=PROJECT, name=run, mode="offline", log_dir=str(home))
    return Tracker(swanlab.log, swanlab.finish)


def count_flightlog(home: Path, run: str) -> int:
    import flightlog

    return sum(
        1 for _ in flightlog.Api(home=home).run(f"{PROJECT}/{run}").scan_history()
    )


def count_json_lines(home: Path, run: str) -> int:
    return (home / f"{run}.jsonl").read_text().count("\n")


def count_trackio(home: Path, run: str) -> int:
    del run
    with sqlite3.connect(home / f"{PROJECT}.db") as database:
        return int(database.execute("SELECT count(*) FROM metrics").fetchone()[0])


def count_wandb(home: Path, run: str) -> int:
    from wandb.proto.wandb_internal_pb2 import Record

    return sum(
        Record.FromString(record).WhichOneof("record_type") == "history"
        for path in home.glob(f"wandb/offline-run-*-{run}/*.wandb")
        for record in leveldb_records(path.read_bytes())
    )


def count_tensorboardx(home: Path, run: str) -> int:
    """Count event records: length (8), checksum (4), data, checksum (4)."""
    records = 0
    for path in (home / run).glob("events.*"):
        data, position = path.read_bytes(), 0
        while position + 12 <= len(data):
            position += 16 + struct.unpack_from("<Q", data, position)[0]
            records += position <= len(data)
        records -= 1  # The file's version.
    return records // len(row(0))


def count_swanlab(home: Path, run: str) -> int:
    del run
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record

    scalars = sum(
        Record.FromString(record).WhichOneof("record_type") == "scalar"
        for path in home.glob("run-*/*.swanlab")
        for record in leveldb_records(path.read_bytes())
    )
    return scalars // len(row(0))


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """Yield the whole records of a leveldb log behind a file header."""
    position, parts = LEVELDB_HEADER_SIZE, b""
    while position + LEVELDB_HEADER_SIZE <= len(data):
        left = LEVELDB_BLOCK_SIZE - position % LEVELDB_BLOCK_SIZE
        if left < LEVELDB_HEADER_SIZE:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        position += LEVELDB_HEADER_SIZE + size
        if kind == 0 or position > len(data):
            return
        parts += data[position - size : position]
        if kind in (1, 4):  # Full, or last of several.
            yield parts
            parts = b""


OPEN: dict[str, Callable[[Path, str], Tracker]] = {
    "flightlog": open_flightlog,
    "json line": open_json_lines,
    "trackio": open_trackio,
    "wandb": open_wandb,
    "tensorboardX": open_tensorboardx,
    "swanlab": open_swanlab,
}
COUNT: dict[str, Callable[[Path, str], int]] = {
    "flightlog": count_flightlog,
    "json line": count_json_lines,
    "trackio": count_trackio,
    "wandb": count_wandb,
    "tensorboardX": count_tensorboardx,
    "swanlab": count_swanlab,
}


def row(step: int) -> Row:
    """Return the three floats of a step."""
    return {
        "loss": 1.0 / (step + 1),
        "accuracy": step * 1e-6,
        "rate": 0.1 + step * 1e-9,
    }


def floor() -> tuple[Callable[[int], Any], Callable[[Any], object]]:
    """Return how to make an event, and the one `packb` that it costs at the least."""
    import msgpack

    def event(step: int) -> list[Any]:
        return ["r", 1, step, time.time(), *row(step).values()]

    return event, msgpack.packb


def command_time(arguments: argparse.Namespace) -> None:
    """Time each call; the floor takes turns with the tracker, in blocks of calls.

    Arguments are made before the clock starts, for both. Blocks, not single calls:
    what a tracker does behind a call is then on its own account, not on the floor's.
    """
    tracker = OPEN[arguments.name](arguments.home, arguments.run)
    sides: dict[str, tuple[Callable[[int], Any], Callable[[Any], object]]] = {
        arguments.name: (row, tracker.log)
    }
    if arguments.floor:
        sides = {"packb": floor(), **sides}
    samples = {name: array("q") for name in sides}
    block = min(arguments.rows, 100 if arguments.pace_ms else 1000)
    for start in range(-WARM_UP_CALLS, arguments.rows, block):
        for name, (make, call) in sides.items():
            steps = range(start + WARM_UP_CALLS, start + WARM_UP_CALLS + block)
            samples[name].extend(timed(make, call, steps, arguments.pace_ms / 1000))
    timer_ns = sorted(timed(row, lambda _: None, range(10_000), 0.0))[5_000]
    tracker.finish()
    emit(
        timer_ns=timer_ns,
        samples={
            name: list(taken[WARM_UP_CALLS:][: arguments.rows])
            for name, taken in samples.items()
        },
    )


def timed(
    make: Callable[[int], Any],
    call: Callable[[Any], object],
    steps: range,
    pace_s: float,
) -> "array[int]":  # Not subscriptable at run time before 3.12.
    taken = array("q", bytes(8 * len(steps)))
    for index, step in enumerate(steps):
        argument = make(step)
        if pace_s:
            time.sleep(pace_s)
        before = time.perf_counter_ns()
        call(argument)
        taken[index] = time.perf_counter_ns() - before
    return taken


def command_stream(arguments: argparse.Namespace) -> None:
    """Log rows without a clock in the loop, and tell when they were safe."""
    tracker = OPEN[arguments.name](arguments.home, arguments.run)
    time.sleep(max(0.0, arguments.start_at - time.monotonic()))
    cpu_s, first_s = time.process_time(), time.monotonic()
    log_all(tracker, arguments)
    logged_s = time.monotonic()
    (tracker.flush or tracker.finish)()
    emit(first_s=first_s, logged_s=logged_s, durable_s=time.monotonic())
    if tracker.flush:
        tracker.finish()
    emit(
        finished_s=time.monotonic(),
        cpu_before_s=cpu_s,
        cpu_s=time.process_time() - cpu_s,
    )


def command_life(arguments: argparse.Namespace) -> None:
    """Time a short life: init, the first durable row, and finish when all is quiet."""
    importlib.import_module(arguments.name)  # Its cost has a line of its own.
    marks = [time.perf_counter()]
    tracker = OPEN[arguments.name](arguments.home, arguments.run)
    marks.append(time.perf_counter())
    tracker.log(row(0))
    if tracker.flush:
        tracker.flush()
    marks.append(time.perf_counter())
    time.sleep(0.3)
    before = time.perf_counter()
    tracker.finish()
    emit(
        init_s=marks[1] - marks[0],
        durable_s=marks[2] - marks[0] if tracker.flush else None,
        finish_s=time.perf_counter() - before,
    )


def command_kill(arguments: argparse.Namespace) -> None:
    """Die right behind the last call, as the kernel's OOM killer would have it."""
    log_all(OPEN[arguments.name](arguments.home, arguments.run), arguments)
    os.kill(os.getpid(), signal.SIGKILL)


def command_count(arguments: argparse.Namespace) -> None:
    emit(rows=COUNT[arguments.name](arguments.home, arguments.run))


def log_all(tracker: Tracker, arguments: argparse.Namespace) -> None:
    pace_s = arguments.pace_ms / 1000
    for step in range(arguments.rows):
        tracker.log(row(step))
        if pace_s:
            time.sleep(pace_s)


def emit(**values: object) -> None:
    print(json.dumps(values), file=sys.__stdout__, flush=True)


COMMANDS = {
    "time": command_time,
    "stream": command_stream,
    "life": command_life,
    "kill": command_kill,
    "count": command_count,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=OPEN)
    parser.add_argument("verb", choices=COMMANDS)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--run", default="run-0")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--pace-ms", type=float, default=0.0)
    parser.add_argument("--start-at", type=float, default=0.0)
    parser.add_argument("--floor", action="store_true")
    arguments = parser.parse_args()
    os.environ.update(  # Some peers read these when they are imported.
        TRACKIO_DIR=str(arguments.home),
        HF_HUB_OFFLINE="1",
        WANDB_SILENT="true",
        WANDB_CACHE_DIR=str(arguments.home),
    )
    with contextlib.redirect_stdout(sys.stderr):  # Trackers talk; stdout is data.
        COMMANDS[arguments.verb](arguments)


if __name__ == "__main__":
    main()
