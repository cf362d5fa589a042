"""What names, ids, tags and captions may look like."""

import operator
import os
import re
from collections.abc import Iterable
from typing import Any

from flightlog._values import plain_text
from flightlog.errors import UsageError

__all__ = (
    "INT_MAX",
    "check_bool",
    "check_caption",
    "check_int",
    "check_name",
    "check_number",
    "check_path",
    "check_tags",
)

NAME_LENGTH_MAX = 128
TAG_LENGTH_MAX = 64
INT_MAX = 2**62  # What state.db can hold.
_FORBIDDEN = {
    "id": re.compile(r"[:;,#?/'\x00-\x1f]"),
    "entity": re.compile(r"[:#?/\\%\x00-\x1f]"),
    "project": re.compile(r"[:#?\\%\x00-\x1f]"),
}


def check_name(what: str, value: object, called: str | None = None) -> str:
    """Return `value` if it can be an id, a project or an entity.

    `called` is what the user calls it, by default the same.

    Raises:
        TypeError: It is not a string.
        UsageError: It is empty, too long or has a forbidden character.
    """
    forbidden = _FORBIDDEN[what]
    what = called or what
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if not value or value != value.strip():
        raise UsageError(f"{what} {value!r} is empty or has blanks at its ends")
    if len(value) > NAME_LENGTH_MAX:
        raise UsageError(
            f"{what} has {len(value)} characters; at most {NAME_LENGTH_MAX} are allowed"
        )
    found = forbidden.search(value)
    if found:
        raise UsageError(f"{what} {value!r} must not contain {found.group()!r}")
    if any(part in ("", ".", "..") for part in value.split("/")):
        raise UsageError(
            f"{what} {value!r} has an empty or dotted part between slashes"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {value!r} is not valid Unicode") from error
    return value


def check_tags(tags: object) -> tuple[str, ...]:
    """Return the tags without doubles.

    Raises:
        TypeError: They are not strings.
        UsageError: One is empty or longer than TAG_LENGTH_MAX.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError("tags must be a list of str")
    found = tuple(dict.fromkeys(tags))
    for tag in found:
        if not isinstance(tag, str):
            raise TypeError(f"tags must be a list of str; {tag!r} is not")
        if not 0 < len(tag) <= TAG_LENGTH_MAX:
            raise UsageError(f"tag {tag!r} must have 1 to {TAG_LENGTH_MAX} characters")
    return tuple(plain_text(tag) for tag in found)


def check_caption(what: str, caption: object) -> str | None:
    """Return a caption as it can be stored.

    Raises:
        TypeError: It is neither a str nor None.
    """
    if not isinstance(caption, str | None):
        raise TypeError(f"{what}: caption must be a str or None, not {caption!r}")
    return None if caption is None else plain_text(caption)


def check_number(what: str, number: Any, low: float, high: float) -> float:
    """Return a number of any library that is above `low` and at most `high`.

    Raises:
        TypeError: It is no number.
        ValueError: It is beyond.
    """
    try:
        found = None if isinstance(number, str | bytes | bool) else float(number)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None:
        raise TypeError(f"{what} must be a number, not {number!r}")
    if not low < found <= high:
        raise ValueError(f"{what} must be above {low:g} and at most {high:,g}")
    return found


def check_int(what: str, number: object, low: int, high: int = INT_MAX) -> int:
    """Return a whole number of any library that is from `low` to `high`.

    Raises:
        TypeError: It is none.
        ValueError: It is beyond.
    """
    try:
        found = None if isinstance(number, bool) else operator.index(number)  # type: ignore[arg-type]  # Said in the except.
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{what} must be an int, not {number!r}")
    if not low <= found <= high:
        raise ValueError(f"{what} must be from {low:,} to {high:,}, not {found:,}")
    return found


def check_bool(what: str, switch: object) -> bool:
    """Return a switch.

    Raises:
        TypeError: It is no bool.
    """
    if not isinstance(switch, bool):
        raise TypeError(f"{what} must be a bool, not {switch!r}")
    return switch


def check_path(what: str, given: object) -> str:
    """Return a path as a str.

    Raises:
        TypeError: It is no path.
        ValueError: It is empty, or nothing can be called so.
    """
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{what} must be a path, not {given!r}")
    path = os.fsdecode(given)
    try:
        can_be = bool(path) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        can_be = False
    if not can_be:
        raise ValueError(f"{what} must name a file or folder, not {path!r}")
    return path
