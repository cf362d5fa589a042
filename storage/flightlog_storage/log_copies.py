"""Copies of the event log: whether one may be replaced, and what is damaged in it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from msgspec import structs

from flightlog_storage.errors import CorruptData
from flightlog_storage.frame import FLAG_EMPTIED, Frame
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.segment import SEGMENT_HEADER_SIZE, Damage, first_offset_of

__all__ = ("damages_from", "has_lost", "is_sound", "segments")


def segments(folder: Path) -> list[int]:
    """Return the first offsets of the segments in a folder, in their order."""
    with suppress(FileNotFoundError):
        offsets = {first_offset_of(name) for name in os.listdir(folder)}
        return sorted(offset for offset in offsets if offset is not None)
    return []


def is_sound(log: Path, first_offset: int) -> bool:
    """Whether a segment, which another one follows, has all that it should have."""
    for item in LogReader(log).read(LogPosition(first_offset, SEGMENT_HEADER_SIZE)):
        if _segment_of(item) != first_offset:
            break
        if _damage(item) is not None:
            return False
    return True


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
    start = LogPosition(known[-1], SEGMENT_HEADER_SIZE)
    there = _sound_frames(log, start)
    its = _sound_frames(copy, start)
    # Both in the order of the log: what does not match now matches nothing later.
    return not all(any(_is_of(found, frame) for found in there) for frame in its)


def _is_of(found: Frame, earlier: Frame) -> bool:
    """Whether a frame is an earlier one, which may have been emptied since."""
    if found.flags & FLAG_EMPTIED:
        flags, crc = earlier.flags | FLAG_EMPTIED, found.payload_crc
        earlier = structs.replace(earlier, flags=flags, payload_crc=crc)
    return found == earlier


def damages_from(log: Path, first_offset: int) -> list[str]:
    """Return what is damaged in a segment and those after it."""
    found: list[str] = []
    start = LogPosition(first_offset, SEGMENT_HEADER_SIZE)
    for item in LogReader(log).read(start):
        damage = _damage(item)
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


def _segment_of(item: StoredFrame | Damage) -> int | None:
    if isinstance(item, Damage):
        return first_offset_of(item.segment)
    return item.position.segment_first_offset


def _damage(item: StoredFrame | Damage) -> Damage | None:
    if isinstance(item, Damage):
        return item
    try:
        item.payload()
    except CorruptData:
        return item.damage()
    return None
