"""An asset of a run that is read back: what was said of it, and its bytes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

from msgspec import MsgspecError

from flightlog._checks import check_bool, check_path
from flightlog._daemon import DaemonStarter, find_socket
from flightlog.apis.public.client import Client
from flightlog.apis.public.downloads import write_entry
from flightlog.apis.public.reading import checked, iso, reading
from flightlog.apis.public.waiting import watch_home
from flightlog.errors import BadArgumentError, CommError, CorruptError, NotFoundError
from flightlog_storage.assets import ARCHIVE
from flightlog_storage.assets import Asset as Known
from flightlog_storage.blobs import BlobStore
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import ManifestEntry
from flightlog_storage.manifest import decode_manifest
from flightlog_storage.paths import checked_path
from flightlog_storage.staging import scratch_folder
from flightlog_storage.zips import member, written_zip

__all__ = ("Asset",)

SAVED_TIMEOUT_S = 30.0  # For the daemon to archive what was just logged.
LOOK_INTERVAL_S = 0.5
_Target = str | os.PathLike[str]


class Asset:
    """A file or folder that a run took in or put out, or its code."""

    def __init__(self, client: Client, known: Known, read: Callable[[], Known]) -> None:
        """`read` reads what is known of it by then."""
        self._client = client
        self._known = known
        self._read = read

    @property
    def name(self) -> str:
        """What its user called it."""
        return self._known.name

    @property
    def kind(self) -> str:
        """dataset, pretrained, output or code."""
        return self._known.kind

    @property
    def key(self) -> str:
        """What tells it from others of its kind.

        The name; of an output its path, relative to the workspace if it lies there.
        """
        output = self._known.output
        return self._known.name if output is None else output.key

    @property
    def mode(self) -> str | None:
        """Of an output: "rolling" or "overwrite_versions"."""
        output = self._known.output
        return None if output is None else output.mode

    @property
    def path(self) -> str | None:
        """Where it was on the machine of the run, if it was there."""
        return self._known.path

    @property
    def uri(self) -> Any:
        """What was given: a URI or a dict as it was, a path made absolute."""
        return self._known.uri

    @property
    def context(self) -> str | None:
        """What a dataset is for."""
        return self._known.context

    @property
    def description(self) -> str | None:
        return self._known.description

    @property
    def source_type(self) -> str | None:
        """Where a pretrained model is from."""
        return self._known.source_type

    @property
    def saved(self) -> bool:
        """Whether its bytes are kept; False until all are."""
        return self._fresh().is_saved

    @property
    def fingerprint(self) -> Any:
        """What tells its content from others.

        Of what is saved, the sha256 of the bytes, or of the names and digests of the
        files. Else a dict of sizes and times, or None.
        """
        return self._fresh().fingerprint

    @property
    def size(self) -> int | None:
        """In bytes, if it is known."""
        known = self._fresh()
        if known.size is not None or not isinstance(known.fingerprint, dict):
            return known.size
        stated = known.fingerprint
        size = stated.get("size_bytes", stated.get("total_size_bytes"))
        return size if isinstance(size, int) else None

    @property
    def created_at(self) -> str:
        """When it was logged, or an output archived: ISO 8601, UTC."""
        return iso(self._known.logged_at)

    @property
    def error(self) -> str | None:
        """Why it could not be saved, or looked at."""
        return self._fresh().error

    @property
    def skipped(self) -> list[dict[str, str]]:
        """What of a folder is not saved: `path` and `why`, of the first hundred."""
        return [{"path": path, "why": why} for path, why in self._fresh().skipped]

    @property
    def skipped_count(self) -> int:
        """How many that are."""
        return self._fresh().skipped_count

    def open(self) -> BinaryIO:
        """Return a file's bytes, open for reading, and checked.

        The daemon may be at it yet: then this waits for it, at most 30 s.

        Raises:
            BadArgumentError: It is a folder.
            NotFoundError: It was not to be saved, or could not be.
            CorruptError: Its bytes are missing or damaged.
            CommError: It is not saved in time, or cannot be read.
        """
        blob = self._saved().blob
        if blob is None:
            raise BadArgumentError(f"{self.name} is a folder: use restore()")
        return self._open(blob)

    def download(self, path: _Target) -> Path:
        """Write it to `path`; what is there is replaced, file by file.

        Args:
            path: Of a file, the file; or a folder that is there, in which it has its
                own name. Of a folder, the folder in which its files will be.

        Raises:
            BadArgumentError: `path` is no path.
            NotFoundError: It was not to be saved, or could not be.
            CorruptError: Bytes are missing or damaged; what was written stays.
            CommError: It is not saved in time, or cannot be written.
        """
        target = _path("path", path)
        known = self._saved()
        if known.manifest is None:
            if os.path.isdir(target):
                target = target / Path(known.path or known.name).name
            name = checked(lambda: checked_path(target.name))
            self._write([_entry(known, name)], target.parent)
        else:
            self._write(self._entries(known.manifest), target)
        return target

    def restore(self, target: _Target, overwrite: bool = False) -> Path:
        """Write it to `target`, all of it or nothing, and return that path.

        Args:
            target: The file or the folder that it will be.
            overwrite: Whether `target` may be there; then files are replaced one by
                one, and others stay.

        Raises:
            FileExistsError: `target` is there, and not to be overwritten.
            BadArgumentError: `target` is no path, or `overwrite` no bool.
            NotFoundError: It was not to be saved, or could not be.
            CorruptError: Bytes are missing or damaged.
            CommError: It is not saved in time, or cannot be written.
        """
        path = _path("target", target)
        checked(lambda: check_bool("overwrite", overwrite))
        if os.path.lexists(path):
            if not overwrite:
                raise FileExistsError(f"{path} is there already: give overwrite=True")
            return self.download(path)
        self._saved()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder(path.parent) as scratch:
                made = self.download(scratch / path.name)
                os.rename(made, path)
        except OSError as error:
            raise CommError(f"{path} cannot be written: {error}", error) from error
        return path

    def to_zip(self, path: _Target, overwrite: bool = False) -> Path:
        """Write it to a zip archive, all of it or nothing, and return that path.

        Code is a zip archive already, and written as it is.

        Args:
            path: The archive; its folder is made if need be.
            overwrite: Whether a file may be there; then it is replaced.

        Raises:
            FileExistsError: `path` is there, and not to be overwritten.
            BadArgumentError: `path` is no path, or a folder; `overwrite` is no bool.
            NotFoundError: It was not to be saved, or could not be.
            CorruptError: Bytes are missing or damaged, or a name cannot be.
            CommError: It is not saved in time, or cannot be written.
        """
        target = _path("path", path)
        checked(lambda: check_bool("overwrite", overwrite))
        if os.path.isdir(target):
            raise BadArgumentError(f"{target} is a folder: name the archive in it")
        if os.path.lexists(target) and not overwrite:
            raise FileExistsError(f"{target} is there already: give overwrite=True")
        if self.kind == "code":
            return self.restore(target, overwrite)
        known = self._saved()
        if known.manifest is None:
            entries = [_entry(known, Path(known.path or known.name).name)]
        else:
            entries = self._entries(known.manifest)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with written_zip(target) as (archive, _):
                for entry in entries:
                    self._put(archive, entry)
        except (CorruptData, ValueError) as error:
            raise CorruptError(f"{self.name}: {error}", error) from error
        except OSError as error:
            raise CommError(f"{target} cannot be written: {error}", error) from error
        return target

    def _put(self, archive: ZipFile, entry: ManifestEntry) -> None:
        """Write a file to an archive.

        Raises:
            CorruptData: Its bytes are missing or damaged.
            ValueError: Its name cannot be, or is there already.
        """
        name = checked_path(entry.path)
        if name in archive.NameToInfo:
            raise ValueError(f"{name} is in it twice")
        with archive.open(member(name, size=entry.size), "w") as file:
            for data in self._store().read_verified(entry.blob or ""):
                file.write(data)

    def _write(self, entries: list[ManifestEntry], root: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommError(f"{root} cannot be made: {error}", error) from error
        for entry in entries:
            write_entry(self._store(), entry, root)

    def _entries(self, manifest: str) -> list[ManifestEntry]:
        with self._open(manifest) as file:
            try:
                return decode_manifest(file.read())
            except MsgspecError as error:
                raise CorruptError(f"{self.name}: {error}", error) from error

    def _open(self, blob: str) -> BinaryIO:
        try:
            return reading(lambda: self._store().open_verified(blob))
        except CommError as error:
            if isinstance(error.exc, CorruptData):
                raise CorruptError(f"{self.name}: {error.exc}", error.exc) from error
            raise

    def _store(self) -> BlobStore:
        return BlobStore(self._client.home.blobs)

    def _fresh(self) -> Known:
        """Return what is known, read anew while something is owed."""
        if self._known.job is not None:
            self._known = self._read()
        return self._known

    def _saved(self) -> Known:
        """Return it once it is saved.

        Raises:
            NotFoundError: It was not to be saved, or could not be.
            CommError: It is not saved in time.
        """
        home = self._client.home
        deadline = time.monotonic() + SAVED_TIMEOUT_S
        starter = DaemonStarter(home)
        with watch_home(home) as watch:
            while not (known := self._fresh()).is_saved:
                if known.error is not None:
                    raise NotFoundError(f"{self.name} is not saved: {known.error}")
                if known.job != ARCHIVE:
                    raise NotFoundError(f"{self.name} was not to be saved")
                if time.monotonic() > deadline:
                    message = f"{self.name} is not saved after {SAVED_TIMEOUT_S:.0f} s"
                    raise CommError(message, TimeoutError(message))
                if find_socket(home) is None:
                    starter.start(time.monotonic())
                watch.wait(LOOK_INTERVAL_S)
        return known

    def __repr__(self) -> str:
        return f"<Asset {self.kind} {self.name!r} (saved: {self._known.is_saved})>"


def _path(what: str, given: object) -> Path:
    return Path(os.path.abspath(checked(lambda: check_path(what, given))))


def _entry(known: Known, name: str) -> ManifestEntry:
    """Return a file as an entry of a manifest."""
    return ManifestEntry(
        path=name, digest=known.digest or "", size=known.size or 0, blob=known.blob
    )
