"""The outputs of a live run: looked for when it is asked, or watched by the daemon.

Loaded on first use, for looking for them needs more of storage than the contract.
"""

import concurrent.futures.thread  # noqa: F401  # It cannot be loaded at exit.
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flightlog._say import say
from flightlog._spec import RunSpec
from flightlog_storage.archive import Archive
from flightlog_storage.assets import Asset, asset_of_output
from flightlog_storage.blobs import BlobStore
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import StorageError
from flightlog_storage.event import (
    Event,
    Looking,
    OutputArchived,
    OutputsWatchStarted,
    OutputsWatchStopped,
    StoringBegun,
    StoringEnded,
)
from flightlog_storage.outputs import Memory, Scan, Scanner

__all__ = ("Outputs",)

SAID_MAX = 20  # Lines about what is left out, or cannot be read.


class _Left(Exception):  # No error: the daemon goes on.
    """The look was left, for the process is to end."""


class Outputs:
    """Looks for outputs in this process, and says what the daemon is to watch."""

    def __init__(self, spec: RunSpec, record: Callable[[Event], None]) -> None:
        self._spec = spec
        self._record = record
        self._looking = threading.RLock()  # Of two that look at once, one waits.
        self._lock = threading.RLock()  # Of the watches: held for a moment only.
        self._memory = Memory()
        self._leaving = threading.Event()
        self._watches: dict[tuple[bytes, float], OutputsWatchStarted] = {}
        self._said_count = 0
        self._is_refused = False  # By the home's disk, at the last look.
        self.is_looked_through = False  # All that is watched, for the last time.

    @property
    def is_watched(self) -> bool:
        return bool(self._watches)

    def scan(self, looking: Looking) -> dict[str, Any]:
        """Look now; return what came of it, as Runicorn does."""
        with self._looking:
            scan = self._look(looking, self._record)
        archived = len(scan.archived)
        return {
            "run_id": self._spec.id,
            "scanned": scan.scanned,
            "archived": archived,
            "changed": archived,
            "archived_entries": [self._entry(event) for event in scan.archived],
        }

    def watch(self, looking: Looking, interval_s: float) -> None:
        """Have the daemon look, again and again; the same again changes nothing."""
        event = OutputsWatchStarted(
            time=time.time(),
            token=uuid.uuid4().hex,
            interval_s=interval_s,
            looking=looking,
        )
        with self._lock:
            same = (repr(looking).encode(), interval_s)
            if same not in self._watches:
                self._watches[same] = event
                self._record(event)

    def stop(self) -> None:
        """Have nothing watched any more."""
        with self._lock:
            watches = [*self._watches.values()]
            self._watches.clear()
            for watch in watches:
                self._record(OutputsWatchStopped(time=time.time(), token=watch.token))

    def finish(self, record: Callable[[Event], None]) -> None:
        """Look through all that is watched once more, with all at rest, and stop it.

        What cannot be archived now stays the daemon's, which looks after the run's end.
        """
        with self._looking, suppress(_Left):
            for same, watch in [*self._watches.items()]:
                scan = self._look(watch.looking, record, is_last=True)
                with self._lock:  # It may have been stopped meanwhile.
                    is_open = self._watches.pop(same, None) is not None
                if is_open and scan.is_whole:
                    record(OutputsWatchStopped(time=time.time(), token=watch.token))
            self.is_looked_through = True

    def leave(self) -> None:
        """End a look that another thread is at."""
        self._leaving.set()

    def _look(
        self,
        looking: Looking,
        record: Callable[[Event], None],
        *,
        is_last: bool = False,
    ) -> Scan:
        # What is asked for is done now; the last of a watch may wait, for the daemon.
        room = DiskRoom(self._spec.home, self._spec.low_water) if is_last else None
        archive = Archive(self._spec.home, self._tick, room=room)
        scanner = Scanner(looking, archive, self._tell, self._tick, self._memory)
        scan = scanner.scan(self._known(), record, is_last=is_last)
        if scan.error is None:
            self._is_refused = False
        elif not self._is_refused and not is_last:
            self._is_refused = True
            self._lose(scan.error)
        return scan

    def _known(self) -> Callable[[str], Asset | None]:
        """Return what tells what was archived last of an output, by anybody."""
        # Loaded only here: it brings the reading side with it.
        from flightlog_storage.reader import HomeReader

        spec = self._spec
        try:
            state = HomeReader(spec.home).state((spec.entity, spec.project, spec.id))
        except (OSError, StorageError, sqlite3.Error):
            return lambda key: None  # Then it is read again: equal bytes are one.
        return (lambda key: None) if state is None else state.last_outputs.get

    def _entry(self, event: OutputArchived) -> dict[str, Any]:
        asset = asset_of_output(event, serial=0)
        home = self._spec.home
        path = BlobStore(home.blobs).path(event.blob or event.manifest or "")
        is_file = event.file_count is None
        return {
            "key": event.key,
            "name": asset.name,
            "kind": "file" if is_file else "dir",
            "path": asset.path,
            "saved": True,
            "archive_path": path.relative_to(home.root).as_posix(),
            "fingerprint_kind": "sha256" if is_file else "sha256_manifest",
            "fingerprint": event.fingerprint,
            "mode": event.mode,
            "archived_at": int(event.time),
        }

    def _lose(self, error: OSError) -> None:
        say(f"outputs cannot be archived: {error}; this is counted, and tried again")
        now = time.time()
        self._record(StoringBegun(time=now, what="outputs"))
        self._record(StoringEnded(time=now, reason=f"outputs: {error}"))

    def _tell(self, text: str) -> None:
        if self._said_count < SAID_MAX:
            self._said_count += 1
            say(f"outputs: {text}")

    def _tick(self) -> None:
        if self._leaving.is_set():
            raise _Left
