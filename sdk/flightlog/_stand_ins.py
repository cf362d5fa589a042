"""What stands in a row for the media in it."""

from typing import Any

from flightlog._media import Media, MediaFiles
from flightlog._values import DEPTH_MAX

__all__ = ("has_media", "stand_in")


def has_media(value: object, depth: int = 0) -> bool:
    """Whether a value of a row is one of media, or holds one in dicts and lists."""
    if isinstance(value, Media):
        return True
    if depth > DEPTH_MAX:
        return False
    if isinstance(value, dict):
        return any(has_media(each, depth + 1) for each in value.values())
    if isinstance(value, list | tuple):
        return any(has_media(each, depth + 1) for each in value)
    return False


def stand_in(key: str, value: Any, files: MediaFiles, depth: int = 0) -> Any:
    """Return a value with what stands for the media in it.

    Raises:
        OSError: As `Media.described`.
        TypeError: As above.
        ValueError: As above.
    """
    if isinstance(value, Media):
        return value.described(key, files)
    if depth > DEPTH_MAX:
        return value
    if isinstance(value, dict):
        return {
            name: stand_in(f"{key}.{name}", each, files, depth + 1)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        found = [stand_in(key, each, files, depth + 1) for each in value]
        kinds = {type(each) for each in value}
        kind = kinds.pop() if len(kinds) == 1 else None
        is_alike = kind is not None and issubclass(kind, Media)
        return kind.together(found) if is_alike and kind else found
    return value
