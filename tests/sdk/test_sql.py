"""SQL over a home: what the views hold, and that a query stays inside them."""

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog.apis.public.sql import Limits, run_query
from flightlog_storage.artifact_state import RunName
from flightlog_storage.home import Home
from flightlog_storage.open_history import OpenHistory
from flightlog_storage.reader import HomeReader

TRAINER = """
import math, flightlog

config = {"lr": 0.1, "model": {"depth": 3, "name": "resnet"}, "sizes": [1, 2],
          "big": 2**70, "on": True, "none": None}
for name, count in (("first", 3), ("second", 400)):
    with flightlog.init(project="p", id=name, config=config, tags=["a", "b"],
                        group="g", notes="n") as run:
        for step in range(count):
            run.log({"loss": 1 / (step + 1), "step_time": step})
        run.log({"loss": 7.0}, step=1)
        run.log({"odd": math.nan, "word": "hi", "list": [1, 2], "big": 2**70,
                 "flag": True, "none": None, "top": math.inf}, step=count)
flightlog.init(project="q", id="third").finish(exit_code=3)
"""


@pytest.fixture(scope="module")
def made(lab: Lab) -> Path:
    """A home with three runs, of which two have a history; its daemon is stopped."""
    lab.run_script(TRAINER)
    lab.stop()
    return lab.home


@pytest.fixture
def api(made: Path) -> flightlog.Api:
    return flightlog.Api(home=made)


def rows(api: flightlog.Api, query: str, *parameters: object) -> list[Any]:
    table = api.sql(query, parameters)
    return [tuple(row.values()) for row in table.to_pylist()]


# What the views hold


def test_runs_are_rows(api: flightlog.Api) -> None:
    (first, _, third) = api.sql("FROM runs ORDER BY run_id").to_pylist()

    assert {name: first[name] for name in ("entity", "project", "run_id")} == {
        "entity": "someone",
        "project": "p",
        "run_id": "first",
    }
    assert (first["tags"], first["group"], first["notes"]) == (["a", "b"], "g", "n")
    assert (first["state"], first["row_count"], first["last_step"]) == (
        "finished",
        5,
        3,
    )
    assert first["name"] == api.run("p/first").name
    assert first["created_at"].tzinfo is not None
    assert first["created_at"] <= first["updated_at"] <= datetime.now(UTC)
    assert first["duration"] >= 0
    assert first["host"]
    assert (third["state"], third["exit_code"], third["last_step"]) == (
        "failed",
        3,
        None,
    )
    assert third["tags"] == []


def test_config_is_flat_and_typed(api: flightlog.Api) -> None:
    query = "SELECT key, number, text, type FROM config WHERE run_id = 'first'"

    found = {key: rest for key, *rest in rows(api, query)}

    assert found == {
        "lr": [0.1, None, "float"],
        "model.depth": [3.0, None, "int"],
        "model.name": [None, "resnet", "str"],
        "sizes": [None, "[1,2]", "json"],
        "big": [2.0**70, str(2**70), "int"],
        "on": [1.0, None, "bool"],
        "none": [None, None, "null"],
    }


def test_summary_holds_last_values(api: flightlog.Api) -> None:
    query = "SELECT number, text FROM summary WHERE run_id = ? AND key = ?"

    assert rows(api, query, "first", "step_time") == [(2.0, None)]
    assert rows(api, query, "first", "word") == [(None, "hi")]


def test_history_has_every_point_once_and_the_later_value(api: flightlog.Api) -> None:
    query = "SELECT step, value FROM history WHERE run_id = ? AND key = 'loss'"

    found = rows(api, query, "second")

    assert len(found) == 400
    assert sorted(found)[:3] == [(0, 1.0), (1, 7.0), (2, 1 / 3)]


def test_history_agrees_with_history_arrow(api: flightlog.Api) -> None:
    for run in api.runs("p"):
        for key in ("loss", "step_time"):
            table = run.history_arrow(keys=[key])
            query = "SELECT step, value FROM history WHERE run_id = ? AND key = ?"
            expected = zip(*(column.to_pylist() for column in table), strict=True)

            assert rows(api, query + " ORDER BY step", run.id, key) == list(expected)


