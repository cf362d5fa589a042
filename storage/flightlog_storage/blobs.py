"""Blobs: immutable files, named by the sha256 of their bytes.

A file is hashed while it is copied from one open descriptor, so a digest always belongs
to the bytes that are stored, whatever happens to the file meanwhile. A blob appears by
fsync and rename; when `keep` returns, it is durable.

One that nothing names is deleted when it is old (see garbage.py). So who relies on one
that is there renews its age, and names it while it holds the blobs.
"""

import base64
import fcntl
import hashlib
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from flightlog_storage.blob_lock import shared
from flightlog_storage.errors import CorruptData, SourceUnusable
from flightlog_storage.files import fsync_path
from flightlog_storage.real_paths import open_real

__all__ = (
    "COPY_ATTEMPTS_MAX",
    "Blob",
    "BlobGone",
    "BlobStore",
    "Digests",
    "Source",
    "Staged",
    "check_blob",
    "copy_file",
    "digests_of",
    "hash_file",
    "is_sha256",
    "md5_of",
    "named_in",
    "read_small",
    "stage_bytes",
    "stage_file",
    "stage_stream",
)

COPY_ATTEMPTS_MAX = 3  # A file that changes while it is read is read again.
CHUNK_SIZE = 1 << 20

_FICLONE = 0x40049409  # ioctl: share the blocks of another file (btrfs, xfs …).
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WITHIN = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_FILE_MODE = 0o600


Blob = tuple[str, int]  # Its sha256 and size.


class BlobGone(OSError):
    """What was stored is not there any more; as a full disk, a reason to try again."""


@dataclass(frozen=True, slots=True)
class Digests:
    """What tells bytes apart: `sha256` in hexadecimal, `md5` in base64, `size`."""

    sha256: str
    md5: str
    size: int


