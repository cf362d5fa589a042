"""Blobs: immutable files, named by the sha256 of their bytes.

A blob appears by fsync and rename of a private copy (see copies.py); when `keep`
returns, it is durable.

One that nothing names is deleted when it is old (see garbage.py). So who relies on one
that is there renews its age, and names it while it holds the blobs.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flightlog_storage.blob_lock import shared
from flightlog_storage.copies import CHUNK_SIZE, Staged, copy_open, hash_file, hash_open
from flightlog_storage.errors import CorruptData, SourceUnusable
from flightlog_storage.files import fsync_path

__all__ = (
    "Blob",
    "BlobGone",
    "BlobStore",
    "check_blob",
    "is_sha256",
    "named_in",
)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WITHIN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


Blob = tuple[str, int]  # Its sha256 and size.


class BlobGone(OSError):
    """What was stored is not there any more; as a full disk, a reason to try again."""


class BlobStore:
    """The blobs of a home. Any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._durable: set[Path] = set()  # Folders whose names are known to be so.

    @property
    def lock(self) -> Path:
        """The file that is locked by those who store and those who delete."""
        return self._root.with_name("blobs.lock")

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Have nothing deleted meanwhile, nor later what is kept or renewed in here.

        An event that names it has to be told before the end of this, too.

        Raises:
            OSError: The disk refuses.
        """
        with shared(self.lock):
            yield

    @contextmanager
    def naming(self, blobs: Iterable[Blob]) -> Iterator[None]:
        """Hold these while an event is told that names them.

        Raises:
            BlobGone: One is not there any more: it is to be stored again.
            OSError: The disk refuses.
        """
        with self.holding():
            for sha256, size in blobs:
                if not self.renew(sha256, size):
                    raise BlobGone(f"blob {sha256} was deleted meanwhile")
            yield

    def path(self, sha256: str) -> Path:
        """Return where the blob lies, if it is there.

        Raises:
            CorruptData: This is not the name of a blob.
        """
        if not is_sha256(sha256):
            raise CorruptData("blobs", 0, f"{sha256[:80]!r} names no blob")
        return self._root / sha256[:2] / sha256

    def keep(self, staged: Staged) -> None:
        """Make a staged file a blob, durable on return. In any case the file is gone.

        Raises:
            OSError: The disk refuses.
        """
        try:
            self._keep(staged)
        except BaseException:
            staged.path.unlink(missing_ok=True)
            raise

    def _keep(self, staged: Staged) -> None:
        path = self.path(staged.digests.sha256)
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        is_known = _size(path) == staged.digests.size
        if not is_known:
            fsync_path(staged.path)  # Before the lock is taken, for it takes its time.
        with self.holding():
            if self.renew(staged.digests.sha256, staged.digests.size):
                staged.path.unlink()
            else:
                if is_known:  # It was deleted meanwhile.
                    fsync_path(staged.path)
                _renew(staged.path)
                os.rename(staged.path, path)
        # Also for what was there: who made it may not have come so far.
        fsync_path(path.parent)
        if path.parent not in self._durable:
            fsync_path(self._root)
            self._durable.add(path.parent)

    def renew(self, sha256: str, size: int) -> bool:
        """Whether the blob is there with its size; then it is young. While holding.

        Its bytes are not read.
        """
        path = self.path(sha256)
        is_there = _size(path) == size
        if is_there:
            _renew(path)
        return is_there

    def open_verified(self, sha256: str) -> BinaryIO:
        """Open a blob whose bytes were just read and found to be right.

        Raises:
            CorruptData: It is missing or damaged.
        """
        path = self.path(sha256)
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            raise CorruptData(_shown(path), 0, "the blob is missing") from error
        try:
            if hash_open(file.fileno()).sha256 != sha256:
                raise CorruptData(_shown(path), 0, "its bytes are not what it is named")
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def read_verified(self, sha256: str) -> Iterator[bytes]:
        """Yield a blob's bytes; what is wrong is found when all were read.

        Raises:
            CorruptData: It is missing or damaged; the bytes are of no use then.
            OSError: It cannot be read.
        """
        path = self.path(sha256)
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while data := file.read(CHUNK_SIZE):
                    digest.update(data)
                    yield data
        except FileNotFoundError as error:
            raise CorruptData(_shown(path), 0, "the blob is missing") from error
        if digest.hexdigest() != sha256:
            raise CorruptData(_shown(path), 0, "its bytes are not what it is named")

    def copy_verified(self, sha256: str, target: int) -> None:
        """Copy a blob into an empty open file; what is wrong is found on the way.

        Raises:
            CorruptData: It is missing or damaged; the target is of no use then.
            OSError: The disk refuses.
        """
        path = self.path(sha256)
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise CorruptData(_shown(path), 0, "the blob is missing") from error
        try:
            found = copy_open(source, target, os.fstat(source).st_size)
        finally:
            os.close(source)
        if found.sha256 != sha256:
            raise CorruptData(_shown(path), 0, "its bytes are not what it is named")


def is_sha256(name: str) -> bool:
    """Whether blobs have such names."""
    return _SHA256.fullmatch(name) is not None


def named_in(data: bytes, start: int = 0) -> list[bytes]:
    """Return what may name a blob in some bytes, and does not end before `start`."""
    return [found[0] for found in _WITHIN.finditer(data) if found.end() > start]


def check_blob(store: BlobStore, sha256: str, size: int, *, full: bool) -> str | None:
    """Return what is wrong with a blob, if anything is; `full` reads it."""
    try:
        path = store.path(sha256)
        found = path.stat().st_size
        if found != size:
            return f"the blob has {found:,} bytes, not {size:,}"
        if full and hash_file(path).sha256 != sha256:
            return "its bytes are not what it is named"
    except (CorruptData, SourceUnusable) as error:
        return error.why
    except FileNotFoundError:
        return "the blob is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _renew(path: Path) -> None:
    now = time.time_ns()  # Not the kernel's, whose clock may be a tick behind.
    os.utime(path, ns=(now, now))


def _shown(path: Path) -> str:
    return f"blobs/{path.parent.name}/{path.name}"
