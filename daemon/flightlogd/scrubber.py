"""The scrubber: reads what lies still, slowly, and has mended what the log can mend."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable

from flightlog_storage.database import SavedPart
from flightlog_storage.errors import StorageError
from flightlog_storage.home import Home
from flightlog_storage.scrub import Scrubbed, scrub
from flightlog_storage.scrubbing import Scrubbing, read_scrubbing, write_scrubbing
from flightlogd.lane import Stopped

__all__ = ("Scrubber",)

logger = logging.getLogger(__name__)

SCRUB_RATE = 8 << 20  # Bytes a second: what else reads and writes comes first.
SCRUB_FIRST_AFTER_S = 600.0
SAVE_INTERVAL_S = 30.0


class Scrubber:
    """Makes a pass over the home whenever the last one is long enough ago."""

    def __init__(
        self, home: Home, interval_s: float, mend: Callable[[SavedPart], bool]
    ) -> None:
        """`mend` makes a part anew, and returns whether it could."""
        self._home = home
        self._interval_s = interval_s
        self._mend = mend
        self._stopping = threading.Event()

    @property
    def pause_s(self) -> float:
        """How long to wait until the next look at whether a pass is due."""
        return min(self._interval_s, SCRUB_FIRST_AFTER_S)

    def scrub(self) -> None:
        """Make a pass, or what is left of one, if it is due."""
        now = time.time()
        found = read_scrubbing(self._home.scrubbing)
        if found is None or found.ended_at:
            # A clock that was set back must not keep it from that.
            if found is not None and 0 <= now - found.ended_at < self._interval_s:
                return
            earlier = [] if found is None else found.known
            found = Scrubbing(began_at=now, earlier=earlier)
        try:
            self._go_on(found)
            found.earlier = []  # What is left of them is gone.
            found.ended_at = time.time()
        except Stopped:
            pass
        except (StorageError, OSError, sqlite3.Error) as error:
            logger.warning("files at rest cannot be read again: %s", error)
        write_scrubbing(self._home.scrubbing, found)

    def stop(self) -> None:
        """Have `scrub` end soon, from another thread."""
        self._stopping.set()

    def _go_on(self, scrubbing: Scrubbing) -> None:
        saved_at = time.monotonic()
        for each in scrub(self._home, scrubbing.last, self._pace):
            self._pace(0)
            if each.name in scrubbing.earlier:
                scrubbing.earlier.remove(each.name)
            if each.what is not None and not self._is_mended(each):
                scrubbing.damaged.append(each.name)
                saved_at = 0.0
            scrubbing.last = each.name
            scrubbing.files += 1
            if time.monotonic() - saved_at > SAVE_INTERVAL_S:
                write_scrubbing(self._home.scrubbing, scrubbing)
                saved_at = time.monotonic()

    def _is_mended(self, found: Scrubbed) -> bool:
        if found.part is not None and self._mend(found.part):
            logger.warning("%s: %s; made anew from the log", found.name, found.what)
            return True
        logger.error("%s: %s; see flightlog doctor", found.name, found.what)
        return False

    def _pace(self, size: int) -> None:
        if self._stopping.wait(size / SCRUB_RATE):
            raise Stopped
