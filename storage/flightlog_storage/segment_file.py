"""A segment's file, in either of its forms, read as the bytes of the segment.

A segment that is compressed has a second file for a moment, and its old one no more
after that. Whoever is at it reads on: the bytes are the same.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flightlog_storage.compressed import (
    Index,
    index_faults,
    read_compressed,
    read_index,
)
from flightlog_storage.files import FileOps, read_around
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    Damage,
    DamageKind,
    compressed_name,
    first_offset_of,
    segment_name,
)

__all__ = ("BLOCK_SIZE", "SegmentFile", "header_bytes")

BLOCK_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open file; `index` is that of a compressed one, if it can be read."""

    fd: int
    path: Path
    is_compressed: bool
    index: Index | None = None


class SegmentFile:
    """A segment's bytes, read in large blocks.

    After `close` it can still be read: it is then opened for each read.
    """

    def __init__(self, files: FileOps, path: Path, *, is_exact: bool = False) -> None:
        """`path` may name the form that the segment has no more, or not yet.

        Args:
            is_exact: It is not to be looked for in the other form.

        Raises:
            HomeUnusable: A newer version of this package wrote it.
        """
        self._files = files
        self._path = path
        self._is_exact = is_exact
        opened = self._open()
        self._opened: _Opened | None = opened
        self.name = opened.path.name
        self.is_compressed = opened.is_compressed
        self.footer_position: int | None = None  # Known of a compressed one alone.
        self.mark = 0 if opened.index is None else opened.index.mark
        self.file_size = files.size(opened.fd)
        if not opened.is_compressed:
            self.size = self.file_size
        elif opened.index is None:
            self.size = SEGMENT_HEADER_SIZE
        else:
            self.size = opened.index.size
            self.footer_position = opened.index.footer_position
        self._block = b""
        self._block_position = 0

    def read(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes; fewer only at the end of the segment."""
        start = position - self._block_position
        if start < 0 or start + size > len(self._block):
            self._load(position, size)
            start = 0
        return self._block[start : start + size]

    def faults(self) -> list[Damage]:
        """Return what is wrong with the file that costs none of the segment's bytes."""
        if not self.is_compressed:
            return []
        opened = self._opened or self._open()
        try:
            return [self._fault(why) for why in index_faults(self._files, opened.fd)]
        finally:
            self._release(opened)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._files.close(self._opened.fd)
            self._opened = None

    def _open(self) -> _Opened:
        if self._is_exact:
            is_compressed = ".logz" in self._path.suffixes
            return _opened(self._files, self._path, is_compressed=is_compressed)
        return _open(self._files, self._path)

    def _load(self, position: int, size: int) -> None:
        if not self._is_kept_plain(position, size):
            size = max(size, BLOCK_SIZE)
        size = max(0, min(size, self.size - position))
        opened = self._opened or self._open()
        try:
            self._block = _read(self._files, opened, position, size)
        finally:
            self._release(opened)
        self._block_position = position

    def _is_kept_plain(self, position: int, size: int) -> bool:
        """Whether this is the header or the footer of a compressed segment."""
        if not self.is_compressed:
            return False
        return position + size <= SEGMENT_HEADER_SIZE or (
            self.footer_position is not None and position >= self.footer_position
        )

    def _fault(self, why: str) -> Damage:
        return Damage(
            segment=self.name,
            position=0,
            size=0,
            first_offset=first_offset_of(self.name) or 0,
            count=0,
            writer=None,
            sequence=None,
            kind=DamageKind.ROTTEN,
            why=why,
        )

    def _release(self, opened: _Opened) -> None:
        if opened is not self._opened:
            self._files.close(opened.fd)


def header_bytes(path: Path, files: FileOps) -> bytes:
    """Return the bytes of a segment's header, whatever they are."""
    opened = _open(files, path)
    try:
        return read_around(files, opened.fd, SEGMENT_HEADER_SIZE, 0)
    finally:
        files.close(opened.fd)


def _open(files: FileOps, path: Path) -> _Opened:
    """Open a segment in the form that it has.

    The compressed one counts: it is whole and was compared when it got its name. A file
    of that name that is none does not, where the other one is there.
    """
    first_offset = first_offset_of(path.name)
    if first_offset is None:
        return _opened(files, path, is_compressed=False)
    plain = path.with_name(segment_name(first_offset))
    compressed = path.with_name(compressed_name(first_offset))
    opened = None
    with suppress(FileNotFoundError):
        opened = _opened(files, compressed, is_compressed=True)
        if opened.index is not None:
            return opened
    try:
        found = _opened(files, plain, is_compressed=False)
    except FileNotFoundError:
        # It may have been replaced in between.
        return opened or _opened(files, compressed, is_compressed=True)
    if opened is not None:
        files.close(opened.fd)
    return found


def _opened(files: FileOps, path: Path, *, is_compressed: bool) -> _Opened:
    fd = files.open(path)
    if not is_compressed:
        return _Opened(fd, path, is_compressed=False)
    try:
        return _Opened(fd, path, True, read_index(files, fd, path))
    except BaseException:
        files.close(fd)
        raise


def _read(files: FileOps, opened: _Opened, position: int, size: int) -> bytes:
    if not opened.is_compressed:
        return read_around(files, opened.fd, size, position)
    end = position + size
    return read_compressed(files, opened.fd, opened.index, position, end)
