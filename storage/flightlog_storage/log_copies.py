"""Copies of the event log: whether one may be replaced, and what is damaged in it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from flightlog_storage.errors import CorruptData
from flightlog_storage.frame import Frame
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.segment import SEGMENT_HEADER_SIZE, Damage, first_offset_of

__all__ = ("damages_from", "has_lost", "segments")


def segments(folder: Path) -> list[str]:
    """Return the names of the segments in a folder, in their order."""
    with suppress(FileNotFoundError):
        return sorted(n for n in os.listdir(folder) if first_offset_of(n) is not None)
    return []


def has_lost(log: Path, copy: Path) -> bool:
    """Whether a log lacks what an earlier copy of it has.

    Looked at are the names of all segments, and the frames of the copy's last one: only
    that is copied again.
    """
    known = segments(copy)
    if not set(known) <= set(segments(log)):
        return True
    if not known:
        return False
    start = LogPosition(first_offset_of(known[-1]) or 0, SEGMENT_HEADER_SIZE)
    there = _sound_frames(log, start)
    return not all(frame in there for frame in _sound_frames(copy, start))


def damages_from(log: Path, name: str) -> list[str]:
    """Return what is damaged in a segment and those after it."""
    found: list[str] = []
    start = LogPosition(first_offset_of(name) or 0, SEGMENT_HEADER_SIZE)
    for item in LogReader(log).read(start):
        damage = item if isinstance(item, Damage) else _damage(item)
        if damage is not None:
            found.append(f"log/{damage.segment}, byte {damage.position}: {damage.why}")
    return found


def _sound_frames(log: Path, start: LogPosition) -> Iterator[Frame]:
    """Yield the frames of a segment that can be read."""
    frames = (i for i in LogReader(log).read(start) if isinstance(i, StoredFrame))
    first = start.segment_first_offset
    for item in takewhile(lambda i: i.position.segment_first_offset == first, frames):
        if _damage(item) is None:
            yield item.frame


def _damage(item: StoredFrame) -> Damage | None:
    try:
        item.payload()
    except CorruptData:
        return item.damage()
    return None
