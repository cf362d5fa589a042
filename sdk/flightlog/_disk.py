"""What a full disk, or one that fails, refuses."""

import errno

from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home

__all__ = ("make_home", "refuses")

_DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO))


def refuses(error: OSError) -> bool:
    """Whether it is the disk that is full or fails, and not its user who errs."""
    return error.errno in _DISK_ERRORS


def make_home(home: Home) -> None:
    """Make a home's folders.

    Raises:
        HomeUnusable: They cannot be made, are not ours, or hold something else.
        OSError: The disk refuses.
    """
    try:
        home.create()
    except HomeUnusable as error:
        if isinstance(error.__cause__, OSError) and refuses(error.__cause__):
            raise error.__cause__ from None
        raise
