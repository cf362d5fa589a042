"""Reading the event log: without locks, from any process, also from a copy.

Readers see whole frames alone. Given an `end` (what the recorder says is durable),
they see nothing after it; without one they may see frames that are not durable yet.
"""

import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from flightlog_storage.errors import CorruptData
from flightlog_storage.event import WriterId
from flightlog_storage.files import FileOps, RealFiles
from flightlog_storage.frame import HEADER_SIZE, Frame
from flightlog_storage.scan import CUT_OFF, Found, Scan, Scope
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    Damage,
    DamageKind,
    SegmentHeader,
    first_offset_of,
    missing_offsets,
)
from flightlog_storage.segment_file import SegmentFile, header_bytes
from flightlog_storage.survey import Survey, survey_folder

__all__ = (
    "AllBut",
    "LogPosition",
    "LogReader",
    "StoredFrame",
    "walk",
    "walk_segment",
)


class AllBut:
    """All writers but some, which a reader learns of as it goes."""

    def __init__(self) -> None:
        self.others: set[WriterId] = set()

    def __contains__(self, writer: object) -> bool:
        return writer not in self.others


class LogPosition(NamedTuple):
    """A place between two frames; places are ordered as the log is."""

    segment_first_offset: int
    position: int


class StoredFrame(NamedTuple):
    """A frame in the log; its payload is read when asked for."""

    frame: Frame
    position: LogPosition
    end: LogPosition
    file: SegmentFile

    def payload(self) -> bytes:
        """Return the payload.

        Raises:
            CorruptData: It does not match the checksum that its writer made.
        """
        start = self.position.position + HEADER_SIZE
        payload = self.file.read(start, self.frame.payload_size)
        if zlib.crc32(payload) != self.frame.payload_crc:
            raise CorruptData(
                self.file.name,
                self.position.position,
                "the payload does not match its checksum",
            )
        return payload

    def damage(self) -> Damage:
        """Return what is lost if the payload is corrupt."""
        return Damage(
            segment=self.file.name,
            position=self.position.position,
            size=self.end.position - self.position.position,
            first_offset=self.frame.offset,
            count=self.frame.count,
            writer=self.frame.writer,
            sequence=self.frame.sequence,
            kind=DamageKind.ROTTEN,
            why="the payload does not match its checksum",
        )


class LogReader:
    """Reads the event log in a folder."""

    def __init__(self, folder: Path, files: FileOps | None = None) -> None:
        self._folder = folder
        self._files = files or RealFiles()
        self._offsets: set[int | None] = set()  # Of the segments' files.
        self._survey = Survey()

    def read(
        self,
        position: LogPosition | None = None,
        end: LogPosition | None = None,
        writers: Container[WriterId] | None = None,
    ) -> Iterator[StoredFrame | Damage]:
        """Yield the frames from `position` to `end`, and what is damaged between.

        With `writers`, other writers' frames are stepped over at little cost. The
        damage of a payload shows when it is read.
        """
        segments = self._segments()
        start = _index_of(segments, position)
        for index in range(start, len(segments)):
            scope = _scope(segments[index], position, end, writers)
            if scope is None:
                return
            yield from self._read_segment(segments[index : index + 2], scope)

    @property
    def log_id(self) -> bytes:
        """The id of the log, empty while it has no segment."""
        segments = self._segments()
        return segments[0].log_id if segments else b""

    def end_position(self) -> LogPosition | None:
        """Return the position after the last whole frame."""
        segments = self._segments()
        if not segments:
            return None
        scope = Scope(expected=segments[-1].first_offset, payloads=False, writers=())
        file = SegmentFile(self._files, self._folder / segments[-1].name)
        try:
            scan = Scan(file, segments[-1].salt, scope)
            for _ in scan:
                pass
        finally:
            file.close()
        return LogPosition(segments[-1].first_offset, scan.end)

    def place_before(self, offset: int) -> LogPosition:
        """Return where the segment begins that holds an offset."""
        firsts = [header.first_offset for header in self._segments()]
        held = [first for first in firsts if first <= offset]
        return LogPosition(max(held, default=0), SEGMENT_HEADER_SIZE)

    def _segments(self) -> Sequence[SegmentHeader]:
        offsets = {first_offset_of(name) for name in self._files.listdir(self._folder)}
        if offsets != self._offsets or self._is_last_replaced():
            self._survey = survey_folder(self._folder, self._files)
            self._offsets = offsets
        return self._survey.segments

    def _is_last_replaced(self) -> bool:
        """Whether an empty last segment made way for another of the same name."""
        if not self._survey.segments:
            return False
        last = self._survey.segments[-1]
        return header_bytes(self._folder / last.name, self._files) != last.pack()

    def _read_segment(
        self, segments: Sequence[SegmentHeader], scope: Scope
    ) -> Iterator[StoredFrame | Damage]:
        header = segments[0]
        following = segments[1] if len(segments) > 1 else None
        file = SegmentFile(self._files, self._folder / header.name)
        try:
            for item in walk_segment(file, header, following, scope):
                if isinstance(item, Found):
                    if scope.writers is None or item.frame.writer in scope.writers:
                        yield _stored(item, header.first_offset, file)
                elif item.kind is DamageKind.ROTTEN:
                    yield item  # What is torn may still be being written.
        finally:
            file.close()


