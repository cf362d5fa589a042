"""Paths inside an artifact or among a run's files: what they may look like.

They come from users and from events, which are untrusted, and become files in folders
of a user's choice: none may lead out of that folder.
"""

from collections.abc import Iterable

__all__ = ("COMPONENT_SIZE_MAX", "PATH_SIZE_MAX", "checked_path", "clashing_path")

COMPONENT_SIZE_MAX = 255  # Bytes of UTF-8 between two slashes, as file systems have it.
PATH_SIZE_MAX = 2048  # Bytes of UTF-8; with the folder it must fit a system's path.


def checked_path(path: object) -> str:
    """Return `path` if it can only mean a file inside the folder it is put into.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, absolute, too long, has a part `..`, `.` or none
            between two slashes, or characters that no file can have.
    """
    if not isinstance(path, str):
        raise TypeError(f"a path must be a str, not {type(path).__qualname__}")
    shown = repr(path[:80])
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"path {shown} is not valid Unicode") from error
    if size > PATH_SIZE_MAX:
        raise ValueError(f"path {shown}… has more than {PATH_SIZE_MAX} bytes")
    if "\0" in path:
        raise ValueError(f"path {shown} holds a null character")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            what = "is absolute, empty" if not part else "leads out of its folder"
            raise ValueError(f"path {shown} {what} or has a part {part!r}")
        if len(part.encode()) > COMPONENT_SIZE_MAX:
            raise ValueError(
                f"path {shown} has a part of more than {COMPONENT_SIZE_MAX} bytes"
            )
    return path


def clashing_path(path: str, others: Iterable[str]) -> str | None:
    """Return one of `others` beside which a file at `path` cannot be, if there is one.

    A file cannot lie below a file; equal paths do not clash.
    """
    for other in others:
        if other.startswith(f"{path}/") or path.startswith(f"{other}/"):
            return other
    return None
