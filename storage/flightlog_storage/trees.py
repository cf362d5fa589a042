"""Trees: the files below a folder that is to be an asset, and how much they are.

No link is followed out of the folder, and nothing is left out silently.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flightlog_storage.paths import checked_path

__all__ = (
    "SKIPPED_MAX",
    "Entries",
    "Leaf",
    "Limits",
    "Scandir",
    "Survey",
    "leaves",
    "survey",
)

SKIPPED_MAX = 100  # As many are named; the others are counted.

Entries = AbstractContextManager[Iterator["os.DirEntry[str]"]]
Scandir = Callable[[str], Entries]
_Skip = Callable[[str, OSError | str], None]


class Leaf(NamedTuple):
    """A file of a tree: `source` is where its bytes are, a link's end."""

    path: str
    source: str
    status: os.stat_result

    @property
    def size(self) -> int:
        return self.status.st_size


class Limits(NamedTuple):
    """How much may be archived; None is as much as there is."""

    size_max: int | None = None
    file_count_max: int | None = None

    def check(self, what: str, size: int, file_count: int = 0) -> None:
        """Refuse what is too much.

        Raises:
            ValueError: It is; says what, and what to do.
        """
        advice = f"{what} too large to archive; set force_save=True or use save=False"
        if self.size_max is not None and size > self.size_max:
            limit = f"max_archive_bytes={self.size_max:,}"
            raise ValueError(f"{advice} ({size:,} bytes or more; {limit})")
        if self.file_count_max is not None and file_count > self.file_count_max:
            limit = f"max_archive_files={self.file_count_max:,}"
            raise ValueError(f"{advice} ({file_count:,} files or more; {limit})")


@dataclass(slots=True)
class Survey:
    """What a look at a file or folder found; `file_count` is None for a file."""

    mtime: float
    size: int = 0
    file_count: int | None = None
    newest_mtime: float = 0.0
    skipped_count: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # Path, and why.

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Return what changes when the file, or one of the folder's files, does."""
        if self.file_count is None:
            return {"size_bytes": self.size, "mtime": self.mtime}
        return {
            "mtime": self.mtime,
            "file_count": self.file_count,
            "total_size_bytes": self.size,
            "newest_mtime": self.newest_mtime,
        }

    def skip(self, path: str, error: OSError | str) -> None:
        """Note what is left out, and why."""
        self.skipped_count += 1
        if len(self.skipped) < SKIPPED_MAX:
            why = error if isinstance(error, str) else error.strerror or str(error)
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            self.skipped.append((shown, why))


def survey(
    path: str, never: str, limits: Limits, what: str, tick: Callable[[], object]
) -> Survey:
    """Look at names, sizes and times of a file, or of all files below a folder.

    Args:
        path: Where it is. A link is followed.
        never: A folder that is left out, silently.
        limits: What is the most that it may be.
        what: What it is called where it is more.
        tick: Called for each name; what it raises ends this.

    Raises:
        ValueError: It is more, or neither a file nor a folder.
        OSError: It is not there, or cannot be looked at.
    """
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode):
        limits.check(f"{what} file", status.st_size)
        return Survey(status.st_mtime, status.st_size)
    if not stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} is neither a regular file nor a folder")
    found = Survey(status.st_mtime, file_count=0)
    for count, leaf in enumerate(leaves(path, never, found.skip, tick), 1):
        found.file_count = count
        found.size += leaf.size
        found.newest_mtime = max(found.newest_mtime, leaf.status.st_mtime)
        limits.check(what, found.size, count)
    return found


def leaves(
    root: str,
    never: str,
    skip: _Skip,
    tick: Callable[[], object],
    scandir: Scandir = os.scandir,
) -> Iterator[Leaf]:
    """Yield the files below a folder, in no order; tell `skip` of what is left out.

    A link stands for the file that it leads to, if that lies in the folder, too.
    """
    root = os.path.realpath(root)
    folders = [""]
    while folders:
        below = folders.pop()
        try:
            with scandir(os.path.join(root, below)) as entries:
                for entry in entries:
                    tick()
                    path = below + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path != never:
                            folders.append(f"{path}/")
                    elif (leaf := _leaf(root, path, entry, skip)) is not None:
                        yield leaf
        except OSError as error:
            skip(below or ".", error)


def _leaf(root: str, path: str, entry: "os.DirEntry[str]", skip: _Skip) -> Leaf | None:
    source = entry.path
    try:
        checked_path(path)
        if entry.is_symlink():
            source = os.path.realpath(source)
            if not source.startswith(f"{root.rstrip('/')}/"):
                skip(path, "is a link that leads out of the folder")
                return None
        status = os.stat(source, follow_symlinks=False)
    except OSError as error:
        skip(path, "is a link that leads nowhere" if entry.is_symlink() else error)
        return None
    except ValueError as error:
        skip(path, str(error))
        return None
    if not stat.S_ISREG(status.st_mode):
        is_link = entry.is_symlink()
        skip(path, f"is {'a link to what is ' if is_link else ''}no regular file")
        return None
    return Leaf(path, source, status)
