"""Editors: writers that change a run and are no processes of its life."""

import pytest
from tests.storage.recording import Recorded, Settle, rows_of

from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.event import (
    ConfigUpdated,
    Event,
    RunCreated,
    RunDeleted,
    RunDescribed,
    RunFinished,
    RunStateChanged,
    SummaryUpdated,
    TagsChanged,
    WriterLost,
)
from flightlog_storage.projector import part_folder
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState, State


def edit(recorded: Recorded, run: str, *events: Event, name: str = "ed") -> None:
    editor = recorded.join(run, name, EDITOR_RANK)
    for event in events:
        recorded.tell(editor, event)


def state_of(recorded: Recorded, run: str) -> RunState | None:
    return HomeReader(recorded.home).state(("e", "p", run))


def found(recorded: Recorded) -> RunState:
    state = state_of(recorded, "r")
    assert state is not None
    return state


def listed(recorded: Recorded) -> list[str]:
    return [row.id for row in HomeReader(recorded.home).runs()]


def test_an_editor_changes_a_run_and_is_no_writer_of_it(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.finish(recorded.start("r"))
    edit(
        recorded,
        "r",
        ConfigUpdated(time=9.0, changes={"lr": 1}),
        SummaryUpdated(time=9.0, changes=[(["a", "b"], 2)]),
        TagsChanged(time=9.0, tags=["t"]),
        RunDescribed(time=9.0, changes={"description": "d", "name": "n"}),
    )
    settle()

    state = state_of(recorded, "r")

    assert state is not None
    assert (state.state, state.updated_at) == (State.FINISHED, 3.0)
    assert (state.config, state.summary) == ({"lr": 1}, {"a": {"b": 2}})
    assert (state.tags, state.name, state.description) == (["t"], "n", "d")
    assert len(state.writers) == 1


def test_the_end_of_an_editor_is_not_the_end_of_the_run(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.start("r")
    edit(
        recorded,
        "r",
        WriterLost(time=9.0, reason="gone", signal=9),
        RunFinished(time=9.0, exit_code=3),
    )
    settle()

    state = state_of(recorded, "r")

    assert state is not None
    assert state.state is State.RUNNING


def test_a_run_can_be_made_by_hand_and_be_logged_into(
    recorded: Recorded, settle: Settle
) -> None:
    edit(recorded, "pending", RunCreated(time=5.0, state="pending"), name="a")
    edit(recorded, "made", RunCreated(time=5.0), name="b")
    edit(recorded, "used", RunCreated(time=5.0), name="c")
    writer = recorded.start("used")
    edit(recorded, "used", RunCreated(time=6.0, state="pending"), name="d")
    recorded.finish(writer)
    settle()

    states = {run: state_of(recorded, run) for run in ("pending", "made", "used")}

    assert {run: str(state and state.state) for run, state in states.items()} == {
        "pending": "pending",
        "made": "running",
        "used": "finished",
    }
    assert states["used"] is not None
    assert states["used"].created_at == 5.0


def test_a_state_is_corrected_only_while_nobody_logs(
    recorded: Recorded, settle: Settle
) -> None:
    recorded.start("active", "a")
    recorded.finish(recorded.start("ended", "b"))
    edit(recorded, "active", RunStateChanged(time=9.0, state="failed"), name="x")
    edit(recorded, "ended", RunStateChanged(time=9.0, state="crashed"), name="y")
    edit(recorded, "ended", RunStateChanged(time=9.0, state="nonsense"), name="z")
    settle()

    active, ended = state_of(recorded, "active"), state_of(recorded, "ended")

    assert active is not None
    assert ended is not None
    assert (active.state, ended.state) == (State.RUNNING, State.CRASHED)


def test_what_an_editor_says_of_no_run_makes_none(
    recorded: Recorded, settle: Settle
) -> None:
    edit(recorded, "r", TagsChanged(time=1.0, tags=["t"]))
    settle()

    assert listed(recorded) == []


@pytest.mark.fault(63)
def test_a_deleted_run_is_gone_whatever_its_writers_still_say(
    recorded: Recorded, settle: Settle
) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 1.0), (1, 2.0))
    edit(recorded, "r", RunDeleted(time=9.0))
    recorded.rows(writer, (2, 3.0))
    edit(recorded, "r", TagsChanged(time=9.0, tags=["t"]), name="late")
    recorded.finish(writer)
    settle()

    assert state_of(recorded, "r") is None
    assert listed(recorded) == []
    assert rows_of(recorded.home, "r") == []


def test_a_deleted_run_begins_anew_with_a_new_writer(
    recorded: Recorded, settle: Settle
) -> None:
    old = recorded.start("r", "old")
    recorded.rows(old, (0, 1.0), (7, 2.0))
    edit(recorded, "r", ConfigUpdated(time=8.0, changes={"lr": 1}), name="a")
    edit(recorded, "r", RunDeleted(time=9.0), name="b")
    new = recorded.start("r", "new")
    recorded.rows(new, (1, 5.0))
    recorded.rows(old, (2, 3.0))
    recorded.finish(old, 3)
    recorded.finish(new)
    settle()

    state = state_of(recorded, "r")

    assert state is not None
    assert (state.state, state.config, state.last_step) == (State.FINISHED, {}, 1)
    assert state.summary["n"] == 5.0
    assert rows_of(recorded.home, "r") == [(1, 5.0)]


def test_the_parts_of_a_deleted_run_are_deleted(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 1.0))
    recorded.finish(writer)
    recorded.fold()
    (folder,) = recorded.home.histories.iterdir()
    assert list(folder.iterdir())
    edit(recorded, "r", RunDeleted(time=9.0))

    recorded.fold()

    assert folder == part_folder(recorded.home, 0)
    assert list(folder.iterdir()) == []


def test_a_part_and_the_deletion_of_its_run_in_one_commit_leave_no_file(
    recorded: Recorded,
) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 1.0))
    recorded.finish(writer)
    edit(recorded, "r", RunDeleted(time=9.0))

    recorded.fold()

    assert list(part_folder(recorded.home, 0).iterdir()) == []


def test_deleting_between_commits_keeps_the_tail_right(recorded: Recorded) -> None:
    old = recorded.start("r", "old")
    recorded.rows(old, (0, 1.0))
    recorded.fold()
    edit(recorded, "r", RunDeleted(time=9.0))
    recorded.fold()
    new = recorded.start("r", "new")
    recorded.rows(new, (1, 5.0))
    recorded.rows(old, (2, 3.0))
    recorded.fold()
    before = rows_of(recorded.home, "r")
    recorded.finish(new)
    recorded.fold()

    assert before == rows_of(recorded.home, "r") == [(1, 5.0)]


def test_an_edit_that_is_sent_again_counts_once(recorded: Recorded) -> None:
    recorded.finish(recorded.start("r"))
    edit(recorded, "r", TagsChanged(time=1.0, tags=["a"]), name="one")
    edit(recorded, "r", TagsChanged(time=1.0, tags=["b"]), name="two")
    recorded.fold()
    again = recorded.join("r", "one", EDITOR_RANK)
    recorded.log.last_sequence[again] = 0
    recorded.tell(again, TagsChanged(time=1.0, tags=["a"]))

    state = state_of(recorded, "r")

    assert state is not None
    assert state.tags == ["b"]