class Source(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Staged:
    """A private copy of a file, on its way to become a blob."""

    path: Path
    digests: Digests


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
            if _hash(file.fileno()).sha256 != sha256:
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
            found = _copy(source, target, os.fstat(source).st_size)
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


def stage_file(
    source: Path,
    folder: Path,
    *,
    follow: bool = True,
    may_grow: bool = False,
    tick: Callable[[int], object] = int,
    fits: Callable[[int], object] = int,
) -> Staged:
    """Copy a regular file into `folder`; the digests are those of the copy.

    Args:
        source: What to copy. Blocks are shared where the file system can.
        folder: On the file system of the blobs.
        follow: Whether `source` may be a symbolic link, or lead through one.
        may_grow: Whether what is added to it meanwhile may be missing from the copy.
        tick: Called with the number of bytes, whenever some were read; what it raises
            ends this.
        fits: Called with the size of what is to be written, if blocks cannot be shared;
            what it raises ends this.

    Raises:
        SourceUnusable: It is no regular file, or it changes each time it is read.
        OSError: It cannot be read, or the disk refuses.
    """
    for _ in range(COPY_ATTEMPTS_MAX):
        path = folder / uuid.uuid4().hex
        with _opened(source, follow=follow) as fd, _created(path) as target:
            before = _identity(fd)
            size = os.fstat(fd).st_size
            found = _copy(fd, target, size, tick, fits)
            is_longer = found.size >= size and os.fstat(fd).st_size > size
            if _identity(fd) == before or (may_grow and is_longer):
                return Staged(path, found)
        path.unlink()
    raise SourceUnusable(source, "changed each time while it was read")


def read_small(source: Path, size_max: int) -> bytes | None:
    """Return the bytes of a regular file; None if it is larger than that.

    No link is followed, as with `stage_file(follow=False)`.

    Raises:
        SourceUnusable: It is no regular file, or it changes each time it is read.
        OSError: It cannot be read.
    """
    for _ in range(COPY_ATTEMPTS_MAX):
        with _opened(source, follow=False) as fd:
            before = _identity(fd)
            size = os.fstat(fd).st_size
            if size > size_max:
                return None
            data = os.pread(fd, size + 1, 0)
            if len(data) == size and _identity(fd) == before:
                return data
    raise SourceUnusable(source, "changed each time while it was read")


def copy_file(source: Path, target: int) -> Digests:
    """Copy a regular file into an empty open file; return the digests of the copy.

    Raises:
        SourceUnusable: It is no regular file, or changes while it is read.
        OSError: It cannot be read, or the disk refuses.
    """
    with _opened(source, follow=True) as fd:
        before = _identity(fd)
        found = _copy(fd, target, os.fstat(fd).st_size)
        if _identity(fd) != before:
            raise SourceUnusable(source, "changed while it was read")
    return found


def stage_bytes(data: bytes, folder: Path) -> Staged:
    """Write bytes to a file in `folder`.

    Raises:
        OSError: The disk refuses.
    """
    path = folder / uuid.uuid4().hex
    with _created(path) as target:
        _write(target, data)
    return Staged(path, digests_of(data))


def stage_stream(source: Source, folder: Path) -> Staged:
    """Write what a stream yields to a file in `folder`.

    Raises:
        OSError: The disk refuses. What the stream raises goes on up, too.
    """
    path = folder / uuid.uuid4().hex
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    size = 0
    with _created(path) as target:
        while data := source.read(CHUNK_SIZE):
            sha256.update(data)
            md5.update(data)
            _write(target, data)
            size += len(data)
    return Staged(path, Digests(sha256.hexdigest(), _base64(md5.digest()), size))


def digests_of(data: bytes) -> Digests:
    """Return the digests of some bytes."""
    return Digests(hashlib.sha256(data).hexdigest(), md5_of(data), len(data))


def md5_of(data: bytes) -> str:
    """Return the MD5 of some bytes in base64, which names content, not secures it."""
    return _base64(hashlib.md5(data, usedforsecurity=False).digest())


def hash_file(source: Path) -> Digests:
    """Return the digests of a regular file as it is now.

    Raises:
        SourceUnusable: It is no regular file, or it changes each time it is read.
        OSError: It cannot be read.
    """
    for _ in range(COPY_ATTEMPTS_MAX):
        with _opened(source, follow=True) as fd:
            before = _identity(fd)
            found = _hash(fd, os.fstat(fd).st_size)  # It may grow without end.
            if _identity(fd) == before:
                return found
    raise SourceUnusable(source, "changed each time while it was read")


def _copy(
    source: int,
    target: int,
    size: int,
    tick: Callable[[int], object] = int,
    fits: Callable[[int], object] = int,
) -> Digests:
    """Copy all, or share the blocks; return the digests of what the target holds."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        fits(size)  # Not on this file system, or two of them.
    else:
        return _hash(target, tick=tick)
    return _hash(source, size, target, tick)


def _hash(
    fd: int,
    size: int | None = None,
    target: int | None = None,
    tick: Callable[[int], object] = int,
) -> Digests:
    """Hash up to `size` bytes from the start, and write them to a target, if given."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    done = 0
    while size is None or done < size:
        wanted = CHUNK_SIZE if size is None else min(CHUNK_SIZE, size - done)
        data = os.pread(fd, wanted, done)
        if not data:
            break
        sha256.update(data)
        md5.update(data)
        if target is not None:
            _write(target, data)
        done += len(data)
        tick(len(data))
    return Digests(sha256.hexdigest(), _base64(md5.digest()), done)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


@contextmanager
def _opened(source: Path, *, follow: bool) -> Iterator[int]:
    # Not blocked by a pipe that somebody put in the file's place.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(source, flags) if follow else open_real(source, flags)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SourceUnusable(source, "is not a regular file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _created(path: Path) -> Iterator[int]:
    """Create a file; one that an error leaves half written is removed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fd = os.open(path, flags, _FILE_MODE)
    try:
        yield fd
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, ...]:
    found = os.fstat(fd)
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _renew(path: Path) -> None:
    now = time.time_ns()  # Not the kernel's, whose clock may be a tick behind.
    os.utime(path, ns=(now, now))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _shown(path: Path) -> str:
    return f"blobs/{path.parent.name}/{path.name}"
