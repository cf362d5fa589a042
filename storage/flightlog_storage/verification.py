"""Verification: every frame of the event log checked, with its payload."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from flightlog_storage.event import WriterId
from flightlog_storage.files import FileOps, RealFiles
from flightlog_storage.frame import Frame
from flightlog_storage.logreader import walk_segment
from flightlog_storage.scan import Found, Scope
from flightlog_storage.segment import FLAG_GAP, Damage
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.survey import Survey, survey_folder

__all__ = ("SequenceHole", "VerifyReport", "verify")


@dataclass(frozen=True, slots=True)
class SequenceHole:
    """Events of a writer that the log does not hold, though it holds later ones."""

    writer: WriterId
    sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a full check of the log found."""

    segments: int
    frames: int
    events: int
    size: int  # Bytes checked.
    damages: tuple[Damage, ...]
    holes: tuple[SequenceHole, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages and not self.holes


@dataclass(slots=True)
class _Tally:
    frames: int = 0
    events: int = 0
    size: int = 0
    damages: list[Damage] = field(default_factory=list)
    holes: list[SequenceHole] = field(default_factory=list)
    expected: dict[WriterId, int] = field(default_factory=dict)


def verify(folder: Path, files: FileOps | None = None) -> VerifyReport:
    """Check every frame of the log, and return what was found. Changes nothing."""
    files = files or RealFiles()
    survey = survey_folder(folder, files)
    tally = _Tally(damages=list(survey.damages))
    for item in _walk(folder, files, survey, tally):
        if isinstance(item, Damage):
            tally.damages.append(item)
        else:
            _count(tally, item.frame)
    return VerifyReport(
        segments=len(survey.segments),
        frames=tally.frames,
        events=tally.events,
        size=tally.size,
        damages=tuple(tally.damages),
        holes=tuple(tally.holes),
    )


def _walk(
    folder: Path, files: FileOps, survey: Survey, tally: _Tally
) -> Iterator[Found | Damage]:
    following = (*survey.segments[1:], None)
    for header, after in zip(survey.segments, following, strict=False):
        file = SegmentFile(files, folder / header.name)
        tally.size += file.size
        try:
            yield from file.faults()
            yield from walk_segment(
                file, header, after, Scope(expected=header.first_offset)
            )
        finally:
            file.close()


def _count(tally: _Tally, frame: Frame) -> None:
    tally.frames += 1
    tally.events += frame.count
    expected = tally.expected.get(frame.writer, 1)
    if frame.sequence > expected and not frame.flags & FLAG_GAP:
        missing = frame.sequence - expected
        tally.holes.append(SequenceHole(frame.writer, expected, missing))
    tally.expected[frame.writer] = frame.sequence_end
