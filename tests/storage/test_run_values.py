import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage import run_values
from flightlog_storage.connection import connect_empty
from flightlog_storage.facts import Facts, Scope, facts_of
from flightlog_storage.run_values import (
    PACKED_SIZE_MAX,
    clear_values,
    load_values,
    save_values,
)

RUN = 7
TABLES = ("config", "summary", "single_values", "facts")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = connect_empty()
    yield connection
    connection.close()


def save(
    connection: sqlite3.Connection,
    values: dict[str, Any],
    *changed: str,
    scope: Scope = Scope.SUMMARY,
) -> None:
    save_values(connection, scope, RUN, values, changed or values)


def load(
    connection: sqlite3.Connection, scope: Scope = Scope.SUMMARY
) -> dict[str, Any]:
    return load_values(connection, scope, f"[{RUN}, 1]").get(RUN, {})


def saved_facts(connection: sqlite3.Connection) -> Facts:
    query = "SELECT path, split, place, kind, number, text FROM facts"
    return {(*key,): (*cell,) for *key, cell in map(_split, connection.execute(query))}


def _split(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:3], row[3:])


def is_packed(connection: sqlite3.Connection) -> bool:
    (packed,) = connection.execute("SELECT packed FROM summary").fetchone()
    return packed is not None


SIZES = ["", "x" * 60, "x" * 200]
VALUES = st.sampled_from(
    [*SIZES, None, True, 1, 1.0, -0.0, {"a": [1]}, {"a": 1}, [2**80], {}, "\ud800"]
)
STEPS = st.lists(
    st.dictionaries(st.sampled_from([*"abcdef", "a.b", "\ud800"]), VALUES, max_size=6),
    min_size=1,
    max_size=6,
)


@settings(max_examples=tries(300))
@given(STEPS)
def test_values_and_facts_are_those_saved_last_whatever_their_size(
    steps: list[dict[str, Any]],
) -> None:
    connection = connect_empty()
    before: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_values, "PACKED_SIZE_MAX", 100)
        for values in steps:
            save(connection, values, *before, *values)

            loaded = load(connection)
            assert {k: repr(v) for k, v in loaded.items()} == {
                k: repr(v) for k, v in values.items()
            }
            assert saved_facts(connection) == facts_of(values)
            before = values
    clear_values(connection, RUN)
    left = [connection.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES]
    assert left == [[]] * len(TABLES)
    connection.close()


def test_keys_keep_their_order_when_they_become_too_many(
    connection: sqlite3.Connection,
) -> None:
    values = {f"k{n % 7}.{n}": float(n) for n in range(PACKED_SIZE_MAX // 100)}
    save(connection, values)
    assert is_packed(connection)

    more = {f"m{n}": float(n) for n in range(PACKED_SIZE_MAX // 10)}
    values |= more
    save(connection, values, *more)

    assert not is_packed(connection)
    assert list(load(connection).items()) == list(values.items())


def test_of_many_keys_those_that_changed_are_written(
    connection: sqlite3.Connection,
) -> None:
    values: dict[str, Any] = {f"k{n}": float(n) for n in range(PACKED_SIZE_MAX // 10)}
    save(connection, values)
    before = connection.total_changes

    del values["k3"]
    values["k5"] = -1.0
    values["new"] = 1
    save(connection, values, "k3", "k5", "new")

    assert connection.total_changes - before <= 2 * len(("k3", "k5", "new"))
    assert list(load(connection).items()) == list(values.items())


def test_config_and_summary_are_apart(connection: sqlite3.Connection) -> None:
    save(connection, {"a": 1}, scope=Scope.CONFIG)
    save(connection, {"a": 2})

    assert (load(connection, Scope.CONFIG), load(connection)) == ({"a": 1}, {"a": 2})


@pytest.mark.parametrize(
    "packed", [b"", b"\xc1", b"\x81\xa1a", b"\x81\xa1a\xc7\x01\x05x"]
)
def test_a_damaged_map_is_an_error_of_the_database(
    connection: sqlite3.Connection, packed: bytes
) -> None:
    connection.execute("INSERT INTO summary VALUES (?, ?)", (RUN, packed))

    with pytest.raises(sqlite3.DatabaseError, match="damaged"):
        load(connection)
