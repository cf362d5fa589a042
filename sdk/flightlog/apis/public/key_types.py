"""The keys of a history: of what types, how often, and which were logged together."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from flightlog_storage.arrow import arrow_of
from flightlog_storage.cells import Cells, History
from flightlog_storage.columns import Ints
from flightlog_storage.event import Kind

__all__ = ("describe_keys",)

_TYPES = {
    Kind.FLOAT: "number",
    Kind.INT: "number",
    Kind.BOOL: "number",
    Kind.STR: "string",
    Kind.NULL: "nil",
}
_NUMBERS = {Kind.FLOAT, Kind.INT, Kind.BOOL}


def describe_keys(history: History) -> dict[str, Any]:
    """Return what W&B's `Run.history_keys` is, of a history with all keys and rows."""
    logged = [cells for cells in history.cells if len(cells.values)]
    return {
        "keys": {cells.key: _description(cells) for cells in logged},
        "sets": _sets(logged, len(history)),
        "lastStep": int(history.steps[-1]) if len(history) else -1,
    }


def _description(cells: Cells) -> dict[str, Any]:
    last = slice(len(cells.values) - 1, None)
    texts = None if cells.texts is None else cells.texts[last]
    kinds = None if cells.kinds is None else cells.kinds[last]
    (previous,) = Cells(cells.key, None, cells.values[last], kinds, texts).objects()
    counts = _type_counts(cells)
    return {
        "typeCounts": [{"type": t, "count": n} for t, n in counts.most_common()],
        "monotonic": _is_monotonic(cells),
        "previousValue": previous,
    }


def _type_counts(cells: Cells) -> Counter[str]:
    if cells.kinds is None:
        return Counter({"number": len(cells.values)})
    counts: Counter[str] = Counter()
    for kind, count in enumerate(np.bincount(cells.kinds).tolist()):
        if kind == Kind.JSON and count:
            assert cells.texts is not None
            places = np.flatnonzero(cells.kinds == kind)
            texts = cells.texts.take(arrow_of(places)).to_pylist()
            counts.update(map(_json_type, texts))
        elif count:
            counts[_TYPES[Kind(kind)]] += count
    return counts


def _json_type(text: str) -> str:
    value = json.loads(text)
    if isinstance(value, list):
        return "list"
    media = value.get("_type")
    return media if isinstance(media, str) else "map"


def _is_monotonic(cells: Cells) -> bool:
    """Whether all values are numbers and none is less than the one before."""
    if not cells.present_kinds() <= _NUMBERS:
        return False
    return bool((cells.values[1:] >= cells.values[:-1]).all())


def _sets(logged: Sequence[Cells], row_count: int) -> list[dict[str, Any]]:
    """Return which keys have a value in the same rows, and in how many; most first."""
    groups = _groups(logged, row_count)
    # A row's set of groups is told by the sum of their digests, modulo 2**64.
    sums = np.zeros(row_count, np.uint64)
    for place, (rows, _) in enumerate(groups):
        sums[rows] += np.uint64(_digest(place))
    _, examples, counts = np.unique(sums, return_index=True, return_counts=True)
    keys: list[list[str]] = [[] for _ in examples]
    for rows, members in groups:
        found = np.searchsorted(rows, examples)
        has = rows[np.minimum(found, len(rows) - 1)] == examples
        for example in np.flatnonzero(has).tolist():
            keys[example] += members
    sets = sorted(
        (
            (count, sorted(own))
            for count, own in zip(counts.tolist(), keys, strict=True)
        ),
        key=lambda each: (-each[0], each[1]),
    )
    return [{"keys": own, "count": count} for count, own in sets]


def _groups(logged: Sequence[Cells], row_count: int) -> list[tuple[Ints, list[str]]]:
    """Return the keys that share an array of rows: those that were logged together."""
    every = np.arange(row_count)
    groups: dict[int, tuple[Ints, list[str]]] = {}
    for cells in logged:
        rows = every if cells.rows is None else cells.rows
        groups.setdefault(id(rows), (rows, []))[1].append(cells.key)
    return list(groups.values())


def _digest(number: int) -> int:
    return int.from_bytes(hashlib.blake2b(number.to_bytes(8), digest_size=8).digest())
