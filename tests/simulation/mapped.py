"""A folder of files that nobody syncs, and what a loss of power leaves of it.

Stores into mapped memory are no calls that could be recorded. So the folder is looked
at again and again; of each file any page may then be as it was at any look, or zeros,
whatever the others are, and any name may be there that ever was.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.counts import count

__all__ = ("Looks",)

PAGE_SIZE = 4096
SECTOR_SIZE = 512


@dataclass
class Looks:
    """What was seen of a folder's files: their bytes at each look, oldest first."""

    folder: Path
    _names: dict[str, int] = field(default_factory=dict)  # Of all times: which file.
    _here: set[str] = field(default_factory=set)
    _seen: dict[int, list[bytes]] = field(default_factory=dict)

    def look(self) -> None:
        self._here = set(os.listdir(self.folder))
        for name in self._here:
            path = self.folder / name
            number = path.stat().st_ino
            if self._names.get(name, number) != number:
                self._seen.pop(self._names[name], None)  # Its number may come again.
            self._names[name] = number
            seen = self._seen.setdefault(number, [])
            data = path.read_bytes()
            if data not in seen[-1:]:
                seen.append(data)

    def put_into(self, folder: Path, chance: random.Random) -> None:
        """Write into a new folder what there is after a loss of power."""
        count("losses of power")
        folder.mkdir()
        careful = chance.random() < 0.5  # Then only contents are lost.
        for name, number in sorted(self._names.items()):
            is_kept = name in self._here if careful else chance.random() < 0.8
            if is_kept:
                (folder / name).write_bytes(_after(self._seen[number], chance))


def _after(seen: list[bytes], chance: random.Random) -> bytes:
    """Return a file's bytes after a loss of power."""
    last = seen[-1]
    match chance.choice(("kept", "kept", "empty", "cut", PAGE_SIZE, SECTOR_SIZE)):
        case "kept":
            return last
        case "empty":
            return b""
        case "cut":
            return last[: chance.randint(0, len(last))]
        case int(step):
            zeros = bytes(len(last))
            share = chance.random()
            versions = [*seen, zeros]
            return b"".join(
                (last if chance.random() < share else chance.choice(versions))[
                    start : start + step
                ].ljust(min(step, len(last) - start), b"\0")
                for start in range(0, len(last), step)
            )
    raise AssertionError("unreachable")
