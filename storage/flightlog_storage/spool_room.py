"""How far spools may grow: one writer's, and all of a home together."""

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from flightlog_storage.spool import chunk_path

__all__ = ("SpoolCaps", "SpoolRoom")

LOOK_INTERVAL_S = 1.0


class SpoolCaps(msgspec.Struct, frozen=True):
    """How many bytes of chunks a writer's spool, and all of a home, may have.

    0 is no end but the disk's.
    """

    own: int = 16 << 30
    all: int = 64 << 30


class SpoolRoom:
    """Says whether a spool may have one chunk more.

    What all have together is looked at elsewhere than in `log()`, for there may be
    thousands of chunks; until it is, each may grow.
    """

    def __init__(
        self, spool: Path, caps: SpoolCaps, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._spool = spool
        self._caps = caps
        self._now = now
        self._own: deque[tuple[int, int]] = deque()  # Number and size of each chunk.
        self._own_size = 0
        self._has_grown = False  # Since the last look.
        self._looked_at = -LOOK_INTERVAL_S
        self._full = ""  # What all have together, if that is too much.

    def check(self, folder: Path, size: int) -> None:
        """Make sure that the spool in this folder may grow by so many bytes.

        Raises:
            OSError: It may not (EDQUOT).
        """
        while self._own and not chunk_path(folder, self._own[0][0]).exists():
            self._own_size -= self._own.popleft()[1]  # It is durable in the log.
        if self._caps.own and self._own_size + size > self._caps.own:
            raise OSError(
                errno.EDQUOT,
                f"it has {self._own_size:,} bytes; FLIGHTLOG_SPOOL_SIZE_MAX is "
                f"{self._caps.own:,}",
            )
        if self._full:
            raise OSError(errno.EDQUOT, self._full)

    def add(self, number: int, size: int) -> None:
        """Note a chunk that was made."""
        self._own.append((number, size))
        self._own_size += size
        self._has_grown = True

    def look(self) -> None:
        """Look at all spools of the home, if that may tell something new."""
        now = self._now()
        is_new = self._has_grown or self._full
        if not (self._caps.all and is_new) or now < self._looked_at + LOOK_INTERVAL_S:
            return
        self._looked_at = now
        self._has_grown = False
        size = _size_of_all(self._spool)
        self._full = (
            f"the home's spools have {size:,} bytes; FLIGHTLOG_SPOOLS_SIZE_MAX is "
            f"{self._caps.all:,}"
            if size >= self._caps.all
            else ""
        )


def _size_of_all(spool: Path) -> int:
    try:
        return sum(_size_of(os.path.join(spool, name)) for name in os.listdir(spool))
    except OSError:
        return 0  # Somebody has deleted it.


def _size_of(folder: str) -> int:
    size = 0
    with suppress(OSError), os.scandir(folder) as entries:  # Or it is gone by now.
        for entry in entries:
            if entry.name.endswith(".chunk"):
                with suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_size
    return size
