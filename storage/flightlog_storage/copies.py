"""Private copies of files, and the digests of their bytes.

A file is hashed while it is copied from one open descriptor, so a digest always belongs
to the bytes that are stored, whatever happens to the file meanwhile.
"""

import base64
import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from flightlog_storage.errors import SourceUnusable
from flightlog_storage.real_paths import open_real

__all__ = (
    "CHUNK_SIZE",
    "COPY_ATTEMPTS_MAX",
    "Digests",
    "Source",
    "Staged",
    "copy_file",
    "copy_open",
    "digests_of",
    "hash_file",
    "hash_open",
    "md5_of",
    "read_small",
    "stage_bytes",
    "stage_file",
    "stage_stream",
)

COPY_ATTEMPTS_MAX = 3  # A file that changes while it is read is read again.
CHUNK_SIZE = 1 << 20

_FICLONE = 0x40049409  # ioctl: share the blocks of another file (btrfs, xfs …).
_FILE_MODE = 0o600


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
            found = copy_open(fd, target, size, tick, fits)
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
        found = copy_open(fd, target, os.fstat(fd).st_size)
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
    with _created(path) as target:
        return Staged(path, _drain(iter(partial(source.read, CHUNK_SIZE), b""), target))


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
            found = hash_open(fd, os.fstat(fd).st_size)  # It may grow without end.
            if _identity(fd) == before:
                return found
    raise SourceUnusable(source, "changed each time while it was read")


def copy_open(
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
        return hash_open(target, tick=tick)
    return hash_open(source, size, target, tick)


def hash_open(
    fd: int,
    size: int | None = None,
    target: int | None = None,
    tick: Callable[[int], object] = int,
) -> Digests:
    """Hash up to `size` bytes from the start, and write them to a target, if given."""
    return _drain(_read(fd, size), target, tick)


def _read(fd: int, size: int | None) -> Iterator[bytes]:
    done = 0
    while size is None or done < size:
        wanted = CHUNK_SIZE if size is None else min(CHUNK_SIZE, size - done)
        data = os.pread(fd, wanted, done)
        if not data:
            return
        yield data
        done += len(data)


def _drain(
    pieces: Iterator[bytes],
    target: int | None = None,
    tick: Callable[[int], object] = int,
) -> Digests:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    size = 0
    for data in pieces:
        sha256.update(data)
        md5.update(data)
        if target is not None:
            _write(target, data)
        size += len(data)
        tick(len(data))
    return Digests(sha256.hexdigest(), _base64(md5.digest()), size)


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


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
