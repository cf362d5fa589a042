"""News of the folders that were looked into: whether another look is of any use.

What the kernel tells spares looks, and nothing rests on it. There are changes that it
does not tell: writes through a mapping, or through another name of a file.
"""

import errno
import os
from collections.abc import Callable, Sequence

from flightlog_storage.inotify import FolderEvent, FolderWatch, is_told_of_all
from flightlog_storage.trees import Entries

__all__ = ("FOLDERS_MAX", "FolderNews")

FOLDERS_MAX = 16_384  # A watch; each costs the kernel 1 to 2 kB.
# Each folder tells once and is then looked into again, so that who writes all the time
# pays for one word. Our own reading makes none.
_EVENTS = (
    FolderEvent.MODIFIED
    | FolderEvent.ATTRIBUTES_CHANGED
    | FolderEvent.WRITTEN
    | FolderEvent.MOVED_FROM
    | FolderEvent.MOVED_TO
    | FolderEvent.CREATED
    | FolderEvent.DELETED
    | FolderEvent.SELF_DELETED
    | FolderEvent.SELF_MOVED
    | FolderEvent.ONCE
)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOSYS)


class FolderNews:
    """Knows whether something changed below some folders since they were looked into.

    In doubt something did.
    """

    def __init__(
        self,
        dirs: Sequence[str],
        tell: Callable[[str], None],
        *,
        is_able: bool = True,
    ) -> None:
        """`tell` is told why there will be no news, if the system has no more.

        Without `is_able` there never is any.
        """
        self._dirs = dirs
        self._tell = tell
        self._roots: list[tuple[int, int, int] | None] = []
        self._watch: FolderWatch | None = None
        self._count = 0
        self._is_able = is_able

    def begin(self) -> None:
        """Forget what there was: all folders are going to be looked into."""
        # What was moved out of them is not to be watched for ever.
        self.close()
        self._count = 0
        self._roots = [_identity(each) for each in self._dirs]
        if self._is_able:
            try:
                self._watch = FolderWatch([], _EVENTS)
            except OSError as error:
                self._do_without(error)

    def scandir(self, folder: str) -> Entries:
        """List a folder, of which there will be news from before on."""
        if self._watch is not None:
            try:
                self._add(self._watch, folder)
            except FileNotFoundError:
                pass  # If it comes back, the folder above tells, or `_roots`.
            except OSError as error:
                self._do_without(error)
        return os.scandir(folder)

    def is_quiet(self) -> bool:
        """Whether nothing has changed since `begin`, and that would be known."""
        return (
            self._watch is not None
            and self._roots == [_identity(each) for each in self._dirs]
            and not self._watch.wait(0)
        )

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _add(self, watch: FolderWatch, folder: str) -> None:
        self._count += 1
        if self._count > FOLDERS_MAX:
            raise OSError(errno.ENOSPC, f"more than {FOLDERS_MAX:,} folders")
        if not is_told_of_all(folder):
            raise OSError(errno.EOPNOTSUPP, "others may change it")
        watch.add(folder)

    def _do_without(self, error: OSError) -> None:
        """Have no news, at least until the next look."""
        self.close()
        if error.errno in _EXHAUSTED:
            self._is_able = False
            self._tell(f"looked for by the clock alone: {error.strerror}")


def _identity(folder: str) -> tuple[int, int, int] | None:
    """Return what tells a folder from another in its place, or that it was away."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns
