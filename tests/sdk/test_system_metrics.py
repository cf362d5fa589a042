"""System metrics as users of W&B's public API read them, statement by statement.

The numbers are those of the sections in which the behaviour was written down, as in
test_conformance.py.
"""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tests.sdk.conftest import Lab
from tests.system.harness import wait_until

import flightlog
from flightlog.apis.public import Api, Run

COMMAND = [sys.executable, "-c", "from flightlog.cli import main; main()"]
RUNS = ("one", "two")
IDENTITY = ("_timestamp", "_runtime", "_wandb")


@pytest.fixture(scope="module")
def sampled(lab: Lab) -> Lab:
    """Two runs that were sampled a few times each; they logged a `system.cpu`, too."""
    lab.serve(FLIGHTLOG_SYSTEM_INTERVAL_S="0.1")
    for name in RUNS:
        made = flightlog.init(id=name, project="p", home=lab.home, entity="someone")
        with made as run:
            run.log({"loss": 1.0, "system.cpu": -1})
            run.log({"loss": 0.5})
            wait_until(lambda name=name: len(rows_of(lab, name)) >= 4)  # type: ignore[misc]
        lab.ended(name, project="p")
    return lab


def rows_of(lab: Lab, name: str, **arguments: Any) -> list[dict[str, Any]]:
    try:
        run = lab.find(name, "p")
    except flightlog.NotFoundError:
        return []
    found: list[dict[str, Any]] = run.history(
        stream="system", pandas=False, **arguments
    )
    return found


@pytest.fixture
def run(sampled: Lab) -> Run:
    return sampled.find("one", "p")


@pytest.fixture
def api(sampled: Lab) -> Api:
    return flightlog.Api(home=sampled.home)


def test_0_12_events_is_another_name_of_the_system_stream(run: Run) -> None:
    rows = run.history(stream="system", pandas=False)

    assert run.history(stream="events", pandas=False) == rows
    assert len(rows) >= 4


def test_3_2_system_metrics_are_the_latest_values(run: Run) -> None:
    rows = run.history(stream="system", pandas=False)
    latest = {key: value for row in rows for key, value in row.items()}

    assert run.system_metrics == {k: v for k, v in latest.items() if k not in IDENTITY}
    assert json.loads(run.load()["systemMetrics"]) == run.system_metrics
    assert all(key.startswith("system.") for key in run.system_metrics)
    assert run.systemMetrics == run.load()["systemMetrics"]


def test_3_2_system_metrics_may_be_changed_by_whoever_has_them(run: Run) -> None:
    run.system_metrics.clear()

    assert run.system_metrics


def test_3_5_system_rows_have_no_step(run: Run) -> None:
    for row in run.history(stream="system", pandas=False):
        assert tuple(row)[:3] == IDENTITY
        assert row["_wandb"] is True
        assert 0 <= row["_runtime"] < 60
        assert all(key.startswith("system.") for key in tuple(row)[3:])


def test_3_5_the_system_stream_is_a_frame_by_default(run: Run) -> None:
    frame = run.history(stream="system")
    rows = run.history(stream="system", pandas=False)

    assert tuple(frame.columns[:3]) == IDENTITY
    assert frame.index.tolist() == list(range(len(rows)))
    assert frame["_wandb"].dtype == np.bool_
    assert frame["system.memory_percent"].tolist() == [
        row["system.memory_percent"] for row in rows
    ]
    assert frame["_timestamp"].is_monotonic_increasing


def test_3_5_the_system_stream_is_sampled_like_the_other(run: Run) -> None:
    rows = run.history(stream="system", pandas=False)

    assert run.history(1, stream="system", pandas=False) == rows[-1:]
    assert run.history(2, stream="system", pandas=False) == [rows[0], rows[-1]]
    axis = run.history(x_axis="system.cpu", stream="system", pandas=False)
    assert axis == [row for row in rows if "system.cpu" in row]


def test_3_5_keys_of_the_system_stream_are_told_and_give_nothing(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.history(keys=["system.cpu"], stream="system") == []
    assert "stream must be default when specifying keys" in capsys.readouterr().err


def test_system_metrics_show_nowhere_else(run: Run, api: Api) -> None:
    logged = [(0, 1.0, -1), (1, 0.5, None)]

    rows = [
        (row["_step"], row["loss"], row.get("system.cpu"))
        for row in run.history(pandas=False)
    ]
    assert rows == logged
    assert len(list(run.scan_history())) == 2
    assert run.history_arrow().column_names == ["_step", "loss", "system.cpu"]
    assert set(run.history_keys["keys"]) == {"loss", "system.cpu"}
    assert (run.lastHistoryStep, run.history_line_count) == (1, 2)
    assert {key for key in run.summary if key[0] != "_"} == {"loss", "system.cpu"}
    table = api.sql("SELECT DISTINCT key, rank FROM history ORDER BY key")
    assert table.to_pylist() == [
        {"key": "loss", "rank": 0},
        {"key": "system.cpu", "rank": 0},
    ]


def test_2_2_histories_of_the_system_stream_come_in_every_format(
    sampled: Lab, api: Api
) -> None:
    runs = api.runs("someone/p")
    expected = [
        {**row, "run_id": name} for name in RUNS for row in rows_of(sampled, name)
    ]

    assert runs.histories(stream="system") == expected
    frame = runs.histories(stream="system", format="pandas")
    assert list(frame.columns) == sorted(frame.columns)
    assert "_step" not in frame.columns
    assert frame["run_id"].tolist() == [row["run_id"] for row in expected]
    polars = runs.histories(stream="events", format="polars")
    assert polars["_wandb"].to_list() == [True] * len(expected)
    assert polars["system.memory_percent"].to_list() == [
        row["system.memory_percent"] for row in expected
    ]
    arrow = runs.histories(samples=1, stream="system", format="arrow")
    assert arrow.column("run_id").to_pylist() == list(RUNS)


def test_2_2_keys_of_the_system_stream_are_told_for_all_runs(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert api.runs("someone/p").histories(keys=["loss"], stream="system") == []
    assert "stream must be default when specifying keys" in capsys.readouterr().err


@pytest.mark.parametrize("is_all", [False, True])
def test_the_latest_are_shown_on_the_command_line(sampled: Lab, is_all: bool) -> None:
    done = subprocess.run(
        [*COMMAND, "show", "someone/p/one", *(["--all"] if is_all else [])],
        env=sampled.environ,
        check=True,
        capture_output=True,
        text=True,
    )

    assert "\nsystem\n" in done.stdout
    assert "system.proc.memory.rssMB" in done.stdout
    assert ("system.network.sent" in done.stdout) is is_all
    assert ("more: --all or --json show them" in done.stdout) is not is_all
