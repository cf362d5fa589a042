"""Copies of spools, made while their writers write, and put in place at once."""

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path

from flightlog_storage.files import RealFiles, open_file, read_around, read_file
from flightlog_storage.spool import (
    CHUNK_HEADER_SIZE,
    chunk_path,
    chunks,
    remove_spool,
    reserve_path,
)

__all__ = ("place_spools", "stage_spools")

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def stage_spools(spool: Path, staging: Path) -> list[Path]:
    """Copy what spools hold into `staging`; what leaves them later is in the log.

    Raises:
        OSError: The disk refuses.
    """
    staged = []
    for folder in sorted(spool.glob("[!.]*/")):
        copy = staging / folder.name
        copy.mkdir(mode=0o700)
        _copy(folder, copy)
        if chunks(copy):
            staged.append(copy)
        else:  # All it held is recorded, and it is gone.
            shutil.rmtree(copy)
    return staged


def place_spools(staged: list[Path], spool: Path) -> None:
    """Put copies in the place of earlier ones; those of other writers go.

    The log beside them has to hold by then what they hold no more.
    """
    names = {copy.name for copy in staged}
    for copy in staged:
        there = spool / copy.name
        if there.exists():
            _exchange(copy, there)
        else:
            copy.rename(there)
    for folder in spool.glob("[!.]*"):
        if folder.name not in names:
            remove_spool(folder)


def _copy(folder: Path, copy: Path) -> None:
    # Listed once, and copied in order: a chunk is whole before there is a next one,
    # and says where it begins before one ahead of it is freed.
    numbers = chunks(folder)
    with suppress(FileNotFoundError):  # Lost, it takes no event along.
        _write(copy / "owner", read_file(folder / "owner"))
    (copy / "lock").touch(mode=0o600)
    for number in numbers:
        with suppress(FileNotFoundError):
            _copy_chunk(chunk_path(folder, number), chunk_path(copy, number))
    with suppress(FileNotFoundError):
        _write(reserve_path(copy), read_file(reserve_path(folder)))


def _copy_chunk(source: Path, target: Path) -> None:
    """Copy what is committed; more may be on its way into the chunk."""
    with open(source, "rb", buffering=0, opener=open_file) as file:
        header = file.read(CHUNK_HEADER_SIZE)
        size = os.fstat(file.fileno()).st_size
        committed = min(int.from_bytes(header[:8], "little"), size)
        data = read_around(RealFiles(), file.fileno(), committed, 0)
        _write(target, header + data[len(header) :])


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change their places, at once where the file system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = os.fsencode(one), os.fsencode(other)
    if rename is None or rename(
        _AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE
    ):
        aside = one.with_name(f"{one.name}.old")
        other.rename(aside)
        one.rename(other)
