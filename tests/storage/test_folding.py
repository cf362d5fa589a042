from collections.abc import Iterator

import msgpack
import pytest
from tests.storage.recording import Recorded, rows_of, writer_id

from flightlog_storage import folding as module
from flightlog_storage.codec import encode_event
from flightlog_storage.database import Database
from flightlog_storage.event import RunFinished, RunStarted, WriterLost
from flightlog_storage.fold import apply
from flightlog_storage.folding import RANK_MAX, Folded, Folding
from flightlog_storage.frame import Frame
from flightlog_storage.logreader import LogReader, StoredFrame
from flightlog_storage.runstate import RunState, State
from flightlog_storage.segment import Damage, DamageKind

POISON = (
    {"event": "RunStarted", "time": 1.0, "entity": "e", "project": "p", "run": "r"}
    | {"rank": 2**40},
    {
        "event": "RunStarted",
        "time": float("nan"),
        "entity": "",
        "project": "",
        "run": "",
    },
    {"event": "RunFinished", "time": 1e300, "exit_code": -(2**63)},
    {"event": "SummaryUpdated", "time": 1.0, "changes": [[["a"], 1], [["a", "b"], 2]]},
    {"event": "NoSuchThing"},
    {"event": None},
    [0, "x", 1.0, 2.0],
    "a text",
)


