"""The archive: files and folders of a user's, made blobs of the home."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flightlog_storage.blobs import Blob, BlobGone, BlobStore
from flightlog_storage.copies import Digests, stage_bytes, stage_file
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import ManifestEntry
from flightlog_storage.home import Home
from flightlog_storage.manifest import encode_manifest, read_manifest
from flightlog_storage.staging import staging_folder
from flightlog_storage.trees import Leaf, Survey, leaves

__all__ = ("Archive", "Kept")

# What a full disk says. Of other errors a second try is no cure.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is a blob now, or a folder of such files; as events tell it."""

    fingerprint: str
    size: int
    file_count: int | None = None
    blob: str | None = None
    digest: str | None = None
    manifest: str | None = None
    manifest_size: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    skipped_count: int = 0

    @property
    def told(self) -> dict[str, Any]:
        """Return it as fields of an event."""
        return asdict(self)


class Naming(Protocol):
    """What names what was kept: that itself, or an event."""

    @property
    def size(self) -> int: ...

    @property
    def blob(self) -> str | None: ...

    @property
    def manifest(self) -> str | None: ...

    @property
    def manifest_size(self) -> int: ...


class Archive:
    """Brings bytes into a home. Any number of threads and processes may, at once."""

    def __init__(
        self,
        home: Home,
        tick: Callable[[], object],
        kept: Callable[[int, int], object] = lambda size, files: None,
        room: DiskRoom | None = None,
    ) -> None:
        """`tick` is called again and again meanwhile; what it raises ends a call.

        `kept` is told how many bytes more, and how many files, were read. With `room`
        an archive that would take the last of it is refused, as by a full disk.
        """
        self._home = home
        self._store = BlobStore(home.blobs)
        self._room = room
        self._tick = tick
        self._kept = kept
        self.never = os.path.realpath(home.root)  # A home is no part of an archive.

    def keep_file(self, source: str, *, may_grow: bool = False) -> Kept:
        """Make a file, which is no link, a blob; equal bytes are one.

        Args:
            source: Where it is.
            may_grow: Whether it is fine that something is added meanwhile; then it is
                kept as it was at first.

        Raises:
            SourceUnusable: It is no regular file, or changes each time it is read.
            OSError: It cannot be read; or the home's disk refuses: see `is_ours`.
        """
        found = self._keep(source, may_grow)
        return Kept(found.sha256, found.size, blob=found.sha256, digest=found.md5)

    def keep_folder(self, path: str) -> Kept:
        """Make each file below a folder a blob, and a manifest of them.

        Raises:
            ValueError: There is nothing in it that can be kept.
            SourceUnusable: A file changes each time it is read.
            OSError: Something cannot be read; or the home's disk refuses.
        """
        found = Survey(0.0)

        def skip(name: str, error: OSError | str) -> None:
            if isinstance(error, OSError):
                raise error  # What cannot be read must not be missing.
            found.skip(name, error)

        tree = leaves(path, self.never, skip, self._tick)
        entries = sorted(self._entries(tree), key=lambda entry: entry.path)
        if found.skipped and not entries:
            name, why = found.skipped[0]
            raise ValueError(f"nothing in {path} can be archived: {name} {why}")
        staged = stage_bytes(encode_manifest(entries), self._staging())
        self._store.keep(staged)
        return Kept(
            fingerprint=_fingerprint(entries),
            size=sum(entry.size for entry in entries),
            file_count=len(entries),
            manifest=staged.digests.sha256,
            manifest_size=staged.digests.size,
            skipped=found.skipped,
            skipped_count=found.skipped_count,
        )

    @contextmanager
    def naming(self, named: "Naming") -> Iterator[None]:
        """Hold what was kept until an event that names it is told.

        Raises:
            BlobGone: Some of it was deleted before: it is to be kept again.
            OSError: The home's disk refuses.
        """
        with self._store.naming(_blobs_of(self._store, named)):
            yield

    def is_ours(self, error: OSError) -> bool:
        """Whether the home's disk refused, and not the user's file."""
        name = str(error.filename)
        ours = self._home.blobs, self._home.staging
        return error.errno in _FULL or any(
            name == str(folder) or name.startswith(f"{folder}/") for folder in ours
        )

    def _entries(self, tree: Iterator[Leaf]) -> Iterator[ManifestEntry]:
        for leaf in tree:
            digests = self._keep(leaf.source)
            yield ManifestEntry(
                path=leaf.path,
                digest=digests.md5,
                size=digests.size,
                blob=digests.sha256,
            )

    def _keep(self, source: str, may_grow: bool = False) -> Digests:
        staged = stage_file(
            Path(source),
            self._staging(),
            follow=False,
            may_grow=may_grow,
            tick=self._read,
            fits=self._fits,
        )
        self._store.keep(staged)
        self._kept(0, 1)
        return staged.digests

    def _read(self, size: int) -> None:
        self._tick()
        self._fits(0)
        self._kept(size, 0)

    def _fits(self, size: int) -> None:
        if self._room is not None:
            self._room.check(size)

    def _staging(self) -> Path:
        return staging_folder(self._home.staging)


def _blobs_of(store: BlobStore, named: Naming) -> Iterator[Blob]:
    if named.blob is not None:
        yield named.blob, named.size
    if named.manifest is not None:
        yield named.manifest, named.manifest_size
        try:
            entries = read_manifest(store, named.manifest)
        except CorruptData as error:
            raise BlobGone(str(error)) from error
        yield from ((entry.blob, entry.size) for entry in entries if entry.blob)


def _fingerprint(entries: list[ManifestEntry]) -> str:
    """Return what tells two folders' contents apart: names and bytes, as Runicorn."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.blob}\0".encode())
    return digest.hexdigest()
