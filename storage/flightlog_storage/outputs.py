"""Outputs: what is new in the folders that are watched, archived once it is at rest."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flightlog_storage.archive import Archive, Kept
from flightlog_storage.assets import Asset
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.event import ROLLING, Looking, OutputArchived
from flightlog_storage.output_patterns import Patterns, is_log
from flightlog_storage.output_tree import (
    Candidate,
    candidates,
    look_at_folder,
    seen_of_file,
)
from flightlog_storage.process import this_process
from flightlog_storage.trees import Scandir

__all__ = ("Memory", "Scan", "Scanner")

TOLD_MAX = 1000  # Things that are told of, each once.


@dataclass(slots=True)
class _Item:
    """What is remembered of an output between two looks."""

    looked_at: float
    seen: str = ""
    looks: int = 0  # That have seen the same.
    settled: str = ""  # What was seen when it was archived.
    copied_at: float | None = None
    is_new: bool = False  # It was read, and what came of it is to be put.
    error: str = ""


class Memory:
    """What was seen by earlier looks; lost, it costs time and nothing else."""

    def __init__(self) -> None:
        self.items: dict[str, _Item] = {}
        self.told: set[str] = set()

    def forget(self, before: float) -> None:
        """Forget what was not there since then."""
        for key in [k for k, item in self.items.items() if item.looked_at < before]:
            del self.items[key]


@dataclass(slots=True)
class Scan:
    """What came of a look: how many outputs there are, and what is new of them."""

    scanned: int = 0
    archived: list[OutputArchived] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # Keys; they are tried again.
    unsettled: int = 0  # What is not at rest or not due, or cannot be looked at.
    error: OSError | None = None  # Why it ended early: the home's disk, or `put`.

    @property
    def is_whole(self) -> bool:
        """Whether all is archived that was to be."""
        return self.error is None and not self.failed

    @property
    def is_settled(self) -> bool:
        """Whether another look is of no use until something changes."""
        return self.is_whole and not self.unsettled


class Scanner:
    """Looks for outputs, and archives those that are at rest and new."""

    def __init__(
        self,
        looking: Looking,
        archive: Archive,
        tell: Callable[[str], None],
        tick: Callable[[], object],
        memory: Memory | None = None,
        scandir: Scandir = os.scandir,
    ) -> None:
        """`tell` is told what is left out, once; what `tick` raises ends a look.

        `scandir` lists each folder that is looked into.
        """
        self._looking = looking
        self._patterns = Patterns(looking.patterns)
        self._archive = archive
        self._tell = tell
        self._tick = tick
        self._memory = memory or Memory()
        self._scandir = scandir

    def scan(
        self,
        known: Callable[[str], Asset | None],
        put: Callable[[OutputArchived], None],
        *,
        now: float | None = None,
        is_last: bool = False,
    ) -> Scan:
        """Look once.

        Args:
            known: Returns what was archived last of an output, by its key.
            put: Told what is archived, durably; an OSError of it ends this.
            now: Seconds since 1970.
            is_last: Whether all is taken for being at rest.
        """
        look = _Look(known, put, time.time() if now is None else now, is_last)
        found = candidates(
            self._looking.dirs,
            self._patterns,
            self._archive.never,
            partial(self._skip, look.scan),
            self._tick,
            self._scandir,
        )
        try:
            for candidate in found:
                look.scan.scanned += 1
                self._meet(look, candidate)
        except OSError as error:
            look.scan.error = error
            return look.scan
        if self._looking.forget_after_s > 0:
            self._memory.forget(look.now - self._looking.forget_after_s)
        return look.scan

    def _meet(self, look: "_Look", candidate: Candidate) -> None:
        """Archive an output, if that is due.

        Raises:
            OSError: The home's disk refuses.
        """
        key = self._key(candidate.path)
        item = self._memory.items.get(key)
        if item is None:
            item = self._memory.items[key] = _Item(look.now)
        item.looked_at = look.now
        try:
            event = self._archive_new(look, key, item, candidate)
        except (SourceUnusable, ValueError, OSError) as error:
            if isinstance(error, OSError) and self._archive.is_ours(error):
                raise
            if os.path.lexists(candidate.path):  # Else it is no output any more.
                look.scan.failed.append(key)
                self._fail(item, candidate.path, str(error))
            return
        item.error = ""
        if event is not None:
            with self._archive.naming(event):
                look.put(event)
            look.scan.archived.append(event)
        if item.is_new:  # Only now: what could not be put is archived again.
            item.settled, item.copied_at = item.seen, look.now
            item.is_new = False
        look.scan.unsettled += item.settled != item.seen

    def _archive_new(
        self, look: "_Look", key: str, item: _Item, candidate: Candidate
    ) -> OutputArchived | None:
        """Archive an output that is at rest and new; return the event, if it is that.

        Raises:
            SourceUnusable: It changes while it is read.
            ValueError: Nothing in it can be archived.
            OSError: It cannot be read; or the home's disk refuses.
        """
        seen, newest = self._see(candidate)
        item.looks = item.looks + 1 if item.seen == seen else 1
        item.seen = seen
        item.is_new = False
        if item.settled == seen or not self._is_due(look, item, candidate, newest):
            return None
        last = look.known(key)
        if last is not None and last.output is not None:
            # By an earlier process, or by another one at the same time.
            if last.output.seen == seen:
                item.settled, item.copied_at = seen, last.logged_at
                return None
            item.copied_at = max(item.copied_at or 0.0, last.logged_at)
            if not self._is_due(look, item, candidate, newest):
                return None
        looked_ns = time.monotonic_ns()
        kept = self._keep(candidate, seen)
        item.is_new = True
        if last is not None and last.fingerprint == kept.fingerprint:
            return None
        is_rolling = not candidate.is_folder and is_log(candidate.path)
        return OutputArchived(
            time=time.time(),
            key=key,
            mode=ROLLING if is_rolling else self._looking.mode,
            seen=seen,
            boot=this_process().boot_id,
            looked_ns=looked_ns,
            **kept.told,
        )

    def _see(self, candidate: Candidate) -> tuple[str, float]:
        if candidate.is_folder:
            never = self._archive.never
            return look_at_folder(candidate.source, never, self._tick, self._scandir)
        return seen_of_file(candidate.status), candidate.status.st_mtime

    def _is_due(
        self, look: "_Look", item: _Item, candidate: Candidate, newest: float
    ) -> bool:
        if look.is_last:
            return True
        if not candidate.is_folder and is_log(candidate.path):
            since = None if item.copied_at is None else look.now - item.copied_at
            # Below 0 the clock was set back.
            return since is None or not 0 <= since < self._looking.log_interval_s
        age = max(0.0, look.now - newest)
        at_rest = item.looks >= self._looking.stable_required
        return at_rest and age >= self._looking.min_age_s

    def _keep(self, candidate: Candidate, seen: str) -> Kept:
        if not candidate.is_folder:
            is_growing = is_log(candidate.path)
            return self._archive.keep_file(candidate.source, may_grow=is_growing)
        kept = self._archive.keep_folder(candidate.source)
        if self._see(candidate)[0] != seen:
            raise SourceUnusable(Path(candidate.path), "changed while it was read")
        return kept

    def _key(self, path: str) -> str:
        """Return what an output is known by, wherever the run's workspace lies."""
        return path.removeprefix(f"{self._looking.root.rstrip('/')}/")

    def _fail(self, item: _Item, path: str, error: str) -> None:
        if item.error != error:
            item.error = error
            self._tell(f"{_shown(path)} cannot be archived now: {_shown(error)}")

    def _skip(self, scan: Scan, path: str, error: OSError | str) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            scan.unsettled += 1
        why = error if isinstance(error, str) else error.strerror or str(error)
        text = f"{_shown(path)}: {why}; it is left out"
        if text not in self._memory.told and len(self._memory.told) < TOLD_MAX:
            self._memory.told.add(text)
            self._tell(text)


@dataclass(slots=True)
class _Look:
    """What a look is told, and what has come of it so far."""

    known: Callable[[str], Asset | None]
    put: Callable[[OutputArchived], None]
    now: float
    is_last: bool
    scan: Scan = field(default_factory=Scan)


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
