"""Emptying: the rows of deleted runs leave the event log.

That a run was deleted is folded, and so is all that lies in the segments that are
looked through: nobody asks for these rows any more. See emptied.py for what stays.
"""

import zlib
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flightlog_storage.compression import (
    Sealed,
    has_room,
    replacing,
    rewrite,
    sealed_segments,
)
from flightlog_storage.database import Database
from flightlog_storage.emptied import emptied
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.files import FileOps, RealFiles
from flightlog_storage.frame import HEADER_SIZE
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition, LogReader, walk_segment
from flightlog_storage.scan import Found, Scope, find_footer
from flightlog_storage.segment import pack_padded
from flightlog_storage.segment_file import BLOCK_SIZE, SegmentFile

__all__ = (
    "Emptied",
    "Holding",
    "empty",
    "empty_segment",
    "find_holding",
    "holding_deleted",
)

Tick = Callable[[int], object]


class Holding(NamedTuple):
    """A segment, and those of its writers whose rows are of no use any more."""

    sealed: Sealed
    writers: frozenset[WriterId]
    mark: int  # Which a file has that was looked through for these.
    refused: frozenset[int] = frozenset()  # Offsets of events that are dead letters.


@dataclass(slots=True)
class Emptied:
    """What left the log: frames that are empty now, and bytes of its files.

    `is_partial`: the disk had no room for more.
    """

    segments: int = 0
    frames: int = 0
    freed: int = 0
    is_partial: bool = False


def holding_deleted(home: Home) -> list[Holding]:
    """Return the segments that hold frames of deleted runs, to be looked through.

    Raises:
        sqlite3.Error, CorruptData: state.db cannot be read.
        OSError: The log cannot be.
    """
    try:
        database = Database.open_reader(home.state)
    except HomeUnusable:
        return []  # Nothing is folded.
    with database, database.snapshot():
        checkpoint = database.checkpoint()
        writers = frozenset(database.deleted_writers())
        refused = frozenset(letter.offset for letter in database.dead_letters())
    log = LogReader(home.log)
    place = LogPosition(checkpoint.segment_first_offset, checkpoint.position)
    end = log.end_position()
    # A log that was put back may not say any more that they were deleted.
    if not writers or checkpoint.log_id != log.log_id.hex() or not end or end < place:
        return []
    files, before = RealFiles(), checkpoint.segment_first_offset
    found = find_holding(home.log, files, writers, before)
    return [holding._replace(refused=refused) for holding in found]


def find_holding(
    folder: Path, files: FileOps, writers: Collection[WriterId], before: int
) -> list[Holding]:
    """Return the segments before one of them that hold frames of these writers."""
    found = []
    for sealed in sealed_segments(folder, files, before):
        with closing(SegmentFile(files, folder / sealed.header.name)) as file:
            footer = find_footer(file, sealed.header.salt)
            its = () if footer is None else map(WriterId, footer.writers)
            ours = frozenset(its).intersection(writers)
            mark = zlib.crc32(b"".join(sorted(ours))) or 1
            if ours and file.mark != mark:
                found.append(Holding(sealed, ours, mark))
    return found


def empty(home: Home, tick: Tick = int) -> Emptied:
    """Take the rows of deleted runs out of the log, as far as it is folded.

    Args:
        tick: Called with the number of bytes that are done; what it raises ends this.

    Raises:
        BlockingIOError: Another one replaces files of the log just now.
        sqlite3.Error, CorruptData: state.db cannot be read.
        OSError: The disk refuses; the log is as it was, or further.
    """
    done = Emptied()
    with replacing(home.log):
        for holding in holding_deleted(home):
            if not has_room(home.log):
                done.is_partial = True
                break
            found = empty_segment(home.log, RealFiles(), holding, tick)
            done.segments += bool(found.frames)
            done.frames += found.frames
            done.freed += found.freed
    return done


def empty_segment(
    folder: Path, files: FileOps, holding: Holding, tick: Tick = int
) -> Emptied:
    """Empty the frames of a segment that may be; one that is damaged is left."""
    sealed = holding.sealed
    with closing(SegmentFile(files, folder / sealed.header.name)) as file:
        size, is_compressed = file.file_size, file.is_compressed
        data = bytearray()
        while more := file.read(len(data), BLOCK_SIZE):
            data += more
            tick(0)
        frames = _empty_frames(file, holding, data)
    # What holds none is marked, so that it is not looked through again.
    if frames is None or not (frames or is_compressed):
        return Emptied()
    made = rewrite(folder, files, sealed, data, holding.mark, tick)
    if made is None:
        return Emptied()
    return Emptied(1, frames, max(0, size - made.file_size))


def _empty_frames(file: SegmentFile, holding: Holding, data: bytearray) -> int | None:
    """Empty the frames in a segment's bytes; return how many, None for damage."""
    (header, following), count = holding.sealed, 0
    scope = Scope(expected=header.first_offset, writers=holding.writers, payloads=False)
    for item in walk_segment(file, header, following, scope):
        if not isinstance(item, Found):
            return None
        frame, start = item.frame, item.position + HEADER_SIZE
        if frame.writer not in holding.writers:
            continue
        if not holding.refused.isdisjoint(range(frame.offset, frame.offset_end)):
            continue
        payload = bytes(data[start : start + frame.payload_size])
        if zlib.crc32(payload) != frame.payload_crc:
            return None
        changed = emptied(frame, payload)
        if changed is not None:
            packed = b"".join(pack_padded(*changed, header.salt))
            data[item.position : item.end] = packed
            count += 1
    return count
