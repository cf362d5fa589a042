"""The disk at each moment of recorded calls, and what a loss of power leaves of it.

A file's bytes are durable once fsync or fdatasync of it has returned, a name once
fsync of its folder has. Until then each of them may be kept, lost or, of bytes, torn,
whatever became of the others. What programs do in mapped memory is not seen: the
spools, which are left out, and SQLite's -shm file, which is made anew.
"""

import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.recorded import Call, Moment

__all__ = ("Disk", "Variant")

SECTOR_SIZE = 512
_KNOWN = (
    *("openat", "write", "pwrite64", "ftruncate", "fallocate", "fsync", "fdatasync"),
    *("sendfile", "mkdir", "rename", "unlink", "unlinkat", "rmdir"),
)
# What changes files without this model knowing how.
_UNKNOWN = (
    *("creat", "writev", "pwritev", "pwritev2", "copy_file_range"),
    *("sync_file_range", "truncate", "link", "linkat", "symlink", "symlinkat"),
    *("mkdirat", "renameat", "renameat2"),
)


@dataclass(eq=False)
class _Change:
    """Bytes that come to a position, or with None the file's new size."""

    position: int
    data: bytes | None
    is_done: bool = True

    def apply(self, content: bytearray, size: int | None = None) -> None:
        """Make the change, or that of the first bytes."""
        content.extend(bytes(max(0, self.position - len(content))))
        if self.data is None:
            del content[self.position :]
        else:
            data = self.data[:size]
            content[self.position : self.position + len(data)] = data


@dataclass(eq=False)
class _Node:
    """A file or folder: its durable bytes, and what comes to them in order."""

    is_folder: bool = False
    durable: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)
    size: int = 0
    position: int = 0  # Of the next write: nobody shares a file that is so written.
    appends: bool = False

    def edit(self, change: _Change) -> None:
        self.changes.append(change)
        if change.data is None:
            self.size = change.position
        else:
            self.size = max(self.size, change.position + len(change.data))

    def sync(self, synced: list[_Change]) -> None:
        for change in synced:
            change.apply(self.durable)
        self.changes = [each for each in self.changes if each not in synced]

    def seen(self) -> bytearray:
        content = bytearray(self.durable)
        for change in self.changes:
            change.apply(content)
        return content


_Names = dict[str, _Node]
_NameChange = list[tuple[str, _Node | None]]


@dataclass(frozen=True)
class Variant:
    """Whether names and bytes that were not synced are kept; None: as the seed says."""

    names: bool | None
    contents: bool | None
    seed: int = 0


