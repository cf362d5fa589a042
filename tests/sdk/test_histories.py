"""Histories read back: samples, scans and tables of a run that its process ended."""

import math
from typing import Any

import pandas as pd
import pytest
from tests.sdk.conftest import Lab, rows_of

import flightlog
from flightlog.apis.public import Run

BIG = 2**70
RAGGED: list[dict[str, Any]] = [
    {"a": 1, "b": 0.5, "c": True},
    {"a": 2, "b": math.nan, "c": False, "text": "x"},
    {"a": 3.5, "b": math.inf, "c": True, "list": [1, 2]},
    {"a": 4, "b": None, "c": True, "big": BIG, "mixed": 1},
    {"a": 5, "b": -1.0, "c": True, "mixed": "one"},
]


@pytest.fixture(scope="module")
def ragged(lab: Lab) -> Run:
    return log(lab, "ragged", RAGGED)


@pytest.fixture(scope="module")
def long(lab: Lab) -> Run:
    """A thousand rows, a spike in the middle, and keys that never meet."""
    rows: list[dict[str, Any]] = [
        {"loss": 1e6 if step == 617 else 1000.0 - step, "n": step}
        | ({"odd": step} if step % 2 else {"even": step})
        for step in range(1000)
    ]
    return log(lab, "long", rows)


def log(lab: Lab, name: str, rows: list[dict[str, Any]]) -> Run:
    with flightlog.init(id=name, home=lab.home, entity="someone") as run:
        for row in rows:
            run.log(row)
    return lab.ended(name)


def test_even_samples_keep_both_ends(long: Run) -> None:
    rows = long.history(samples=4, keys=["n"], pandas=False)

    assert rows == [{"_step": n, "n": n} for n in (0, 333, 666, 999)]
    assert long.history(samples=1, keys=["n"], pandas=False) == [
        {"_step": 999, "n": 999}
    ]


def test_rows_are_chosen_after_the_filter(long: Run) -> None:
    by_key = long.history(samples=3, keys=["odd"], pandas=False)
    by_axis = long.history(samples=3, x_axis="odd", pandas=False)

    assert [row["odd"] for row in by_key] == [1, 499, 999]
    assert [row["odd"] for row in by_axis] == [1, 499, 999]


def test_minmax_shows_a_spike_that_even_samples_miss(long: Run) -> None:
    even = long.history(samples=20, keys=["loss"])
    extremes = long.history(samples=20, keys=["loss"], method="minmax")

    assert even["loss"].max() < 1e6
    assert extremes["loss"].max() == 1e6
    assert len(extremes) <= 20
    assert extremes["_step"].iloc[[0, -1]].tolist() == [0, 999]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"keys": "a"}, "keys must be specified in a list"),
        ({"keys": [1]}, "keys argument must be a list of strings"),
        (
            {"keys": ["a"], "stream": "system"},
            "stream must be default when specifying keys",
        ),
        (
            {"keys": ["a"], "stream": "events", "method": "minmax"},
            "stream must be default when specifying keys",
        ),
    ],
)
def test_bad_keys_are_told_and_give_nothing(
    ragged: Run,
    arguments: dict[str, Any],
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ragged.history(**arguments) == []
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        {"samples": 0},
        {"samples": True},
        {"samples": "5"},
        {"x_axis": None},
        {"stream": "metrics"},
        {"method": "random"},
        {"join": "left"},
        {"method": "minmax"},
        {"method": "minmax", "keys": ["a", "b"], "samples": 5},
    ],
)
def test_other_bad_arguments_are_refused(
    ragged: Run, arguments: dict[str, Any]
) -> None:
    with pytest.raises(flightlog.BadArgumentError):
        ragged.history(**arguments)


@pytest.mark.parametrize("stream", ["system", "events"])
def test_without_system_metrics_there_are_no_rows(ragged: Run, stream: str) -> None:
    assert ragged.history(stream=stream, pandas=False) == []
    assert ragged.history(stream=stream).shape == (0, 0)


