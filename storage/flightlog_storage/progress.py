"""Progress: how far the daemon is with the archive that it is at, for who asks.

A small file in the home that is replaced now and then. It is never synced, for it is
worth nothing later; who reads it asks whether its process lives.
"""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from flightlog_storage.files import read_file
from flightlog_storage.process import ProcessIdentity

__all__ = ("Progress", "read_progress", "write_progress")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is; `token` is that of what is owed, times are since 1970.

    Totals are None as long as they are not known.
    """

    token: str
    process: ProcessIdentity
    began_at: float
    told_at: float
    size: int = 0
    file_count: int = 0
    size_total: int | None = None
    file_count_total: int | None = None

    @property
    def speed(self) -> float:
        """In bytes a second, since it began."""
        return self.size / max(self.told_at - self.began_at, 1e-3)


def write_progress(path: Path, progress: Progress | None) -> None:
    """Replace what is said of progress; None: there is no job."""
    with suppress(OSError):  # A full disk: then nobody sees it.
        if progress is None:
            path.unlink(missing_ok=True)
            return
        new = path.with_name(f"{path.name}.new")
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(progress))
        os.replace(new, path)


def read_progress(path: Path) -> Progress | None:
    """Return how far the job is that a living process is at, if one is."""
    try:
        found = msgspec.json.decode(read_file(path), type=Progress)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.process.is_alive() else None
