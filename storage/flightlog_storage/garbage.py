"""Garbage: what nothing in a home needs any more, found and deleted.

A blob is garbage when no state, no event and no spool names it, and it is older than a
grace period. What is named is read anew each time, so there is no count that can be
wrong. What cannot be read makes this refuse: then nothing is deleted.

Those who store hold the blobs until what names them is told (see blob_lock.py). This
waits for them once, before it reads: what they stored is told then, or younger than
that moment. It looks at the age again, alone, before it deletes. A kill at any point
leaves garbage, and nothing else.
"""

import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from flightlog_storage.blob_lock import alone, begin_of_time
from flightlog_storage.blobs import BlobStore, is_sha256, named_in
from flightlog_storage.database import Database
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.folding import UNKNOWN_KIND, Folding
from flightlog_storage.home import Home
from flightlog_storage.inbox import is_token, orphans
from flightlog_storage.manifest import read_manifest
from flightlog_storage.marks import Marks
from flightlog_storage.named_blobs import holders
from flightlog_storage.reader import HomeReader
from flightlog_storage.staging import dead_staging

__all__ = ("GRACE_S", "Collected", "Garbage", "Item", "collect", "find_garbage")

GRACE_S = 86_400.0  # Unless another grace period is asked for.
BATCH_COUNT_MAX = 256  # Blobs deleted while those who store wait.
ALL = 1 << 31
_FOLDER = re.compile(r"[0-9a-f]{2}")


class Item(NamedTuple):
    """A file, or a folder of them, that nothing needs."""

    path: Path
    size: int
    changed_at: float


@dataclass(slots=True)
class Garbage:
    """What nothing needs, in a home, and what is left alone all the same."""

    home: Home
    cutoff_ns: int  # What was stored later is not deleted.
    blobs: list[Item] = field(default_factory=list)
    staging: list[Item] = field(default_factory=list)
    inbox: list[Item] = field(default_factory=list)
    named_count: int = 0  # Blobs that something needs.
    young_count: int = 0
    young_size: int = 0
    strangers: list[str] = field(default_factory=list)  # Among blobs, not ours.
    quarantine: list[Item] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        """What is to be deleted."""
        return [*self.blobs, *self.staging, *self.inbox]


@dataclass(slots=True)
class Collected:
    """What was deleted, and what could not be, with the reasons."""

    count: int = 0
    size: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)


def find_garbage(
    home: Home, grace_s: float = GRACE_S, tick: Callable[[], object] = int
) -> Garbage:
    """Return what nothing needs and is older than that; nothing is deleted.

    `tick` is called again and again; what it raises ends this.

    Raises:
        HomeUnusable: What is needed cannot be told, for something is not there, is
            damaged or was set aside.
        CorruptData: Part of the log, or a manifest, is damaged.
        TimeoutError: Something is being stored all the time.
        OSError: The home cannot be read.
    """
    _check_quarantine(home)
    store = BlobStore(home.blobs)
    with alone(store.lock):
        begin_ns = begin_of_time(store.lock)
    garbage = Garbage(home, begin_ns - int(grace_s * 1e9))
    # Before what is owed is read: a writer that is gone has said all that it will.
    left = set(filter(is_token, orphans(home.inbox, home.spool)))
    marks, owed = _needed(home, store, tick)
    garbage.inbox = [_whole(home.inbox / name) for name in sorted(left - owed)]
    garbage.staging = [_whole(folder) for folder in dead_staging(home.staging)]
    garbage.named_count = len(marks)
    for path in _blob_folders(home, garbage):
        tick()
        _find_in(path, marks, garbage)
    garbage.quarantine = [_whole(path) for path in sorted(home.quarantine.glob("*"))]
    return garbage


def collect(
    garbage: Garbage,
    tick: Callable[[], object] = int,
    done: Callable[[Item], object] = id,
) -> Collected:
    """Delete garbage, unless it was stored again meanwhile.

    `tick` is called before each batch, and `done` with what is deleted.
    """
    collected = Collected()
    lock = BlobStore(garbage.home.blobs).lock
    rest = iter(garbage.blobs)
    while batch := list(islice(rest, BATCH_COUNT_MAX)):
        tick()
        try:
            with alone(lock):
                for item in batch:
                    _delete(item, garbage.cutoff_ns, collected, done)
        except OSError as error:
            collected.failed += [(str(item.path), str(error)) for item in batch]
    for item in (*garbage.staging, *garbage.inbox):
        tick()
        _delete(item, None, collected, done)
    return collected


