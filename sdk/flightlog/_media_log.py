"""Media of a live run: the caller pays for a copy, the daemon does the rest."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog._inbox import Inbox
from flightlog._media import FileKind
from flightlog._stand_ins import has_media, stand_in
from flightlog.errors import UsageError
from flightlog_storage.event import Event, FileRequested, Pixels
from flightlog_storage.paths import PATH_SIZE_MAX, checked_path

if TYPE_CHECKING:
    from flightlog._recording import Recording

__all__ = ("MediaLog",)

PART_SIZE_MAX = 80  # Bytes of a part of a key, in a file's name.


class MediaLog:
    """Logs rows with media: files in the inbox, a row, and that the files are owed."""

    def __init__(
        self,
        inbox: Inbox,
        log_row: Callable[[Mapping[str, Any], int | None, bool | None], None],
        record: Callable[[Event], None],
    ) -> None:
        self._inbox = inbox
        self._log_row = log_row
        self._record = record

    def log(
        self,
        recording: "Recording",
        data: Mapping[str, Any],
        step: int | None,
        commit: bool | None,
    ) -> dict[str, Any]:
        """Record a row; return it with what stands for the media.

        It lacks the values whose files the disk refused, which are counted.

        Raises:
            TypeError: A value, a key or the step cannot be.
            ValueError: As above.
            UsageError: The run is finished.
            OSError: A file that was given cannot be read any more.
        """
        requests: list[FileRequested] = []
        row: dict[str, Any] = {}
        try:
            for key, value in data.items():
                files = _Files(self._inbox, recording, requests)
                try:
                    row[key] = _shown(key, value, files)
                except _Refused:
                    files.discard()
            self._log_row(row, step, commit)
        except (TypeError, ValueError, UsageError, OSError):
            for requested in requests:
                self._inbox.take_back(requested)
            raise
        except BaseException:  # Of a signal handler, as Ctrl-C: the row may be there.
            self._tell(requests)
            raise
        self._tell(requests)
        return row

    def _tell(self, requests: list[FileRequested]) -> None:
        for requested in requests:
            self._record(requested)


class _Refused(Exception):
    """The disk refused a file of a value."""


class _Files:
    """The files of one value of a row."""

    def __init__(
        self, inbox: Inbox, recording: "Recording", requests: list[FileRequested]
    ) -> None:
        self._inbox = inbox
        self._recording = recording
        self._requests = requests
        self._first = len(requests)

    def leave(
        self,
        key: str,
        kind: FileKind,
        put: Callable[[Path], int],
        pixels: Pixels | None = None,
    ) -> str:
        name = _file_name(key, kind)
        left = self._inbox.leave(self._recording, name, put)
        if left is None:
            raise _Refused
        self._requests.append(left.request(pixels))
        return name

    def discard(self) -> None:
        """Leave no file of a value that lacks one."""
        for requested in self._requests[self._first :]:
            self._inbox.take_back(requested)
        del self._requests[self._first :]


def _shown(key: object, value: Any, files: _Files) -> Any:
    # A key that is no str is told of when the row is logged.
    return stand_in(str(key), value, files) if has_media(value) else value


def _file_name(key: str, kind: FileKind) -> str:
    """Return a path among the run's files that no other file has."""
    parts = [_cut(part) for part in key.split("/") if part not in ("", ".", "..")]
    stem = "/".join(parts)[: PATH_SIZE_MAX // 8] or "unnamed"
    unique = secrets.token_hex(4)
    return checked_path(f"{kind.folder}/{stem}_{unique}.{kind.extension}")


def _cut(part: str) -> str:
    safe = part.replace("\0", "_").encode(errors="backslashreplace")
    return safe[:PART_SIZE_MAX].decode(errors="ignore")
