"""What can go wrong in storage.

StorageError
├── CorruptData      bytes on disk or wire do not match their checksum or format
├── LimitExceeded    something is larger than its named limit
├── MalformedEvent   an event that is well-formed msgpack but not an event we accept
├── SourceUnusable   a file to be stored is none, or does not hold still
├── ExportUnusable   a file is no export, or one that is not to be taken in
├── HomeUnusable     the home folder cannot be used as it is
└── HomeLocked       another daemon serves this home
"""

from pathlib import Path

__all__ = (
    "CorruptData",
    "ExportUnusable",
    "HomeLocked",
    "HomeUnusable",
    "LimitExceeded",
    "MalformedEvent",
    "SourceUnusable",
    "StorageError",
)


class StorageError(Exception):
    """Base of all errors of this package."""


class CorruptData(StorageError):
    """Bytes do not match their checksum or their format."""

    def __init__(self, where: str, position: int, why: str) -> None:
        super().__init__(f"{where}: corrupt at byte {position}: {why}")
        self.where = where
        self.position = position
        self.why = why


class LimitExceeded(StorageError):
    """Something is larger than its named limit."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"{what} is {size:,} bytes; the limit is {limit:,}")
        self.what = what
        self.size = size
        self.limit = limit


class MalformedEvent(StorageError):
    """An event was refused; the events around it were not."""


class SourceUnusable(StorageError):
    """A file that is to be stored is no regular file, or does not hold still."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class ExportUnusable(StorageError):
    """A file is no export, is damaged, or holds what no export may hold."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class HomeUnusable(StorageError):
    """The home folder cannot be used as it is."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class HomeLocked(StorageError):
    """Another daemon serves this home."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: another daemon holds the lock")
        self.path = path
