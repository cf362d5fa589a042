"""Facts: a run's config, summary and tags taken apart into rows that filters find.

So are the keys that it logged.

A value is a *cell*: kind, number, text. Cells are equal where MongoDB says that values
are, and compare as they do: an int and a float by their exact numbers, texts by code
point; lists and dicts are only equal or not, so a digest stands for them.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from enum import IntEnum
from hashlib import blake2b
from typing import Any

from flightlog_storage.queries import QUERIES

__all__ = (
    "NOTHING",
    "Cell",
    "FactKind",
    "Facts",
    "Scope",
    "cell_of",
    "facts_of",
    "logged_facts",
    "path_of",
    "save_facts",
    "tag_facts",
    "text_of",
)


class Scope(IntEnum):
    """Which part of a run a fact is of."""

    CONFIG = 0
    SUMMARY = 1
    TAGS = 2
    LOGGED = 3


class FactKind(IntEnum):
    """What a value is; in the order in which runs are sorted by it."""

    NUMBER = 1
    TEXT = 2
    BOOL = 3
    LIST = 4
    DICT = 5
    NULL = 8  # From here on: not sorted by, like what is missing.
    NAN = 9


NOTHING = b""  # The text of a cell that needs none.
DIGEST_SIZE = 16

Cell = tuple[FactKind, int | float, bytes]
# By path, split and place. The path is the keys joined with dots; the split says where
# they were apart if any has a dot itself; place counts a list's elements from 1, and 0
# is the whole value.
Facts = dict[tuple[bytes, str, int], Cell]


def facts_of(values: Mapping[str, Any]) -> Facts:
    """Return the facts of a config or a summary, or of some of its keys."""
    facts: Facts = {}
    for key, value in values.items():
        _add(facts, (key,), value)
    return facts


def tag_facts(tags: Iterable[str]) -> Facts:
    """Return the facts of a run's tags."""
    facts: Facts = {}
    _add(facts, (), list(tags))
    return facts


def logged_facts(names: Iterable[str]) -> Facts:
    """Return the facts of keys that were logged, given the names of their histories."""
    return {(path_of(name), "", 0): cell_of(None) for name in names}


def path_of(path: str) -> bytes:
    """Return a path as it is stored; its text may hold lone surrogates."""
    return path.encode("utf-8", "surrogatepass")


def text_of(text: bytes) -> str:
    """Return a stored text."""
    return text.decode("utf-8", "surrogatepass")


def save_facts(
    connection: sqlite3.Connection, scope: Scope, run: int, old: Facts, new: Facts
) -> None:
    """Write what is different in `new`."""
    gone = [(scope, path, run, *rest) for path, *rest in old.keys() - new.keys()]
    if gone:
        connection.executemany(QUERIES["remove_fact"], gone)
    changed = [
        (scope, path, run, split, place, *cell)
        for (path, split, place), cell in new.items()
        if old.get((path, split, place)) != cell
    ]
    connection.executemany(QUERIES["save_fact"], changed)


def cell_of(value: Any) -> Cell:
    """Return what stands for a value.

    Raises:
        TypeError: It is none that JSON has.
    """
    match value:
        case None:
            return FactKind.NULL, 0, NOTHING
        case bool():
            return FactKind.BOOL, int(value), NOTHING
        case int():
            return FactKind.NUMBER, *_integer(value)
        case float():
            if math.isnan(value):
                return FactKind.NAN, 0, NOTHING
            return FactKind.NUMBER, value, NOTHING
        case str():
            return FactKind.TEXT, 0, path_of(value)
        case list() | dict():
            return _add({}, (), value)
    raise TypeError(f"a value of type {type(value).__name__}")


# A list or a dict is only equal or not: a digest of its cells is enough.
def _add(
    facts: Facts, keys: tuple[str, ...], value: Any, is_media: bool = False
) -> Cell:
    """Add the facts of a value, and of all inside it; return its cell."""
    path = path_of(".".join(keys))
    split = json.dumps(keys) if any("." in key for key in keys) else ""
    if isinstance(value, dict):
        is_media = is_media or "_type" in value
        inner = [
            (key, _add(facts, (*keys, key), item, is_media))
            for key, item in value.items()
        ]
        cell: Cell = (FactKind.DICT, 0, _digest(sorted(inner)))
    elif isinstance(value, list):
        cells = [cell_of(item) for item in value]
        cell = (FactKind.LIST, 0, _digest(cells))
        # The bins of a histogram, say, are nothing that runs are found by.
        elements = () if is_media else dict.fromkeys(cells)
        for place, element in enumerate(elements, 1):
            facts[path, split, place] = element
    else:
        cell = cell_of(value)
    facts[path, split, 0] = cell
    return cell


def _digest(parts: list[Any]) -> bytes:
    return blake2b(
        repr([_hashable(part) for part in parts]).encode(), digest_size=DIGEST_SIZE
    ).digest()


def _hashable(part: Any) -> Any:
    """Return a cell, or a key with one, so that equal ones look the same."""
    if isinstance(part[0], str):
        return part[0], _hashable(part[1])
    kind, number, text = part
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return int(kind), number, text


def _integer(value: int) -> tuple[int | float, bytes]:
    """Return number and text of an int; both together order all ints and floats.

    SQLite holds 64 bits. Of a larger int the number is the float just below, unless a
    float holds it exactly, and the text orders the ints that share that float.
    """
    if -(1 << 63) <= value < 1 << 63:
        return value, NOTHING
    floor = _floor(value)
    if math.isfinite(floor) and int(floor) == value:
        return floor, NOTHING
    digits = abs(value).to_bytes((value.bit_length() + 7) // 8)
    text = len(digits).to_bytes(8) + digits
    return floor, text if value > 0 else bytes(255 - byte for byte in text)


def _floor(value: int) -> float:
    try:
        near = float(value)
    except OverflowError:
        return math.nextafter(math.inf, 0.0) if value > 0 else -math.inf
    return near if int(near) <= value else math.nextafter(near, -math.inf)
