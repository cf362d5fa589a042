"""Files that a user names, opened to be copied."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from flightlog._checks import check_path
from flightlog._media import FileKind, MediaFiles
from flightlog_storage.inbox import copy_into_inbox

__all__ = ("SourceFile", "open_source", "opened_source")


def open_source(path: "str | os.PathLike[str]", what: str) -> int:
    """Open a file that is called `what`; return its descriptor.

    Raises:
        FileNotFoundError: It is not there.
        TypeError: It is no path.
        ValueError: It is no regular file.
        OSError: It cannot be opened.
    """
    path = check_path(what, path)
    try:
        # Not blocked by a pipe of that name.
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what} not found: {path}") from error
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise ValueError(f"{what} {path} is not a regular file")
    except BaseException:
        os.close(source)
        raise
    return source


@contextmanager
def opened_source(path: "str | os.PathLike[str]", what: str) -> Iterator[int]:
    """Give a file's descriptor, until it is closed; raises as `open_source`."""
    source = open_source(path, what)
    try:
        yield source
    finally:
        os.close(source)


class SourceFile:
    """A file that a value is made of: there now, and copied when that is logged."""

    def __init__(self, path: "str | os.PathLike[str]", what: str) -> None:
        """Take a file, called `what` where it is not there.

        Raises:
            FileNotFoundError: It is not there.
            ValueError: It is no regular file.
            OSError: It cannot be opened.
        """
        self.path = os.path.abspath(check_path(what, path))
        self._what = what
        os.close(open_source(self.path, what))

    @property
    def extension(self) -> str:
        """As its name has it, in small letters; "" if it could be none."""
        found = os.path.splitext(self.path)[1][1:].lower()
        return found if found.isalnum() and found.isascii() else ""

    def leave(self, key: str, kind: FileKind, files: MediaFiles) -> str:
        """Leave a copy; return its path in the run. Raises as the constructor."""
        with opened_source(self.path, self._what) as source:
            return files.leave(key, kind, partial(copy_into_inbox, source=source))
