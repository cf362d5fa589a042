"""The event log: the single writer of segments, and what it recovers at its start.

What `append` returned from is durable. After a failed write or sync the file is not
trusted any more: the next append goes to a new segment.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from flightlog_storage.errors import StorageError
from flightlog_storage.event import WriterId
from flightlog_storage.files import FileOps, RealFiles, write_all
from flightlog_storage.frame import PAYLOAD_SIZE_MAX, Frame, padded_size
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.recovery import OpenSegment, Recovered, recover
from flightlog_storage.segment import (
    FLAG_BATCH,
    FLAG_GAP,
    FLAG_SKIPPED,
    SEGMENT_HEADER_SIZE,
    SEGMENT_SIZE_MAX,
    Damage,
    Footer,
    SegmentHeader,
    first_offset_of,
    pack_footer,
    pack_padded,
)

__all__ = (
    "SEGMENT_SIZE_MAX",
    "AppendFailed",
    "EventLog",
    "LogPosition",
    "LogReader",
    "StoredFrame",
)

SALT_SIZE = 4
LOG_ID_SIZE = 16
_COPY_SIZE = 1 << 20


class AppendFailed(StorageError):
    """Nothing of a batch was taken; the same batch may be given again later."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot append to the event log: {error}")
        self.errno = error.errno


