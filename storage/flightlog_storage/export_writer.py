"""Writing an export: a file that appears when it is whole and durable."""

import errno
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from flightlog_storage.blobs import BlobStore
from flightlog_storage.carried import CarriedFrame
from flightlog_storage.errors import CorruptData, ExportUnusable
from flightlog_storage.export_format import (
    BLOB_PREFIX,
    FRAMES,
    MANIFEST,
    MANIFEST_SIZE_MAX,
    MEMBERS_MAX,
    Manifest,
    Member,
)
from flightlog_storage.zips import FIRST_TIME, written_zip

__all__ = ("ExportWriter", "written_export")

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # As FAT says.
_COMPRESSION_LEVEL = 1  # Of frames: higher ones take longer and save little.


class ExportWriter:
    """Puts members into an export: the frames, then blobs, at last the manifest."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self.frames = Member(0, "")
        self.blobs: dict[str, int] = {}

    def put_frames(self, frames: Iterable[CarriedFrame]) -> None:
        """Put the frames in, and note how much and what that is."""
        digest = hashlib.sha256()
        size = 0
        info = _info(FRAMES)
        info.compress_type = zipfile.ZIP_DEFLATED
        with self._archive.open(info, "w", force_zip64=True) as member:
            for frame in frames:
                data = frame.pack()
                digest.update(data)
                size += len(data)
                member.write(data)
        self.frames = Member(size, digest.hexdigest())

    def put_blob(
        self, store: BlobStore, sha256: str, size: int, tick: Callable[[int], object]
    ) -> None:
        """Put a blob in; `tick` is told of bytes that are done.

        Raises:
            CorruptData: It is missing or damaged.
            ExportUnusable: There are more than an export may hold.
        """
        if sha256 in self.blobs:
            return
        if len(self.blobs) + 2 >= MEMBERS_MAX:
            raise ExportUnusable(self._path, f"more than {MEMBERS_MAX:,} files")
        info = _info(BLOB_PREFIX + sha256)
        info.file_size = size  # Tells whether it needs the large format.
        found = 0
        with self._archive.open(info, "w") as member:
            for data in store.read_verified(sha256):
                member.write(data)
                found += len(data)
                tick(len(data))
        if found != size:
            why = f"the blob has {found:,} bytes, not {size:,}"
            raise CorruptData(f"blobs/{sha256[:2]}/{sha256}", 0, why)
        self.blobs[sha256] = size

    def put_manifest(self, manifest: Manifest) -> None:
        """Put the manifest in, which must be the last.

        Raises:
            ExportUnusable: It is larger than it may be.
        """
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        if len(data) > MANIFEST_SIZE_MAX:
            why = f"a manifest of {len(data):,} bytes; at most {MANIFEST_SIZE_MAX:,}"
            raise ExportUnusable(self._path, why)
        info = _info(MANIFEST)
        info.compress_type = zipfile.ZIP_DEFLATED
        self._archive.writestr(info, data)


@contextmanager
def written_export(path: Path) -> Iterator[ExportWriter]:
    """Give a writer of an export that appears at `path` when all went well.

    Raises:
        FileExistsError: Something is there; it is never replaced.
        OSError: It cannot be written.
    """
    with written_zip(path, put=_put_new, level=_COMPRESSION_LEVEL) as (archive, _):
        yield ExportWriter(path, archive)


def _put_new(unfinished: Path, path: Path) -> None:
    """Give a file its name; unlike a rename a link replaces nothing."""
    try:
        os.link(unfinished, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(errno.EEXIST, "is there already", path) from error
        os.rename(unfinished, path)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, FIRST_TIME)
    info.external_attr = 0o600 << 16
    return info
