"""The archiver: surveys and archives assets, in a lane of its own.

That may take hours; meanwhile images are encoded. It runs no code but ours over bytes
that it does not look into, so that it counts no deaths, as the lane of files does: a
job of that lane which ends the process again and again must not end an archive.
"""

import logging
import os
import time
from contextlib import nullcontext

from flightlog_storage.archive import Archive
from flightlog_storage.artifact_state import RunName
from flightlog_storage.assets import ARCHIVE, Asset
from flightlog_storage.blobs import BlobGone
from flightlog_storage.database import Database
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.event import AssetCompleted, AssetFailed
from flightlog_storage.home import Home
from flightlog_storage.trees import Limits, survey
from flightlogd.lane import Lane, Stopped
from flightlogd.progress import ProgressFile

__all__ = ("Archiver",)

logger = logging.getLogger(__name__)


class Archiver(Lane[Asset]):
    """Does what is owed of assets, as long as the disk has room for it."""

    def __init__(self, home: Home, room: DiskRoom) -> None:
        super().__init__(home)
        self._room = room
        self._progress = ProgressFile(home.progress)
        self._archive = Archive(home, self._tick, self._progress.add, room)
        # What was done and not yet said: to do it again may take hours.
        self._untold: dict[str, AssetCompleted | AssetFailed] = {}

    def read(self, database: Database, limit: int) -> list[tuple[RunName, Asset]]:
        return database.owed_assets(limit)

    def work(self) -> bool:
        return self.durable is None if self._room.is_low else super().work()

    def do(self, run: RunName, owed: Asset) -> None:
        if owed.token not in self._untold:
            self._untold[owed.token] = self._outcome(run, owed)
        event = self._untold[owed.token]
        naming = (
            nullcontext()
            if isinstance(event, AssetFailed)
            else self._archive.naming(event)
        )
        try:
            with naming:
                self._reporter.tell(run, event)
        except BlobGone:
            del self._untold[owed.token]
            raise
        del self._untold[owed.token]

    def _outcome(self, run: RunName, owed: Asset) -> AssetCompleted | AssetFailed:
        """Do what is owed, or find that it cannot be done.

        Raises:
            OSError: The home's disk refuses.
            Stopped: The process is to end.
        """
        self._progress.begin(owed.token)
        try:
            return self._complete(owed)
        except (ValueError, SourceUnusable, OSError) as error:
            if isinstance(error, OSError) and self._archive.is_ours(error):
                raise
            # A name in it may be no text.
            reason = str(error).encode("utf-8", "backslashreplace").decode()
            logger.error("%s of run %s is lost: %s", owed.name, "/".join(run), reason)
            return AssetFailed(time=time.time(), token=owed.token, reason=reason)
        finally:
            self._progress.end()

    def _complete(self, asset: Asset) -> AssetCompleted:
        """Do what is owed.

        Raises:
            ValueError: It is too large, or nothing that can be archived.
            SourceUnusable: A file changes each time it is read.
            OSError: It cannot be read; or the home's disk refuses.
        """
        if asset.path is None:
            raise ValueError("it has no path on this machine")
        limits = Limits(asset.size_max, asset.file_count_max)
        never = self._archive.never
        found = survey(asset.path, never, limits, asset.kind, self._tick)
        if asset.job != ARCHIVE:
            return AssetCompleted(
                time=time.time(),
                token=asset.token,
                fingerprint=found.fingerprint,
                size=found.size,
                file_count=found.file_count,
                skipped=found.skipped,
                skipped_count=found.skipped_count,
            )
        self._progress.expect(found.size, found.file_count or 1)
        if found.file_count is None:
            kept = self._archive.keep_file(os.path.realpath(asset.path))
        else:
            kept = self._archive.keep_folder(asset.path)
        if kept.skipped:
            logger.warning("%s: %d are left out", asset.path, kept.skipped_count)
        return AssetCompleted(time=time.time(), token=asset.token, **kept.told)

    def _tick(self) -> None:
        if self._stopping.is_set():
            raise Stopped
