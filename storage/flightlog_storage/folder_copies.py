"""Copies of folders that are the users' own: each file as it is, links as links."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flightlog_storage.files import RealFiles, fsync_path

__all__ = ("copy_folder",)


def copy_folder(source: Path, target: Path, name: str, staging: Path) -> None:
    """Bring the copy of a folder in another up to date, durably.

    What is in the copy alone stays there. `staging` is on the file system of `target`.

    Raises:
        OSError: Something cannot be read, or the disk refuses.
    """
    touched: set[Path] = set()
    for path in _files_in(source / name):
        there = target / path.relative_to(source)
        with suppress(FileNotFoundError):
            if path.is_symlink() or not _is_same(path, there):
                touched |= _make_folders(target, there.parent)
                _copy(path, there, staging / "copy")
                touched.add(there.parent)
    for folder in touched:
        RealFiles().fsync_dir(folder)


def _copy(source: Path, there: Path, staged: Path) -> None:
    staged.unlink(missing_ok=True)
    shutil.copy2(source, staged, follow_symlinks=False)
    if not staged.is_symlink():
        fsync_path(staged)
    if there.is_dir() and not there.is_symlink():
        shutil.rmtree(there)  # It was a folder in the source, and is none any more.
    staged.rename(there)


def _files_in(folder: Path) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(above, name)
            if path.is_symlink() or path.is_file():
                yield path


def _is_same(path: Path, there: Path) -> bool:
    if there.is_symlink() or not there.exists():
        return False
    one, other = path.stat(), there.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _make_folders(root: Path, folder: Path) -> set[Path]:
    """Make a folder with those above it; return those in which one was made.

    A link in its place would lead elsewhere; it goes, as does a file.
    """
    touched = set()
    for part in folder.relative_to(root).parts:
        above, root = root, root / part
        if root.is_symlink() or not root.is_dir():
            root.unlink(missing_ok=True)
            root.mkdir(mode=0o700)
            touched.add(above)
    return touched
