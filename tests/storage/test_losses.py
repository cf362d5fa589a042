"""Events that were refused, as the run that they are missing in shows them."""

import msgpack
import pytest
from tests.storage.recording import Recorded, settled

from flightlog_storage import folding
from flightlog_storage.codec import EDITOR_RANK, encode_event
from flightlog_storage.event import ArtifactUsed, RunDeleted, RunFinished
from flightlog_storage.reader import HomeReader

ROW = msgpack.packb((0, 1, 2.0, 0.5))
USED = ArtifactUsed(time=1.0, entity="e", project="p", name="m", number=9)
POISON = {
    "no kind": ((msgpack.packb({"event": None}),), 1),
    "no map": ((msgpack.packb("text"),), 1),
    "a wrong field": ((msgpack.packb({"event": "RunFinished", "exit_code": "x"}),), 1),
    "a row of no shape": ((msgpack.packb((9, 1, 2.0, 0.5)),), 1),
    "a row without a step": ((ROW, msgpack.packb((0, None, 2.0, 0.5)), ROW), 1),
    "three wrong ones": ((msgpack.packb(7), ROW, b"\xc0", msgpack.packb("")), 3),
    "the end is unreadable": ((ROW, b"\xc1", ROW, ROW), 3),
    "too much": ((ROW, ROW + b"\xc0"), 0),
    "a kind of tomorrow": ((msgpack.packb({"event": "Tomorrow", "time": 1.0}),), 0),
    "a refused artifact": (
        (encode_event(USED),),
        1,
    ),
}


def losses(recorded: Recorded) -> dict[str, int]:
    return {row.id: row.lost_count for row in HomeReader(recorded.home).runs()}


@pytest.mark.parametrize("what", POISON)
def test_what_was_refused_counts_as_lost(recorded: Recorded, what: str) -> None:
    events, count = POISON[what]
    recorded.start("other", "other")
    writer = recorded.start("r")
    recorded.say(writer, *events)
    recorded.rows(writer, (2, 0.6))

    assert [losses(recorded) for _ in settled(recorded)] == [
        {"other": 0, "r": count}
    ] * 3


def test_a_frame_whose_shapes_cannot_be_read_is_lost_whole(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.5), missing=2)
    recorded.append(writer, b"\xc1" + ROW * 3, 3)

    assert [losses(recorded) for _ in settled(recorded)] == [{"r": 5}] * 3


def test_rows_that_the_fold_cannot_take_are_lost(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    recorded.rows(recorded.start("r"), (1, 0.5), (2, 0.6))
    monkeypatch.setattr(folding, "apply", fail)

    assert [losses(recorded) for _ in settled(recorded)] == [{"r": 3}] * 3


def test_what_is_refused_of_a_deleted_run_is_not_missed(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.tell(recorded.join("r", "ed", EDITOR_RANK), RunDeleted(time=2.0))
    recorded.say(writer, b"\xc1")
    second = recorded.start("r", "second")
    recorded.say(writer, b"\xc1")
    recorded.tell(second, RunFinished(time=3.0, exit_code=0))

    assert [losses(recorded) for _ in settled(recorded)] == [{"r": 0}] * 3
