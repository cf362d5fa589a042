"""The compressor: makes sealed segments of the log smaller, one at a time."""

import logging
import threading

from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.compression import (
    Sealed,
    compress,
    compressible,
    has_room,
    replacing,
)
from flightlog_storage.errors import StorageError
from flightlog_storage.files import RealFiles
from flightlog_storage.home import Home
from flightlogd.lane import Stopped
from flightlogd.wakes import Durable

__all__ = ("Compressor",)

logger = logging.getLogger(__name__)


class Compressor:
    """Compresses segments that are folded and that nobody writes to any more."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stopping = threading.Event()
        self._left: set[int] = set()  # Segments that stay as they are.
        self._done: int | None = None  # All before this segment are compressed.
        self._told = ""  # What the disk said last.
        self.durable: Durable | None = None

    def compress(self) -> bool:
        """Compress the first segment there is; return whether there may be more."""
        durable = self.durable
        if durable is None or durable.end.segment_first_offset == self._done:
            return False
        # Readers go through what is not folded again and again.
        folded = read_checkpoint(self._home.state)
        before = min(folded.segment_first_offset, durable.end.segment_first_offset)
        try:
            sealed = self._next(before)
            if sealed is not None:
                return self._is_compressed(sealed)
            if before == durable.end.segment_first_offset:
                self._done = before
        except (Stopped, BlockingIOError):
            pass  # Others are at the log, or this process is to end.
        except (StorageError, OSError) as error:
            if str(error) != self._told:
                logger.warning("the log cannot be compressed: %s", error)
            self._told = str(error)
        return False

    def stop(self) -> None:
        """Have `compress` end soon, from another thread."""
        self._stopping.set()

    def _next(self, before: int) -> Sealed | None:
        for sealed in compressible(self._home.log, RealFiles(), before):
            if sealed.header.first_offset not in self._left:
                return sealed
        return None

    def _is_compressed(self, sealed: Sealed) -> bool:
        """Compress a segment, if it may be; return whether the next one may follow."""
        if not has_room(self._home.log):
            return False  # That the disk is full is told elsewhere.
        with replacing(self._home.log):
            made = compress(self._home.log, RealFiles(), sealed, self._tick)
        if made is None:
            self._left.add(sealed.header.first_offset)
        return True

    def _tick(self, size: int) -> None:
        if self._stopping.is_set():
            raise Stopped
