"""Recovery: what the event log holds after a crash. It reads alone, repairs nothing."""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from flightlog_storage.event import WriterId
from flightlog_storage.files import FileOps
from flightlog_storage.frame import Frame
from flightlog_storage.logreader import walk, walk_segment
from flightlog_storage.scan import Found, Scan, Scope, find_footer
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    SEGMENT_SIZE_MAX,
    Damage,
    DamageKind,
    Footer,
    SegmentHeader,
    first_offset_of,
    leads_to,
)
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.survey import Survey, survey_folder

__all__ = ("OpenSegment", "Recovered", "recover")


@dataclass(slots=True)
class OpenSegment:
    """A segment as far as it is good: `position` is where it ends.

    `torn_size` bytes after that are to be cut, unless it is compressed: such a file was
    whole, and is never written to.
    """

    header: SegmentHeader
    end_offset: int
    position: int = SEGMENT_HEADER_SIZE
    events: int = 0
    writers: dict[WriterId, int] = field(default_factory=dict)
    torn_size: int = 0
    sealed: bool = False
    is_compressed: bool = False

    def add(self, frame: Frame, end: int) -> None:
        """Take one more frame into account, which ends at a position."""
        self.position = end
        self.events += frame.count
        self.end_offset = frame.offset_end
        self.writers[frame.writer] = frame.sequence_end - 1


class _End(NamedTuple):
    """A segment read to its end, the offset that would follow, and what is damaged."""

    segment: OpenSegment
    expected: int
    damages: list[Damage]

    def leads_to(self, following: SegmentHeader) -> bool:
        """Whether all events before another segment are here, as they were."""
        is_whole = all(damage.kind is DamageKind.TORN for damage in self.damages)
        return is_whole and self.segment.end_offset == following.first_offset


@dataclass(slots=True)
class Recovered:
    """The log as it was found.

    With `skipped`, `end_offset` leaves out offsets that what is lost may have had;
    with `lost`, those before it that are known to have been durable.
    `unfinished` are segments before the last one that have something behind their last
    frame: half a footer, or what a recovery, cut short itself, has not cut yet.
    """

    survey: Survey
    damages: list[Damage]
    last_sequence: dict[WriterId, int] = field(default_factory=dict)
    end_offset: int = 0
    skipped: bool = False
    lost: bool = False
    last: OpenSegment | None = None
    last_damaged: bool = False
    unfinished: list[OpenSegment] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether appending may go on in the last segment."""
        if self.last is None or self.last.sealed:
            return False
        return not (self.last_damaged or self.skipped or self.lost)

    def take(self, end: _End) -> None:
        """Take into account what a segment holds that has no footer."""
        self.damages += end.damages
        self.last_sequence.update(end.segment.writers)

    def expect(self, durable_offset: int) -> None:
        """Note as damage what is missing of what was durable.

        The log goes on at that offset: the hole before it tells of the loss for good.
        """
        last = self.last
        if last is None or last.end_offset >= durable_offset:
            return
        self.damages.append(
            Damage(
                segment=last.header.name,
                position=last.position,
                size=last.torn_size,
                first_offset=last.end_offset,
                count=durable_offset - last.end_offset,
                writer=None,
                sequence=None,
                kind=DamageKind.ROTTEN,
                why="the end of the log is gone, which was durable",
            )
        )
        self.end_offset = durable_offset
        self.skipped = False
        self.lost = True


def recover(folder: Path, files: FileOps) -> Recovered:
    """Return what the log in `folder` holds; never raises for what files hold."""
    survey = survey_folder(folder, files)
    found = Recovered(survey, list(survey.damages))
    for header, following in pairwise((*survey.segments, None)):
        assert header is not None
        file = SegmentFile(files, folder / header.name)
        try:
            if following is not None:
                _read_before(found, file, header, following)
            else:
                _read_last(found, file, header)
        finally:
            file.close()
    for name in (*survey.rejected, *survey.unreadable):
        _give_up_offsets(folder, files, found, name)
    return found


def _read_before(
    found: Recovered,
    file: SegmentFile,
    header: SegmentHeader,
    following: SegmentHeader,
) -> None:
    """Read the footer of a segment that is not the last; without one, all of it."""
    footer = find_footer(file, header.salt)
    if footer is not None and leads_to(footer, following):
        _merge(found, footer)
        return
    if not file.is_compressed:
        end = _read_end(file, header)
        if following.skipped or end.leads_to(following):
            found.take(end)
            if end.segment.torn_size or not end.segment.sealed:
                found.unfinished.append(end.segment)
            return
    scope = Scope(expected=header.first_offset)
    for item in walk_segment(file, header, following, scope):
        if isinstance(item, Damage):
            found.damages.append(item)
        else:
            frame = item.frame
            found.last_sequence[frame.writer] = frame.sequence_end - 1


def _merge(found: Recovered, footer: Footer) -> None:
    for writer, sequence in footer.writers.items():
        found.last_sequence[WriterId(writer)] = sequence


def _read_last(found: Recovered, file: SegmentFile, header: SegmentHeader) -> None:
    footer = find_footer(file, header.salt)
    if footer is not None:
        _merge(found, footer)
        found.end_offset = footer.end_offset
        found.last = OpenSegment(
            header, footer.end_offset, file.size, footer.events, sealed=True
        )
        return
    end = _read_end(file, header)
    found.take(end)
    found.last, found.end_offset = end.segment, end.expected
    if found.last.torn_size:
        # An event takes a byte at least: so no offset that was given is used again.
        found.end_offset += found.last.torn_size
        found.skipped = True
    found.last_damaged = any(damage.segment == file.name for damage in found.damages)


def _read_end(file: SegmentFile, header: SegmentHeader) -> _End:
    """Scan a segment whose end may be torn."""
    segment = OpenSegment(
        header, end_offset=header.first_offset, is_compressed=file.is_compressed
    )
    damages: list[Damage] = []
    scan = Scan(file, header.salt, Scope(expected=header.first_offset))
    for item in walk(scan, header, None):
        if isinstance(item, Found):
            segment.add(item.frame, item.end)
        else:
            damages.append(item)
    segment.sealed = scan.footer is not None or file.is_compressed
    segment.position = scan.end
    segment.torn_size = file.size - scan.end
    return _End(segment, scan.expected or 0, damages)


def _give_up_offsets(folder: Path, files: FileOps, found: Recovered, name: str) -> None:
    """Leave out the offsets that a segment we cannot read may have held."""
    lost = any(
        damage.segment == name and damage.count is None for damage in found.damages
    )
    first_offset = first_offset_of(name) or 0
    if not lost or first_offset < found.end_offset:
        return
    file = SegmentFile(files, folder / name)
    file.close()
    # A compressed one may not say any more how large it was.
    size = max(file.size, SEGMENT_SIZE_MAX) if file.is_compressed else file.size
    found.end_offset = first_offset + max(0, size - SEGMENT_HEADER_SIZE)
    found.skipped = True
