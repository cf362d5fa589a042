"""Files of a run: stored, owed, made, lost; the same before and after the fold."""

import pytest
from tests.storage.recording import Recorded, Settle
from tests.storage.test_editors import edit, found, state_of

from flightlog_storage.database import Database
from flightlog_storage.event import (
    ArtifactLogged,
    Event,
    FileDeleted,
    FileFailed,
    FileRequested,
    FileSaved,
    Pixels,
    RunDeleted,
    StoringBegun,
    StoringEnded,
    WriterLost,
)
from flightlog_storage.runfiles import OwedFile

PIXELS = Pixels(dtype="|u1", shape=[4, 4], format="png", quality=90)


def requested(token: str, name: str = "media/x.png") -> FileRequested:
    return FileRequested(time=2.0, name=name, token=token, size=16, pixels=PIXELS)


def saved(token: str | None, name: str = "media/x.png", blob: str = "b") -> FileSaved:
    return FileSaved(time=3.0, name=name, blob=blob, digest="d", size=9, token=token)


def test_a_requested_file_is_owed(recorded: Recorded, settle: Settle) -> None:
    recorded.tell(recorded.start("r"), requested("t"))
    settle()

    state = found(recorded)

    assert state.owed == {"t": OwedFile("t", "media/x.png", 16, PIXELS)}
    assert state.files == {}


def test_an_owed_file_that_is_made_is_one_of_the_run(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), requested("t"))
    settle()
    edit(recorded, "r", saved("t"))
    settle()

    state = found(recorded)

    assert state.owed == {}
    assert state.files["media/x.png"].blob == "b"


def test_what_is_said_twice_of_a_request_counts_once(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), requested("t"))
    edit(recorded, "r", saved("t"), FileDeleted(time=3.0, name="media/x.png"))
    edit(recorded, "r", saved("t"), FileFailed(time=3.0, token="t", reason="late"))
    settle()

    state = found(recorded)

    assert (state.files, state.owed, state.lost_count) == ({}, {}, 0)


def test_a_file_that_cannot_be_made_is_counted_as_lost(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), requested("t"))
    edit(recorded, "r", *[FileFailed(time=3.0, token="t", reason="no")] * 2)
    settle()

    state = found(recorded)

    assert (state.files, state.owed, state.lost_count) == ({}, {}, 1)


def test_a_file_saved_without_a_request_needs_none(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.tell(recorded.start("r"), saved(None, blob="other"))
    settle()

    assert found(recorded).files["media/x.png"].blob == "other"


def test_a_deleted_run_is_owed_nothing(recorded: Recorded, settle: Settle) -> None:
    recorded.tell(recorded.start("r"), requested("t"))
    settle()
    edit(recorded, "r", RunDeleted(time=3.0))
    edit(recorded, "r", saved("t"))
    settle()
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        assert database.owed_files(10) == []
    assert state_of(recorded, "r") is None


def test_what_is_owed_comes_in_the_order_of_the_log(recorded: Recorded) -> None:
    writers = [recorded.start(run, run) for run in ("r", "s")]
    for number in range(7):
        recorded.tell(writers[number % 2], requested(f"t{number}"))
        if number == 3:
            recorded.fold()
    edit(recorded, "s", saved("t1"))
    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        owed = [(run[2], each.token) for run, each in database.owed_files(4)]

    assert owed == [("r", "t0"), ("r", "t2"), ("s", "t3"), ("r", "t4")]


# --- what a writer stores in the background ---

BEGUN = StoringBegun(time=2.0, what="file x")


@pytest.mark.parametrize(
    ("outcomes", "lost"),
    [
        ([], 2),
        ([saved(None)], 1),
        ([saved(None), StoringEnded(time=3.0)], 0),
        ([StoringEnded(time=3.0, reason="the disk is full")], 2),
        ([StoringEnded(time=3.0, reason="no"), saved(None)], 1),
        ([ArtifactLogged(time=3.0, name="a", token="t", type="model")], 1),
        ([saved(None), saved(None, "y"), saved(None, "z")], 0),
    ],
)
@pytest.mark.parametrize("end", ["finished", "lost"])
def test_what_has_no_outcome_when_its_writer_ends_is_lost(
    recorded: Recorded, settle: Settle, outcomes: list[Event], lost: int, end: str
) -> None:
    writer = recorded.start("r")
    recorded.tell(writer, BEGUN)
    recorded.tell(writer, BEGUN)
    settle()
    for event in outcomes:
        recorded.tell(writer, event)
    settle()
    if end == "finished":
        recorded.finish(writer)
    recorded.tell(writer, WriterLost(time=4.0, reason="gone"))
    settle()

    assert found(recorded).lost_count == lost


def test_an_editor_owes_no_outcome(recorded: Recorded, settle: Settle) -> None:
    recorded.tell(recorded.start("r"), BEGUN)
    edit(recorded, "r", saved(None), StoringEnded(time=3.0, reason="not its own"))
    settle()

    (writer,) = found(recorded).writers.values()

    assert (writer.storing, found(recorded).lost_count) == (1, 0)
