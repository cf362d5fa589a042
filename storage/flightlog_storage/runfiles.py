"""The files of a run: those that are stored, and those that are owed."""

from dataclasses import dataclass

from flightlog_storage.event import Pixels

__all__ = ("OwedFile", "SavedFile")


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of a run: `blob` is its sha256, `digest` its MD5 in base64."""

    name: str
    blob: str
    digest: str
    size: int
    updated_at: float


@dataclass(frozen=True, slots=True)
class OwedFile:
    """A file that was requested and is not made yet; see `event.FileRequested`."""

    token: str
    name: str
    size: int
    pixels: Pixels | None
