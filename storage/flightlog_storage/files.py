"""The few file operations that the event log uses.

The log touches the disk through `FileOps` alone, so that tests can stand in a disk
that fails, or that loses power.
"""

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path
from typing import Protocol

__all__ = (
    "FileOps",
    "RealFiles",
    "fsync_path",
    "open_file",
    "read_around",
    "read_file",
    "write_all",
)

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_SECTOR_SIZE = 4096


class FileOps(Protocol):
    """A disk. All calls raise OSError; none of them retries."""

    def open(self, path: Path, *, write: bool = False) -> int:
        """Open an existing file."""
        ...

    def create(self, path: Path) -> int:
        """Create a file that must not exist, and open it for writing."""
        ...

    def close(self, fd: int) -> None:
        """Close a file; it is not synced."""

    def size(self, fd: int) -> int:
        """Return the size of an open file."""
        ...

    def pread(self, fd: int, size: int, position: int) -> bytes:
        """Return up to `size` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        """Write some of `data`, and return how much."""
        ...

    def fdatasync(self, fd: int) -> None:
        """Return when what was written to the file is durable."""

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what had it."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def listdir(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted."""
        ...

    def make_folder(self, folder: Path) -> None:
        """Make a folder with those above it, unless it is there."""

    def fsync_dir(self, folder: Path) -> None:
        """Return when the names in a folder are durable."""

    def forget(self, fd: int) -> None:
        """Have what is read next come from the disk, as far as it is synced."""


class RealFiles:
    """The disk of this machine. Files are private and not inherited by children."""

    def open(self, path: Path, *, write: bool = False) -> int:
        flags = os.O_RDWR if write else os.O_RDONLY
        return open_file(path, flags | os.O_NOFOLLOW)

    def create(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(path, flags, _FILE_MODE)

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def pread(self, fd: int, size: int, position: int) -> bytes:
        data = os.pread(fd, size, position)
        while len(data) < size and (
            more := os.pread(fd, size - len(data), position + len(data))
        ):
            data += more
        return data

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        return os.pwrite(fd, data, position)

    def fdatasync(self, fd: int) -> None:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def listdir(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def fsync_dir(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def forget(self, fd: int) -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def open_file(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a file, and nothing else: to open a pipe may take for ever.

    Raises:
        OSError: It is something else, or cannot be opened.
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, _FILE_MODE)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def read_file(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        OSError: It is something else, or cannot be read.
    """
    with open(path, "rb", opener=open_file) as file:
        return file.read()


def read_around(files: FileOps, fd: int, size: int, position: int) -> bytes:
    """Read with zeros in place of what the disk does not give back.

    So a bad sector is damage like any other, and costs what lies in it.
    """
    try:
        return files.pread(fd, size, position)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    end = min(position + size, files.size(fd))
    pieces: list[bytes] = []
    while position < end:
        step = min(_SECTOR_SIZE - position % _SECTOR_SIZE, end - position)
        try:
            pieces.append(files.pread(fd, step, position))
        except OSError:
            pieces.append(bytes(step))
        position += step
    return b"".join(pieces)


def write_all(files: FileOps, fd: int, data: bytes, position: int) -> None:
    """Write all of `data`; the disk may take it in pieces."""
    done = files.pwrite(fd, data, position)
    while done < len(data):
        done += files.pwrite(fd, memoryview(data)[done:], position + done)


def fsync_path(path: Path) -> None:
    """Return when a file, or the names in a folder, are durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
