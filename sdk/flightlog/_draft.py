"""A draft: the files that are to make up an artifact, and their bytes until then.

What was added is what will be stored: a file is copied when it is added (by sharing its
blocks where the file system can), unless its user says that it will not change.
"""

import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from flightlog._run import Run
from flightlog._say import say
from flightlog._session import session
from flightlog._settings import open_home
from flightlog_storage.copies import Digests, Staged, hash_file, stage_file
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.event import ManifestEntry
from flightlog_storage.manifest import manifest_digest
from flightlog_storage.paths import checked_path, clashing_path
from flightlog_storage.staging import staging_folder

__all__ = ("REFERENCES_MAX", "Draft", "Source", "references", "relative_path", "walk")

REFERENCES_MAX = 10_000_000
POLICIES = ("mutable", "immutable")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of an entry are: in a private copy, or still where they were."""

    digests: Digests
    staged: Staged | None = None
    original: Path | None = None


class Draft:
    """The content of an artifact that is not logged yet, and what is said of it."""

    def __init__(
        self,
        type: str,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.type = type
        self.description = description
        self.metadata = {} if metadata is None else metadata
        self._folder: Path | None = None
        self._finalizer: weakref.finalize[..., Draft] | None = None
        self._folders: set[str] = set()  # Of the paths in `entries`.
        self.entries: dict[str, ManifestEntry] = {}
        self.sources: dict[str, Source] = {}

    @property
    def digest(self) -> str:
        return manifest_digest(self.entries.values())

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries.values())

    @property
    def file_count(self) -> int:
        return len(self.entries)

    def local_path(self, name: str) -> Path | None:
        """Return where the bytes of an entry are now, if it has any of its own."""
        source = self.sources.get(name)
        if source is None:
            return None
        return source.staged.path if source.staged else source.original

    def add_file(
        self, path: Path, name: str, *, policy: str = "mutable", overwrite: bool = False
    ) -> ManifestEntry:
        """Add a file as `name`; it is read now.

        Raises:
            ValueError: It is no file that holds still, the name cannot be, or other
                bytes have it.
            OSError: It cannot be read, or not be copied.
        """
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r} is none of {POLICIES}")
        name = self._free(name)
        path = Path(os.path.realpath(path))  # What it leads to now, if it is a link.
        try:
            if policy == "mutable":
                staged = stage_file(path, self._own_folder(), follow=False)
                source = Source(staged.digests, staged)
            else:
                source = Source(hash_file(path), original=path)
        except SourceUnusable as error:
            raise ValueError(str(error)) from error
        return self._put(name, source, overwrite)

    def add_folder(self, folder: Path, prefix: str, *, policy: str) -> None:
        """Add the files below a folder.

        Links to files are followed. What is no file is left out, and that is told.

        Raises:
            ValueError: As `add_file`.
            OSError: As `add_file`.
        """
        left_out: list[Path] = []
        for path in walk(folder, left_out.append):
            name = relative_path(path, folder)
            self.add_file(path, f"{prefix}{name}", policy=policy)
        if left_out:
            shown = ", ".join(str(path) for path in left_out[:3])
            say(f"{len(left_out)} under {folder} are no files and left out: {shown}")

    def add_entry(self, entry: ManifestEntry, overwrite: bool = False) -> ManifestEntry:
        """Add what needs no copy: a reference, or bytes that are a blob already.

        Raises:
            ValueError: The name cannot be, or other bytes have it.
        """
        name = self._free(entry.path)
        known = self.entries.get(name)
        if known is not None and known.digest != entry.digest and not overwrite:
            raise _taken(name)
        self._forget(name)
        self.entries[name] = entry
        self._folders.update(_parents(name))
        return entry

    @contextmanager
    def new_file(
        self, name: str, mode: str, encoding: str | None = None
    ) -> Iterator[IO[Any]]:
        """Give a file to write to; it is added when it is closed without an error.

        Raises:
            ValueError: The name or the mode cannot be, or the name is taken.
        """
        if mode not in ("x", "w", "xb", "wb"):
            raise ValueError(f"mode {mode!r} is none of 'x', 'w', 'xb', 'wb'")
        name = self._free(name)
        if name in self.entries and mode[0] == "x":
            raise ValueError(f"there is a file {name!r} in the artifact already")
        path = self._own_folder() / uuid.uuid4().hex
        try:
            with path.open(f"x{mode[1:]}", encoding=encoding) as file:
                path.chmod(0o600)
                yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        digests = hash_file(path)
        self._put(name, Source(digests, Staged(path, digests)), overwrite=True)

    def remove(self, name: str) -> None:
        """Take out a file, or all below a folder.

        Raises:
            FileNotFoundError: There is neither.
        """
        below = [path for path in self.entries if path.startswith(f"{name}/")]
        found = [name] if name in self.entries else below
        if not found:
            raise FileNotFoundError(f"there is no {name!r} in the artifact")
        for path in found:
            self._forget(path)
        self._folders = {each for path in self.entries for each in _parents(path)}

    def hand_over(self) -> None:
        """Keep the copies until `clear`, also while the process ends."""
        if self._finalizer is not None:
            self._finalizer.detach()

    def clear(self) -> None:
        """Delete the copies that are left."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self, name: str, source: Source, overwrite: bool) -> ManifestEntry:
        known, digests = self.entries.get(name), source.digests
        if known is not None and known.digest != digests.md5 and not overwrite:
            _discard(source)
            raise _taken(name)
        self._forget(name)
        entry = ManifestEntry(
            path=name, digest=digests.md5, size=digests.size, blob=digests.sha256
        )
        self.entries[name] = entry
        self.sources[name] = source
        self._folders.update(_parents(name))
        return entry

    def _forget(self, name: str) -> None:
        self.entries.pop(name, None)
        source = self.sources.pop(name, None)
        if source is not None:
            _discard(source)

    def _free(self, name: str) -> str:
        """Return a name that a file may have beside those there are."""
        name = checked_path(name)
        if name in self._folders:
            clash = clashing_path(name, self.entries)
        else:
            clash = next(
                (each for each in _parents(name) if each in self.entries), None
            )
        if clash is not None:
            raise ValueError(f"{name!r} cannot be a file beside the file {clash!r}")
        return name

    def _own_folder(self) -> Path:
        """Return where this draft's copies lie; gone when the draft is."""
        if self._folder is None:
            folder = staging_folder(_staging()) / uuid.uuid4().hex
            folder.mkdir(mode=0o700)
            self._folder = folder
            self._finalizer = weakref.finalize(self, _remove, folder, os.getpid())
        return self._folder


