"""`flightlog.snapshot_workspace`: a folder of code as one archive."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flightlog._checks import check_bool, check_int, check_path
from flightlog._say import say
from flightlog._settings import find_home
from flightlog_storage.snapshot import write_snapshot
from flightlog_storage.workspace import Limits, Request, Workspace, survey

__all__ = ("make_request", "snapshot_workspace", "tell_of_skipped")

IGNORE_FILE = ".rnignore"
SIZE_MAX = 500 * 1024 * 1024  # Of a workspace, unless another limit is given.
COUNT_MAX = 200_000
SHOWN_MAX = 3  # Of what is left out, in the one line that tells of it.


# The signature is Runicorn's, which users know.
def snapshot_workspace(  # noqa: PLR0913
    root: str | os.PathLike[str],
    out_zip: str | os.PathLike[str],
    *,
    ignore_file: str = IGNORE_FILE,
    extra_excludes: list[str] | None = None,
    max_total_bytes: int = SIZE_MAX,
    max_files: int = COUNT_MAX,
    force_snapshot: bool = False,
) -> dict[str, Any]:
    """Write the files of a folder to a zip archive, but for what is to be left out.

    Ignore files mean what they mean to git; docs/assets.md says what is left out
    besides. Links stay links. Equal content makes equal archives.

    Args:
        root: The folder.
        out_zip: The archive; its folder is made, and what is there is replaced when all
            has been written.
        ignore_file: What files with rules are called that are heard besides, and over,
            `.gitignore`; in any folder.
        extra_excludes: More rules, which come before those of all files.
        max_total_bytes: How many bytes the files may have together.
        max_files: How many files there may be.
        force_snapshot: Whether there are no such limits.

    Returns:
        `workspace_root`, `archive_path`, `format`, `file_count`, `total_bytes`, and as
        `skipped` what could not be read or is no file: dicts with `path` and `why`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a value that cannot be; the folder has more than the
            limits allow, or is a home of flightlog.
        OSError: The folder is not there, is none (FileNotFoundError,
            NotADirectoryError) or cannot be read; the archive cannot be written.
    """
    limits = Limits(
        check_int("max_files", max_files, 0),
        check_int("max_total_bytes", max_total_bytes, 0),
    )
    target = Path(os.path.realpath(check_path("out_zip", out_zip)))
    request = make_request(
        check_path("root", root),
        ignore_file=_file_name(ignore_file),
        excludes=_rules(extra_excludes),
        limits=limits,
        never=(str(target), os.path.realpath(find_home(None).root)),
        is_forced=check_bool("force_snapshot", force_snapshot),
    )
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "out_zip is a folder", str(target))
    found = survey(request)
    target.parent.mkdir(parents=True, exist_ok=True)
    stored = write_snapshot(request, found, target)
    tell_of_skipped(request.root, stored)
    return {
        "workspace_root": request.root,
        "archive_path": str(target),
        "format": "zip",
        "file_count": len(stored.entries),
        "total_bytes": stored.size,
        "skipped": [each._asdict() for each in stored.skipped],
    }


def make_request(
    root: str | os.PathLike[str],
    *,
    never: tuple[str, ...],
    is_forced: bool,
    ignore_file: str = IGNORE_FILE,
    excludes: tuple[str, ...] = (),
    limits: Limits = Limits(COUNT_MAX, SIZE_MAX),  # noqa: B008  # It is frozen.
) -> Request:
    """Return what is to be asked of a workspace.

    Raises:
        OSError: The root is not there, or no folder.
    """
    return Request(
        root=_root(os.fspath(root)),
        ignore_file=ignore_file,
        excludes=excludes,
        limits=Limits(None, None) if is_forced else limits,
        never=never,
    )


def tell_of_skipped(root: str, stored: Workspace) -> None:
    """Say in one line what is missing from a snapshot, if anything is."""
    if stored.skipped:
        shown = ", ".join(f"{path} ({why})" for path, why in stored.skipped[:SHOWN_MAX])
        count = len(stored.skipped)
        more = ", …" if count > SHOWN_MAX else ""
        say(f"the snapshot of {root} is without {count} of its files: {shown}{more}")


def _root(path: str) -> str:
    """Return where a folder really is.

    Raises:
        OSError: There is none.
    """
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise FileNotFoundError(errno.ENOENT, "root does not exist", path)
    if not os.path.isdir(real):
        raise NotADirectoryError(errno.ENOTDIR, "root is no folder", path)
    return real


def _file_name(given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"ignore_file must be a str, not {given!r}")
    if given in ("", ".", "..") or "/" in given or "\0" in given:
        raise ValueError(f"ignore_file must be the name of a file, not {given!r}")
    return given


def _rules(given: object) -> tuple[str, ...]:
    """Return rules given as a list; a str is one of them."""
    if given is None:
        return ()
    rules = (given,) if isinstance(given, str) else given
    if not isinstance(rules, Iterable) or isinstance(rules, bytes):
        raise TypeError(f"extra_excludes must be a list of str, not {given!r}")
    found = tuple(rules)
    for rule in found:
        if not isinstance(rule, str):
            raise TypeError(f"extra_excludes must be a list of str; {rule!r} is none")
        if not _is_text(rule):
            raise ValueError(f"extra_excludes: {rule!r} is not valid Unicode")
    return found


def _is_text(rule: str) -> bool:
    """Whether it can be held against names, which need not be UTF-8."""
    try:
        os.fsencode(rule)
    except UnicodeEncodeError:
        return False
    return True
