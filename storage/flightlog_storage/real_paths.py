"""Real paths: opened part by part, so that no link is followed, wherever it is.

Between a look at a folder and the reading of a file in it, somebody may put a link in
the place of the folder, or of one above: what it leads to was not meant.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ("open_real", "read_real_link")

# On Linux a folder that may be passed through need not be one that may be listed.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


def open_real(path: Path, flags: int) -> int:
    """Open a file by an absolute path that has no links in it.

    Raises:
        OSError: It has one, or cannot be opened.
    """
    with _folder_of(path) as folder:
        return os.open(path.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def read_real_link(path: Path) -> bytes:
    """Return what a link holds that lies at an absolute path without others in it.

    Raises:
        OSError: There is another, or the link cannot be read.
    """
    with _folder_of(path) as folder:
        return os.readlink(os.fsencode(path.name), dir_fd=folder)


@contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    fd = os.open(path.anchor, _PASS)
    try:
        for part in path.parts[1:-1]:
            above, fd = fd, os.open(part, _PASS | os.O_NOFOLLOW, dir_fd=fd)
            os.close(above)
        yield fd
    finally:
        os.close(fd)
