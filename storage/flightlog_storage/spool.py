"""The spool: a writer's own file of events, freed as they become durable.

A spool is a folder named by its writer. `owner` says who writes it, `lock` is locked
as long as that process lives, and the chunk files hold the events; docs/operating.md
describes them. `spool_writer` appends, `spool_reader` cuts into frames.
"""

import fcntl
import os
import struct
from pathlib import Path

import msgspec

from flightlog_storage.codec import RunKey
from flightlog_storage.files import open_file, read_file
from flightlog_storage.process import ProcessIdentity

__all__ = (
    "CHUNK_HEADER",
    "CHUNK_HEADER_SIZE",
    "CHUNK_MAGIC",
    "CHUNK_VERSION",
    "SpoolOwner",
    "chunk_path",
    "chunks",
    "hold_spool",
    "is_owner_gone",
    "read_owner",
    "remove_spool",
    "reserve_path",
    "write_owner",
)

CHUNK_MAGIC = b"FSPL"
CHUNK_VERSION = 1
# committed, magic, version, (pad), first sequence, writer, end of the chunk before
CHUNK_HEADER = struct.Struct("<Q4sHxxQ16sQ")
CHUNK_HEADER_SIZE = 64


class SpoolOwner(msgspec.Struct, frozen=True):
    """Whose spool it is; the content of `owner`."""

    writer: bytes
    process: ProcessIdentity
    run: RunKey
    forked: bool = False


def read_owner(folder: Path) -> SpoolOwner | None:
    """Return whose spool this is, or None where that cannot be read."""
    try:
        return msgspec.msgpack.decode(read_file(folder / "owner"), type=SpoolOwner)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def write_owner(folder: Path, owner: SpoolOwner) -> None:
    fd = os.open(
        folder / "owner", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600
    )
    try:
        os.write(fd, msgspec.msgpack.encode(owner))
    finally:
        os.close(fd)


def hold_spool(folder: Path) -> int:
    """Lock the spool for this process, and return what holds the lock.

    Any close of the locked file drops a POSIX lock, whichever descriptor it was: so
    this file has no content, and the process that holds it never opens it again.
    """
    fd = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    return fd


def is_owner_gone(folder: Path) -> bool:
    """Whether no process holds the spool any more; not for the one that may hold it."""
    try:
        fd = open_file(folder / "lock", os.O_RDWR)
    except FileNotFoundError:  # It was lost, or all of the spool is about to go.
        owner = read_owner(folder)
        return owner is not None and not owner.process.is_alive()
    except OSError:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def remove_spool(folder: Path) -> None:
    """Delete a spool; `lock` goes last, so that half a spool is still one."""
    for chunk in chunks(folder):
        chunk_path(folder, chunk).unlink(missing_ok=True)
    for name in (".new-chunk", ".spare-chunk", "reserve", "owner", "lock"):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:010d}.chunk"


def reserve_path(folder: Path) -> Path:
    return folder / "reserve"


def chunks(folder: Path) -> list[int]:
    names = (path.stem for path in folder.glob("*.chunk"))
    return sorted(int(name) for name in names if name.isdecimal())
