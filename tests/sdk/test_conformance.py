"""What users of W&B's public API rely on, statement by statement.

The numbers are those of the sections in which the behaviour was written down: 0 where
sources differ, 1 the Api, 2 Runs, 3 Run.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog import CommError, NotFoundError
from flightlog.apis.public import Api
from flightlog.apis.public.runs import Run, Runs

COUNT = 4


@pytest.fixture(scope="module")
def filled(lab: Lab) -> Lab:
    """A lab with four runs of project "four", each with three rows."""
    lab.run_script(
        f"""
        import flightlog, time
        for n in range({COUNT}):
            config = {{"n": n, "opt.lr": 0.1 * n, "deep": {{"value": n}}}}
            tags = ["even"] if n % 2 == 0 else []
            names = {{"id": f"run{{n}}", "name": f"name {{n}}"}}
            run = flightlog.init("four", **names, config=config, tags=tags)
            for step in range(3):
                row = {{"loss": 1 / (step + 1), "train/acc": step}}
                run.log(row | {{"d": {{"v": step}}}})
            run.log({{"only": n}}, step=10)
            run.finish()
            time.sleep(0.01)
        flightlog.init(project="empty", id="blank").finish()
        """
    )
    return lab


@pytest.fixture
def api(filled: Lab) -> Api:
    return Api({"entity": "someone", "project": "four"}, home=filled.home)


@pytest.fixture
def run(api: Api) -> Run:
    return api.run("four/run0")


def ids(runs: Any) -> list[str]:
    return [run.id for run in runs]


# --- 0: where sources differ ---


def test_0_1_api_runs_are_oldest_first(api: Api) -> None:
    assert ids(api.runs("four")) == ["run0", "run1", "run2", "run3"]


def test_0_2_runs_made_directly_are_newest_first(api: Api) -> None:
    made = Runs(client=api.client, entity="someone", project="four")
    ascending = Runs(api.client, "someone", "four", order="asc")
    descending = Runs(api.client, "someone", "four", order="desc")

    assert ids(made) == ids(descending) == ["run3", "run2", "run1", "run0"]
    assert ids(ascending) == ids(api.runs("four"))


def test_0_3_length_is_the_total_before_anything_is_loaded(api: Api) -> None:
    runs = Runs(api.client, "someone", "four", per_page=2)

    assert runs.length == len(runs) == COUNT


def test_0_4_scan_with_keys_has_the_step_too(run: Run) -> None:
    assert [sorted(row) for row in run.scan_history(keys=["loss"])] == [
        ["_step", "loss"]
    ] * 3


def test_0_5_scan_raises_for_wrong_keys(run: Run) -> None:
    for wrong in ("loss", [1]):
        with pytest.raises(CommError) as caught:
            run.scan_history(keys=wrong)  # type: ignore[arg-type]
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("keys", "stream", "line"),
    [
        ("loss", "default", "keys must be specified in a list"),
        ([1], "default", "keys argument must be a list of strings"),
        (["loss"], "system", "stream must be default when specifying keys"),
    ],
)
def test_0_6_history_says_what_is_wrong_with_keys_and_gives_nothing(
    run: Run, capsys: pytest.CaptureFixture[str], keys: Any, stream: Any, line: str
) -> None:
    assert run.history(keys=keys, stream=stream) == []
    assert line in capsys.readouterr().err


def test_0_7_bounds_are_steps_from_and_up_to(run: Run) -> None:
    assert [row["_step"] for row in run.scan_history(min_step=1, max_step=10)] == [1, 2]
    assert len(list(run.scan_history(max_step=1))) == 1
    assert len(list(run.scan_history(max_step=100))) == 4


def test_0_8_types_of_what_the_page_calls_str(run: Run) -> None:
    assert run.path == ["someone", "four", "run0"]
    assert (run.user.name, run.user.username, run.user) == ("someone",) * 3
    assert isinstance(run.history_keys, dict)
    assert isinstance(run.metadata, dict)


def test_0_9_states_are_lower_case(run: Run) -> None:
    assert run.state == "finished"


def test_0_10_a_missing_run_is_both_errors(api: Api) -> None:
    for error in (CommError, ValueError, NotFoundError):
        with pytest.raises(error, match=r"Could not find run <Run someone/four/x"):
            api.run("four/x")


def test_0_12_streams_are_named_or_refused(run: Run) -> None:
    for stream in ("system", "events"):
        assert run.history(stream=stream, pandas=False) == []
    with pytest.raises(CommError, match="stream"):
        run.history(stream="metrics")


def test_0_13_ragged_histories_are_joined_in_polars(api: Api) -> None:
    frame = api.runs("four").histories(format="polars")

    assert frame.height == COUNT * 4
    assert frame["only"].null_count() == COUNT * 3


def test_0_14_samples_are_the_same_each_time_and_keep_the_ends(run: Run) -> None:
    one, other = (run.history(samples=2, pandas=False) for _ in range(2))

    assert one == other
    assert [row["_step"] for row in one] == [0, 10]


@pytest.mark.parametrize("field", ["config.n", "config.n.value"])
def test_0_15_order_takes_each_spelling(api: Api, field: str) -> None:
    assert ids(api.runs("four", order=f"-{field}"))[0] == "run3"
    for spelling in ("summary_metrics.only", "summary.only"):
        assert ids(api.runs("four", order=f"-{spelling}"))[0] == "run3"


def test_0_16_runs_behave_as_a_list(api: Api) -> None:
    runs = Runs(api.client, "someone", "four", order="asc", per_page=2)

    assert runs[-1].id == "run3"
    assert ids(runs[2:]) == ["run2", "run3"]
    assert ids(runs[:-1]) == ["run0", "run1", "run2"]
    with pytest.raises(IndexError):
        _ = runs[4]


def test_0_17_missing_fields_match_what_is_not_equal(api: Api) -> None:
    for filters in (
        {"config.nothing": {"$ne": 1}},
        {"config.nothing": {"$nin": [1]}},
        {"config.nothing": {"$not": {"$gt": 1}}},
        {"config.nothing": None},
    ):
        assert len(api.runs("four", filters=filters)) == COUNT


def test_0_18_there_are_no_sweeps(api: Api) -> None:
    assert [run.sweep for run in api.runs("four", include_sweeps=True)] == [None] * 4


# --- 1: Api ---


@pytest.mark.parametrize(
    "path",
    [
        "someone/four/runs/run0",
        "someone/four/run0",
        "someone/four:run0",
        "four/run0",
        "four:run0",
        "run0",
        "/someone/four/run0",
        " someone / four / run0 ",
    ],
)
def test_1_2_paths_of_a_run(api: Api, path: str) -> None:
    assert api.run(path).path == ["someone", "four", "run0"]


@pytest.mark.parametrize(
    "path", ["", "  ", ":", "/", "//", "/ /", "/ / /", "someone/four:"]
)
def test_1_2_paths_that_are_none(api: Api, path: str) -> None:
    with pytest.raises(CommError, match="Invalid path"):
        api.run(path)


def test_1_2_what_is_no_str_is_no_path(api: Api) -> None:
    with pytest.raises(CommError, match="path must be a str, not list"):
        api.run(["someone", "four", "run0"])  # type: ignore[arg-type]  # As a Run's is.


def test_1_2_paths_of_a_project(api: Api) -> None:
    assert len(api.runs("someone/four")) == len(api.runs("four")) == COUNT


def test_1_3_the_same_path_gives_the_same_run(api: Api) -> None:
    one = api.run("four/run0")
    assert api.run("four/run0") is one

    api.flush()

    assert api.run("four/run0") is not one


def test_1_4_runs_are_lazy_and_the_same_for_the_same_arguments(api: Api) -> None:
    one = api.runs("four", filters={"config.n": 1})
    assert api.runs("four", filters={"config.n": 1}) is one
    assert api.runs("four", filters={"config.n": 2}) is not one
    missing = api.runs("nothing")
    with pytest.raises(ValueError, match="Could not find project nothing"):
        len(missing)
    with pytest.raises(CommError, match="Could not find project nothing"):
        next(iter(missing))


def test_1_5_a_made_run_is_running_and_empty(api: Api) -> None:
    made = api.create_run()

    assert (made.state, made.project, made.config) == ("running", "four", {})
    assert (len(made.summary), made.system_metrics, made.tags) == (0, {}, [])
    assert re.fullmatch("[0-9a-z]{8}", made.id)
    made.delete()


# --- 2: Runs ---


def test_2_1_pages_are_loaded_as_they_are_asked_for(api: Api) -> None:
    runs = Runs(api.client, "someone", "four", per_page=2, order="asc")
    assert (runs.more, runs.cursor) == (True, None)
    assert len(runs) == COUNT
    assert len(runs.objects) == 2
    assert runs.cursor is not None
    assert runs[3].id == "run3"
    assert len(runs.objects) == COUNT
    assert runs[3] is runs[3]
    list(runs)
    assert not runs.more


def test_2_1_nested_loops_do_not_disturb_each_other(api: Api) -> None:
    runs = Runs(api.client, "someone", "four", per_page=1)

    pairs = [(one.id, other.id) for one in runs for other in runs]

    assert len(set(pairs)) == len(pairs) == COUNT**2


def test_2_1_next_goes_through_all_and_stops(api: Api) -> None:
    runs = Runs(api.client, "someone", "four", order="asc")

    assert [next(runs).id, runs.next().id] == ["run0", "run1"]
    assert ids(iter(runs)) == ["run0", "run1", "run2", "run3"]
    for _ in range(2):
        next(runs)
    with pytest.raises(StopIteration):
        next(runs)


def test_2_1_repr_names_the_project(api: Api) -> None:
    assert repr(api.runs("four")) == "<Runs someone/four>"


def test_2_2_histories_in_each_format(api: Api) -> None:
    runs = api.runs("four")

    rows = runs.histories(samples=2)
    assert len(rows) == COUNT * 2
    assert {row["run_id"] for row in rows} == {"run0", "run1", "run2", "run3"}
    frame = runs.histories(format="pandas")
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.index) == list(range(COUNT * 4))
    assert list(frame.columns) == sorted(frame.columns)
    assert isinstance(runs.histories(format="polars"), pl.DataFrame)
    assert runs.histories(keys=["only"], format="pandas").shape == (COUNT, 3)


def test_2_2_nothing_has_the_shape_of_nothing(api: Api) -> None:
    runs = api.runs("empty")

    assert runs.histories() == []
    assert runs.histories(format="pandas").shape == (0, 0)
    assert runs.histories(format="polars").shape == (0, 0)


def test_2_2_an_unknown_format_is_refused_first(api: Api) -> None:
    with pytest.raises(CommError, match=r"Invalid format: csv. Must be one of"):
        api.runs("nothing").histories(format="csv")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": "run1"}, ["run1"]),
        ({"displayName": "name 2"}, ["run2"]),
        ({"display_name": {"$regex": "^name [23]$"}}, ["run2", "run3"]),
        ({"state": "finished", "config.n": {"$lt": 1}}, ["run0"]),
        ({"tags": "even"}, ["run0", "run2"]),
        ({"tags": {"$in": ["even", "x"]}}, ["run0", "run2"]),
        ({"$or": [{"tags": None}, {"tags": {"$ne": "even"}}]}, ["run1", "run3"]),
        ({"$or": [{"$and": [{"config.n": 1}]}, {"config.n": 3}]}, ["run1", "run3"]),
        ({"$nor": [{"config.n": 0}, {"config.n": 1}]}, ["run2", "run3"]),
        ({"$not": {"config.n": {"$gt": 0}}}, ["run0"]),
        ({"config.opt.lr": {"$gt": 0.15}}, ["run2", "run3"]),
        ({"config.deep.value": 2}, ["run2"]),
        ({"summary_metrics.train/acc": 2, "config.n": 1}, ["run1"]),
        ({"summary.only": {"$gte": 2, "$lt": 3}}, ["run2"]),
        ({"summary_metrics.d.v": 2, "config.n.value": 0}, ["run0"]),
        ({"keys_info.keys.only": {"$exists": True}, "config.n": 1}, ["run1"]),
        ({"username": "someone", "config.n": 0}, ["run0"]),
        ({"createdAt": {"$gt": "2020-01-01"}, "config.n": 0}, ["run0"]),
        ({"created_at": {"$lt": "2020-01-01T00:00:00Z"}}, []),
    ],
)
def test_2_3_filters(api: Api, filters: dict[str, Any], found: list[str]) -> None:
    assert ids(api.runs("four", filters=filters)) == found


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"config.n": {"$all": [1]}}, r"\$all.*\$gte"),
        ({"nonsense": 1}, r"nonsense.*config"),
        ({"config.n": {"$in": 1}}, r"\$in"),
        ({"config.n": {"$regex": "("}}, "regex"),
        ("config.n", "dict"),
    ],
)
def test_2_3_a_bad_filter_is_an_error(api: Api, filters: Any, words: str) -> None:
    with pytest.raises(CommError, match=f"(?s){words}") as caught:
        api.runs("four", filters=filters)
    assert isinstance(caught.value, ValueError)


def test_2_4_runs_without_the_key_come_last(api: Api) -> None:
    api.run("four/run1").summary.update({"rare": 1})
    for sign in "+-":
        assert ids(api.runs("four", order=f"{sign}summary_metrics.rare"))[0] == "run1"
    with pytest.raises(CommError, match="nonsense"):
        len(api.runs("four", order="-nonsense"))


# --- 3: Run ---


def test_3_1_a_run_says_what_it_is(run: Run) -> None:
    assert repr(run) == "<Run someone/four/run0 (finished)>"
    assert run.display() is False


def test_3_2_attributes(run: Run) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", run.created_at)
    assert run.url.endswith("/someone/four/runs/run0")
    assert json.loads(run.json_config)["n"] == {"value": 0, "desc": None}
    assert run.rawconfig["deep"] == {"value": 0}
    assert (run.lastHistoryStep, run.history_line_count) == (10, 4)
    assert run.metadata["os"]


def test_3_4_a_config_value_named_value_survives(run: Run) -> None:
    assert run.config == {"n": 0, "opt.lr": 0.0, "deep": {"value": 0}}


def test_3_4_the_summary_has_the_made_keys(run: Run) -> None:
    assert {"_step", "_runtime", "_timestamp"} <= set(run.summary)
    assert run.summary["d"]["v"] == 2


def test_3_5_without_keys_rows_hold_what_was_logged(run: Run) -> None:
    rows = run.history(pandas=False)
    frame = run.history()

    assert set(rows[0]) == {
        "_step", "_runtime", "_timestamp", "loss", "train/acc", "d.v"
    }  # fmt: skip
    assert math.isnan(frame["only"][0])
    assert frame["_step"].tolist() == [0, 1, 2, 10]


def test_3_5_with_keys_rows_have_all_of_them(run: Run) -> None:
    frame = run.history(keys=["train/acc", "loss"])

    assert list(frame.columns) == ["_step", "train/acc", "loss"]
    assert len(frame) == 3
    assert len(run.history(keys=[])) == len(run.history())


def test_3_5_the_x_axis_is_one_more_key(run: Run) -> None:
    frame = run.history(keys=["loss"], x_axis="train/acc")

    assert list(frame.columns) == ["train/acc", "loss"]


def test_3_5_keys_without_a_common_row_are_told_of(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(run.history(keys=["loss", "only"])) == 0
    assert 'join="outer"' in capsys.readouterr().err
    assert len(run.history(keys=["loss", "only"], join="outer")) == 4


def test_3_5_one_sample_is_the_last(run: Run) -> None:
    assert [row["_step"] for row in run.history(samples=1, pandas=False)] == [10]
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(CommError, match="samples"):
            run.history(samples=wrong)  # type: ignore[arg-type]


def test_3_6_a_scan_is_an_iterator_that_starts_over(run: Run) -> None:
    scan = run.scan_history(page_size=2)

    assert next(scan)["_step"] == 0
    assert [row["_step"] for row in scan] == [0, 1, 2, 10]
    with pytest.raises(StopIteration):
        next(scan)
    assert [row["_step"] for row in iter(scan)] == [0, 1, 2, 10]
    assert (scan.run, scan.keys, scan.page_size) == (run, None, 2)


def test_3_6_history_keys(run: Run) -> None:
    keys = run.history_keys

    assert keys["lastStep"] == 10
    assert keys["keys"]["loss"]["typeCounts"] == [{"type": "number", "count": 3}]
    assert "d.v" in keys["keys"]


def test_3_6_an_empty_run_has_no_history(api: Api) -> None:
    blank = api.run("empty/blank")

    assert blank.history_keys["keys"] == {}
    assert (blank.history_keys["lastStep"], blank.lastHistoryStep) == (-1, -1)
    assert list(blank.scan_history()) == []
    assert blank.history(pandas=False) == []
    assert blank.history().empty


def test_every_format_gives_the_same_twice(run: Run) -> None:
    def formats() -> Iterator[Any]:
        yield run.history(pandas=False)
        yield run.history().to_dict("list")
        yield list(run.scan_history())
        yield run.history_arrow().to_pydict()

    assert repr(list(formats())) == repr(list(formats()))


def test_a_path_that_leaves_the_home_is_refused(api: Api, tmp_path: Path) -> None:
    for path in ("../../etc/passwd", "four/../x", "a/b/../../c"):
        with pytest.raises((CommError, flightlog.UsageError)):
            api.run(path)