class EventLog:
    """The writer of the event log in a folder. There must be only one.

    `last_sequence` holds the last durable sequence of each writer, `end_offset` the
    offset of the next event, `durable` where what is durable ends, `recovery` what
    was found damaged at the start.
    """

    def __init__(
        self,
        folder: Path,
        files: FileOps,
        now_ns: Callable[[], int],
        segment_size_max: int,
        random: Callable[[int], bytes],
    ) -> None:
        self.last_sequence: dict[WriterId, int] = {}
        self.end_offset = 0
        self.durable = LogPosition(0, SEGMENT_HEADER_SIZE)
        self.recovery: tuple[Damage, ...] = ()
        self.log_id = b""
        self._folder = folder
        self._files = files
        self._now_ns = now_ns
        self._segment_size_max = segment_size_max
        self._random = random
        self._fd: int | None = None
        self._current: OpenSegment | None = None
        # What the next segment says of itself: its number, the crc of the header
        # before it, whether offsets are given up before it.
        self._number = 0
        self._previous_crc = 0
        self._skipped = False

    @classmethod
    def open(  # noqa: PLR0913  # Tests bring a disk, a clock and chance.
        cls,
        folder: Path,
        files: FileOps | None = None,
        *,
        now_ns: Callable[[], int],
        quarantine: Path,
        durable: tuple[str, int] = ("", 0),
        segment_size_max: int = SEGMENT_SIZE_MAX,
        random: Callable[[int], bytes] = os.urandom,
    ) -> "EventLog":
        """Open the log, or start one; whatever a crash or a bad disk left behind.

        `durable` is a log's id and an offset: all before it is known to have been on
        disk. Where that is gone it is lost, not torn.

        Raises:
            HomeUnusable: A newer version wrote this log.
            OSError: The folder cannot be read, or a new log cannot be written.
        """
        log = cls(folder, files or RealFiles(), now_ns, segment_size_max, random)
        log._files.make_folder(folder)
        log._files.make_folder(quarantine)
        _remove_leftovers(log._files, folder)
        found = recover(folder, log._files)
        log_id, durable_offset = durable
        if found.last is not None and found.last.header.log_id.hex() == log_id:
            found.expect(durable_offset)
        for name in found.survey.rejected:
            _set_aside(log._files, folder / name, quarantine)
        log._adopt(found)
        log._settle(found, quarantine)
        log._files.fsync_dir(folder)
        return log

    def append(self, batch: Sequence[tuple[Frame, bytes]]) -> list[Frame]:
        """Return the frames with their offsets when they are durable.

        Raises:
            AppendFailed: The disk refused; nothing of the batch was taken.
            ValueError: A frame does not follow its writer's last one, or does not
                fit its payload. Callers check this before.
        """
        size = sum(padded_size(frame.payload_size) for frame, _ in batch)
        placed = self._place(batch)
        try:
            current = self._segment_for(size)
            salt = current.header.salt
            pieces: list[bytes] = []
            for frame, (_, payload) in zip(placed, batch, strict=True):
                pieces += pack_padded(frame, payload, salt)
            self._write(current.position, b"".join(pieces))
        except OSError as error:
            self._abandon()
            raise AppendFailed(error) from error
        for frame in placed:
            current.add(frame, current.position + padded_size(frame.payload_size))
            self.last_sequence[frame.writer] = frame.sequence_end - 1
            self.end_offset = frame.offset_end
        self.durable = LogPosition(current.header.first_offset, current.position)
        return placed

    def close(self) -> None:
        """Close the log in order: the segment is sealed, so that its end is known."""
        if self._current is not None and self._current.events:
            self._seal(self._current)
        if self._fd is not None:
            self._files.close(self._fd)
            self._fd = None
            self._current = None

    def _place(self, batch: Sequence[tuple[Frame, bytes]]) -> list[Frame]:
        placed: list[Frame] = []
        last: dict[WriterId, int] = {}
        offset, now_ns = self.end_offset, self._now_ns()
        for frame, payload in batch:
            known = self.last_sequence.get(frame.writer, 0)
            _check(frame, payload, last.get(frame.writer, known))
            last[frame.writer] = frame.sequence_end - 1
            flags = frame.flags & ~FLAG_BATCH if placed else frame.flags | FLAG_BATCH
            placed.append(
                structs.replace(frame, offset=offset, received_ns=now_ns, flags=flags)
            )
            offset += frame.count
        return placed

    def _write(self, position: int, data: bytes) -> None:
        assert self._fd is not None
        write_all(self._files, self._fd, data, position)
        self._files.fdatasync(self._fd)

    def _segment_for(self, size: int) -> OpenSegment:
        """Return the segment to append to: a new one if the batch does not fit."""
        current = self._current
        if current is not None:
            full = current.position + size > self._segment_size_max
            if not full or not current.events:
                return current
            self._seal(current)
        return self._start_segment()

    def _seal(self, current: OpenSegment) -> None:
        """Write the footer, if it can be written: it only saves time at the start."""
        assert self._fd is not None
        try:
            self._write_footer(self._fd, current)
        except OSError:
            self._abandon()
        else:
            self._leave(current)

    def _abandon(self) -> None:
        """Leave a segment that a write or sync failed on; never sync it again."""
        current = self._current
        if current is None or self._fd is None:
            return
        with suppress(OSError):
            self._files.truncate(self._fd, current.position)
        self._leave(current)

    def _leave(self, current: OpenSegment) -> None:
        """Close the segment; what comes next continues it, or replaces it if empty."""
        fd, self._fd, self._current = self._fd, None, None
        self._number = current.header.number
        self._previous_crc = current.header.previous_crc
        self._skipped = current.header.skipped
        if current.events:
            self._number += 1
            self._previous_crc = current.header.crc
            self._skipped = False
        if fd is not None:
            with suppress(OSError):
                self._files.close(fd)

    def _write_footer(self, fd: int, segment: OpenSegment) -> None:
        footer = Footer(
            writers={bytes(writer): last for writer, last in segment.writers.items()},
            events=segment.events,
            first_offset=segment.header.first_offset,
            end_offset=segment.end_offset,
            size=segment.position,
        )
        data = pack_footer(footer, segment.header.salt, self._now_ns())
        if len(data) > PAYLOAD_SIZE_MAX:
            return  # So many writers that reading the frames is no slower.
        write_all(self._files, fd, data, segment.position)
        self._files.fdatasync(fd)

    def _start_segment(self) -> OpenSegment:
        """Make the next segment; it has its name only once its header is durable."""
        header = SegmentHeader(
            log_id=self.log_id,
            number=self._number,
            first_offset=self.end_offset,
            salt=int.from_bytes(self._random(SALT_SIZE), "little"),
            previous_crc=self._previous_crc,
            created_ns=self._now_ns(),
            flags=FLAG_SKIPPED if self._skipped else 0,
        )
        temporary = self._folder / f"{header.name}.tmp"
        with suppress(FileNotFoundError):
            self._files.unlink(temporary)  # What an earlier try may have left.
        fd = self._files.create(temporary)
        try:
            write_all(self._files, fd, header.pack(), 0)
            self._files.fdatasync(fd)
            self._files.rename(temporary, self._folder / header.name)
            self._files.fsync_dir(self._folder)
        except OSError:
            with suppress(OSError):
                self._files.close(fd)
            with suppress(OSError):
                self._files.unlink(temporary)
            raise
        self._fd = fd
        self._current = OpenSegment(header, end_offset=header.first_offset)
        self.durable = LogPosition(header.first_offset, SEGMENT_HEADER_SIZE)
        return self._current

    def _adopt(self, found: Recovered) -> None:
        self.recovery = tuple(found.damages)
        self.last_sequence = found.last_sequence
        self.end_offset = found.end_offset
        self._skipped = found.skipped
        if found.last is None:
            self.log_id = self._random(LOG_ID_SIZE)
            return
        header = found.last.header
        self.log_id = header.log_id or self._random(LOG_ID_SIZE)
        self.durable = LogPosition(header.first_offset, found.last.position)
        self._number = header.number + 1
        self._previous_crc = header.crc

    def _settle(self, found: Recovered, quarantine: Path) -> None:
        """Make the log ready to append to."""
        for segment in found.unfinished:
            with suppress(OSError):
                self._retire(segment, quarantine, last=False)
        last = found.last
        if last is None:
            self._start_segment()
        elif found.sound:
            fd = self._files.open(self._folder / last.header.name, write=True)
            # What a killed process wrote may not be durable yet. It counts from here.
            self._files.fdatasync(fd)
            self._fd, self._current = fd, last
        elif not last.sealed or last.torn_size:
            # A full disk must not keep the log from opening: what is not done now
            # changes nothing that a reader sees, and is done at the next start.
            with suppress(OSError):
                self._retire(last, quarantine, last=True)
        else:
            with suppress(OSError):  # As above: a killed process wrote its footer.
                self._sync(self._folder / last.header.name)
            if found.lost:
                with suppress(OSError):
                    self._start_segment()

    def _sync(self, path: Path) -> None:
        fd = self._files.open(path, write=True)
        try:
            self._files.fdatasync(fd)
        finally:
            self._files.close(fd)

    def _retire(self, segment: OpenSegment, quarantine: Path, *, last: bool) -> None:
        """Keep a damaged segment as it is, but for a torn end; go on in a new one.

        The new segment comes first: it says that offsets were given up, which the
        old one does not show any more once it is cut.
        """
        if segment.is_compressed:
            if last:
                self._start_segment()
            return
        name = segment.header.name
        fd = self._files.open(self._folder / name, write=True)
        try:
            self._files.fdatasync(fd)
            if segment.torn_size:
                target = quarantine / f"{name}.{segment.position}.torn"
                self._copy_end(fd, segment.position, target)
                self._files.fsync_dir(quarantine)
            if last and self._start_segment().header.name == name:
                return  # It held nothing, and the new one has taken its place.
            if segment.torn_size:
                self._files.truncate(fd, segment.position)
            if not segment.sealed:
                self._write_footer(fd, segment)
        finally:
            self._files.close(fd)

    def _copy_end(self, fd: int, position: int, target: Path) -> None:
        path = _unused(self._files, target)
        copy = self._files.create(path)
        try:
            done = 0
            while data := self._files.pread(fd, _COPY_SIZE, position + done):
                write_all(self._files, copy, data, done)
                done += len(data)
            self._files.fdatasync(copy)
        except OSError:
            with suppress(OSError):
                self._files.unlink(path)  # The next start tries again.
            raise
        finally:
            self._files.close(copy)


def _check(frame: Frame, payload: bytes, last: int) -> None:
    if len(payload) != frame.payload_size:
        raise ValueError(f"{len(payload)} bytes for a payload of {frame.payload_size}")
    if frame.count < 1:
        raise ValueError("a frame without events")
    follows = frame.sequence == last + 1
    if not follows and not (frame.flags & FLAG_GAP and frame.sequence > last):
        raise ValueError(f"sequence {frame.sequence} after {last}")


def _remove_leftovers(files: FileOps, folder: Path) -> None:
    """Remove segments whose making a crash cut short."""
    for name in files.listdir(folder):
        stem, dot, extension = name.rpartition(".")
        if dot and extension == "tmp" and first_offset_of(stem) is not None:
            files.unlink(folder / name)


def _set_aside(files: FileOps, path: Path, quarantine: Path) -> None:
    files.rename(path, _unused(files, quarantine / path.name))
    files.fsync_dir(quarantine)


def _unused(files: FileOps, path: Path) -> Path:
    """Return a path like this one that nothing has."""
    names = set(files.listdir(path.parent))
    name, count = path.name, 1
    while name in names:
        name, count = f"{path.name}.{count}", count + 1
    return path.with_name(name)