def _check_quarantine(home: Home) -> None:
    """Refuse where what was set aside may be the last to name blobs.

    Ends of the log that were never acknowledged are no such thing.
    """
    for path in sorted(home.quarantine.glob("projections-*")):
        why = "may be the last to name blobs: restore the log, or delete this"
        raise HomeUnusable(path, why)


def _needed(
    home: Home, store: BlobStore, tick: Callable[[], object]
) -> tuple[Marks, set[str]]:
    """Return the blobs that are needed, and the tokens of files that are owed."""

    def read(database: Database, folding: Folding) -> tuple[Marks, set[str]]:
        database.check()
        marks = Marks()
        for digest in _digests(database, folding, store):
            tick()
            if is_sha256(digest):  # Else it is the name of nothing.
                marks.add(digest)
        owed = {owed.token for _, owed in database.owed_files(ALL)}
        for state in folding.states.values():
            owed.update(state.owed)
        return marks, owed

    try:
        return HomeReader(home, is_strict=True).look(read)
    except (sqlite3.Error, ValueError, msgspec.MsgspecError) as error:
        raise HomeUnusable(home.state, str(error)) from error


def _digests(database: Database, folding: Folding, store: BlobStore) -> Iterator[str]:
    """Yield the digests that anything names, many of them more than once."""
    manifests = set()
    for holder in holders(database, folding):
        if holder.blob is not None:
            yield holder.blob
        yield from (entry.blob for entry in holder.entries if entry.blob)
        if holder.manifest is not None and holder.manifest not in manifests:
            manifests.add(holder.manifest)
            yield holder.manifest
            try:
                entries = read_manifest(store, holder.manifest)
            except (CorruptData, msgspec.MsgspecError) as error:
                why = f"what {holder.use} needs cannot be told: {error}"
                raise HomeUnusable(store.path(holder.manifest), why) from error
            yield from (entry.blob for entry in entries if entry.blob)
    for letter in (*database.dead_letters(), *folding.dead_letters):
        if letter.reason == UNKNOWN_KIND:
            why = f"an event of {letter.writer.hex()} is {letter.reason}: upgrade"
            raise HomeUnusable(database.path, why)
        # A later version may understand them.
        yield from (digest.decode() for digest in named_in(letter.raw))


def _blob_folders(home: Home, garbage: Garbage) -> Iterator[Path]:
    """Yield the folders of blobs; a link, or what has another name, is not ours."""
    with os.scandir(home.blobs) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            else:
                garbage.strangers.append(entry.path)


def _find_in(folder: Path, marks: Marks, garbage: Garbage) -> None:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_named = is_sha256(entry.name) and entry.name[:2] == folder.name
            if is_named and entry.is_file(follow_symlinks=False):
                names.append(entry.name)
            else:
                garbage.strangers.append(entry.path)
    for name in marks.unmarked(sorted(names)):
        with suppress(FileNotFoundError):  # Deleted by another, just now.
            found = os.lstat(folder / name)
            if found.st_mtime_ns < garbage.cutoff_ns:
                item = Item(folder / name, found.st_size, found.st_mtime)
                garbage.blobs.append(item)
            else:
                garbage.young_count += 1
                garbage.young_size += found.st_size


def _whole(path: Path) -> Item:
    """Return a file, or a folder with all that is in it; links are not followed."""
    size = 0
    changed_at = 0.0
    with suppress(FileNotFoundError):
        status = os.lstat(path)
        size, changed_at = status.st_size, status.st_mtime
        if stat.S_ISDIR(status.st_mode):
            size = sum(
                os.lstat(os.path.join(folder, name)).st_size
                for folder, _, names in os.walk(path)
                for name in names
            )
    return Item(path, size, changed_at)


def _delete(
    item: Item,
    cutoff_ns: int | None,
    collected: Collected,
    done: Callable[[Item], object],
) -> None:
    try:
        status = os.lstat(item.path)
        if cutoff_ns is not None and status.st_mtime_ns >= cutoff_ns:
            return  # Stored again.
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(item.path)
        else:
            os.unlink(item.path)
    except FileNotFoundError:
        return  # Deleted by another.
    except OSError as error:
        collected.failed.append((str(item.path), error.strerror or str(error)))
        return
    collected.count += 1
    collected.size += item.size
    done(item)
