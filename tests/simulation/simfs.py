"""A disk in memory that can fail, and lose power, as a seed says."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.counts import count

__all__ = (
    "SECTOR_SIZE",
    "Fail",
    "PowerLost",
    "SimFS",
    "error_of",
    "fail_at",
    "lose_power",
)

SECTOR_SIZE = 512


class PowerLost(BaseException):
    """The power went in the middle of a call."""


# Is asked before each call, by its name and number: the errno to fail with, or 0.
Fail = Callable[[str, int], int]


def lose_power(at: int) -> Fail:
    """Have the power go at the call of this number."""

    def fail(name: str, number: int) -> int:
        if number >= at:
            raise PowerLost
        return 0

    return fail


def fail_at(at: int, error: int, calls: int = 1) -> Fail:
    """Have some calls fail, from that of this number on."""
    return lambda name, number: error if at <= number < at + calls else 0


class _File:
    """What programs see of a file, what the disk has, and which sectors differ."""

    def __init__(self, data: bytes = b"") -> None:
        self.seen = bytearray(data)
        self.durable = bytearray(data)
        self.dirty: set[int] = set()

    def write(self, data: bytes | memoryview, position: int) -> None:
        size = len(self.seen)
        if size < position:
            self.seen.extend(bytes(position - size))
        self.seen[position : position + len(data)] = data
        if not data:
            return
        first, last = min(size, position), position + len(data) - 1
        self.dirty.update(range(first // SECTOR_SIZE, last // SECTOR_SIZE + 1))

    def sync(self) -> None:
        size = len(self.seen)
        del self.durable[size:]
        self.durable.extend(bytes(size - len(self.durable)))
        for sector in self.dirty:
            part = slice(sector * SECTOR_SIZE, (sector + 1) * SECTOR_SIZE)
            self.durable[part] = self.seen[part]
        self.dirty.clear()

    def after_crash(self, chance: random.Random) -> bytes:
        """Return what is on the disk when each unsynced sector had its own luck."""
        sizes = sorted((len(self.durable), len(self.seen)))
        size = chance.choice([*sizes, chance.randint(*sizes)])
        data = bytearray(self.durable[:size])
        data.extend(bytes(size - len(data)))
        for sector in self.dirty:
            start = sector * SECTOR_SIZE
            part = self.seen[start : start + SECTOR_SIZE]
            part = part[: chance.choice([0, len(part), chance.randint(0, len(part))])]
            part = part[: max(0, size - start)]
            data[start : start + len(part)] = part
            new = slice(max(start, len(self.durable)), start + len(part))
            if new.start < new.stop and chance.random() < 0.1:
                data[new] = chance.randbytes(new.stop - new.start)  # Was there once.
        return bytes(data)


class SimFS:
    """A disk that keeps, of each file and folder, what is durable and what is not.

    `fail` is asked before each call that changes something. With `lies`, fdatasync does
    nothing. With `short_writes`, a write takes a part of what it is given.
    """

    def __init__(self, *, lies: bool = False, short_writes: bool = False) -> None:
        self.lies = lies
        self.short_writes = short_writes
        self.fail: Fail = lambda call, number: 0
        self.calls = 0
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._unsynced: list[list[tuple[Path, _File | None]]] = []
        self._open: dict[int, _File] = {}
        self._next_fd = 3

    def crash(self, seed: int) -> None:
        """Lose power: each thing that was not synced is kept, lost or torn."""
        count("losses of power")
        chance = random.Random(seed)
        names = dict(self._durable_names)
        for change in self._unsynced:
            if chance.random() < 0.5:
                _apply(names, change)
        files = {id(file): file for file in names.values()}
        after = {key: _File(file.after_crash(chance)) for key, file in files.items()}
        self._names = {path: after[id(file)] for path, file in names.items()}
        self._durable_names = dict(self._names)
        self._unsynced = []
        self._open = {}

    def kill(self) -> None:
        """End the process that used the disk: its files are closed, nothing more."""
        self._open = {}

    @property
    def open_count(self) -> int:
        return len(self._open)

    def open(self, path: Path, *, write: bool = False) -> int:
        if path not in self._names:
            raise error_of(errno.ENOENT)
        return self._opened(self._names[path])

    def create(self, path: Path) -> int:
        self._may_fail("create")
        if path in self._names:
            raise error_of(errno.EEXIST)
        file = _File()
        self._change([(path, file)])
        return self._opened(file)

    def close(self, fd: int) -> None:
        del self._open[fd]

    def size(self, fd: int) -> int:
        return len(self._open[fd].seen)

    def pread(self, fd: int, size: int, position: int) -> bytes:
        return bytes(self._open[fd].seen[position : position + size])

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        size = (len(data) + 1) // 2 if self.short_writes else len(data)
        self._open[fd].write(data[: size // 2], position)
        self._may_fail("pwrite")
        self._open[fd].write(data[:size], position)
        return size

    def fdatasync(self, fd: int) -> None:
        try:
            self._may_fail("fdatasync")
        except OSError:
            # As on Linux: what could not be written counts as clean from here on.
            self._open[fd].dirty.clear()
            raise
        if not self.lies:
            self._open[fd].sync()

    def truncate(self, fd: int, size: int) -> None:
        self._may_fail("truncate")
        file = self._open[fd]
        del file.seen[size:]
        file.dirty = {sector for sector in file.dirty if sector * SECTOR_SIZE < size}

    def rename(self, source: Path, target: Path) -> None:
        self._may_fail("rename")
        self._change([(source, None), (target, self._names[source])])

    def unlink(self, path: Path) -> None:
        if path not in self._names:
            raise error_of(errno.ENOENT)
        self._may_fail("unlink")
        self._change([(path, None)])

    def listdir(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self._names if path.parent == folder)

    def make_folder(self, folder: Path) -> None:
        self._may_fail("make_folder")

    def fsync_dir(self, folder: Path) -> None:
        self._may_fail("fsync_dir")
        rest = []
        for change in self._unsynced:
            # Of a rename into another folder this is one half only.
            here = [named for named in change if named[0].parent == folder]
            _apply(self._durable_names, here)
            rest.append([named for named in change if named not in here])
        self._unsynced = [change for change in rest if change]

    def forget(self, fd: int) -> None:
        pass

    def put(self, path: Path, data: bytes) -> None:
        """Place a durable file, as a test's beginning."""
        self._names[path] = self._durable_names[path] = _File(data)

    def get(self, path: Path) -> bytes:
        return bytes(self._names[path].seen)

    def _opened(self, file: _File) -> int:
        self._next_fd += 1
        self._open[self._next_fd] = file
        return self._next_fd

    def _change(self, change: list[tuple[Path, _File | None]]) -> None:
        _apply(self._names, change)
        self._unsynced.append(change)

    def _may_fail(self, call: str) -> None:
        self.calls += 1
        if number := self.fail(call, self.calls):
            count("calls that failed")
            raise error_of(number)


def _apply(names: dict[Path, _File], change: list[tuple[Path, _File | None]]) -> None:
    for path, file in change:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))
