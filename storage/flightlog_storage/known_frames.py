"""Carried frames beside those that a log has already: known, new, or in the way."""

from dataclasses import dataclass, field
from pathlib import Path

from flightlog_storage.carried import CarriedFrame
from flightlog_storage.event import WriterId
from flightlog_storage.frame import FLAG_EMPTIED
from flightlog_storage.logreader import LogReader, StoredFrame

__all__ = ("Known", "known_frames")

_UNKNOWN = -1  # No crc.
_Sequences = tuple[int, int]  # The first, and the one behind the last.


@dataclass(slots=True)
class Known:
    """What a log has of some writers, frame by frame."""

    # The crc of each one's payload; None if that was emptied since.
    frames: dict[tuple[WriterId, _Sequences], int | None] = field(default_factory=dict)
    last: dict[WriterId, int] = field(default_factory=dict)

    def has(self, carried: CarriedFrame) -> bool:
        """Whether a frame is in the log.

        Raises:
            ValueError: Its writer said something else there.
        """
        frame = carried.frame
        place = (frame.sequence, frame.sequence_end)
        crc = self.frames.get((frame.writer, place), _UNKNOWN)
        if crc is None or crc == frame.payload_crc:
            return True
        if crc != _UNKNOWN and frame.flags & FLAG_EMPTIED:
            return True  # It is here as it was before.
        if frame.sequence <= self.last.get(frame.writer, 0):
            raise ValueError("its writers have gone on here in another way")
        return False


def known_frames(log: Path, writers: frozenset[WriterId]) -> Known:
    """Return what a log, if there is one, has of these writers."""
    known = Known()
    if not log.is_dir():
        return known
    for item in LogReader(log).read(writers=writers):
        if isinstance(item, StoredFrame):
            frame = item.frame
            place = (frame.sequence, frame.sequence_end)
            is_emptied = frame.flags & FLAG_EMPTIED
            crc = None if is_emptied else frame.payload_crc
            known.frames[frame.writer, place] = crc
            known.last[frame.writer] = max(
                known.last.get(frame.writer, 0), frame.sequence_end - 1
            )
    return known
