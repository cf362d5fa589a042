"""The histories of many runs as one, in each format."""

import math
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog.apis.public import Runs

BIG = 2**70


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Runs:
    """Three runs with rows that differ in keys and in types, and one without rows."""
    return log(
        lab,
        "ragged",
        {
            "one": [{"a": 1, "b": True, "Z": 1.0}, {"a": 2, "b": False, "big": BIG}],
            "none": [],
            "two": [{"a": 0.5, "b": 1, "s": "x"}, {"a": math.nan, "s": None}],
            "three": [{"a": -math.inf, "s": 3, "run_id": 5, "l": [1]}],
        },
    )


def log(lab: Lab, project: str, runs: dict[str, list[dict[str, Any]]]) -> Runs:
    for name, rows in runs.items():
        with flightlog.init(
            id=name, project=project, home=lab.home, entity="someone"
        ) as run:
            for row in rows:
                run.log(row)
        assert run.id == name
    found = flightlog.Api(home=lab.home).runs(f"someone/{project}")
    assert len(found) == len(runs)
    return found


def test_dicts_have_the_id_of_their_run(runs: Runs) -> None:
    rows = runs.histories()

    assert [(row["run_id"], row["_step"]) for row in rows] == [
        *(("one", 0), ("one", 1), ("two", 0), ("two", 1), ("three", 0))
    ]
    assert rows[1]["big"] == BIG
    assert rows[4]["l"] == [1]
    assert "s" not in rows[0]


def test_samples_count_for_each_run(runs: Runs) -> None:
    assert [row["_step"] for row in runs.histories(samples=1)] == [1, 1, 0]


def test_a_pandas_frame_has_sorted_columns_and_nan(runs: Runs) -> None:
    frame = runs.histories(format="pandas")

    assert list(frame.columns) == [
        *("Z", "_runtime", "_step", "_timestamp", "a", "b", "big", "l", "run_id", "s")
    ]
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    assert frame["_step"].tolist() == [0, 1, 0, 1, 0]
    assert frame["run_id"].tolist() == ["one", "one", "two", "two", "three"]
    assert repr(frame["a"].tolist()) == "[1.0, 2.0, 0.5, nan, -inf]"
    assert frame["b"].iloc[:3].tolist() == [True, False, 1]
    assert frame["big"].iloc[1] == BIG
    assert frame["l"].iloc[4] == [1]
    assert frame["Z"].isna().tolist() == [False, True, True, True, True]


def test_a_polars_frame_has_the_types_of_all_rows(runs: Runs) -> None:
    frame = runs.histories(format="polars")

    assert frame.shape == (5, 10)
    assert frame.columns[-1] == "run_id"
    assert frame.schema["a"] == pl.Float64
    assert repr(frame["a"].to_list()) == "[1.0, 2.0, 0.5, nan, -inf]"
    assert frame["b"].to_list() == [1.0, 0.0, 1.0, None, None]
    assert frame["s"].to_list() == [None, None, "x", None, "3"]
    assert frame["l"].to_list() == [None] * 4 + ["[1]"]
    assert frame["big"].to_list() == [None, float(BIG), None, None, None]


def test_an_arrow_table_is_what_polars_is_made_of(runs: Runs) -> None:
    table = runs.histories(format="arrow")

    assert isinstance(table, pa.Table)
    assert table.schema.field("_step").type == pa.int64()
    frame = runs.histories(format="polars")
    assert repr(table.to_pylist()) == repr(frame.to_dicts())


def test_an_int_that_goes_on_as_a_float_keeps_its_type(lab: Lab) -> None:
    rows: list[dict[str, Any]] = [{"x": step} for step in range(300)]
    runs = log(lab, "late", {"r": [*rows, {"x": 0.5}, {"y": 1}]})

    frame = runs.histories(format="polars")

    assert frame.schema["x"] == pl.Float64
    assert frame.schema["y"] == pl.Int64
    assert frame["x"].to_list()[-2:] == [0.5, None]


@pytest.mark.parametrize("format_", ["default", "pandas", "polars", "arrow"])
def test_two_reads_are_equal(runs: Runs, format_: Any) -> None:
    first = runs.histories(format=format_)

    again = flightlog.Api(home=runs.client.home.root).runs("someone/ragged")

    assert repr(again.histories(format=format_)) == repr(first)


def test_keys_are_needed_by_each_run(runs: Runs) -> None:
    frame = runs.histories(keys=["s"], format="pandas")
    joined = runs.histories(keys=["Z", "l"], join="outer", format="polars")

    assert list(frame.columns) == ["_step", "run_id", "s"]
    assert frame["run_id"].tolist() == ["two", "three"]
    assert joined.columns == ["_step", "Z", "l", "run_id"]
    assert joined["run_id"].to_list() == ["one", "three"]


@pytest.mark.parametrize("arguments", [{"keys": "a"}, {"stream": "system"}])
def test_nothing_has_no_shape(runs: Runs, arguments: dict[str, Any]) -> None:
    assert runs.histories(**arguments) == []
    assert runs.histories(**arguments, format="pandas").shape == (0, 0)
    assert runs.histories(**arguments, format="polars").shape == (0, 0)
    assert runs.histories(**arguments, format="arrow").shape == (0, 0)


def test_keys_of_another_stream_are_told(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs.histories(keys=["a"], stream="system") == []
    assert "stream must be default when specifying keys" in capsys.readouterr().err


def test_a_format_is_checked_first(lab: Lab) -> None:
    nowhere = flightlog.Api(home=lab.home).runs("someone/nowhere")
    unknown: Any = "csv"

    with pytest.raises(flightlog.BadArgumentError, match="Invalid format: csv"):
        nowhere.histories(format=unknown)


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_a_missing_library_is_told(
    runs: Runs, name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)

    with pytest.raises(flightlog.Error, match=f"Exporting {name} DataFrame requires"):
        runs.histories(format=name)


def test_a_run_deleted_meanwhile_is_left_out(lab: Lab) -> None:
    runs = log(lab, "shrinking", {"kept": [{"x": 1}], "gone": [{"x": 2}]})
    runs[1].delete()

    assert [row["run_id"] for row in runs.histories()] == ["kept"]


def test_pandas_frames_take_what_dicts_would_make(runs: Runs) -> None:
    rows = runs.histories()

    frame = runs.histories(format="pandas")

    expected = pd.DataFrame.from_records(rows)[list(frame.columns)]
    pd.testing.assert_frame_equal(frame, expected)
