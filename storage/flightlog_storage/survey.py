"""A survey of the event log: its segments in order, by their headers.

A header that is damaged is mended where it can be; a file that is not ours to read
is left out and named.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.files import FileOps
from flightlog_storage.scan import find_salt
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    SEGMENT_VERSION,
    Damage,
    DamageKind,
    SegmentHeader,
    first_offset_of,
    mend_segment_header,
    missing_offsets,
    parse_segment_header,
)
from flightlog_storage.segment_file import SegmentFile, header_bytes

__all__ = ("Survey", "survey_folder")


@dataclass(frozen=True, slots=True)
class Survey:
    """The segments of a folder in order, and what is wrong with files and headers.

    `rejected` are the files, named like segments, that are not ours to read;
    `unreadable` those that the disk does not give back now, though it may again.
    """

    segments: tuple[SegmentHeader, ...] = ()
    damages: tuple[Damage, ...] = ()
    rejected: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def survey_folder(folder: Path, files: FileOps) -> Survey:
    """Return what segments a folder holds. Reads headers alone, unless one is lost.

    Raises:
        HomeUnusable: A newer version of this package wrote them.
    """
    headers: list[SegmentHeader] = []
    damages: list[Damage] = []
    rejected: list[str] = []
    unreadable: list[str] = []
    names = _segment_names(files.listdir(folder))
    for name in names.values():
        try:
            header, why = _read_header(folder / name, files)
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            damages.append(_header_damage(name, why, lost=True))
            unreadable.append(name)
            continue
        if why is not None:
            damages.append(_header_damage(name, why, lost=header is None))
        if header is None:
            rejected.append(name)
        else:
            headers.append(header)
    ours = tuple(_known(headers))
    known = {header.first_offset for header in ours}
    for header in headers:
        if header.first_offset in known:
            continue
        name = names[header.first_offset]
        rejected.append(name)
        damages.append(_header_damage(name, "of another log", lost=False))
    damages.extend(_chain_damages(ours))
    return Survey(ours, tuple(damages), tuple(rejected), tuple(unreadable))


def _segment_names(names: Iterable[str]) -> dict[int, str]:
    """Return the segments' files, in order; of two forms of one the compressed."""
    offsets = ((first_offset_of(name), name) for name in sorted(names))
    return {offset: name for offset, name in offsets if offset is not None}


def _known(headers: Sequence[SegmentHeader]) -> Iterator[SegmentHeader]:
    """Yield the headers of this log: it is the one that most segments are of."""
    log_id = _log_id_of(headers)
    number = 0
    for header in headers:
        if not header.log_id:  # The header was lost, and all but its salt with it.
            yield replace(header, log_id=log_id, number=number)
            number += 1
        elif header.log_id == log_id:
            yield header
            number = header.number + 1


def _read_header(path: Path, files: FileOps) -> tuple[SegmentHeader | None, str | None]:
    """Return a segment's header as far as it can be had, and what is wrong with it."""
    first_offset = first_offset_of(path.name) or 0
    why = None
    data = header_bytes(path, files)
    try:
        header: SegmentHeader | None = parse_segment_header(data, path.name)
    except CorruptData as error:
        header, why = _mended(path, files, data), error.why
    if header is not None and header.version > SEGMENT_VERSION:
        raise HomeUnusable(path, f"segment format {header.version} is too new")
    if header is not None and header.first_offset != first_offset:
        return None, f"is segment {header.name} under another name"
    return header, why


def _mended(path: Path, files: FileOps, data: bytes) -> SegmentHeader | None:
    header = mend_segment_header(data)
    if header is not None:
        return header
    first_offset = first_offset_of(path.name) or 0
    file = SegmentFile(files, path)
    try:
        salt = find_salt(file, first_offset)
    finally:
        file.close()
    if salt is None:
        _check_readable(path, files)
        return None
    return SegmentHeader(
        log_id=b"",
        number=0,
        first_offset=first_offset,
        salt=salt,
        previous_crc=0,
        created_ns=0,
    )


def _check_readable(path: Path, files: FileOps) -> None:
    """Raise what the disk says of a header that was read around."""
    fd = files.open(path)
    try:
        files.pread(fd, SEGMENT_HEADER_SIZE, 0)
    finally:
        files.close(fd)


def _log_id_of(headers: Sequence[SegmentHeader]) -> bytes:
    """Return the log id of most segments, so that one foreign file changes nothing."""
    ids = Counter(header.log_id for header in headers if header.log_id)
    return ids.most_common(1)[0][0] if ids else b""


def _chain_damages(headers: Sequence[SegmentHeader]) -> Iterator[Damage]:
    """Yield where a segment does not continue the one before it."""
    if headers and headers[0].first_offset > 0 and not headers[0].skipped:
        yield missing_offsets(headers[0].name, 0, 0, headers[0].first_offset)
    for header, following in pairwise(headers):
        known = header.created_ns and following.created_ns  # The header was not lost.
        follows = following.number == header.number + 1
        if known and follows and following.previous_crc != header.crc:
            why = "is not the one that followed the segment before it"
            yield _header_damage(following.name, why, lost=False)


def _header_damage(name: str, why: str, *, lost: bool) -> Damage:
    return Damage(
        segment=name,
        position=0,
        size=SEGMENT_HEADER_SIZE,
        first_offset=first_offset_of(name) or 0,
        count=None if lost else 0,
        writer=None,
        sequence=None,
        kind=DamageKind.ROTTEN,
        why=f"the segment {why}" if why.startswith(("is", "of", "cannot")) else why,
    )
