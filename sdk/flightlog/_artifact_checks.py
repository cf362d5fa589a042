"""What an artifact's name, type, aliases, metadata and paths may look like."""

import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flightlog._values import plain, plain_text

__all__ = (
    "METADATA_KEYS_MAX",
    "NAME_LENGTH_MAX",
    "check_aliases",
    "check_artifact_name",
    "check_description",
    "check_metadata",
    "check_type",
    "local_path_of",
    "tidy_path",
)

NAME_LENGTH_MAX = 128
METADATA_KEYS_MAX = 100
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")
_NUMBERED = re.compile(r"v[0-9]+")
_FORBIDDEN = re.compile(r"[/:\x00-\x1f]")


def check_artifact_name(name: object) -> str:
    """Return the name of an artifact.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, longer than NAME_LENGTH_MAX, or has other characters
            than letters, digits, `_`, `.` and `-`.
    """
    if not isinstance(name, str):
        raise TypeError(f"an artifact's name must be a str, not {name!r}")
    if len(name) > NAME_LENGTH_MAX:
        raise ValueError(
            f"artifact name {name[:40]!r}… has more than {NAME_LENGTH_MAX} characters"
        )
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise ValueError(
            f"artifact name {name!r} may hold only letters, digits, '_', '.' and '-'"
        )
    return name


def check_type(type: object) -> str:
    """Return the type of an artifact.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, too long, has a slash, a colon or a control character,
            or is reserved as W&B has it: `job`, and what begins with `wandb-`.
    """
    checked = _checked_word("an artifact's type", type)
    if checked == "job" or checked.startswith("wandb-"):
        raise ValueError(f"artifact type {checked!r} is reserved")
    return checked


def check_aliases(aliases: object) -> list[str]:
    """Return the aliases to be given, without doubles and without `latest`.

    Raises:
        TypeError: They are no strings.
        ValueError: One is empty, too long, has a slash or a colon, or is `vN`, which is
            given by number alone.
    """
    found = []
    for alias in _strings("aliases", aliases):
        if _NUMBERED.fullmatch(_checked_word("an alias", alias)):
            raise ValueError(f"alias {alias!r} is the name of a version by its number")
        if alias != "latest":  # Which always is the newest version's.
            found.append(alias)
    return list(dict.fromkeys(found))


def check_description(description: object) -> str | None:
    """Return a description.

    Raises:
        TypeError: It is no str and not None.
    """
    if not isinstance(description, str | None):
        raise TypeError(f"description must be a str, not {description!r}")
    return None if description is None else plain_text(description)


def check_metadata(metadata: object) -> dict[str, Any]:
    """Return metadata as it can be stored; NaN becomes None, as in W&B.

    Raises:
        TypeError: It is no dict, or holds what cannot be stored.
        ValueError: It has more than METADATA_KEYS_MAX keys, or an infinity.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__qualname__}")
    if len(metadata) > METADATA_KEYS_MAX:
        raise ValueError(
            f"metadata has {len(metadata)} keys; allowed are {METADATA_KEYS_MAX}"
        )
    found: dict[str, Any] = _finite(plain("metadata", metadata))
    return found


def local_path_of(path: object) -> Path:
    """Return the path of a file or a folder of this machine.

    Raises:
        TypeError: It is no str and no Path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"a path must be a str or a Path, not {path!r}")
    return Path(os.fsdecode(path))


def tidy_path(name: object) -> str:
    """Return a path in an artifact without what means nothing in it.

    Raises:
        TypeError: It is no str.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    if name.startswith("/"):
        return name  # To be refused.
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isinf(value):
            raise ValueError("metadata cannot hold an infinity")
        return None
    return value


def _strings(what: str, given: object) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a list of str, not {given!r}")
    return list(given)


def _checked_word(what: str, word: object) -> str:
    if not isinstance(word, str):
        raise TypeError(f"{what} must be a str, not {word!r}")
    if not 0 < len(word) <= NAME_LENGTH_MAX:
        raise ValueError(f"{what} must have 1 to {NAME_LENGTH_MAX} characters")
    found = _FORBIDDEN.search(word)
    if found:
        raise ValueError(f"{what}, {word!r}, must not contain {found.group()!r}")
    return plain_text(word)
