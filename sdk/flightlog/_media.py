"""Media: values of `log()` that have files, or a form of their own in a row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from flightlog_storage.event import Pixels

__all__ = ("FileKind", "Media", "MediaFiles")


class FileKind(NamedTuple):
    """Where among the run's files one is, and how its name ends."""

    folder: str
    extension: str


class MediaFiles(Protocol):
    """Takes in the files that values need."""

    def leave(
        self,
        key: str,
        kind: FileKind,
        put: Callable[[Path], int],
        pixels: Pixels | None = None,
    ) -> str:
        """Have `put` write a file, for the daemon; return its path in the run.

        With `pixels` the daemon encodes it.
        """
        ...


class Media:
    """A value that says itself what is to stand for it in a row."""

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in the row, under `key`; its files are left.

        Raises:
            OSError: A file that it was given cannot be read any more.
            TypeError: What it was given has changed into what cannot be.
            ValueError: As above.
        """
        raise NotImplementedError

    @classmethod
    def together(cls, described: list[dict[str, Any]]) -> Any:
        """Return what stands for a list of such values."""
        return described
