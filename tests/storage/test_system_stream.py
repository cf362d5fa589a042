"""The system stream: rows of editors, kept apart from what processes of a run log."""

import pytest
from tests.storage.recording import Recorded, Row, Settle, rows_of

from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.database import Database
from flightlog_storage.event import RunDeleted, WriterId
from flightlog_storage.history import Query
from flightlog_storage.part_reader import Part, verify_part
from flightlog_storage.points import Stream
from flightlog_storage.projector import part_folder
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState
from flightlog_storage.stacking import stack

KEY = ("e", "p", "r")
SYSTEM = Query(stream=Stream.SYSTEM, with_time=True)


def sampler(recorded: Recorded, name: str = "sys") -> WriterId:
    return recorded.join("r", name, EDITOR_RANK)


def system_rows(recorded: Recorded) -> list[Row]:
    """Return (step, n) of each system row, by which none is identified for users."""
    history = HomeReader(recorded.home).history(KEY, SYSTEM)
    if history is None:
        return []
    values = [row["n"] for row in history.to_dicts()]
    return list(zip(history.steps.tolist(), values, strict=True))


def state_of(recorded: Recorded) -> RunState:
    state = HomeReader(recorded.home).state(KEY)
    assert state is not None
    return state


def test_the_two_streams_of_a_run_do_not_mix(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    system = sampler(recorded)
    recorded.rows(system, (1_000_000, 50.0))
    recorded.rows(writer, (0, 1.0), (1, 2.0))
    recorded.rows(system, (2_000_000, 60.0))
    recorded.finish(writer)
    settle()

    state = state_of(recorded)

    assert rows_of(recorded.home, "r") == [(0, 1.0), (1, 2.0)]
    assert system_rows(recorded) == [(1_000_000, 50.0), (2_000_000, 60.0)]
    assert (state.summary["n"], state.system) == (2.0, {"n": 60.0})
    assert (state.row_count, state.last_step, state.lost_count) == (2, 1, 0)
    assert (len(state.writers), state.updated_at) == (1, 3.0)


def test_samples_alone_make_no_history(recorded: Recorded, settle: Settle) -> None:
    recorded.start("r")
    recorded.rows(sampler(recorded), (5, 1.0))
    settle()
    reader = HomeReader(recorded.home)
    opened = reader.open_history(KEY)

    assert rows_of(recorded.home, "r") == []
    assert opened is not None
    assert opened.counts() == {}
    assert (state_of(recorded).last_step, state_of(recorded).summary) == (-1, {})
    sampled = reader.sample(KEY, Query(), 5)
    assert sampled is not None
    assert len(sampled) == 0


def test_a_run_that_ended_gets_no_more_samples(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    system = sampler(recorded)
    recorded.rows(system, (1, 1.0))
    recorded.finish(writer)
    recorded.rows(system, (2, 2.0))
    settle()
    assert (system_rows(recorded), state_of(recorded).system) == ([(1, 1.0)], {"n": 1})

    recorded.start("r", "again")
    recorded.rows(system, (3, 3.0))
    settle()

    assert system_rows(recorded) == [(1, 1.0), (3, 3.0)]
    assert state_of(recorded).system == {"n": 3.0}


def test_a_deleted_run_has_no_samples_left(recorded: Recorded, settle: Settle) -> None:
    old = recorded.start("r", "old")
    system = sampler(recorded)
    recorded.rows(system, (1, 1.0))
    recorded.tell(recorded.join("r", "ed", EDITOR_RANK), RunDeleted(time=9.0))
    recorded.rows(system, (2, 2.0))
    recorded.rows(old, (0, 1.0))
    settle()
    assert HomeReader(recorded.home).state(KEY) is None

    recorded.start("r", "new")
    recorded.rows(system, (3, 3.0))
    settle()

    assert system_rows(recorded) == [(3, 3.0)]
    assert state_of(recorded).system == {"n": 3.0}


def test_a_tail_that_is_restored_has_both_streams(recorded: Recorded) -> None:
    writer = recorded.start("r")
    first, second = sampler(recorded, "one"), sampler(recorded, "two")
    recorded.rows(first, (1, 1.0))
    recorded.rows(writer, (0, 0.5))
    recorded.fold()
    recorded.rows(second, (2, 2.0))
    assert system_rows(recorded) == [(1, 1.0), (2, 2.0)]

    recorded.fold()
    recorded.finish(writer)
    recorded.fold()

    assert system_rows(recorded) == [(1, 1.0), (2, 2.0)]
    assert rows_of(recorded.home, "r") == [(0, 0.5)]
    (part,) = part_folder(recorded.home, state_of(recorded).number).iterdir()
    assert verify_part(part) == []


def test_parts_with_both_streams_are_merged_into_one(recorded: Recorded) -> None:
    for session in range(3):
        writer = recorded.start("r", f"w{session}")
        system = sampler(recorded, f"s{session}")
        recorded.rows(system, (100 + session, float(session)))
        recorded.rows(writer, (session, 0.5))
        recorded.finish(writer)
        recorded.fold()
    with Database.open_reader(recorded.home.state) as database:
        (part,) = database.parts()
    path = part_folder(recorded.home, part.run) / part.name

    assert system_rows(recorded) == [(100, 0.0), (101, 1.0), (102, 2.0)]
    assert rows_of(recorded.home, "r") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert (part.points, part.min_step, part.max_step) == (6, 0, 2)
    with Part(path) as whole, Part(path, Stream.SYSTEM) as of_system:
        assert [(s.key, s.rank, s.points) for s in whole.spans] == [
            ("n", -1, 3),
            ("n", 0, 3),
        ]
        assert [span.rank for span in of_system.spans] == [-1]


@pytest.mark.parametrize("samples", [1, 2, 7, 99, 100, 500])
def test_a_sample_of_the_system_stream_is_even(
    recorded: Recorded, settle: Settle, samples: int
) -> None:
    writer = recorded.start("r")
    system = sampler(recorded)
    for n in range(100):
        recorded.rows(system, (1000 * n, float(n)))
        recorded.rows(writer, (n, -1.0))
    settle()

    found = HomeReader(recorded.home).sample(KEY, SYSTEM, samples)

    assert found is not None
    values = [row["n"] for row in found.to_dicts()]
    assert len(values) == min(samples, 100)
    assert values[-1] == 99.0
    assert values == sorted(values)
    assert samples == 1 or values[0] == 0.0


def test_system_rows_have_no_step(recorded: Recorded) -> None:
    recorded.start("r")
    recorded.rows(sampler(recorded), (7, 1.5))
    history = HomeReader(recorded.home).history(KEY, SYSTEM)
    assert history is not None

    expected = {"_timestamp": 2.0, "_wandb": True, "n": 1.5}

    assert list(history.to_dicts()) == [expected]
    assert history.to_arrow().to_pylist() == [expected]
    assert stack([history, history]).to_arrow().to_pylist() == 2 * [expected]
    assert list(history.take(history.steps[:0]).to_dicts()) == []


def test_a_sample_that_is_sent_again_counts_once(recorded: Recorded) -> None:
    recorded.start("r")
    system = sampler(recorded)
    recorded.rows(system, (1, 1.0))
    recorded.rows(system, (2, 2.0))
    recorded.fold()
    recorded.log.last_sequence[system] = 0
    recorded.rows(system, (1, 1.0))
    recorded.fold()

    assert system_rows(recorded) == [(1, 1.0), (2, 2.0)]
    assert state_of(recorded).system == {"n": 2.0}


def test_samples_of_no_run_are_dead_letters(recorded: Recorded) -> None:
    recorded.rows(sampler(recorded), (1, 1.0))
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        (letter,) = database.dead_letters()

    assert letter.reason == "there is no such run"


def test_what_is_active_is_seen_in_the_database(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.fold()
    with Database.open_reader(recorded.home.state) as database:
        assert database.is_active(*KEY)
        assert not database.is_active("e", "p", "none")
    recorded.finish(writer)
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        assert not database.is_active(*KEY)
