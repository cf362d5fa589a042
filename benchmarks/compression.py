"""The event log compressed: how much smaller, how fast, and what reading costs then.

The log is made through storage itself, without a daemon; three runs in turn: floats as
training logs them, the same with values that repeat, and text.
"""

import math
import os
import random
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgpack
from _harness import Report, argument_parser, scratch_home

from flightlog_storage.codec import RunKey, encode_definitions, encode_event, encode_run
from flightlog_storage.compression import compress, compressible
from flightlog_storage.event import RunFinished, RunStarted, WriterId
from flightlog_storage.eventlog import EventLog, LogReader, StoredFrame
from flightlog_storage.files import RealFiles
from flightlog_storage.frame import Frame
from flightlog_storage.history import Query
from flightlog_storage.home import Home
from flightlog_storage.projector import Projector, reset_projections
from flightlog_storage.reader import HomeReader

__all__ = ("main",)

ROWS = 1000  # In a frame: what a fast loop gives it.
KINDS = {
    "floats": ("loss", "lr", "grad_norm", "epoch", "tokens", "mfu", "throughput"),
    "values that repeat": ("lr", "epoch", "step_in_epoch", "batch_size", "gpus", "ok"),
    "text": ("line",),
}
WORDS = [
    "loss",
    "step",
    "epoch",
    "warning",
    "saved",
    "checkpoint",
    "to",
    "of",
    "the",
    "learning",
    "rate",
    "decayed",
]


def row(kind: str, chance: random.Random, n: int) -> list[object]:
    match kind:
        case "floats":
            loss = 2.3 * math.exp(-n / 1e5) + chance.gauss(0, 0.05)
            rate = 3e-4 * (1 - n / 1e7)
            norm, use = abs(chance.gauss(1, 0.2)), 0.41 + chance.gauss(0, 0.01)
            return [loss, rate, norm, n // 1000, n * 4096, use, chance.gauss(1e5, 1e3)]
        case "text":
            words = " ".join(chance.choices(WORDS, k=12))
            return [f"[{n}] {words} {chance.random():.4f}"]
        case _:
            return [1e-3 * 0.1 ** (n // 30_000), n // 1000, n % 1000, 256, 8, True]


def frames(kind: str, megabytes: int) -> "list[tuple[Frame, bytes]]":
    """Return the frames of a run, of so many megabytes."""
    chance, writer = random.Random(1), WriterId(kind.encode().ljust(16)[:16])
    run = encode_run(RunKey("bench", "log", kind.replace(" ", "-")))
    definitions = {-1: run, 0: msgpack.packb((0, KINDS[kind]))}
    first = RunStarted(time=1.7e9, entity="bench", project="log", run=kind, rank=0)
    payload = encode_definitions(definitions) + encode_event(first)
    found = [(Frame(len(payload), zlib.crc32(payload), 1, writer, 1), payload)]
    size, n = 0, 0
    while size < megabytes * 1_000_000:
        rows = (
            msgpack.packb((0, n + i, 1.7e9 + (n + i) * 0.31, *row(kind, chance, n + i)))
            for i in range(ROWS)
        )
        payload = encode_definitions(definitions) + b"".join(rows)
        header = Frame(len(payload), zlib.crc32(payload), ROWS, writer, n + 2)
        found.append((header, payload))
        size, n = size + len(payload), n + ROWS
    last = encode_event(RunFinished(time=1.8e9, exit_code=0))
    payload = encode_definitions({-1: run}) + last
    found.append((Frame(len(payload), zlib.crc32(payload), 1, writer, n + 2), payload))
    return found


def make_home(root: Path, kind: str, megabytes: int) -> Home:
    home = Home(root)
    home.create()
    log = open_log(home)
    for each in frames(kind, megabytes):
        log.append([each])
    log.close()
    log = open_log(home)
    writer = WriterId(b"last".ljust(16))  # The last segment is never compressed.
    log.append([(Frame(1, zlib.crc32(b"\xc0"), 1, writer, 1), b"\xc0")])
    log.close()
    return home


def open_log(home: Home) -> EventLog:
    return EventLog.open(home.log, now_ns=time.time_ns, quarantine=home.quarantine)


def compress_all(home: Home) -> None:
    for sealed in compressible(home.log, RealFiles(), 1 << 62):
        compress(home.log, RealFiles(), sealed)


def read_log(home: Home) -> None:
    for item in LogReader(home.log).read():
        assert isinstance(item, StoredFrame)
        item.payload()


def replay(home: Home) -> None:
    reset_projections(home)
    end = LogReader(home.log).end_position()
    assert end is not None
    with closing(Projector(home)) as projector:
        while projector.project(end):
            pass


def read_tail(home: Home) -> None:
    """Read a run's history from the log alone."""
    reset_projections(home)
    for key in [state.key for state in HomeReader(home).states()]:
        HomeReader(home).history(key, Query(keys=["loss"]))


def open_and_close(home: Home) -> None:
    open_log(home).close()


def timed(act: Callable[[Home], None], home: Home, turns: int) -> float:
    """Return the least processor time that something takes, in seconds."""
    times = []
    for _ in range(turns):
        before = time.process_time()
        act(home)
        times.append(time.process_time() - before)
    return min(times)


def size_of(home: Home) -> int:
    return sum(path.stat().st_size for path in home.log.iterdir())


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    report = Report("compression", arguments.json)
    acts = {
        "the log, each frame checked": read_log,
        "replay": replay,
        "a history, folded from the log": read_tail,
        "opening the log": open_and_close,
    }
    with scratch_home(arguments.scratch) as folder:
        for kind in KINDS:
            home = make_home(folder / kind.replace(" ", "-"), kind, arguments.megabytes)
            size = size_of(home)
            plain = {
                what: timed(act, home, arguments.turns) for what, act in acts.items()
            }
            taken = timed(compress_all, home, 1)
            report.add(
                "compressed",
                kind=kind,
                megabytes=size / 1e6,
                ratio=size / size_of(home),
                mb_per_s=size / 1e6 / taken,
            )
            for what, act in acts.items():
                seconds = timed(act, home, arguments.turns)
                report.add(
                    "reading",
                    kind=kind,
                    what=what,
                    plain_s=plain[what],
                    compressed_s=seconds,
                    ratio=seconds / plain[what],
                )
        report.add("load", one_minute=os.getloadavg()[0])
    report.show()


if __name__ == "__main__":
    main()
