"""A folder with outputs, looked at again and again by a scanner with a real home."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.storage.recording import writer_id

from flightlog_storage.archive import Archive, Kept
from flightlog_storage.assets import Asset
from flightlog_storage.event import Looking, OutputArchived
from flightlog_storage.home import Home
from flightlog_storage.output_fold import change_outputs
from flightlog_storage.outputs import Memory, Scan, Scanner
from flightlog_storage.runstate import RunState

__all__ = ("Looked",)

NOW = 2_000_000_000.0  # Of looks; files are some seconds older, or as a test says.


class _Counted(Archive):
    """An archive that knows what was read."""

    def __init__(self, home: Home, tick: Callable[[], object]) -> None:
        super().__init__(home, tick)
        self.read: list[str] = []
        self.meanwhile: Callable[[], object] = int  # Done while something is read.

    def keep_file(self, source: str, *, may_grow: bool = False) -> Kept:
        self.read.append(os.path.basename(source))
        kept = super().keep_file(source, may_grow=may_grow)
        self.meanwhile()
        return kept

    def keep_folder(self, path: str) -> Kept:
        self.read.append(os.path.basename(path))
        kept = super().keep_folder(path)
        self.meanwhile()
        return kept


class Looked:
    """What looks find; what they archive is folded into `state` at once."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "work"
        self.out = self.root / "out"
        self.out.mkdir(parents=True)
        self.home = Home(folder / "home")
        self.home.create()
        self.tick: Callable[[], object] = int
        self.archive = _Counted(self.home, lambda: self.tick())
        self.state = RunState("e", "p", "r", 1)
        self.memory = Memory()
        self.told: list[str] = []
        self.now = NOW

    def write(self, name: str, data: bytes | str = b"one", age_s: float = 60) -> Path:
        """Write a file, which was last changed so long ago."""
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        os.utime(path, (self.now - age_s, self.now - age_s))
        return path

    def look(
        self,
        *patterns: str,
        is_last: bool = False,
        put: Callable[[OutputArchived], None] | None = None,
        dirs: list[Path] | None = None,
        **rest: Any,
    ) -> Scan:
        """Look once, by default with files at rest at the first look."""
        looking = Looking(
            dirs=[str(each) for each in dirs or [self.out]],
            root=str(self.root),
            patterns=list(patterns),
            **{"stable_required": 1, "min_age_s": 0.0} | rest,
        )
        scanner = Scanner(
            looking, self.archive, self.told.append, lambda: self.tick(), self.memory
        )
        return scanner.scan(
            self.state.last_outputs.get, put or self.put, now=self.now, is_last=is_last
        )

    def put(self, event: OutputArchived) -> None:
        change_outputs(self.state, writer_id("w"), event)

    def archived(self, *patterns: str, **rest: Any) -> list[str]:
        """Return the keys that a look archives, without the name of the folder."""
        events = self.look(*patterns, **rest).archived
        return sorted(event.key.removeprefix("out/") for event in events)

    @property
    def outputs(self) -> list[Asset]:
        return list(self.state.assets.values())

    def restart(self) -> None:
        """Forget all but what was archived, as a daemon that was killed does."""
        self.memory = Memory()
        self.archive.read.clear()
