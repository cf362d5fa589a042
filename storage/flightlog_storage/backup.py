"""A backup: a copy of a home, made while all goes on, that is a home itself.

The order makes it whole. Read are the spools first, then the inbox, then how far the
log is, then the blobs: what leaves a spool is in the log by then, what left the inbox
is said there to be done, and a blob is there before anything names it. Written are
blobs and inbox before the log that names them, and the log before the spools, which
hold no more what it has. Each file is whole when it gets its name. So a kill leaves
what the last backup had, and perhaps more.

States and histories are not copied: they are made of the log.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flightlog_storage.blobs import BlobStore, is_sha256
from flightlog_storage.copies import stage_file
from flightlog_storage.errors import CorruptData, HomeUnusable, SourceUnusable
from flightlog_storage.event import FileFailed, FileSaved
from flightlog_storage.files import RealFiles, read_around
from flightlog_storage.folder_copies import copy_folder
from flightlog_storage.home import Home, HomeLock
from flightlog_storage.inbox import copy_into_inbox, put_in_inbox
from flightlog_storage.log_copies import (
    damages_from,
    has_lost,
    is_sound,
    segments,
)
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.rows import decode
from flightlog_storage.scan import Scan, Scope
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    compressed_name,
    parse_segment_header,
    segment_name,
)
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.spool_copies import place_spools, stage_spools
from flightlog_storage.staging import staging_folder, sweep_staging

__all__ = ("BackedUp", "back_up")

COPY_SIZE = 1 << 20
_USERS = ("files", "resume")  # Copied as they are; flightlog looks into none.

Tick = Callable[[int], object]


@dataclass(slots=True)
class BackedUp:
    """What a backup took; `kept` are blobs that an earlier one had taken."""

    segments: int = 0
    blobs: int = 0
    kept: int = 0
    inbox: int = 0
    spools: int = 0
    size: int = 0
    damaged: list[str] = field(default_factory=list)  # Where in the home, and what.


def back_up(home: Home, target: Home, tick: Tick = int) -> BackedUp:
    """Copy a home, or bring an earlier copy of it up to date.

    `tick` is called with the number of bytes, whenever some were copied.

    Raises:
        HomeLocked: A daemon serves the target, or another backup is under way.
        HomeUnusable: The target is no backup of this home.
        OSError: Something cannot be read, or the disk refuses.
    """
    if target.root.resolve().is_relative_to(home.root.resolve()):
        raise HomeUnusable(target.root, "lies within the home that is to be copied")
    target.create()
    with closing(HomeLock(target)):
        _check(home, target)
        sweep_staging(target.staging)
        staging = staging_folder(target.staging)
        try:
            return _Backup(home, target, staging, tick).make()
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _check(home: Home, target: Home) -> None:
    """Refuse to write over what is not an earlier state of this home."""
    if target.lock.stat().st_size:
        raise HomeUnusable(target.root, "a daemon has served it: it is a home now")
    if not segments(target.log):
        return
    if LogReader(target.log).log_id != LogReader(home.log).log_id:
        raise HomeUnusable(target.root, "is not a backup of this home")
    if has_lost(home.log, target.log):
        why = "holds more of the log than the home does, which has lost some of it"
        raise HomeUnusable(target.root, why)


@dataclass(slots=True)
class _Backup:
    home: Home
    target: Home
    staging: Path
    tick: Tick
    done: BackedUp = field(default_factory=BackedUp)
    inbox: set[str] = field(default_factory=set)  # What was seen there, and copied.

    def make(self) -> BackedUp:
        staged = stage_spools(self.home.spool, self.staging)
        self.done.spools = len(staged)
        with self._holding():
            self._copy_inbox()
            end = self._cut()
            self._copy_blobs()
        if end is not None:
            self._copy_log(end)
        place_spools(staged, self.target.spool)
        RealFiles().fsync_dir(self.target.spool)
        for path in self.target.inbox.iterdir():
            if path.name not in self.inbox:
                path.unlink()
        for name in _USERS:
            copy_folder(self.home.root, self.target.root, name, self.staging)
        self.target.sync()
        return self.done

    def _holding(self) -> AbstractContextManager[None]:
        """Have no blob deleted meanwhile."""
        if not self.home.is_writable:
            return nullcontext()
        return BlobStore(self.home.blobs).holding()

    def _cut(self) -> LogPosition | None:
        """Return how far to copy the log: what is owed as of there was copied."""
        log = LogReader(self.home.log)
        end = log.end_position()
        while end is not None:
            self._copy_inbox()  # What came between the first time and the end.
            now = log.end_position()
            # Files that came and went meanwhile may be owed as of `end`: then the end
            # is where it is said that they were made.
            if _made_between(log, end, now) <= self.inbox:
                return end
            end = now
        return None

    def _copy_inbox(self) -> None:
        for path in self.home.inbox.glob("*"):
            there = self.target.inbox / path.name
            with suppress(FileNotFoundError):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    continue  # No writer left it; reading a pipe would never end.
                size = status.st_size
                if not there.exists() or there.stat().st_size != size:
                    self._copy(path, there)
                    self.done.inbox += 1
                self.inbox.add(path.name)

    def _copy_blobs(self) -> None:
        for path in self.home.blobs.glob("??/*"):
            there = self.target.blobs / path.parent.name / path.name
            if not is_sha256(path.name):
                continue
            try:
                if there.exists() and there.stat().st_size == path.stat().st_size:
                    self.done.kept += 1
                else:
                    self._copy_blob(path)
            except FileNotFoundError:
                continue
            except SourceUnusable:
                self._leave_out(path)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self._leave_out(path)

    def _copy_blob(self, path: Path) -> None:
        staged = stage_file(path, self.staging, tick=self.tick)
        if staged.digests.sha256 != path.name:
            self._leave_out(path)
            return
        BlobStore(self.target.blobs).keep(staged)
        self.done.blobs += 1
        self.done.size += staged.digests.size

    def _leave_out(self, path: Path) -> None:
        self.done.damaged.append(f"{path.relative_to(self.home.root)}: not copied")

    def _copy_log(self, end: LogPosition) -> None:
        """Copy the segments, in their order, up to a position."""
        known = segments(self.target.log)
        copied: list[int] = []
        for offset in segments(self.home.log):
            if offset > end.segment_first_offset:
                break
            is_last = offset == end.segment_first_offset
            # The last one copied may have been open then.
            is_known = offset in known[:-1] and not is_last
            size = end.position if is_last else None
            try:
                is_copied = self._copy_segment(offset, size, is_known=is_known)
            except FileNotFoundError:  # It was compressed just now.
                is_copied = self._copy_segment(offset, size, is_known=is_known)
            if is_copied:
                copied.append(offset)
        self.done.segments = len(copied)
        if copied:
            self.done.damaged += damages_from(self.target.log, copied[0])

    def _copy_segment(self, offset: int, size: int | None, *, is_known: bool) -> bool:
        """Copy a segment, or its first bytes; return whether it was to be."""
        plain = self.target.log / segment_name(offset)
        source = self.home.log / compressed_name(offset)
        if not source.exists():
            source = self.home.log / plain.name
        elif size is not None:
            self._copy_begin(offset, size)
            return True
        there = self.target.log / source.name
        is_there = is_known and _is_of_size(there, source.stat().st_size)
        if not is_there:
            is_whole = is_known and (there.exists() or plain.exists())
            if is_whole and not is_sound(self.home.log, offset):
                return False  # It was damaged since.
            self._copy(source, there, size)
        if there != plain:
            plain.unlink(missing_ok=True)
        return not is_there

    def _copy_begin(self, offset: int, size: int) -> None:
        """Copy what a segment held that was compressed since."""
        there = self.target.log / segment_name(offset)
        copy = self._new_copy()
        with closing(SegmentFile(RealFiles(), self.home.log / there.name)) as file:
            pieces = (
                file.read(position, min(COPY_SIZE, size - position))
                for position in range(0, size, COPY_SIZE)
            )
            put_in_inbox(copy, pieces)
        self._place(copy, there, size)

    def _copy(self, source: Path, there: Path, size: int | None = None) -> None:
        """Copy a file, or the first bytes of it; it is whole when it has its name."""
        copy = self._new_copy()
        with source.open("rb") as file:
            _copy_open(file.fileno(), copy)
        self._place(copy, there, size)

    def _new_copy(self) -> Path:
        copy = self.staging / "copy"
        copy.unlink(missing_ok=True)
        return copy

    def _place(self, copy: Path, there: Path, size: int | None) -> None:
        """Give a copy its name; one of an open segment ends behind a whole frame."""
        with copy.open("r+b") as file:
            copied = os.fstat(file.fileno()).st_size
            if size is not None:
                file.truncate(_whole_end(copy, there.name, size))
            os.fsync(file.fileno())
        copy.rename(there)
        RealFiles().fsync_dir(there.parent)
        self.tick(copied)
        self.done.size += copied


def _is_of_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def _made_between(
    log: LogReader, begin: LogPosition, end: LogPosition | None
) -> set[str]:
    """Return the tokens of files that were made, or given up, in a part of the log."""
    tokens = set()
    for item in log.read(begin, end):
        if isinstance(item, StoredFrame):
            with suppress(CorruptData):
                for _, event in decode(item.payload(), item.frame.count):
                    if isinstance(event, FileSaved | FileFailed) and event.token:
                        tokens.add(event.token)
    return tokens


def _whole_end(path: Path, name: str, size: int) -> int:
    """Return where the last whole frame ends before a position.

    It may have been being written when it was copied: then nobody was told of it.
    """
    file = SegmentFile(RealFiles(), path)
    with closing(file), suppress(CorruptData):
        header = parse_segment_header(file.read(0, SEGMENT_HEADER_SIZE), name)
        scan = Scan(file, header.salt, Scope(expected=header.first_offset, end=size))
        for _ in scan:
            pass
        return scan.end
    return size


def _copy_open(source: int, copy: Path) -> int:
    """Copy an open file, with zeros in place of what the disk does not give back."""
    try:
        return copy_into_inbox(copy, source)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    size = os.fstat(source).st_size
    pieces = (
        read_around(RealFiles(), source, COPY_SIZE, position)
        for position in range(0, size, COPY_SIZE)
    )
    return put_in_inbox(copy, pieces)
