"""The real files of a folder, whose calls can fail and whose power can be lost.

Calls of this process that change files are counted, and the folder is looked at before
each: what changed there since the last look is not durable until it is synced. SQLite
calls the system itself; its files are left as they are, which is one of the states that
its own syncs allow.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests.counts import count
from tests.simulation.power import SECTOR_SIZE, Disk, Variant
from tests.simulation.recorded import Call, Moment
from tests.simulation.simfs import Fail, PowerLost, error_of

__all__ = ("WatchedDisk",)

_SYNCS = ("fsync", "fdatasync")
_WRITES = ("write", "pwrite")
_RENAMES = ("rename", "replace")
_CALLS = (*_SYNCS, *_WRITES, *_RENAMES, "open", "ftruncate", "mkdir", "unlink", "rmdir")
_SQLITE = "state.db"
_FOLDER = 0  # The number of a folder, in place of a file's.


class WatchedDisk:
    """A disk that keeps, of each file below a folder, what is durable and what is not.

    `fail` is asked amid each call that changes something. What is done after the loss
    of power does not count.
    """

    def __init__(self, root: Path) -> None:
        """Take what is there for durable."""
        self.fail: Fail = lambda call, number: 0
        self.calls = 0
        self._is_on = True
        self._root = root
        self._disk = Disk(root, left_out=_SQLITE)
        self._numbers: dict[str, int] = {}
        self._look()
        for path in ("", *self._numbers):
            self._take(Call("fsync", self._real(path)))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what is called in here."""
        with ExitStack() as patches:
            for name in _CALLS:
                call = partial(self._call, name, getattr(os, name))
                patches.enter_context(mock.patch.object(os, name, call))
            yield

    def crash(self, folder: Path, seed: int) -> None:
        """Write into a new folder what there is after a loss of power."""
        count("losses of power")
        self._look()
        folder.mkdir(mode=0o700)
        self._disk.put_into(folder, Variant(None, None, seed))
        for path in self._root.glob(f"{_SQLITE}*"):
            shutil.copy(path, folder)

    def _call(
        self, name: str, real: Callable[..., Any], *given: Any, **more: Any
    ) -> Any:
        path = self._path(given[0], more.get("dir_fd"))
        is_change = name != "open" or given[1] & os.O_CREAT
        if path is None or not is_change or not self._is_on:
            return real(*given, **more)
        self._look()
        self.calls += 1
        if name not in _WRITES:
            self._may_fail(name, path)
            result = real(*given, **more)
        else:
            result = self._write(name, real, path, *given)
        if name in _SYNCS:
            self._take(Call("fsync", self._real(path)))
        elif name in _RENAMES:
            self._rename(path, self._path(given[1]))
        return result

    def _write(
        self,
        name: str,
        real: Callable[..., int],
        path: str,
        fd: int,
        data: Any,
        *at: int,
    ) -> int:
        """Write one half, before which all may end, and the other."""
        half = len(data) // 2
        done = real(fd, memoryview(data)[:half], *at)
        self._look()
        self._may_fail(name, path)
        return done + real(fd, memoryview(data)[half:], *(each + done for each in at))

    def _may_fail(self, name: str, path: str) -> None:
        try:
            number = self.fail(name, self.calls)
        except PowerLost:
            self._is_on = False
            raise
        if number:
            count("calls that failed")
            if name in _SYNCS:
                self._disk.spoil(path)
            raise error_of(number)

    def _path(self, given: Any, folder: int | None = None) -> str | None:
        """Return where a file is, below the root; None for one that is not ours."""
        if isinstance(given, int):
            path = os.readlink(f"/proc/self/fd/{given}")
        else:
            above = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
            path = os.path.join(above, os.fspath(given))
        below = os.path.relpath(path, self._root)
        if below.startswith("..") or path.endswith(" (deleted)"):
            return None
        return "" if below == "." else below

    def _rename(self, source: str, target: str | None) -> None:
        assert target is not None
        names = tuple(os.fsencode(self._real(path)) for path in (source, target))
        self._take(Call("rename", strings=names))
        for path in list(self._numbers):
            if path == source or path.startswith(f"{source}/"):
                number = self._numbers.pop(path)
                self._numbers[target + path.removeprefix(source)] = number

    def _look(self) -> None:
        """Take note of what changed since the last look."""
        if not self._is_on:
            return
        found = dict(self._found())
        for path in sorted(self._numbers, reverse=True):
            if found.get(path) != self._numbers[path]:
                self._take(Call("unlink", strings=(os.fsencode(self._real(path)),)))
                del self._numbers[path]
        for path, number in found.items():
            if path not in self._numbers:
                self._make(path, number)
            if number != _FOLDER:
                self._compare(path, (self._root / path).read_bytes())

    def _found(self) -> Iterator[tuple[str, int]]:
        """Yield the paths of what is there with its number, folders before theirs."""
        for above, folders, names in os.walk(self._root):
            inner = (
                "" if above == str(self._root) else os.path.relpath(above, self._root)
            )
            for name in folders:
                yield os.path.join(inner, name), _FOLDER
            for name in names:
                if not name.startswith(_SQLITE):
                    yield os.path.join(inner, name), os.stat(f"{above}/{name}").st_ino

    def _make(self, path: str, number: int) -> None:
        self._numbers[path] = number
        if number == _FOLDER:
            self._take(Call("mkdir", strings=(os.fsencode(self._real(path)),)))
        else:
            self._take(Call("openat", flags="O_CREAT", opened=self._real(path)))

    def _compare(self, path: str, data: bytes) -> None:
        """Have what differs in a file be written."""
        seen, target = self._disk.seen(path), self._real(path)
        if len(data) < len(seen):
            self._take(Call("ftruncate", target, numbers=(len(data),)))
        for start in range(0, len(data), SECTOR_SIZE):
            part = data[start : start + SECTOR_SIZE]
            if part != seen[start : start + SECTOR_SIZE]:
                self._take(
                    Call(
                        "pwrite64",
                        target,
                        strings=(part,),
                        numbers=(start,),
                        result=len(part),
                    )
                )

    def _take(self, call: Call) -> None:
        """Let the disk take a call, as if it had been recorded."""
        for is_end in (False, True):
            self._disk.take(Moment(call, is_end))

    def _real(self, path: str) -> str:
        return os.path.join(self._root, path).removesuffix("/")
