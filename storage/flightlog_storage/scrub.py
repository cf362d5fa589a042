"""Scrubbing: what lies still is read again, so that damage is found while it is mended.

One pass reads the blobs, the parts and the sealed segments, in the order of their
names; it may stop behind any of them and go on later.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from flightlog_storage.blobs import is_sha256
from flightlog_storage.database import Database, SavedPart
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.files import RealFiles, open_file
from flightlog_storage.home import Home
from flightlog_storage.logreader import walk_segment
from flightlog_storage.projector import part_folder
from flightlog_storage.scan import Found, Scope
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.survey import survey_folder

__all__ = ("Scrubbed", "fault_of", "scrub")

READ_SIZE = 1 << 20

Pace = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A file that was read, and what is wrong with it, if anything is."""

    name: str  # Its path in the home.
    what: str | None = None
    part: SavedPart | None = None  # What it is, if it is one.


def scrub(home: Home, after: str, pace: Pace) -> Iterator[Scrubbed]:
    """Read the files whose names come after one, and yield each.

    `pace` is called with the number of bytes that were read, and may wait, or raise.
    """
    yield from _scrub_blobs(home, after, pace)
    yield from _scrub_parts(home, after, pace)
    yield from _scrub_segments(home, after, pace)


def fault_of(home: Home, name: str) -> str | None:
    """Return what is wrong with a blob or part now, by its path in the home."""
    path = home.root / name
    if path.is_relative_to(home.blobs):
        return _fault(path, path.name, int)
    part = _parts(home).get(name)
    return None if part is None else _fault(path, part.sha256, int)


def _scrub_blobs(home: Home, after: str, pace: Pace) -> Iterator[Scrubbed]:
    for folder in sorted(home.blobs.glob("??")):
        if f"blobs/{folder.name}/~" < after or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            name = f"blobs/{folder.name}/{path.name}"
            if name > after and is_sha256(path.name):
                yield Scrubbed(name, _fault(path, path.name, pace))


def _scrub_parts(home: Home, after: str, pace: Pace) -> Iterator[Scrubbed]:
    for name, part in sorted(_parts(home).items()):
        if name > after:
            what = _fault(home.root / name, part.sha256, pace)
            if what is not None and _parts(home).get(name) == part:  # Not merged away.
                yield Scrubbed(name, what, part)
            else:
                yield Scrubbed(name)


def _parts(home: Home) -> dict[str, SavedPart]:
    try:
        with Database.open_reader(home.state) as database:
            return {
                str((part_folder(home, p.run) / p.name).relative_to(home.root)): p
                for p in database.parts()
            }
    except HomeUnusable:
        return {}


def _scrub_segments(home: Home, after: str, pace: Pace) -> Iterator[Scrubbed]:
    """Read the segments but the last, which is still written."""
    for header, following in pairwise(survey_folder(home.log, RealFiles()).segments):
        name = f"log/{header.name}"
        if name <= after:
            continue
        what, position = None, 0
        scope = Scope(expected=header.first_offset)
        try:
            with closing(SegmentFile(RealFiles(), home.log / header.name)) as file:
                name = f"log/{file.name}"
                what = next((fault.why for fault in file.faults()), None)
                for item in walk_segment(file, header, following, scope):
                    if isinstance(item, Found):
                        pace(item.end - position)
                        position = item.end
                    else:
                        what = what or f"byte {item.position}: {item.why}"
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
        yield Scrubbed(name, what)


def _fault(path: Path, sha256: str, pace: Pace) -> str | None:
    """Return what is wrong with a file that has this digest."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0, opener=open_file) as file:
            # The disk is to be read, not what memory has of it.
            RealFiles().forget(file.fileno())
            while data := file.read(READ_SIZE):
                digest.update(data)
                pace(len(data))
            RealFiles().forget(file.fileno())
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None if digest.hexdigest() == sha256 else "its bytes are not what they were"
