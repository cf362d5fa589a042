"""How far the files at rest are read again, as the daemon notes it in the home."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from flightlog_storage.files import read_file

__all__ = ("Scrubbing", "read_scrubbing", "write_scrubbing")


class Scrubbing(msgspec.Struct):
    """How far a pass is: all up to the file `last` was read.

    `ended_at` is 0 as long as it has not ended; `damaged` are the files that were found
    to be, and not mended; `earlier` those of the last pass, until they are read again.
    """

    began_at: float
    ended_at: float = 0.0
    last: str = ""
    files: int = 0
    damaged: list[str] = []
    earlier: list[str] = []

    @property
    def known(self) -> list[str]:
        """All files that are damaged, as far as is known."""
        return self.earlier + self.damaged


def read_scrubbing(path: Path) -> Scrubbing | None:
    """Return how far the last pass was, if there was one."""
    try:
        return msgspec.json.decode(read_file(path), type=Scrubbing)
    except (OSError, msgspec.MsgspecError):
        return None


def write_scrubbing(path: Path, scrubbing: Scrubbing) -> None:
    """Note how far a pass is; what a crash loses is read once more."""
    new = path.with_name(f"{path.name}.new")
    with suppress(OSError):  # A full disk: then it is.
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(scrubbing))
        os.replace(new, path)
