"""Telling how far the archiver is, at most once a second."""

import time
from pathlib import Path

from flightlog_storage.process import this_process
from flightlog_storage.progress import Progress, write_progress

__all__ = ("ProgressFile",)

INTERVAL_S = 1.0


class ProgressFile:
    """Counts what a job has done, and has the home say so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = this_process()
        self._next_at = 0.0
        self.end()

    def begin(self, token: str) -> None:
        """Begin to count, for this job."""
        self._token = token
        self._began_at = time.time()
        self._size = self._file_count = 0
        self._totals: tuple[int | None, int | None] = (None, None)
        self._tell()

    def expect(self, size: int, file_count: int) -> None:
        """Say how much it will be."""
        self._totals = (size, file_count)
        self._tell()

    def add(self, size: int, file_count: int) -> None:
        """Count what was done."""
        self._size += size
        self._file_count += file_count
        if time.monotonic() >= self._next_at:
            self._tell()

    def end(self) -> None:
        """Say that there is no job."""
        write_progress(self._path, None)

    def _tell(self) -> None:
        self._next_at = time.monotonic() + INTERVAL_S
        write_progress(
            self._path,
            Progress(
                token=self._token,
                process=self._process,
                began_at=self._began_at,
                told_at=time.time(),
                size=self._size,
                file_count=self._file_count,
                size_total=self._totals[0],
                file_count_total=self._totals[1],
            ),
        )