class Disk:
    """The files below a folder, as programs see them and as they are durable.

    Where `lies` says so of a path, a sync that returns has done nothing. Paths with
    `left_out` in them are none of these files.
    """

    def __init__(
        self,
        root: Path,
        *,
        lies: Callable[[str], bool] = lambda path: False,
        left_out: str = "/spool/",
    ) -> None:
        self._root = str(root)
        self._left_out = left_out
        self._lies = lies
        self._names: _Names = {"": _Node(is_folder=True)}
        self._durable: _Names = {}
        self._unsynced: list[_NameChange] = []
        self._begun: dict[int, _Change] = {}
        self._syncing: dict[int, list[_Change]] = {}

    def changes(self, moment: Moment) -> bool:
        """Whether it changes what there is here, or what of it is durable."""
        call = moment.call
        paths = (call.target, call.opened, *map(os.fsdecode, call.strings[:2]))
        is_here = any(self._within(path) is not None for path in paths)
        assert not is_here or call.name not in _UNKNOWN, call.name
        return is_here and call.name in _KNOWN

    def syncs(self, moment: Moment) -> bool:
        """Whether it makes something durable."""
        return moment.is_end and moment.call.name in ("fsync", "fdatasync")

    def take(self, moment: Moment) -> None:
        """Let a call begin or end."""
        act = getattr(self, f"_{moment.call.name}", None)
        if act is not None:
            act(moment.call, moment.is_end)

    def seen(self, path: str) -> bytes:
        """Return what programs see of a file."""
        return bytes(self._names[path].seen())

    def spoil(self, path: str) -> None:
        """Let a sync of a file fail: as on Linux, what it should bring counts as done.

        No later one brings it.
        """
        for change in self._names[path].changes:
            change.is_done = False

    def put_into(self, folder: Path, variant: Variant) -> None:
        """Write into a folder what there is after a loss of power."""
        chance = random.Random(variant.seed)
        names = dict(self._durable)
        for change in self._unsynced:
            keep = chance.random() < 0.5 if variant.names is None else variant.names
            if keep:
                _apply(names, change)
        for path, node in sorted(names.items()):
            target = folder / path
            if not target.parent.is_dir():
                continue  # Its folder is gone, and it with it.
            if node.is_folder:
                target.mkdir()
            else:
                target.write_bytes(_after(node, variant.contents, chance))

    def _within(self, path: str) -> str | None:
        """Return a path below the root; None if it is none of ours."""
        below = path.removeprefix(self._root)
        if below == path or below[:1] not in ("", "/") or self._left_out in below:
            return None
        return below[1:]

    def _node(self, call: Call) -> _Node | None:
        path = self._within(call.target)
        return None if path is None else self._names.get(path)

    # --- calls ---

    def _openat(self, call: Call, is_end: bool) -> None:
        path = self._within(call.opened)
        if not is_end or path is None:
            return
        if path not in self._names and "O_CREAT" in call.flags:
            self._change([(path, _Node())])
        node = self._names.get(path)
        if node is None or "O_RDONLY" in call.flags:
            return
        node.position, node.appends = 0, "O_APPEND" in call.flags
        if "O_TRUNC" in call.flags and node.size:
            node.edit(_Change(0, None))

    def _lseek(self, call: Call, is_end: bool) -> None:
        node = self._node(call)
        if is_end and node is not None:
            node.position = call.result

    def _write(self, call: Call, is_end: bool) -> None:
        node = self._node(call)
        if node is not None and not is_end:
            self._begin(call, node, node.size if node.appends else node.position)
            node.position += call.result
        elif is_end:
            self._end(call)

    def _pwrite64(self, call: Call, is_end: bool) -> None:
        node = self._node(call)
        if node is not None and not is_end:
            self._begin(call, node, call.numbers[-1])
        elif is_end:
            self._end(call)

    def _sendfile(self, call: Call, is_end: bool) -> None:
        """Copy from a file that is as it was then: none of these here."""
        node, start = self._node(call), re.search(r"\[(\d+)\]", call.flags)
        if is_end and node is not None and start is not None:
            data = Path(call.source).read_bytes()[int(start[1]) :][: call.result]
            node.edit(_Change(node.position, data))
            node.position += call.result

    def _begin(self, call: Call, node: _Node, position: int) -> None:
        change = _Change(position, call.strings[0][: call.result], is_done=False)
        self._begun[id(call)] = change
        node.edit(change)

    def _end(self, call: Call) -> None:
        if id(call) in self._begun:
            self._begun.pop(id(call)).is_done = True

    def _ftruncate(self, call: Call, is_end: bool) -> None:
        node = self._node(call)
        if is_end and node is not None:
            node.edit(_Change(call.numbers[-1], None))

    def _fallocate(self, call: Call, is_end: bool) -> None:
        node = self._node(call)
        if is_end and node is not None and "KEEP_SIZE" not in call.flags:
            node.edit(_Change(max(node.size, sum(call.numbers[-2:])), None))

    def _fsync(self, call: Call, is_end: bool) -> None:
        node, path = self._node(call), self._within(call.target)
        if node is None or path is None or self._lies(path):
            return
        if not is_end:
            self._syncing[id(call)] = [each for each in node.changes if each.is_done]
        elif node.is_folder:
            self._sync_names(path)
        else:
            node.sync(self._syncing.pop(id(call), []))

    _fdatasync = _fsync

    def _sync_names(self, folder: str) -> None:
        rest = []
        for change in self._unsynced:
            if any(os.path.dirname(path) == folder for path, _ in change):
                _apply(self._durable, change)
            else:
                rest.append(change)
        self._unsynced = rest

    def _mkdir(self, call: Call, is_end: bool) -> None:
        path = self._within(os.fsdecode(call.strings[0]))
        if is_end and path:
            self._change([(path, _Node(is_folder=True))])

    def _rename(self, call: Call, is_end: bool) -> None:
        source, target = (self._within(os.fsdecode(path)) for path in call.strings)
        if not is_end or source is None or target is None:
            return
        moved = {
            path: node
            for path, node in self._names.items()
            if path == source or path.startswith(f"{source}/")
        }
        change: _NameChange = [(path, None) for path in moved]
        change += [(target + path[len(source) :], node) for path, node in moved.items()]
        self._change(change)

    def _unlink(self, call: Call, is_end: bool) -> None:
        # An absolute path stands for itself, whatever folder is given.
        path = self._within(os.path.join(call.target, os.fsdecode(call.strings[0])))
        if is_end and path is not None:
            self._change([(path, None)])

    _unlinkat = _rmdir = _unlink

    def _change(self, change: _NameChange) -> None:
        _apply(self._names, change)
        self._unsynced.append(change)


def _apply(names: _Names, change: _NameChange) -> None:
    for path, node in change:
        if node is None:
            names.pop(path, None)
        else:
            names[path] = node


def _after(node: _Node, kept: bool | None, chance: random.Random) -> bytes:
    """Return a file's bytes when each unsynced change had its own luck."""
    if kept is None and node.changes:
        change = chance.choice([_all, _none, _torn, _mixed])
        return bytes(change(node, chance))
    return bytes(node.seen() if kept else node.durable)


def _all(node: _Node, chance: random.Random) -> bytearray:
    return node.seen()


def _none(node: _Node, chance: random.Random) -> bytearray:
    return node.durable


def _torn(node: _Node, chance: random.Random) -> bytearray:
    """Return the bytes when changes arrive in order and one of them is cut off."""
    content = bytearray(node.durable)
    *before, last = node.changes[: chance.randint(1, len(node.changes))]
    for change in before:
        change.apply(content)
    size = len(last.data or b"")
    sectors = SECTOR_SIZE * chance.randint(0, size // SECTOR_SIZE)
    cut = chance.choice([1, size - 1, sectors - last.position % SECTOR_SIZE])
    last.apply(content, max(0, min(cut, size)))
    return content


def _mixed(node: _Node, chance: random.Random) -> bytearray:
    """Return the bytes when some sectors arrive, some do not and some are garbage."""
    seen = node.seen()
    sizes = sorted((len(node.durable), len(seen)))
    content = bytearray(node.durable)
    _Change(chance.choice([*sizes, chance.randint(*sizes)]), None).apply(content)
    for change in node.changes:
        end = min(change.position + len(change.data or b""), len(content), len(seen))
        first = change.position - change.position % SECTOR_SIZE
        for start in range(first, end, SECTOR_SIZE):
            part = slice(max(start, change.position), min(start + SECTOR_SIZE, end))
            luck = chance.random()
            if luck < 0.5:
                content[part] = seen[part]
            elif luck < 0.6 and part.start >= len(node.durable):  # What was there once.
                content[part] = chance.randbytes(len(content[part]))
    return content