def test_values_that_are_no_floats(api: flightlog.Api) -> None:
    query = "SELECT key, value, text, kind FROM history WHERE run_id='first' AND step=3"

    found = {key: rest for key, *rest in rows(api, query)}

    assert math.isnan(found.pop("odd")[0])
    assert found == {
        "word": [None, "hi", "str"],
        "list": [None, "[1,2]", "json"],
        "big": [2.0**70, str(2**70), "int"],
        "flag": [1.0, None, "bool"],
        "none": [None, None, "null"],
        "top": [math.inf, None, "float"],
    }


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("value > 1e9", 6),  # DuckDB holds NaN for larger than any number.
        ("value >= 1 AND isfinite(value) AND key = 'loss'", 4),
        ("value != value", 0),
        ("isnan(value)", 2),
        ("NOT value < 1e9", 6),
        ("value IS NULL", 6),
        ("value IS NULL AND text IS NOT NULL", 4),
        ("key IN ('flag', 'none', 'absent')", 4),
        ("key = 'loss' AND step = 1 OR key = 'word'", 4),
        ("key LIKE 'wo%'", 2),
        ("key NOT IN ('loss', 'step_time')", 14),
        ("time < TIMESTAMPTZ '2020-01-01'", 0),
        ("time > TIMESTAMPTZ '2020-01-01' AND key = 'flag'", 2),
        ("project = 'q'", 0),
        ("run_id IS NULL", 0),
        ("rank = 0 AND kind = 'int' AND key = 'big'", 2),
        ("rank > 0", 0),
    ],
)
def test_conditions_that_are_pushed_down_keep_their_meaning(
    api: flightlog.Api, condition: str, count: int
) -> None:
    pushed = rows(api, f"SELECT count(*) FROM history WHERE {condition}")
    copy = "WITH h AS MATERIALIZED (FROM history)"
    copied = rows(api, f"{copy} SELECT count(*) FROM h WHERE {condition}")

    assert pushed == copied == [(count,)]


def test_views_join(api: flightlog.Api) -> None:
    query = """
        SELECT r.run_id, c.number, min(h.value)
        FROM runs r JOIN config c USING (entity, project, run_id)
        JOIN history h USING (entity, project, run_id)
        WHERE c.key = 'lr' AND h.key = 'loss' AND list_contains(r.tags, 'a')
        GROUP BY ALL ORDER BY 1
    """

    assert rows(api, query) == [("first", 0.1, 1 / 3), ("second", 0.1, 1 / 400)]


def test_a_pivot_finds_its_columns(api: flightlog.Api) -> None:
    query = """
        PIVOT (FROM history WHERE run_id = 'first' AND kind IN ('float', 'int')
               AND step < 2)
        ON key USING first(value) GROUP BY step ORDER BY step
    """

    assert api.sql(query).to_pylist() == [
        {"step": 0, "loss": 1.0, "step_time": 0.0},
        {"step": 1, "loss": 7.0, "step_time": 1.0},
    ]


def test_what_a_run_still_logs_is_there(own_lab: Lab) -> None:
    with flightlog.init(project="p", id="live", home=own_lab.home) as run:
        run.log({"loss": 1.0})
        api = flightlog.Api(home=own_lab.home)

        assert rows(api, "SELECT run_id, value FROM history") == [("live", 1.0)]
        assert rows(api, "SELECT state, row_count FROM runs") == [("running", 1)]