def test_keys_that_never_meet_are_told_once(
    long: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = long.history(keys=["odd", "even"], pandas=False)
    second = list(long.scan_history(keys=["odd", "even"]))
    joined = long.history(samples=3, keys=["odd", "even"], join="outer", pandas=False)

    assert first == second == []
    assert capsys.readouterr().err.count('join="outer"') == 1
    assert joined == [
        {"_step": 0, "even": 0},
        {"_step": 499, "odd": 499},
        {"_step": 999, "odd": 999},
    ]


def test_a_key_that_is_nowhere_is_no_matter_of_joins(
    long: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert long.history(keys=["n", "nothing"], pandas=False) == []
    assert capsys.readouterr().err == ""


def test_columns_made_here_may_be_asked_for(long: Run) -> None:
    frame = long.history(samples=3, keys=["n", "_timestamp", "_rank"], x_axis="odd")

    assert list(frame.columns) == ["odd", "n", "_timestamp", "_rank"]
    assert frame["_rank"].tolist() == [0, 0, 0]


def test_a_frame_has_the_values_of_the_dicts(ragged: Run) -> None:
    frame = ragged.history()
    rows = ragged.history(pandas=False)

    expected = pd.DataFrame.from_records(rows)
    assert sorted(frame.columns) == sorted(expected.columns)
    pd.testing.assert_frame_equal(frame, expected[list(frame.columns)])
    assert frame["c"].dtype == bool
    assert frame["_step"].dtype == int
    assert frame["big"].iloc[3] == BIG


def test_columns_come_as_the_rows_first_have_them(ragged: Run) -> None:
    columns = list(ragged.history().columns)

    assert columns == [
        *("_step", "_timestamp", "_runtime"),
        *("a", "b", "c", "text", "list", "big", "mixed"),
    ]


def test_without_pandas_dicts_are_given_and_it_is_said_once(
    ragged: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)

    assert isinstance(ragged.history(), list)
    assert isinstance(ragged.history(), list)

    assert capsys.readouterr().err.count("pandas is not installed") == 1


def test_two_reads_are_equal_in_every_format(ragged: Run, long: Run) -> None:
    for run in (ragged, long):
        assert repr(run.history(pandas=False)) == repr(run.history(pandas=False))
        pd.testing.assert_frame_equal(run.history(), run.history())
        assert repr(list(run.scan_history())) == repr(list(run.scan_history()))
        assert repr(run.history_arrow()) == repr(run.history_arrow())


def test_batches_have_the_types_of_the_whole(ragged: Run) -> None:
    table = ragged.history_arrow()

    batches = list(ragged.scan_history_arrow(page_size=2))

    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert {batch.schema for batch in batches} == {table.schema}
    assert repr([row for batch in batches for row in batch.to_pylist()]) == repr(
        table.to_pylist()
    )
    with pytest.raises(flightlog.BadArgumentError):
        ragged.scan_history_arrow(page_size=0)


def test_a_table_may_hold_the_times(ragged: Run) -> None:
    assert ragged.history_arrow(["a", "_timestamp"]).column_names == [
        *("_step", "_timestamp", "a")
    ]


def test_a_scan_is_an_iterator_of_pages(long: Run) -> None:
    scan = long.scan_history(keys=["n"], page_size=300, min_step=100)

    first = next(scan)
    second = scan.next()

    assert [first["n"], second["n"]] == [100, 101]
    assert (scan.page_offset, scan.scan_offset, len(scan.rows)) == (300, 2, 300)
    assert (scan.keys, scan.page_size) == (["n"], 300)
    assert (scan.min_step, scan.max_step, scan.run) == (100, 1000, long)
    assert [row["n"] for row in scan] == list(range(100, 1000))
    with pytest.raises(StopIteration):
        next(scan)
    assert len(list(scan)) == 900


@pytest.mark.parametrize(
    ("bounds", "steps"),
    [
        ({"max_step": 1}, [0]),
        ({"max_step": 5000, "min_step": 998}, [998, 999]),
        ({"min_step": 1000}, []),
        ({"min_step": 7, "max_step": 7}, []),
    ],
)
def test_bounds_of_a_scan(long: Run, bounds: dict[str, Any], steps: list[int]) -> None:
    assert [row["_step"] for row in long.scan_history(**bounds)] == steps


@pytest.mark.parametrize(
    "arguments",
    [
        {"keys": "a"},
        {"keys": [None]},
        {"page_size": 0},
        {"page_size": 1.5},
        {"min_step": True},
        {"max_step": "7"},
    ],
)
def test_a_scan_refuses_bad_arguments(ragged: Run, arguments: dict[str, Any]) -> None:
    with pytest.raises(flightlog.BadArgumentError):
        ragged.scan_history(**arguments)


def test_pages_skip_no_gap_between_steps(lab: Lab) -> None:
    with flightlog.init(id="gaps", home=lab.home) as run:
        for step in (0, 1, 10**6, 10**12):
            run.log({"x": step}, step=step)

    read = lab.ended("gaps")

    assert [row["x"] for row in read.scan_history(page_size=1)] == [
        *(0, 1, 10**6, 10**12)
    ]


def test_a_scan_shows_the_run_as_it_was(lab: Lab) -> None:
    run = flightlog.init(id="living", home=lab.home)
    run.log({"x": 0})
    run.flush()
    scan = lab.find("living").scan_history()
    run.log({"x": 1})
    run.flush()

    assert [row["x"] for row in scan] == [0]
    assert [row["x"] for row in scan] == [0]
    assert rows_of(lab.find("living"), "x") == [(0, 0), (1, 1)]


def test_history_keys_tell_types_and_what_was_logged_together(ragged: Run) -> None:
    found = ragged.history_keys

    assert found["lastStep"] == 4
    assert found["keys"]["a"] == {
        "typeCounts": [{"type": "number", "count": 5}],
        "monotonic": True,
        "previousValue": 5,
    }
    assert found["keys"]["b"]["typeCounts"] == [
        {"type": "number", "count": 4},
        {"type": "nil", "count": 1},
    ]
    assert found["keys"]["b"]["monotonic"] is False
    assert found["keys"]["list"]["typeCounts"] == [{"type": "list", "count": 1}]
    assert found["keys"]["big"]["previousValue"] == BIG
    assert {"keys": ["a", "b", "c", "text"], "count": 1} in found["sets"]
    assert sum(each["count"] for each in found["sets"]) == 5


def test_history_keys_of_a_run_without_rows(lab: Lab) -> None:
    read = log(lab, "bare", [])

    assert read.history_keys == {"keys": {}, "sets": [], "lastStep": -1}
    assert read.history().shape == (0, 0)
    assert list(read.scan_history()) == []
    assert list(read.scan_history_arrow()) == []


def test_media_and_nested_values_have_types_of_their_own(lab: Lab) -> None:
    read = log(
        lab,
        "media",
        [
            {"image": {"_type": "image-file", "path": "a.png"}, "d": {"v": 1}},
            {"image": {"_type": "image-file", "path": "b.png"}, "d": {"v": "w"}},
        ],
    )

    keys = read.history_keys["keys"]

    assert {(t["type"], t["count"]) for t in keys["d.v"]["typeCounts"]} == {
        ("number", 1),
        ("string", 1),
    }
    assert "image" in {key.split(".")[0] for key in keys}