@pytest.fixture(autouse=True)
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the databases that the tests open."""
    empty, opened = Database.empty, []

    def open_empty() -> Database:
        opened.append(empty())
        return opened[-1]

    monkeypatch.setattr(Database, "empty", open_empty)
    yield
    for database in opened:
        database.close()


def fold_all(recorded: Recorded) -> tuple[Folding, list[Folded]]:
    folding = Folding(Database.empty())
    folded = []
    for item in LogReader(recorded.home.log).read():
        assert isinstance(item, StoredFrame)
        folded.append(folding.fold(item.frame, item.payload()))
    return folding, folded


def only_state(folding: Folding) -> RunState:
    (state,) = folding.states.values()
    return state


def test_a_writer_whose_first_frame_is_lost_still_gives_its_rows(
    recorded: Recorded,
) -> None:
    writer = recorded.join("r", rank=3)
    recorded.rows(writer, (5, 0.5), (6, 0.6), missing=4)

    folding, (folded,) = fold_all(recorded)

    state = only_state(folding)
    assert (state.entity, state.project, state.id) == ("e", "p", "r")
    assert state.lost_count == 4
    assert state.state is State.RUNNING
    assert folded.rank == 3
    assert [(gap.first_sequence, gap.count) for gap in folded.missing] == [(1, 4)]
    assert rows_of(recorded.home, "r") == [(5, 0.5), (6, 0.6)]


def test_rows_before_the_start_of_another_writer_make_the_run(
    recorded: Recorded,
) -> None:
    recorded.rows(recorded.join("r", "late"), (0, 1.0), missing=1)
    second = recorded.start("r", "second", rank=1)
    recorded.rows(second, (0, 2.0))

    folding, _ = fold_all(recorded)

    assert len(only_state(folding).writers) == 2


def test_the_end_of_a_writer_that_never_began_ends_its_run(recorded: Recorded) -> None:
    writer = recorded.join("r")
    recorded.tell(writer, WriterLost(time=1.0, reason="gone", signal=9))

    folding, _ = fold_all(recorded)

    assert only_state(folding).state is State.CRASHED
    assert only_state(folding).signal == 9


def test_a_hole_in_the_sequence_is_counted_once(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 1.0))
    frame = recorded.rows(writer, (9, 1.0), missing=8)

    folding, (*_, folded) = fold_all(recorded)

    (missing,) = folded.missing
    assert (missing.offset, missing.first_sequence, missing.count) == (
        frame.offset,
        3,
        8,
    )
    assert only_state(folding).lost_count == 8


def test_damage_of_a_known_writer_is_charged_to_its_run(recorded: Recorded) -> None:
    writer = recorded.start("r")
    folding, _ = fold_all(recorded)

    folded = folding.fold_damage(
        Damage(
            segment="s",
            position=8,
            size=100,
            first_offset=1,
            count=5,
            writer=writer,
            sequence=2,
            kind=DamageKind.ROTTEN,
            why="rot",
        )
    )
    after = recorded.rows(writer, (9, 1.0), missing=5)
    found = list(LogReader(recorded.home.log).read())[-1]
    assert isinstance(found, StoredFrame)
    following = folding.fold(after, found.payload())

    assert [(gap.run, gap.count) for gap in folded.missing] == [(0, 5)]
    assert following.missing == [], "counted already"
    assert only_state(folding).lost_count == 5


def test_damage_of_nobody_is_noted(recorded: Recorded) -> None:
    folding = Folding(Database.empty())

    folded = folding.fold_damage(
        Damage(
            segment="s",
            position=8,
            size=100,
            first_offset=7,
            count=None,
            writer=None,
            sequence=None,
            kind=DamageKind.ROTTEN,
            why="rot",
        )
    )

    assert folded.state is None
    assert [(gap.offset, gap.run) for gap in folded.missing] == [(7, None)]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x90", b"\x90\xc0", b"\xff" * 99])
def test_a_frame_that_names_no_run_is_a_dead_letter(payload: bytes) -> None:
    folding = Folding(Database.empty())

    folded = folding.fold(Frame(len(payload), 0, 1, writer_id("w"), 1), payload)

    assert folded.state is None
    assert [letter.raw for letter in folded.dead_letters] == [payload]


@pytest.mark.fault(34)
@pytest.mark.parametrize("poison", POISON, ids=lambda poison: str(poison)[:40])
@pytest.mark.parametrize("is_first", [True, False])
def test_poison_costs_itself_alone(
    recorded: Recorded, poison: object, is_first: bool
) -> None:
    writer = recorded.join("r") if is_first else recorded.start("r")
    row = msgpack.packb((0, 1, 2.0, 0.5))
    recorded.say(writer, msgpack.packb(poison), row)
    recorded.rows(writer, (2, 0.6))
    recorded.tell(writer, RunFinished(time=4.0, exit_code=0))

    _, folded = fold_all(recorded)

    assert sum(len(rows.steps) for each in folded for rows in each.rows) == 2
    assert all(0 <= each.rank <= RANK_MAX for each in folded)
    assert rows_of(recorded.home, "r") == [(1, 0.5), (2, 0.6)]


@pytest.mark.fault(34)
def test_an_event_that_the_fold_cannot_take_is_a_dead_letter(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recorded.join("r")
    started = RunStarted(time=1.0, entity="e", project="p", run="r")
    recorded.say(writer, encode_event(started))
    recorded.rows(writer, (1, 0.5))

    def refuse_starts(state: RunState, writer: object, event: object) -> None:
        if isinstance(event, RunStarted):
            raise RecursionError
        apply(state, writer, event)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "apply", refuse_starts)

    _, (first, second) = fold_all(recorded)

    assert [letter.reason for letter in first.dead_letters] == ["RecursionError()"]
    assert first.rank == 0
    assert [list(rows.steps) for rows in second.rows] == [[1]]


def test_what_a_writer_sends_again_after_a_loss_is_not_counted_twice(
    recorded: Recorded,
) -> None:
    """The log lost what state.db has, and its writer still had it."""
    writer = recorded.start("r")
    sent = recorded.rows(writer, (0, 1.0), (1, 2.0))
    with Database.empty() as database:
        folding = Folding(database)
        items = list(LogReader(recorded.home.log).read())
        for item in [*items, items[-1]]:
            assert isinstance(item, StoredFrame)
            folded = folding.fold(item.frame, item.payload())
        state = folded.state

    assert sent.sequence == 2
    assert state is not None
    assert (state.row_count, state.lost_count) == (2, 0)
    assert sum(len(rows.series[0].steps) for rows in folded.rows) == 2


@pytest.mark.fault(30)
def test_many_refused_events_of_a_frame_are_one_dead_letter(
    recorded: Recorded,
) -> None:
    writer = recorded.start("r")
    blobs = [f"{number:064x}" for number in range(3)]
    kept = module.DEAD_LETTERS_MAX
    poison = [msgpack.packb(n) for n in range(kept + 5000)]
    poison[kept] = b"\xd9\x40" + blobs[0].encode()
    poison[kept + 1] = b"\xd9\x40" + blobs[1].encode()
    poison[-1] = b"\xd9\x40" + blobs[2].encode()
    recorded.say(writer, *poison)
    recorded.say(writer, b"\xc0")

    folding, _ = fold_all(recorded)

    letters = folding.dead_letters
    assert len(letters) == kept + 2
    assert letters[kept].offset == 1 + kept
    assert letters[kept].reason == "5,000 events, the first: neither a row nor a map"
    assert all(blob.encode() in letters[kept].raw for blob in blobs)
    assert len(letters[kept].raw) < 300
    assert letters[-1].reason == "neither a row nor a map"
    assert only_state(folding).lost_count == kept + 5001
