"""A home whose event log a test fills frame by frame."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack

from flightlog_storage.codec import RunKey, encode_definitions, encode_event, encode_run
from flightlog_storage.event import Event, RunFinished, RunStarted, WriterId
from flightlog_storage.eventlog import SEGMENT_SIZE_MAX, EventLog
from flightlog_storage.frame import FLAG_GAP, Frame
from flightlog_storage.history import Query
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition
from flightlog_storage.projector import Projector, reset_projections
from flightlog_storage.reader import HomeReader

__all__ = (
    "Recorded",
    "Settle",
    "flip",
    "fold",
    "packed_rows",
    "rows_of",
    "settled",
    "writer_id",
)

Row = tuple[int, float]  # Step and value of the metric "n".
Settle = Callable[[], None]


class Recorded:
    """The event log of a home, and what its writers say."""

    def __init__(self, folder: Path, segment_size_max: int = SEGMENT_SIZE_MAX) -> None:
        self.home = Home(folder / "home")
        self.home.create()
        self._segment_size_max = segment_size_max
        self._runs: dict[WriterId, RunKey] = {}
        self.log = self.open()

    def open(self) -> EventLog:
        return EventLog.open(
            self.home.log,
            now_ns=lambda: 1,
            quarantine=self.home.quarantine,
            segment_size_max=self._segment_size_max,
        )

    def say(self, writer: WriterId, *events: bytes, missing: int = 0) -> Frame:
        """Append a frame of encoded events; `missing` events before it are lost."""
        definitions = {
            -1: encode_run(self._runs[writer]),
            0: msgpack.packb((0, ("n",))),
        }
        payload = encode_definitions(definitions) + b"".join(events)
        return self.append(writer, payload, len(events), missing)

    def append(
        self, writer: WriterId, payload: bytes, count: int, missing: int = 0
    ) -> Frame:
        """Append a frame that claims to hold `count` events."""
        frame = Frame(
            len(payload),
            zlib.crc32(payload),
            count,
            writer,
            self.log.last_sequence.get(writer, 0) + 1 + missing,
            flags=FLAG_GAP if missing else 0,
        )
        (placed,) = self.log.append([(frame, payload)])
        return placed

    def tell(self, writer: WriterId, event: Event) -> Frame:
        return self.say(writer, encode_event(event))

    def join(self, run: str, name: str = "w", rank: int = 0) -> WriterId:
        """Make a writer known that says nothing yet."""
        writer = writer_id(name)
        self._runs[writer] = RunKey("e", "p", run, rank)
        return writer

    def start(self, run: str, name: str = "w", rank: int = 0) -> WriterId:
        writer = self.join(run, name, rank)
        started = RunStarted(time=1.0, entity="e", project="p", run=run, rank=rank)
        self.tell(writer, started)
        return writer

    def rows(self, writer: WriterId, *rows: Row, missing: int = 0) -> Frame:
        encoded = [msgpack.packb((0, step, 2.0, value)) for step, value in rows]
        return self.say(writer, *encoded, missing=missing)

    def record(self, writer: WriterId, *rows: Mapping[str, Any]) -> Frame:
        """Append a frame of rows with any keys."""
        shapes, encoded = packed_rows(rows)
        definitions = {-1: encode_run(self._runs[writer])} | shapes
        payload = encode_definitions(definitions) + b"".join(encoded)
        return self.append(writer, payload, len(rows))

    def finish(self, writer: WriterId, exit_code: int = 0) -> Frame:
        return self.tell(writer, RunFinished(time=3.0, exit_code=exit_code))

    def fold(self) -> None:
        """Fold all."""
        fold(self.home, self.log.durable)

    def replay(self) -> None:
        """Fold all anew."""
        reset_projections(self.home)
        self.fold()


def writer_id(name: str) -> WriterId:
    return WriterId(name.encode().ljust(16, b"."))


def packed_rows(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[dict[int, bytes], list[bytes]]:
    """Return the definitions of rows' shapes and the rows."""
    shapes = {keys: n for n, keys in enumerate(dict.fromkeys(tuple(r) for r in rows))}
    encoded = [
        msgpack.packb((shapes[tuple(row)], step, 2.0, *row.values()))
        for step, row in enumerate(rows)
    ]
    return {n: msgpack.packb((n, keys)) for keys, n in shapes.items()}, encoded


def flip(path: Path, position: int) -> None:
    """Let a bit of a file be wrong."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def rows_of(home: Home, run: str) -> list[Row]:
    """Return (step, n) of each row, as a reader sees them."""
    history = HomeReader(home).history(("e", "p", run), Query())
    if history is None:
        return []
    return [(row["_step"], row["n"]) for row in history.to_dicts()]


def settled(recorded: Recorded) -> Iterator[None]:
    """Give turns to read: before all is folded, after that, and after a replay."""
    yield
    recorded.fold()
    yield
    recorded.replay()
    yield


def fold(home: Home, end: LogPosition) -> None:
    """Fold a log as the materializer does."""
    with closing(Projector(home)) as projector:
        while projector.project(end):
            pass
