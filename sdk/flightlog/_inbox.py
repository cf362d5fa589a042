"""The inbox as a writer has it: files left for the daemon, each under its own token."""

import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flightlog._say import say
from flightlog_storage.event import Event, FileRequested, Gap, Pixels
from flightlog_storage.home import Home
from flightlog_storage.inbox import inbox_path, make_token

if TYPE_CHECKING:
    from flightlog._recording import Recording

__all__ = ("Inbox", "LeftFile")


class LeftFile(NamedTuple):
    """A file in the inbox that is to be called `name` among the run's files."""

    name: str
    token: str
    path: Path
    size: int

    def request(self, pixels: Pixels | None = None) -> FileRequested:
        """Return the event that it is owed."""
        return FileRequested(
            time=time.time(),
            name=self.name,
            token=self.token,
            size=self.size,
            pixels=pixels,
        )


class Inbox:
    """Leaves files; what the disk refuses is told once, and counted."""

    def __init__(self, home: Home, record: Callable[[Event], None]) -> None:
        self._home = home
        self._record = record
        self._numbers = count()
        self._has_warned = False

    def leave(
        self, recording: "Recording", name: str, put: Callable[[Path], int]
    ) -> LeftFile | None:
        """Leave the file that `put` writes and tells the size of; None: it is lost."""
        token = make_token(recording.folder.name, next(self._numbers))
        path = inbox_path(self._home.inbox, token)
        try:
            return LeftFile(name, token, path, put(path))
        except OSError as error:
            self._lose(name, error)
            return None

    def take_back(self, requested: FileRequested) -> None:
        """Delete a file that was left and is not owed any more."""
        inbox_path(self._home.inbox, requested.token).unlink(missing_ok=True)

    def _lose(self, name: str, error: OSError) -> None:
        reason = f"the disk refused {name}: {error}"
        if not self._has_warned:
            self._has_warned = True
            say(f"{reason}; this is lost and counted, training goes on")
        self._record(Gap(time=time.time(), count=1, reason=reason))
