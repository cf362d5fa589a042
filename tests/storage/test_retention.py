"""Retention: which runs are old, and what keeps one that was to go."""

from contextlib import closing
from pathlib import Path

import pytest
from tests.storage.recording import Recorded, rows_of, writer_id

from flightlog_storage.codec import EDITOR_RANK, RunKey
from flightlog_storage.durations import parse_time
from flightlog_storage.event import Event, RunDeleted, RunStarted, TagsChanged
from flightlog_storage.process import this_process
from flightlog_storage.reader import HomeReader
from flightlog_storage.retention import old_runs
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_writer import SpoolWriter

DAY_S = 86_400.0
LATER_S = 3.0 + DAY_S  # A day after a run of `recorded` has ended.


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """Return a home of a run that ended at 3.0."""
    recorded = Recorded(tmp_path)
    log_run(recorded, "old")
    return recorded


def log_run(recorded: Recorded, run: str) -> None:
    writer = recorded.start(run, run)
    recorded.rows(writer, (0, 1.0))
    recorded.finish(writer)


def log_later(recorded: Recorded, time: float) -> None:
    """Have a run log at a time, and go on."""
    writer = recorded.join("new", "new")
    start = RunStarted(time=time, entity="e", project="p", run="new")
    recorded.tell(writer, start)


def edit(recorded: Recorded, run: str, event: Event) -> None:
    editor = recorded.join(run, f"editor of {run}"[:16], rank=EDITOR_RANK)
    recorded.tell(editor, event)


def old(recorded: Recorded, now: float = 9e9) -> list[str]:
    recorded.fold()
    return [run for (_, _, run), _ in old_runs(recorded.home, DAY_S, now)]


def test_a_run_that_ended_longer_ago_is_old(recorded: Recorded) -> None:
    log_run(recorded, "second")
    log_later(recorded, LATER_S + 0.5)

    assert old(recorded) == ["old", "second"]
    assert old_runs(recorded.home, DAY_S, 9e9)[0].heard_at == 3.0


def test_one_that_ended_just_now_is_not(recorded: Recorded) -> None:
    log_later(recorded, LATER_S)

    assert old(recorded) == []


def test_a_clock_that_jumps_makes_no_run_old(recorded: Recorded) -> None:
    assert old(recorded, now=9e9) == []

    log_later(recorded, 9e9)
    assert old(recorded, now=LATER_S) == []


def test_one_that_a_writer_is_at_is_left_out(recorded: Recorded) -> None:
    log_later(recorded, 9e9)
    assert old(recorded) == ["old"]
    owner = SpoolOwner(b"w" * 16, this_process(), RunKey("e", "p", "old", 0))

    with closing(SpoolWriter(recorded.home.spool, owner, lambda: None)):
        assert old(recorded) == []  # It has said nothing yet.


def test_a_home_without_state_has_none(tmp_path: Path) -> None:
    assert old_runs(Recorded(tmp_path).home, DAY_S, 9e9) == []


def test_what_is_tagged_running_or_deleted_is_left_out(recorded: Recorded) -> None:
    log_run(recorded, "tagged")
    edit(recorded, "tagged", TagsChanged(time=3.0, tags=["keep"]))
    recorded.start("running", "running")
    log_run(recorded, "deleted")
    edit(recorded, "deleted", RunDeleted(time=3.0))
    log_later(recorded, 9e9)

    assert old(recorded) == ["old"]


@pytest.mark.parametrize("since", [3.0, None])
def test_an_old_run_is_deleted(recorded: Recorded, since: float | None) -> None:
    edit(recorded, "old", RunDeleted(time=9.0, if_quiet_since=since))

    assert not is_there(recorded)


def test_a_run_that_went_on_meanwhile_stays(recorded: Recorded) -> None:
    again = recorded.join("old", "again")
    recorded.tell(again, RunStarted(time=2.0, entity="e", project="p", run="old"))
    edit(recorded, "old", RunDeleted(time=9.0, if_quiet_since=3.0))

    assert is_there(recorded)


def test_a_run_that_was_heard_of_meanwhile_stays(recorded: Recorded) -> None:
    edit(recorded, "old", RunDeleted(time=9.0, if_quiet_since=2.9))

    assert is_there(recorded)
    assert rows_of(recorded.home, "old") == [(0, 1.0)]


def test_a_run_that_was_tagged_meanwhile_stays(recorded: Recorded) -> None:
    edit(recorded, "old", TagsChanged(time=2.0, tags=["a", "keep"]))
    recorded.tell(writer_id("editor of old"), RunDeleted(time=9.0, if_quiet_since=3.0))

    assert is_there(recorded)


def is_there(recorded: Recorded) -> bool:
    """Ask a reader that folds the log itself, and one that need not."""
    asked = [HomeReader(recorded.home).state(("e", "p", "old")) is not None]
    recorded.fold()
    asked.append(HomeReader(recorded.home).state(("e", "p", "old")) is not None)
    assert len(set(asked)) == 1
    return asked[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90d", 90 * DAY_S), (" 1.5 h", 5400.0), ("0s", 0.0), ("30min", 1800.0)],
)
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1w", "1 d 2 h", "99999999d"])
def test_what_is_no_time_is_told_from_one(text: str) -> None:
    assert parse_time(text) is None
