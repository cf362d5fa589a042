"""The inbox: what writers leave for the daemon to make files of.

A file in it is named by a token: the writer that left it, and a number. An event that
names the token follows, and says what is to become of the file; so one whose writer is
gone and which no event names is nobody's.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = (
    "check_inbox",
    "copy_into_inbox",
    "inbox_path",
    "is_token",
    "make_token",
    "orphans",
    "put_in_inbox",
)

COPY_SIZE = 1 << 30
_TOKEN = re.compile(r"([0-9a-f]{32})-[0-9]{1,18}")


def make_token(writer: str, number: int) -> str:
    """Return the name of the writer's file of this number."""
    return f"{writer}-{number}"


def is_token(name: str) -> bool:
    """Whether a writer makes such names."""
    return _TOKEN.fullmatch(name) is not None


def inbox_path(inbox: Path, token: str) -> Path:
    """Return where the file of a token lies.

    Raises:
        ValueError: No writer makes such tokens.
    """
    if not is_token(token):
        raise ValueError(f"{token[:80]!r} is no token")
    return inbox / token


def check_inbox(inbox: Path, token: str, size: int) -> str | None:
    """Return what is wrong with what was left for a file, if anything is."""
    try:
        found = inbox_path(inbox, token).stat().st_size
    except (ValueError, FileNotFoundError) as error:
        return f"what it was to be made of is missing: {error}"
    return None if found == size else f"of {size:,} bytes {found:,} are left"


def put_in_inbox(path: Path, pieces: "Iterable[bytes | memoryview]") -> int:
    """Write bytes to a new file in the inbox; no kill of this process undoes it.

    Returns:
        How many bytes that is.

    Raises:
        OSError: The disk refuses; nothing is left.
    """
    size = 0
    with _created(path) as target:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            size += view.nbytes
            while view:
                view = view[os.write(target, view) :]
    return size


def copy_into_inbox(path: Path, source: int) -> int:
    """Copy an open file to a new one in the inbox; return its size in bytes.

    Raises:
        OSError: The disk refuses; nothing is left.
    """
    with _created(path) as target:
        size = 0
        while sent := os.sendfile(target, source, size, COPY_SIZE):
            size += sent
    return size


@contextmanager
def _created(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(fd)


def orphans(inbox: Path, spool: Path) -> set[str]:
    """Return the names of files whose writers are gone, and of those of no token.

    Folders are somebody else's.
    """
    found = set()
    with os.scandir(inbox) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            token = _TOKEN.fullmatch(entry.name)
            if token is None or not (spool / token[1]).exists():
                found.add(entry.name)
    return found
