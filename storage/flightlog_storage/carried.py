"""Carried frames: those of some runs, taken from a log and written one after another.

They are as their writers sent them: the same writers, sequences, payloads and checksums
of payloads, in the order of the log. The offset and the time of receipt are those of a
log, and each log gives its own. See docs/moving.md.
"""

import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from flightlog_storage.artifact_state import RunName
from flightlog_storage.copies import Source
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import WriterId
from flightlog_storage.folding import named_run
from flightlog_storage.frame import (
    FLAG_CARRIED,
    FLAG_EMPTIED,
    FLAG_GAP,
    HEADER_SIZE,
    Frame,
    FrameType,
    parse_header,
)
from flightlog_storage.logreader import AllBut, LogPosition, LogReader, StoredFrame
from flightlog_storage.segment import Damage

__all__ = ("CarriedFrame", "Picker", "read_frames")


class CarriedFrame(NamedTuple):
    """A frame between two logs."""

    frame: Frame
    payload: bytes

    def to_record(self) -> Frame:
        """Return the header with which it is brought into another log."""
        return structs.replace(self.frame, flags=self.frame.flags | FLAG_CARRIED)

    def pack(self) -> bytes:
        """Return it as it lies in an export: the header, then the payload."""
        return self.frame.pack() + self.payload


@dataclass(slots=True)
class Route:
    """Whose each writer is, and up to where it was seen."""

    runs: Collection[RunName]
    of_writer: dict[WriterId, RunName] = field(default_factory=dict)
    next_sequence: dict[WriterId, int] = field(default_factory=dict)

    def run_of(self, frame: Frame, payload: bytes) -> RunName | None:
        """Return the run of a frame: the one that its writer's first frame names."""
        known = self.of_writer.get(frame.writer)
        if known is None:
            named = named_run(frame, payload)
            known = None if named is None else named[:3]
        return known

    def missing(self, frame: Frame) -> int:
        """Return how many events of its writer are missing before a frame."""
        return frame.sequence - self.next_sequence.get(frame.writer, 1)

    def go_on(self, frame: Frame, run: RunName) -> None:
        """Take note of a frame."""
        self.of_writer[frame.writer] = run
        self.next_sequence[frame.writer] = frame.sequence_end


class Picker:
    """Picks the frames of some runs from a log."""

    def __init__(self, log: Path, runs: Collection[RunName]) -> None:
        self._reader = LogReader(log)
        self.route = Route(runs)
        self.damaged = 0  # Events of these runs that are damaged in the log.

    def end(self) -> LogPosition | None:
        """Return the position after the last whole frame there is now."""
        return self._reader.end_position()

    def pick(self, end: LogPosition | None) -> Iterator[tuple[RunName, CarriedFrame]]:
        """Yield the frames up to a position, with their runs."""
        wanted = AllBut()
        for item in self._reader.read(None, end, wanted):
            if not isinstance(item, StoredFrame):
                self._note_damage(item)
                continue
            try:
                payload = item.payload()
            except CorruptData:
                self._note_damage(item.damage())
                continue
            run = self.route.run_of(item.frame, payload)
            if run is None:
                continue  # It says nothing of any run.
            if run not in self.route.runs:
                wanted.others.add(item.frame.writer)
                continue
            missing = self.route.missing(item.frame)
            if missing >= 0:  # Else it was lost from the log once, and sent again.
                yield run, CarriedFrame(_as_sent(item.frame, missing), payload)
                self.route.go_on(item.frame, run)

    def _note_damage(self, damage: Damage) -> None:
        if damage.writer in self.route.of_writer:
            self.damaged += damage.count or 1


def _as_sent(frame: Frame, missing: int) -> Frame:
    flags = (frame.flags & FLAG_EMPTIED) | (FLAG_GAP if missing else 0)
    return structs.replace(frame, offset=0, received_ns=0, flags=flags)


def read_frames(
    source: Source, runs: Collection[RunName]
) -> Iterator[tuple[RunName, CarriedFrame]]:
    """Yield frames, which are untrusted, with their runs.

    Raises:
        CorruptData: They are no frames of these runs, each whole and in its place.
    """
    route = Route(runs)
    position = 0
    while header := source.read(HEADER_SIZE):
        try:
            frame = parse_header(header)
            payload = source.read(frame.payload_size)
            run = _checked(route, frame, payload)
        except CorruptData as error:
            raise CorruptData("frames", position, error.why) from error
        position += HEADER_SIZE + len(payload)
        yield run, CarriedFrame(frame, payload)
        route.go_on(frame, run)


def _checked(route: Route, frame: Frame, payload: bytes) -> RunName:
    """Return the run of a frame that is as an export may hold it."""
    missing = route.missing(frame)
    run = route.run_of(frame, payload)
    named = named_run(frame, payload)
    wrong = {
        "it is cut short": len(payload) != frame.payload_size,
        "it does not match its checksum": zlib.crc32(payload) != frame.payload_crc,
        "it is no frame of events": frame.type != FrameType.EVENTS or frame.codec != 0,
        "it cannot hold so many events": not 1 <= frame.count <= frame.payload_size,
        "it has what only a log gives": frame.offset != 0 or frame.received_ns != 0,
        "it is out of its writer's order": missing < 0,
        "its flags are not those it should have": frame.flags & ~FLAG_EMPTIED
        != (FLAG_GAP if missing else 0),
        "it is of no run of this export": run is None or run not in route.runs,
        "its writer is another run's": named is not None and named[:3] != run,
    }
    for why, is_so in wrong.items():
        if is_so:
            raise CorruptData("frames", 0, why)
    assert run is not None
    return run