def walk_segment(
    file: SegmentFile,
    header: SegmentHeader,
    following: SegmentHeader | None,
    scope: Scope,
) -> Iterator[Found | Damage]:
    """Yield what a segment holds, given the one after it.

    What is torn stays TORN at the end of the log alone. Before another segment it is
    ROTTEN, or no damage at all if no acknowledged event can have been there.
    """
    if following is not None:
        scope = replace(scope, limit=following.first_offset)
    yield from walk(Scan(file, header.salt, scope), header, following)


def walk(
    scan: Scan, header: SegmentHeader, following: SegmentHeader | None
) -> Iterator[Found | Damage]:
    """Yield what a scan of a segment finds, and then what its tail is."""
    yield from scan
    is_followed = following is not None and not following.skipped
    if scan.scope.end is not None or (scan.file.is_compressed and not is_followed):
        yield from (_rotten(item) for item in scan.tail)  # All to there was durable.
    elif following is None:
        yield from (_torn(item, header.name) for item in scan.tail)
    elif not following.skipped and scan.expected is not None:
        yield from _before(following.first_offset, scan)


def _before(limit: int, scan: Scan) -> Iterator[Found | Damage]:
    """Yield what is at the end of a segment, before the offset of the next one."""
    is_open = True
    for item in scan.tail:
        if isinstance(item, Damage) and item.count is None:
            is_open = False
            if item.first_offset < limit:
                yield _rotten(replace(item, count=limit - item.first_offset))
        elif not _is_half_footer(item):
            yield _rotten(item)
    if is_open and scan.expected is not None and scan.expected < limit:
        yield missing_offsets(scan.file.name, scan.file.size, scan.expected, limit)


def _is_half_footer(item: Found | Damage) -> bool:
    """Whether it is what a disk has left that refused the rest: no event is lost."""
    return isinstance(item, Damage) and item.count == 0 and item.why == CUT_OFF


def _rotten(item: Found | Damage) -> Found | Damage:
    return replace(item, kind=DamageKind.ROTTEN) if isinstance(item, Damage) else item


def _torn(item: Found | Damage, segment: str) -> Damage:
    if isinstance(item, Damage):
        return replace(item, kind=DamageKind.TORN)
    return Damage(
        segment=segment,
        position=item.position,
        size=item.end - item.position,
        first_offset=item.frame.offset,
        count=item.frame.count,
        writer=item.frame.writer,
        sequence=item.frame.sequence,
        kind=DamageKind.TORN,
        why="its batch was not written whole",
    )


def _index_of(segments: Sequence[SegmentHeader], position: LogPosition | None) -> int:
    """Return the index of the segment that holds a position, or of the next one."""
    if position is None:
        return 0
    for index, header in enumerate(segments):
        if header.first_offset >= position.segment_first_offset:
            return index
    return len(segments)


def _scope(
    header: SegmentHeader,
    position: LogPosition | None,
    end: LogPosition | None,
    writers: Container[WriterId] | None,
) -> Scope | None:
    """Return the part of a segment that lies between two positions, if any does."""
    first = header.first_offset
    if end is not None and first > end.segment_first_offset:
        return None
    begins = position is None or first != position.segment_first_offset
    return Scope(
        position=SEGMENT_HEADER_SIZE if begins or position is None else position[1],
        expected=first if begins or position == (first, SEGMENT_HEADER_SIZE) else None,
        end=end.position if end and first == end.segment_first_offset else None,
        writers=writers,
        payloads=False,
    )


def _stored(found: Found, first_offset: int, file: SegmentFile) -> StoredFrame:
    return StoredFrame(
        found.frame,
        LogPosition(first_offset, found.position),
        LogPosition(first_offset, found.end),
        file,
    )
