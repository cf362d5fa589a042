"""The order of config and summary keys: that of first writing, whoever tells it."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries
from tests.storage.recording import Recorded, packed_rows, settled, writer_id

from flightlog_storage import run_values
from flightlog_storage.codec import encode_definitions
from flightlog_storage.database import Database
from flightlog_storage.event import ConfigUpdated, Event, Rows, SummaryUpdated
from flightlog_storage.fold import apply
from flightlog_storage.reader import HomeReader
from flightlog_storage.rows import decode
from flightlog_storage.runstate import RunState

WRITER = writer_id("w")
KEYS = st.sampled_from(["a", "b", "c", "d", "_step"])
VALUES = st.sampled_from([1, "x" * 40, {"y": 1, "x": 2}])
ROW = st.lists(
    st.sampled_from(
        [
            *(("a", 1), ("b", 2.0), ("c", "x"), ("d", {"x": 1})),
            *(
                ("a", {"z": 1}),
                ("d", 5),
                ("d", {"y": 1, "x": {}}),
                ("e", {"f": {"g": 1}}),
                ("e", {"h": 1}),
            ),
        ]
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(dict)
EVENTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        lambda changes, removed: ConfigUpdated(
            time=1.0, changes=changes, removed=removed
        ),
        st.dictionaries(KEYS, VALUES, max_size=3),
        st.lists(KEYS, max_size=2),
    ),
    st.builds(
        lambda changes, removed: SummaryUpdated(
            time=1.0,
            changes=[([key], value) for key, value in changes.items()],
            removed=[[key] for key in removed],
        ),
        st.dictionaries(KEYS, VALUES, max_size=3),
        st.lists(KEYS, max_size=2),
    ),
    ROW.map(lambda row: rows_of([row])),
)


def rows_of(rows: list[Mapping[str, Any]]) -> Rows:
    """Return rows as one frame gives them."""
    shapes, encoded = packed_rows(rows)
    payload = encode_definitions(shapes) + b"".join(encoded)
    ((_, found),) = decode(payload, len(rows))
    assert isinstance(found, Rows)
    return found


def written(state: RunState) -> str:
    """Return config and summary as a text, which shows the order."""
    return json.dumps([state.config, state.summary])


@pytest.mark.parametrize("packed_size_max", [60, 1 << 20])
@settings(max_examples=tries(200))
@given(batches=st.lists(st.lists(EVENTS, max_size=5), max_size=4))
def test_the_database_keeps_the_order(
    packed_size_max: int, batches: list[list[Event | Rows]]
) -> None:
    state = RunState("e", "p", "r", 0)
    with pytest.MonkeyPatch.context() as patch, Database.empty() as database:
        patch.setattr(run_values, "PACKED_SIZE_MAX", packed_size_max)
        for batch in batches:
            for event in batch:
                apply(state, WRITER, event)
            with database.transaction():
                database.save_run(state)

            loaded = database.load_run("e", "p", "r")

            assert loaded is not None
            assert written(loaded) == written(state)


@settings(max_examples=tries(200))
@given(st.lists(ROW, min_size=1, max_size=6), st.sets(st.integers(1, 5)))
def test_the_order_does_not_hang_on_the_frames(
    rows: list[dict[str, Any]], cuts: set[int]
) -> None:
    one, other = (RunState("e", "p", "r", 0) for _ in range(2))
    places = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]

    apply(one, WRITER, rows_of([*rows]))
    for start, end in pairwise(places):
        apply(other, WRITER, rows_of([*rows[start:end]]))

    first = dict.fromkeys(key for row in rows for key in row)
    assert [key for key in one.summary if key[0] != "_"] == [*first]
    assert [*one.summary] == [*other.summary]


def test_a_reader_tells_the_order_of_first_writing(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    writer = recorded.start("r")
    for event in (
        ConfigUpdated(time=1.0, changes={"z": 1, "m": {"y": 1, "x": 2}, "a": 3}),
        SummaryUpdated(time=1.0, changes=[(["z"], 1), (["y"], 1), (["a"], 1)]),
        SummaryUpdated(time=1.0, removed=[["z"]]),
        ConfigUpdated(time=1.0, changes={"a": 4, "b": 5}, removed=["z"]),
        SummaryUpdated(time=1.0, changes=[(["a"], 2), (["z"], 1)]),
        ConfigUpdated(time=1.0, changes={"z": 6}),
    ):
        recorded.tell(writer, event)
    recorded.rows(writer, (0, 0.5))

    for _ in settled(recorded):
        state = HomeReader(recorded.home).state(("e", "p", "r"))

        assert state is not None
        assert [*state.config] == ["m", "a", "b", "z"]
        own = ["_step", "_timestamp", "_runtime"]
        assert [*state.summary] == ["y", "a", "z", *own, "n"]
