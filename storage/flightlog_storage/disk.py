"""How full the disks of a home are: whether what can wait is to wait.

What is left near the end is for rows, and for what is said of runs.
"""

import errno
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from flightlog_storage.home import Home

__all__ = ("LOOK_INTERVAL_S", "DiskRoom", "DiskState", "parse_size", "read_disk")

LOW_WATER_MIN = 1 << 30  # Bytes that are to stay free …
LOW_WATER_SHARE = 50  # … or this part of the disk, if that is more …
LOW_WATER_SHARE_MAX = 10  # … but of a small disk no more than this part.
LOOK_INTERVAL_S = 1.0
# Low no more when this much above the mark: else what goes on would end it at once.
_MARGIN = 8
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


class DiskState(msgspec.Struct, frozen=True):
    """The disk of a home that is the nearest to its low-water mark, in bytes."""

    folder: str
    size: int
    free: int
    low_water: int
    is_low: bool


class DiskRoom:
    """Knows whether a home's disk is nearly full."""

    def __init__(
        self,
        home: Home,
        low_water: int | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`low_water` is what is to stay free, in bytes; None: see `read_disk`.

        Raises:
            OSError: The home cannot be looked at.
        """
        self._home = home
        self._low_water = low_water
        self._now = now
        self._looked_at = now()
        self.state = read_disk(home, low_water)

    @property
    def is_low(self) -> bool:
        """Whether it is, as of a second ago at most."""
        if self._now() - self._looked_at >= LOOK_INTERVAL_S:
            self.look()
        return self.state.is_low

    def check(self, size: int) -> None:
        """Make sure that so many bytes may be stored now of what can wait.

        Raises:
            OSError: It is to wait: alone (EFBIG), or with all else (ENOSPC).
        """
        if self.is_low:
            raise self._refusal(errno.ENOSPC, "the disk is nearly full")
        if size > self.state.free - self.state.low_water:
            message = f"{size:,} bytes more would make the disk nearly full"
            raise self._refusal(errno.EFBIG, message)

    def look(self) -> DiskState:
        """Return how the disk is now; where it cannot be looked at, as it was."""
        with suppress(OSError):  # What is to be stored meets it.
            was_low = self.state.is_low
            self.state = read_disk(self._home, self._low_water, was_low=was_low)
        self._looked_at = self._now()
        return self.state

    def _refusal(self, number: int, message: str) -> OSError:
        return OSError(number, message, os.fspath(self._home.staging))


def read_disk(
    home: Home, low_water: int | None = None, *, was_low: bool = False
) -> DiskState:
    """Return how full the disk of the home is; of several, the one that counts.

    Args:
        home: Its folders may lie on disks of their own.
        low_water: What is to stay free, in bytes. By default a fiftieth of a disk and
            1 GiB at least, but a tenth at most.
        was_low: Whether it was low before; then a bit more has to be free.

    Raises:
        OSError: The home cannot be looked at.
    """
    folders = (home.root, home.log, home.spool, home.blobs, home.inbox, home.staging)
    found = [
        _read(os.fspath(folder), low_water, was_low)
        for folder in (*folders, home.histories)
        if folder == home.root or folder.exists()
    ]
    return min(found, key=lambda state: state.free - state.low_water)


def parse_size(text: str) -> int | None:
    """Return a number of bytes such as 500000, 64MiB or 1.5G; None: it is none.

    A unit is a power of 1,024, however it is written.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = match.groups()
    return round(float(number) * (1 << _UNITS[unit.lower()]))


def _read(folder: str, low_water: int | None, was_low: bool) -> DiskState:
    found = os.statvfs(folder)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    if low_water is None:
        low_water = max(LOW_WATER_MIN, size // LOW_WATER_SHARE)
        low_water = min(low_water, size // LOW_WATER_SHARE_MAX)
    wanted = low_water + low_water // _MARGIN * was_low
    return DiskState(folder, size, free, low_water, free < wanted)
