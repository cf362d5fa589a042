"""Which keys a run logged, as filters find it."""

from typing import Any

import pytest
from tests.storage.recording import Recorded, packed_rows, settled, writer_id

from flightlog_storage.codec import EDITOR_RANK, encode_definitions
from flightlog_storage.database import Database
from flightlog_storage.event import (
    ConfigUpdated,
    MetricDefined,
    Rows,
    RunDeleted,
    SummaryUpdated,
)
from flightlog_storage.filters import parse_filter
from flightlog_storage.fold import apply
from flightlog_storage.reader import HomeReader
from flightlog_storage.rows import decode
from flightlog_storage.run_query import RunQuery, Window
from flightlog_storage.runstate import RunState

pytestmark = pytest.mark.once

KEYS_MANY = 100_000


def having(recorded: Recorded, key: str) -> list[str]:
    """Return the runs that are found by a key."""
    found = parse_filter({f"keys_info.keys.{key}": {"$exists": True}})
    page = HomeReader(recorded.home).page(RunQuery("e", "p", found), Window(10))
    return [run.id for run in page.runs]


def delete(recorded: Recorded, run: str) -> None:
    recorded.tell(recorded.join(run, "editor", EDITOR_RANK), RunDeleted(time=2.0))


def rows_with(row: dict[str, Any]) -> Rows:
    shapes, encoded = packed_rows([row])
    ((_, rows),) = decode(encode_definitions(shapes) + b"".join(encoded), 1)
    assert isinstance(rows, Rows)
    return rows


def test_a_run_is_found_by_the_keys_that_it_logged_and_no_others(
    recorded: Recorded,
) -> None:
    recorded.record(recorded.start("other", "other"), {"else": 1})
    writer = recorded.start("r")
    for name, summary in (("quiet", "none"), ("low", "min")):
        recorded.tell(writer, MetricDefined(time=1.0, name=name, summary=[summary]))
    recorded.tell(writer, ConfigUpdated(time=1.0, changes={"config": 1}))
    recorded.tell(writer, SummaryUpdated(time=1.0, changes=[(["byhand"], 1)]))
    recorded.record(writer, {"quiet": 1, "low": 2, "none": None, "a/b": 1})
    recorded.record(writer, {"deep": {"er": {"x": 1}, "list": [1]}, "a.dot": 1})

    for _ in settled(recorded):
        logged = ["quiet", "low", "none", "a/b", "deep.er.x", "deep.list", "a.dot"]
        for key in logged:
            assert having(recorded, key) == ["r"], key
        for key in ("_step", "_timestamp", "_runtime"):
            assert having(recorded, key) == ["other", "r"], key
        for key in ("config", "byhand", "low.min", "deep", "deep.er", "a", "missing"):
            assert having(recorded, key) == [], key


def test_a_key_counts_though_its_rows_are_folded_and_others_are_not(
    recorded: Recorded,
) -> None:
    writer = recorded.start("r")
    recorded.record(writer, {"before": 1})
    recorded.fold()
    recorded.record(writer, {"after": 1})

    for _ in settled(recorded):
        assert having(recorded, "before") == having(recorded, "after") == ["r"]


@pytest.mark.parametrize("is_folded", [True, False])
def test_what_a_deleted_run_logged_is_forgotten(
    recorded: Recorded, is_folded: bool
) -> None:
    recorded.record(recorded.start("other", "other"), {"both": 1, "other": 1})
    recorded.record(recorded.start("r"), {"both": 1, "before": 1})
    if is_folded:
        recorded.fold()
    delete(recorded, "r")
    recorded.record(recorded.start("r", "second"), {"after": 1})

    for _ in settled(recorded):
        assert having(recorded, "before") == []
        assert having(recorded, "both") == having(recorded, "other") == ["other"]
        assert having(recorded, "after") == ["r"]


def test_only_a_new_key_is_written() -> None:
    state = RunState("e", "p", "r", 0)
    many = {f"key{number}": number for number in range(KEYS_MANY)}
    with Database.empty() as database:
        saved = []
        for row in (many, many, {"new": 1}):
            apply(state, writer_id("w"), rows_with(row))
            saved.append(len(state.changes.logged))
            with database.transaction():
                database.save_run(state)

        assert saved == [KEYS_MANY + 3, 0, 1]
        assert database.is_logged(0, b"key99999")
        assert database.is_logged(0, b"new")
