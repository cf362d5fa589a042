import math
import shutil
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flightlog_storage.checkpoint import Checkpoint
from flightlog_storage.connection import SCHEMA_VERSION, connect_reader
from flightlog_storage.database import (
    Database,
    DeadLetter,
    MissingEvents,
    SavedPart,
    Tail,
)
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import (
    ConfigUpdated,
    MetricDefined,
    Rows,
    RunFinished,
    RunStarted,
    Series,
    SummaryUpdated,
    WriterId,
)
from flightlog_storage.fold import apply
from flightlog_storage.queries import QUERIES, SCHEMA
from flightlog_storage.run_tables import run_row
from flightlog_storage.runstate import RunState, State

A, B = WriterId(b"a" * 16), WriterId(b"b" * 16)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open_writer(path) as database:
        yield database


def make_run(id: str = "r", number: int = 7, time: float = 100.0) -> RunState:
    state = RunState("e", "p", id, number)
    event = RunStarted(time=time, entity="e", project="p", run=id, tags=["t"])
    apply(state, WriterId(id.encode() * 16), event)
    return state


def make_rows(**values: float) -> Rows:
    columns = (
        Series((name,), array("q", [0]), array("q", [0]), array("d", [value]))
        for name, value in values.items()
    )
    return Rows(array("q", [0]), 101.0, tuple(columns))


def save(database: Database, *states: RunState) -> None:
    with database.transaction():
        for state in states:
            database.save_run(state)


def load(database: Database, id: str = "r") -> RunState:
    state = database.load_run("e", "p", id)
    assert state is not None
    return state


# --- runs ---


def test_run_comes_back_as_it_was(database: Database) -> None:
    state = make_run()
    apply(state, A, MetricDefined(time=1.0, name="x", summary=["min", "mean"]))
    apply(state, A, ConfigUpdated(time=1.0, changes={"lr": 0.1, "n": {"m": [1]}}))
    apply(state, A, make_rows(x=1.5, y=2.5))
    apply(state, A, RunFinished(time=120.0, exit_code=3))

    save(database, state)

    assert load(database) == state
    assert load(database) == database.load_run_by_number(7)
    assert list(load(database).summary) == list(state.summary)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        0.1,
        1.0,
        1,
        True,
        None,
        2**63,
        -(10**400),
        "",
        "\x00",
        "\ud800",
        {"": {"a.b": [math.nan, None]}},
    ],
    ids=repr,
)
def test_value_comes_back_exactly(database: Database, value: Any) -> None:
    state = make_run()
    apply(state, A, ConfigUpdated(time=1.0, changes={"é\x00": value}))
    apply(state, A, SummaryUpdated(time=1.0, changes=[([""], value)]))

    save(database, state)

    loaded = load(database)
    assert repr(loaded.config) == repr({"é\x00": value})
    assert repr(loaded.summary) == repr({"": value})


def test_removed_keys_are_gone(database: Database) -> None:
    state = make_run()
    apply(state, A, ConfigUpdated(time=1.0, changes={"a": 1, "b": 2}))
    apply(state, A, SummaryUpdated(time=1.0, changes=[(["a"], 1), (["b"], 2)]))
    save(database, state)
    apply(state, A, ConfigUpdated(time=1.0, removed=["a"]))
    apply(state, A, SummaryUpdated(time=1.0, removed=[["b"]]))
    save(database, state)

    assert (load(database).config, load(database).summary) == ({"b": 2}, {"a": 1})


def test_missing_run_is_none(database: Database) -> None:
    assert database.load_run("e", "p", "none") is None
    assert database.load_run_by_number(1) is None
    assert database.run_of_writer(A) is None


def test_runs_are_listed_oldest_first(database: Database) -> None:
    save(database, make_run("a", 9, 300.0), make_run("b", 8, 200.0), make_run("c", 7))

    runs = database.find_runs("e", "p")

    assert [run.id for run in runs] == ["c", "b", "a"]
    assert (runs[0].state, runs[0].last_step) == (State.RUNNING, -1)
    assert database.find_runs() == runs
    assert database.find_runs("other") == database.find_runs("e", "other") == []


def test_run_is_found_by_its_writer(database: Database) -> None:
    save(database, make_run("a", 3), make_run("b", 4))

    assert database.run_of_writer(A) == 3
    assert database.run_of_writer(B) == 4


def test_only_changed_keys_are_written(database: Database) -> None:
    state = make_run()
    apply(state, A, make_rows(**{f"k{i}": 1.0 for i in range(100_000)}))
    save(database, state)
    apply(state, A, make_rows(k5=2.0))

    before = database._connection.total_changes
    save(database, state)

    assert database._connection.total_changes - before <= 6  # The run, k5, _step, …
    assert load(database) == state


def test_transaction_that_fails_leaves_nothing_and_the_state_is_saved_later(
    database: Database,
) -> None:
    state = make_run()
    apply(state, A, make_rows(x=1.0))
    with pytest.raises(ZeroDivisionError), database.transaction():  # noqa: PT012
        database.save_run(state)
        database.set_checkpoint(Checkpoint("log", 5, 0, 64))
        _ = 1 / 0

    assert database.load_run_by_number(7) is None
    assert database.checkpoint() == Checkpoint()
    save(database, state)
    assert load(database) == state


# --- the rest of the projection ---


def test_checkpoint_comes_back(path: Path) -> None:
    with Database.open_writer(path) as database, database.transaction():
        database.set_checkpoint(Checkpoint("log", 12, 10, 640))

    with Database.open_writer(path) as database:
        assert database.checkpoint() == Checkpoint("log", 12, 10, 640)
        assert database.set_aside is None


