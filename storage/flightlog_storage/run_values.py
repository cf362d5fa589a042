"""Run values: the config and the summary of a run in state.db.

Each is one packed map, which is read at once, so that many runs are read fast. A map is
written anew for each change; one that is too large for that has a row a key.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Set
from typing import Any

import msgpack

from flightlog_storage.facts import Scope, facts_of, path_of, save_facts, text_of
from flightlog_storage.queries import QUERIES

__all__ = (
    "PACKED_SIZE_MAX",
    "clear_values",
    "load_values",
    "packed",
    "save_values",
    "unpacked",
)

PACKED_SIZE_MAX = 32 << 10

_TABLES = {Scope.CONFIG: "config", Scope.SUMMARY: "summary"}
_INTEGER = 1  # The extension type of an int beyond 64 bits: its bytes, signed.
_SURROGATES = "surrogatepass"  # Lone ones, which JSON can hold and UTF-8 cannot.


def load_values(
    connection: sqlite3.Connection, scope: Scope, numbers: str
) -> dict[int, dict[str, Any]]:
    """Return the values of runs; `numbers` is a JSON list of theirs.

    Raises:
        sqlite3.DatabaseError: What is stored is damaged.
    """
    rows = connection.execute(QUERIES[_TABLES[scope]], (numbers,)).fetchall()
    found = {run: {} if data is None else unpacked(data) for run, data in rows}
    if any(data is None for _, data in rows):
        for run, key, value in connection.execute(
            QUERIES["single_values"], (scope, numbers)
        ):
            found[run][text_of(key)] = unpacked(value)
    return found


def save_values(
    connection: sqlite3.Connection,
    scope: Scope,
    run: int,
    values: Mapping[str, Any],
    changed: Iterable[str],
    removed: Collection[str] = (),
) -> None:
    """Write what changed of the values, and the facts that they are found by.

    Of what changed some was `removed`, and perhaps has a new place among the values.
    """
    table = _TABLES[scope]
    row = connection.execute(QUERIES[f"{table}_of"], (run,)).fetchone()
    if row == (None,):
        before = _single_values(connection, scope, run, changed)
        _save_facts(connection, scope, run, before, values, changed)
        gone = {key for key in before if key in removed or key not in values}
        _remove_single(connection, scope, run, gone)
        keys = _to_save(values, changed, before.keys() - gone)
        _save_single(connection, scope, run, values, keys)
        return
    before = unpacked(row[0]) if row else {}
    _save_facts(connection, scope, run, before, values, changed)
    data = packed(values)
    is_large = len(data) > PACKED_SIZE_MAX
    if is_large:
        _save_single(connection, scope, run, values, values)
    connection.execute(QUERIES[f"save_{table}"], (run, None if is_large else data))


def clear_values(connection: sqlite3.Connection, run: int) -> None:
    """Remove all values of a run, and their facts."""
    for scope, table in _TABLES.items():
        before = load_values(connection, scope, f"[{run}]").get(run, {})
        save_facts(connection, scope, run, facts_of(before), {})
        connection.execute(QUERIES[f"clear_{table}"], (run,))
    connection.execute(QUERIES["clear_single_values"], (run,))


def _save_facts(
    connection: sqlite3.Connection,
    scope: Scope,
    run: int,
    before: Mapping[str, Any],
    values: Mapping[str, Any],
    changed: Iterable[str],
) -> None:
    old, new = {}, {}
    for key in changed:
        if key in before:
            # The one old fact of what is no dict or list has the new value's place.
            if key not in values or isinstance(before[key], dict | list):
                old[key] = before[key]
            elif _is_same(before[key], values[key]):
                continue
        if key in values:
            new[key] = values[key]
    save_facts(connection, scope, run, facts_of(old), facts_of(new))


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _single_values(
    connection: sqlite3.Connection, scope: Scope, run: int, keys: Iterable[str]
) -> dict[str, Any]:
    found = {}
    for key in keys:
        place = (run, scope, path_of(key))
        row = connection.execute(QUERIES["single_value"], place).fetchone()
        if row is not None:
            found[key] = unpacked(row[0])
    return found


def _to_save(
    values: Mapping[str, Any], changed: Iterable[str], kept: Set[str]
) -> Iterable[str]:
    """Return what changed and is there; what has no row yet in the values' order."""
    found = {key for key in changed if key in values}
    if len(found - kept) < 2:
        return found
    return [key for key in values if key in found]


def _remove_single(
    connection: sqlite3.Connection, scope: Scope, run: int, keys: Iterable[str]
) -> None:
    gone = ((run, scope, path_of(key)) for key in keys)
    connection.executemany(QUERIES["remove_single_value"], gone)


def _save_single(
    connection: sqlite3.Connection,
    scope: Scope,
    run: int,
    values: Mapping[str, Any],
    keys: Iterable[str],
) -> None:
    rows = ((run, scope, path_of(key), packed(values[key])) for key in keys)
    connection.executemany(QUERIES["save_single_value"], rows)


def packed(value: Any) -> bytes:
    """Return a value of a state in msgpack."""
    data = msgpack.packb(value, default=_extended, unicode_errors=_SURROGATES)
    assert isinstance(data, bytes)  # None is for a Packer that keeps it.
    return data


def _extended(value: int) -> msgpack.ExtType:
    size = value.bit_length() // 8 + 1
    return msgpack.ExtType(_INTEGER, value.to_bytes(size, signed=True))


def unpacked(data: bytes) -> Any:
    """Return the value that `packed` packed.

    Raises:
        sqlite3.DatabaseError: What is stored is damaged.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_reduced, unicode_errors=_SURROGATES)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"a damaged value in state.db: {error}") from error


def _reduced(code: int, data: bytes) -> int:
    if code != _INTEGER:
        raise ValueError(f"an extension of type {code}")
    return int.from_bytes(data, signed=True)
