"""Zip archives: written whole or not at all, the same bytes for the same content."""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flightlog_storage.files import RealFiles
from flightlog_storage.staging import scratch_folder

__all__ = ("FIRST_TIME", "member", "written_zip")

FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # The first that a zip archive can say.


@contextmanager
def written_zip(
    target: Path,
    *,
    put: Callable[[Path, Path], object] = os.rename,
    level: int | None = None,
) -> Iterator[tuple[zipfile.ZipFile, Path]]:
    """Give an archive to write to, and a folder beside it that is gone afterwards.

    It appears at `target` when it is whole and durable; until then, and if this ends
    with an error, what was there stays.

    Args:
        target: Where it is to be.
        put: What gives it that name; a rename replaces what is there.
        level: Of its compression.

    Raises:
        OSError: It cannot be written.
    """
    with scratch_folder(target.parent) as scratch:
        path = scratch / "whole.zip"
        with open(path, "xb") as file:
            with zipfile.ZipFile(file, "w", compresslevel=level) as archive:
                yield archive, scratch
            file.flush()
            os.fsync(file.fileno())
        put(path, target)
    RealFiles().fsync_dir(target.parent)


def member(path: str, mode: int = stat.S_IFREG, size: int = 0) -> zipfile.ZipInfo:
    """Return what is said of a file or link; of its mode whether it is executable.

    `size` is its size, if it is to be written piece by piece.
    """
    if stat.S_ISLNK(mode):
        mode = stat.S_IFLNK | 0o777
    else:
        mode = stat.S_IFREG | (0o755 if mode & 0o111 else 0o644)
    info = zipfile.ZipInfo(path, FIRST_TIME)
    info.create_system = 3  # Unix, which gives the mode its meaning.
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    info.file_size = size  # Tells whether it needs the large format.
    return info
