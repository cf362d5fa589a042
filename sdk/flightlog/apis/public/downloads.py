"""Files written to folders of the user's: checked, and never outside the folder.

Names come from events, which are untrusted, and a folder may hold links that lead
elsewhere. So a path is walked part by part from the folder's descriptor, links are not
followed, and a file appears by rename when its bytes were found to be right.
"""

import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flightlog.errors import CommError, CorruptError
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import copy_file, hash_file
from flightlog_storage.errors import CorruptData, SourceUnusable
from flightlog_storage.event import ManifestEntry
from flightlog_storage.paths import checked_path

__all__ = ("check_folder", "clear_others", "is_local", "write_entry")

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def is_local(entry: ManifestEntry) -> bool:
    """Whether the bytes can be had from here."""
    return entry.reference is None or entry.reference.startswith("file://")


def write_entry(store: BlobStore, entry: ManifestEntry, root: Path) -> None:
    """Write a file below `root`, unless it is there and right.

    Raises:
        CorruptError: The bytes are missing or damaged, or the path leads elsewhere.
        CommError: It cannot be written; `exc` is the OSError.
    """
    try:
        path = checked_path(entry.path)
        *parents, name = path.split("/")
        os.makedirs(root, exist_ok=True)
        with _folder(root, parents) as folder:
            if not _is_there(folder, name, root / path, entry):
                _write(folder, name, lambda target: _fill(store, entry, target))
    except ValueError as error:
        raise CorruptError(f"refused: {error}", error) from error
    except (CorruptData, SourceUnusable) as error:
        raise CorruptError(f"{entry.path}: {error}", error) from error
    except OSError as error:
        raise CommError(f"{entry.path} cannot be copied: {error}", error) from error


def _fill(store: BlobStore, entry: ManifestEntry, target: int) -> None:
    if entry.reference is None:
        store.copy_verified(entry.blob or "", target)
        return
    source = Path(unquote(urlsplit(entry.reference).path))
    found = copy_file(source, target)
    if entry.digest not in (found.md5, entry.reference):
        raise SourceUnusable(source, "is not any more what was referred to")


def _is_there(folder: int, name: str, path: Path, entry: ManifestEntry) -> bool:
    """Whether a regular file is there, and right; a link is not."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
        return False
    return hash_file(path).md5 == entry.digest


def _write(folder: int, name: str, fill: Callable[[int], None]) -> None:
    new = f".{uuid.uuid4().hex}"
    target = os.open(new, _NEW, 0o666, dir_fd=folder)
    try:
        fill(target)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(new, dir_fd=folder)
        raise
    finally:
        os.close(target)


@contextmanager
def _folder(root: Path, parents: list[str]) -> Iterator[int]:
    """Open a folder below `root`, made where it is not there.

    Raises:
        OSError: A part is a link, or no folder.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parents:
            with suppress(FileExistsError):  # Opened next, if it is a folder.
                os.mkdir(part, dir_fd=fd)
            below = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def clear_others(root: Path, kept: Iterable[str]) -> None:
    """Delete all below `root` that is not in `kept`; links themselves, not their ends.

    Raises:
        CommError: Something cannot be deleted.
    """
    paths = set(kept)
    try:
        for folder, folders, names in os.walk(root, topdown=False):
            below = Path(folder).relative_to(root)
            for name in names + [n for n in folders if (Path(folder) / n).is_symlink()]:
                if (below / name).as_posix() not in paths:
                    os.unlink(Path(folder) / name)
            if folder != str(root) and not os.listdir(folder):
                os.rmdir(folder)
    except OSError as error:
        raise CommError(f"{root} cannot be cleared: {error}", error) from error


def check_folder(root: Path, entries: Iterable[ManifestEntry]) -> None:
    """Compare the files below `root` with entries.

    Raises:
        CorruptError: One is missing, different, or not among them.
    """
    known = {entry.path: entry for entry in entries}
    there = {
        (Path(folder) / name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for name in names
    }
    for path in sorted(there - known.keys()):
        raise CorruptError(f"{root / path} is no file of the artifact")
    for entry in known.values():
        if entry.reference is None and not _is_right(root / entry.path, entry):
            raise CorruptError(f"{root / entry.path} is not what was logged")


def _is_right(path: Path, entry: ManifestEntry) -> bool:
    try:
        return hash_file(path).md5 == entry.digest
    except (OSError, SourceUnusable):
        return False