def test_a_home_without_runs_has_empty_views(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    api = flightlog.Api(home=home.root)

    for view in ("runs", "config", "summary", "history"):
        assert api.sql(f"FROM {view}").num_rows == 0


# What is read for it


class Counting(HomeReader):
    """A reader that remembers whose histories were opened."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.opened: list[str] = []
        self.loads = 0

    def open_history(self, key: RunName) -> OpenHistory | None:
        self.opened.append(key[2])
        return super().open_history(key)

    def states(self) -> list[Any]:
        self.loads += 1
        return super().states()


@pytest.mark.parametrize(
    ("query", "opened", "loads"),
    [
        ("SELECT 1", [], 0),
        ("DESCRIBE history", [], 0),
        ("FROM runs JOIN config USING (run_id)", [], 1),
        ("FROM history", ["first", "second", "third"], 0),
        ("FROM history WHERE run_id = 'second' AND step > 3", ["second"], 0),
        ("FROM history WHERE run_id IN ('first', 'third')", ["first", "third"], 0),
        (
            "FROM history WHERE project != 'p' OR run_id = 'first'",
            ["first", "third"],
            0,
        ),
        ("SELECT 'history' FROM summary", [], 1),
    ],
)
def test_only_what_may_count_is_read(
    made: Path, query: str, opened: list[str], loads: int
) -> None:
    reader = Counting(Home(made))

    run_query(reader, query, None, Limits(60.0, 256))

    assert (reader.opened, reader.loads) == (opened, loads)


# That it stays inside


@pytest.mark.parametrize(
    "query",
    [
        "SELEC 1",
        "SELECT nothing FROM runs",
        "FROM nowhere",
        "SELECT key::INT FROM history",
        "",
        "-- a comment",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW runs",
        "SELECT ?",
        "COPY (SELECT 1) TO 'out.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
        "EXPORT DATABASE 'out'",
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/passwd')",
        "FROM read_blob('/proc/self/environ')",
        "FROM glob('/etc/*')",
        "FROM '/etc/passwd'",
        "FROM 'https://example.com/x.parquet'",
        "FROM parquet_metadata('x.parquet')",
        "FROM sqlite_scan('state.db', 'run')",
        "FROM query('COPY (SELECT 1) TO ''out.csv''')",
        "ATTACH 'out.db'",
        "ATTACH ':memory:' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA database_list",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW runs AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "DROP VIEW runs",
        "INSERT INTO runs SELECT * FROM runs",
        "WITH x AS (DELETE FROM runs RETURNING *) FROM x",
        "DELETE FROM runs",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "CHECKPOINT",
        "SELECT getenv('HOME')",
        "FROM which_of_the_callers_variables",
        "FROM arrow_scan(1, 1, 1)",
        "FROM pandas_scan(1)",
    ],
)
def test_a_query_that_does_more_than_read_the_views_is_refused(
    api: flightlog.Api, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    which_of_the_callers_variables = api.sql("FROM runs")

    with pytest.raises(flightlog.errors.BadArgumentError):
        api.sql(query)

    assert list(tmp_path.iterdir()) == []
    assert api.sql("FROM runs").equals(which_of_the_callers_variables)


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": None},
        {"query": b"SELECT 1"},
        {"parameters": "ab"},
        {"parameters": 3},
        {"parameters": [1, 2]},
        {"timeout_s": 0},
        {"timeout_s": "1"},
        {"timeout_s": math.nan},
        {"timeout_s": 1e9},
        {"memory_mb": 1},
        {"memory_mb": True},
        {"memory_mb": 100.0},
    ],
)
def test_wrong_arguments_are_told(
    api: flightlog.Api, arguments: dict[str, Any]
) -> None:
    with pytest.raises(flightlog.errors.BadArgumentError):
        api.sql(**{"query": "SELECT ?::INT", "parameters": [1], **arguments})


def test_parameters_have_places_or_names(api: flightlog.Api) -> None:
    assert rows(api, "SELECT ?::INT + ?::INT", 1, 2) == [(3,)]
    assert api.sql("SELECT $a::INT AS x", {"a": 4}).to_pylist() == [{"x": 4}]


# Limits


FOREVER = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE random() > 2"


def test_a_query_without_end_is_interrupted(api: flightlog.Api) -> None:
    with pytest.raises(flightlog.errors.CommError, match=r"more than 0\.2 s"):
        api.sql(FOREVER, timeout_s=0.2)


def test_a_history_is_not_read_on_after_the_time(made: Path) -> None:
    class Endless(Counting):
        def runs(self, *arguments: Any, **named: Any) -> list[Any]:
            return super().runs(*arguments, **named) * 100_000

    reader = Endless(Home(made))

    with pytest.raises(flightlog.errors.CommError, match=r"more than 0\.2 s"):
        run_query(reader, "SELECT sum(value) FROM history", None, Limits(0.2, 256))

    assert len(reader.opened) < 300_000


@pytest.mark.parametrize(
    "query",
    [
        "FROM range(1000000000) ORDER BY random()",
        "SELECT list(range) FROM range(1000000000)",
        "SELECT range, count(*) FROM range(1000000000) GROUP BY ALL",
    ],
)
def test_work_that_needs_too_much_memory_ends(api: flightlog.Api, query: str) -> None:
    with pytest.raises(flightlog.errors.CommError, match="more than 64 MB"):
        api.sql(query, memory_mb=64)


def test_a_result_that_is_too_large_ends(api: flightlog.Api) -> None:
    with pytest.raises(flightlog.errors.CommError, match="larger than 64 MB"):
        api.sql("FROM range(100000000000)", memory_mb=64)


def test_limits_are_no_bad_arguments(api: flightlog.Api) -> None:
    with pytest.raises(flightlog.errors.CommError) as caught:
        api.sql(FOREVER, timeout_s=0.1)

    assert not isinstance(caught.value, ValueError)


def test_ctrl_c_ends_a_query(api: flightlog.Api) -> None:
    before = threading.active_count()
    handler = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    press = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        press.start()
        with pytest.raises(KeyboardInterrupt):
            api.sql(FOREVER, timeout_s=86_400)
    finally:
        press.join()
        signal.signal(signal.SIGUSR1, handler)

    assert threading.active_count() == before


def test_the_thread_of_a_query_is_gone_afterwards(
    api: flightlog.Api,
) -> None:
    before = threading.active_count()
    api.sql("SELECT 1")
    with pytest.raises(flightlog.errors.CommError):
        api.sql(FOREVER, timeout_s=0.1)

    assert threading.active_count() == before


# When it cannot


def test_a_damaged_part_is_told_with_its_error(made: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(made, tmp_path / "copy"))
    parts = list(home.rglob("*.parquet"))
    assert parts, "the daemon has stopped, so histories are in parts"
    for path in parts:
        content = path.read_bytes()
        half = len(content) // 2
        path.write_bytes(content[:4] + bytes(half - 4) + content[half:])

    with pytest.raises(flightlog.errors.CommError) as caught:
        flightlog.Api(home=home).sql("SELECT sum(value) FROM history")

    assert type(caught.value.exc).__name__ == "CorruptData"


def test_without_duckdb_it_says_what_to_install(made: Path) -> None:
    code = f"""
import sys
sys.modules["duckdb"] = None
import flightlog
try:
    flightlog.Api(home={str(made)!r}).sql("SELECT 1")
except flightlog.Error as error:
    print(error)
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == 'SQL needs DuckDB: pip install "flightlog[sql]"\n'