def _staging() -> Path:
    """Return where a draft keeps its copies: in the home that is likely to get it."""
    run = session.run
    if run is None:
        return open_home(None).staging
    return run.home.staging if isinstance(run, Run) else Path(tempfile.gettempdir())


def references(
    uri: str, name: str | None, *, checksum: bool, count_max: int
) -> list[ManifestEntry]:
    """Return entries that refer to a URI: for a local folder to each file below it.

    Raises:
        ValueError: There is no such file, too many of them, or no name for it.
    """
    address = urlsplit(uri)
    path = Path(unquote(address.path))
    if address.scheme != "file":
        name = name or path.name or address.netloc
        return [ManifestEntry(path=checked_path(name), digest=uri, reference=uri)]
    if not path.is_dir():
        return [_reference(uri, path, name or path.name, checksum)]
    prefix = f"{name}/" if name else ""
    found: list[ManifestEntry] = []
    for file in walk(path, lambda path: None):
        if len(found) >= count_max:
            raise ValueError(f"{uri} has more than {count_max:,} files")
        below = relative_path(file, path)
        where = f"{uri.rstrip('/')}/{quote(below)}"
        found.append(_reference(where, file, prefix + below, checksum))
    return found


def _reference(uri: str, path: Path, name: str, checksum: bool) -> ManifestEntry:
    try:
        size = path.stat().st_size
        digest = hash_file(path).md5 if checksum else uri
    except (OSError, SourceUnusable) as error:
        raise ValueError(f"{path} cannot be referred to: {error}") from error
    name = checked_path(name)
    return ManifestEntry(path=name, digest=digest, size=size, reference=uri)


def walk(folder: Path, leave_out: Callable[[Path], None]) -> Iterator[Path]:
    """Yield the files below a folder, sorted; tell of what is neither.

    Raises:
        OSError: A folder cannot be read.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from walk(path, leave_out)
        elif entry.is_file():
            yield path
        else:
            leave_out(path)


def relative_path(path: Path, root: Path) -> str:
    """Return where a file lies below a folder, with slashes."""
    return path.relative_to(root).as_posix()


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _taken(name: str) -> ValueError:
    return ValueError(
        f"there is other content under {name!r} in the artifact already; "
        "give overwrite=True to replace it"
    )


def _discard(source: Source) -> None:
    if source.staged is not None:
        source.staged.path.unlink(missing_ok=True)


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # A forked child must not delete what is its parent's.
        shutil.rmtree(folder, ignore_errors=True)