def test_parts_are_listed_in_the_order_of_the_log(database: Database) -> None:
    first = SavedPart(7, "z", 0, 5, 0, 3, 100, "00" * 32, -1, 4)
    second = SavedPart(7, "a", 5, 9, 1, 0, 100, "11" * 32, None, None)
    other = SavedPart(8, "z", 2, 3, 0, 1, 1, "", 0, 0)
    with database.transaction():
        for part in (second, other, first, first):
            database.add_part(part)

    assert database.parts(7) == [first, second]
    assert database.parts() == [first, second, other]
    with database.transaction():
        database.remove_part(7, "z")
    assert database.parts(7) == [second]


def test_tail_is_kept_per_run(database: Database) -> None:
    with database.transaction():
        database.set_tail(Tail(7, 5, 0, 64))
        database.set_tail(Tail(7, 9, 0, 64))
        database.set_tail(Tail(8, 3, 0, 64))

    assert database.tail(7) == Tail(7, 9, 0, 64)
    assert database.tail(9) is None
    assert database.tails() == [Tail(8, 3, 0, 64), Tail(7, 9, 0, 64)]
    with database.transaction():
        database.remove_tail(7)
    assert database.tail(7) is None


def test_what_went_wrong_is_kept_once(database: Database) -> None:
    letter = DeadLetter(3, A, "no kind", b"\x80")
    missing = MissingEvents(4, A, 7, 10, 2, "dropped")
    for _ in range(2):
        with database.transaction():
            database.add_dead_letter(letter)
            database.add_gap(missing)

    assert database.dead_letters() == [letter]
    assert database.gaps() == [missing]


# --- opening ---


def test_database_is_private_and_durable(database: Database, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    pragmas = {
        name: database._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def foreign(path: Path) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")


def garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def flipped(path: Path) -> None:
    with Database.open_writer(path) as database:
        save(database, make_run())
    data = bytearray(path.read_bytes())
    data[8192 : len(data)] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)


def newer(path: Path) -> None:
    Database.open_writer(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE checkpoint SET schema_version = 99")


@pytest.mark.fault(52, 62)
@pytest.mark.parametrize("spoil", [foreign, garbage, flipped, newer])
def test_unusable_database_is_set_aside(path: Path, spoil: Any) -> None:
    for number in (1, 2):
        spoil(path)
        Path(f"{path}-wal").write_bytes(b"stale")

        with Database.open_writer(path) as database:
            assert database.set_aside == path.with_name(f"state.db.damaged-{number}")
            assert database.set_aside.exists()
            assert database.find_runs() == []
            save(database, make_run())


@pytest.mark.parametrize("spoil", [foreign, garbage, newer])
def test_reader_refuses_what_it_cannot_read(path: Path, spoil: Any) -> None:
    spoil(path)

    with pytest.raises(HomeUnusable):
        Database.open_reader(path)


def test_reader_of_nothing_is_refused_and_creates_nothing(path: Path) -> None:
    with pytest.raises(HomeUnusable):
        Database.open_reader(path)

    assert not path.exists()


def test_locked_database_is_not_set_aside(path: Path) -> None:
    with pytest.raises(HomeUnusable):
        Database.open_writer(path.parent)

    assert list(path.parent.iterdir()) == []


def test_what_a_locked_database_may_hold_is_not_guessed(path: Path) -> None:
    Database.open_writer(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")

        with pytest.raises(sqlite3.OperationalError, match="locked"):
            connect_reader(path, timeout_s=0.0)


def test_reader_follows_the_writer_and_cannot_write(
    database: Database, path: Path
) -> None:
    with Database.open_reader(path) as reader:
        assert reader.find_runs() == []
        save(database, make_run())
        assert load(reader) == make_run()

        with pytest.raises(sqlite3.OperationalError):
            save(reader, make_run("b", 9))


def test_snapshot_sees_one_state(database: Database, path: Path) -> None:
    with Database.open_reader(path) as reader:
        with reader.snapshot():
            assert reader.find_runs() == []
            save(database, make_run())
            assert reader.find_runs() == []
        assert len(reader.find_runs()) == 1


@pytest.mark.parametrize(
    "suffixes", [("",), ("", "-wal"), ("", "-wal", "-shm"), ("", "-shm")]
)
@pytest.mark.parametrize("closed", [True, False])
def test_reader_reads_a_copy_that_cannot_be_written(
    tmp_path: Path, suffixes: tuple[str, ...], closed: bool
) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy"
    copy.mkdir()
    with Database.open_writer(path) as database:
        save(database, make_run())
        if closed:
            database.close()
        elif "-wal" not in suffixes:
            database._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for suffix in suffixes:
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", copy / f"state.db{suffix}")
    for file in copy.iterdir():
        file.chmod(0o400)
    copy.chmod(0o500)

    with Database.open_reader(copy / "state.db") as reader:
        assert load(reader) == make_run()
    copy.chmod(0o700)


# --- the statements ---


def test_every_statement_is_valid_and_every_table_is_strict(database: Database) -> None:
    connection = database._connection
    for name, query in QUERIES.items():
        names = {"entity", "project", *run_row(make_run())}
        parameters: Any = (
            dict.fromkeys(names) if ":entity" in query else (1,) * query.count("?")
        )
        assert connection.execute(f"EXPLAIN {query}", parameters), name
    tables = connection.execute("SELECT name, strict FROM pragma_table_list").fetchall()
    ours = [(name, strict) for name, strict in tables if not name.startswith("sqlite_")]
    assert len(ours) == SCHEMA.count("CREATE TABLE")
    assert all(strict for _, strict in ours)
    assert SCHEMA_VERSION == 9  # Raise it when a table changes.
