"""The command line on a home that a real daemon made."""

import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.storage.recording import Recorded, flip

import flightlog
from flightlog.cli import commands
from flightlog.cli.output import age, emit_json, flat, shown
from flightlog_storage.codec import RunKey
from flightlog_storage.frame import HEADER_SIZE
from flightlog_storage.process import this_process
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.terminal import plain

Result = subprocess.CompletedProcess[str]
Call = Callable[..., Result]

TRAINER = """
import math
import flightlog

config = {"lr": 0.1, "model": {"depth": 3}}
with flightlog.init(project="demo", id="first", config=config, tags=["one"]) as run:
    run.name = "esc \\x1b[31mred"
    for step in range(400):
        run.log({"loss": 1 / (step + 1), "odd": math.nan, "big": math.inf})
    run.summary["many"] = {f"key{i}": i for i in range(300)}
run = flightlog.init(project="a/b", id="second")
run.log({"loss": 2.0})
run.finish(exit_code=3)
for project in ("demo", "a/b"):
    flightlog.init(project=project, id="twin").finish()
assert flightlog.init(project="demo", id="last").flush(10)
"""
COMMAND = [sys.executable, "-c", "from flightlog.cli import main; main()"]


def environment(home: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if "FLIGHTLOG" not in key}
    return kept | {
        "FLIGHTLOG_HOME": str(home),
        "FLIGHTLOG_ENTITY": "ada",
        "FLIGHTLOG_QUIET": "1",
    }


def call(home: Path, *arguments: str) -> Result:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
    )


def daemon(what: str, home: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "flightlogd", what, "--home", str(home)],
        check=True,
        capture_output=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with five runs, its daemon stopped."""
    home = tmp_path_factory.mktemp("recorded") / "home"
    try:
        subprocess.run(
            [sys.executable, "-c", TRAINER],
            check=True,
            env=environment(home),
            timeout=60,
        )
    finally:
        daemon("stop", home)
    return home


@pytest.fixture
def home(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "home"))


@pytest.fixture
def served(home: Path) -> Iterator[Path]:
    daemon("start", home)
    yield home
    daemon("stop", home)


def data(result: Result, schema: str) -> Any:
    assert result.returncode in (0, 1), result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == schema
    return document["data"]


def segment(home: Path) -> Path:
    (path,) = (home / "log").glob("*.log")
    return path


def position_of(home: Path, text: bytes) -> int:
    return segment(home).read_bytes().index(text)


# ls


def test_ls_prints_tabs_and_whole_paths_in_a_pipe(home: Path) -> None:
    result = call(home, "ls")

    header, *lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == ["STATE", "NAME", "RUN", "STEPS", "ROWS", "UPDATED"]
    assert [line[2] for line in lines] == [
        "ada/demo/first",
        "ada/a/b/second",
        "ada/demo/twin",
        "ada/a/b/twin",
        "ada/demo/last",
    ]
    assert [line[0] for line in lines[:3]] == ["finished", "failed", "finished"]
    assert lines[0][3:5] == ["400", "400"]
    assert result.stderr == ""


def test_ls_of_a_project_whose_name_has_slashes(home: Path) -> None:
    for project in ("a/b", "ada/a/b"):
        lines = call(home, "ls", project).stdout.splitlines()[1:]
        assert [line.split("\t")[2] for line in lines] == [
            "ada/a/b/second",
            "ada/a/b/twin",
        ]


def test_ls_json_is_versioned(home: Path) -> None:
    runs = data(call(home, "ls", "demo", "--key", "loss", "--json"), "flightlog.runs/1")

    first = runs[0]
    assert first["path"] == "ada/demo/first"
    assert (first["state"], first["last_step"]) == ("finished", 399)
    assert first["summary"] == {"loss": 1 / 400}
    assert first["created_at"].endswith("Z")


def test_ls_and_show_tell_of_events_that_were_refused(tmp_path: Path) -> None:
    poisoned = Recorded(tmp_path)
    poisoned.say(poisoned.start("r"), b"\xc1", b"\xc1")
    home = poisoned.home.root

    header, line = call(home, "ls").stdout.splitlines()
    shown = call(home, "show", "r")

    assert (header.split("\t")[-1], line.split("\t")[-1]) == ("LOST", "2")
    assert "2 events of this run are lost; see flightlog verify --full" in shown.stderr


def test_ls_neutralises_escapes(home: Path) -> None:
    assert "\x1b" not in call(home, "ls").stdout
    assert r"esc \x1b[31mred" in call(home, "ls").stdout


def test_ls_draws_a_table_on_a_terminal(home: Path) -> None:
    master, terminal = pty.openpty()
    subprocess.run(
        [*COMMAND, "ls"],
        stdout=terminal,
        env=environment(home) | {"NO_COLOR": "1", "COLUMNS": "60", "TERM": "xterm"},
        check=True,
        timeout=60,
    )
    os.close(terminal)

    drawn = os.read(master, 1 << 16).decode()

    os.close(master)
    assert "ago" in drawn
    assert "\x1b[3" not in drawn, "colour in spite of NO_COLOR"
    assert "\t" not in drawn


def test_ls_piped_into_head_is_quiet(home: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", '"$@" | head -c 1', "-", *COMMAND, "ls"],
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
    )

    assert result.stdout == "S"
    assert result.stderr == ""


# show


def test_show_names_how_a_run_ended(home: Path) -> None:
    result = call(home, "show", "a/b/second")

    assert "state        failed (exit code 3)" in result.stdout
    assert result.returncode == 0


def test_show_limits_what_it_prints(home: Path) -> None:
    short = call(home, "show", "demo/first").stdout
    whole = call(home, "show", "demo/first", "--all").stdout

    assert "more: --all or --json show them" in short
    assert "key299" not in short
    assert "key299" in whole
    assert "\x1b" not in whole


def test_show_json_has_all_and_writes_nan_as_text(home: Path) -> None:
    run = data(call(home, "show", "demo/first", "--json"), "flightlog.run/1")

    assert run["config"] == {"lr": 0.1, "model": {"depth": 3}}
    assert (run["summary"]["odd"], run["summary"]["big"]) == ("NaN", "Infinity")
    assert len(run["summary"]["many"]) == 300
    assert run["tags"] == ["one"]
    assert (run["lost_count"], run["gaps"]) == (0, [])
    assert [writer["exit_code"] for writer in run["writers"]] == [0]


def test_show_finds_an_id_that_is_the_only_one(home: Path) -> None:
    assert "ada/a/b/second" in call(home, "show", "second").stdout


def test_show_asks_which_of_two(home: Path) -> None:
    result = call(home, "show", "twin")

    assert result.returncode == 2
    assert "ada/demo/twin" in result.stderr
    assert "ada/a/b/twin" in result.stderr


# verify


@pytest.mark.parametrize("flags", [[], ["--full"]])
def test_verify_of_a_sound_home(home: Path, flags: list[str]) -> None:
    result = call(home, "verify", *flags)

    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith("sound: ")


def test_verify_changes_nothing(home: Path) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    call(home, "verify", "--full")

    # SQLite may add an empty file beside the database.
    assert before == {path: path.read_bytes() for path in before}


def test_verify_names_the_run_that_a_damaged_byte_hit(home: Path) -> None:
    flip(segment(home), position_of(home, b"odd") + 200)

    result = call(home, "verify")

    assert result.returncode == 1
    assert "run:  ada/demo/first" in result.stdout
    (problem,) = data(call(home, "verify", "--json"), "flightlog.verify/1")["problems"]
    assert problem["run"] == "ada/demo/first"
    assert problem["events"] >= 1


def test_verify_tells_of_a_log_that_lost_its_end(home: Path) -> None:
    os.truncate(segment(home), position_of(home, b"second"))

    assert call(home, "verify").returncode == 1


@pytest.mark.parametrize("extra", [0, 70])
def test_a_lost_end_is_told_after_the_daemon_has_started_too(
    home: Path, extra: int
) -> None:
    os.truncate(segment(home), position_of(home, b"second") - HEADER_SIZE + extra)
    listed = call(home, "ls").stdout
    before = data(call(home, "verify", "--json"), "flightlog.verify/1")["problems"]

    daemon("start", home)
    daemon("stop", home)

    after = call(home, "verify", "--full", "--json")
    assert after.returncode == 1
    problems = data(after, "flightlog.verify/1")["problems"]
    lost = sum(problem["events"] or 0 for problem in problems)
    assert lost == sum(problem["events"] or 0 for problem in before) > 3
    assert call(home, "ls").stdout == listed
    assert call(home, "replay").returncode == 1


@pytest.mark.fault(10)
def test_verify_tells_of_a_log_that_is_gone(home: Path) -> None:
    segment(home).unlink()

    result = call(home, "verify", "--json")

    assert result.returncode == 1
    (problem,) = data(result, "flightlog.verify/1")["problems"]
    assert problem["events"] > 400

    daemon("start", home)
    daemon("stop", home)

    after = call(home, "verify", "--json")
    assert after.returncode == 1
    (aside,) = data(after, "flightlog.verify/1")["problems"]
    assert aside["where"] == "quarantine/projections-1"
    assert aside["events"] == problem["events"]
    assert all(f"ada/demo/{run}" in aside["what"] for run in ("first", "last", "twin"))
    # The log that is there now is sound, and what is set aside stays.
    assert call(home, "replay").returncode == 0
    assert call(home, "verify").returncode == 1


def test_verify_tells_of_a_log_folder_that_is_gone(home: Path) -> None:
    shutil.rmtree(home / "log")

    result = call(home, "verify", "--json")

    assert result.returncode == 1
    (problem,) = data(result, "flightlog.verify/1")["problems"]
    assert problem["events"] > 400
    assert call(home, "replay").returncode == 1
    assert call(home, "replay", "--force").returncode == 1
    assert (home / "state.db").exists(), "it is all that is left"


def parts(home: Path) -> list[Path]:
    return sorted((home / "histories").glob("*/*.parquet"))


@pytest.mark.fault(53)
def test_verify_tells_of_a_missing_part(home: Path) -> None:
    parts(home)[0].unlink()

    result = call(home, "verify")

    assert result.returncode == 1
    assert "the file is missing" in result.stdout
    assert "ada/demo/first" in result.stdout
    assert "flightlog replay" in result.stdout


def test_only_a_full_verify_reads_the_parts(home: Path) -> None:
    flip(parts(home)[0], parts(home)[0].stat().st_size // 2)

    assert call(home, "verify").returncode == 0
    full = call(home, "verify", "--full")
    assert full.returncode == 1
    assert "sha256" in full.stdout


def test_verify_tells_of_a_damaged_database(home: Path) -> None:
    (home / "state.db").write_bytes(b"nonsense" * 1000)

    result = call(home, "verify", "--json")

    assert result.returncode == 1
    (problem,) = data(result, "flightlog.verify/1")["problems"]
    assert problem["where"] == "state.db"


def test_full_verify_tells_of_damaged_spools(home: Path) -> None:
    for name in ("aa" * 16, "bb" * 16):
        (home / "spool" / name).mkdir()
    owner = SpoolOwner(b"b" * 16, this_process(), RunKey("ada", "demo", "first"))
    (home / "spool" / ("bb" * 16) / "owner").write_bytes(msgspec.msgpack.encode(owner))

    result = call(home, "verify", "--full", "--json")

    assert result.returncode == 1
    problems = data(result, "flightlog.verify/1")["problems"]
    assert [problem["run"] for problem in problems] == [None, "ada/demo/first"]


def test_full_verify_notes_what_belongs_to_no_run(home: Path) -> None:
    (parts(home)[0].parent / "left.parquet").write_bytes(b"by a crash")

    result = call(home, "verify", "--full")

    assert result.returncode == 0
    assert "left.parquet" in result.stdout


def test_verify_while_a_daemon_serves(served: Path) -> None:
    assert call(served, "verify", "--full").returncode == 0


# replay


def answers(home: Path) -> dict[str, Any]:
    found = {}
    for run in flightlog.Api(home=home).runs():
        path = "/".join(run.path)
        state = json.loads(call(home, "show", path, "--json").stdout)
        found[path] = (state, repr(list(run.scan_history())))
    return found


def test_replay_gives_the_same_answers(home: Path) -> None:
    before = answers(home)

    result = call(home, "replay", "--json")

    counts = data(result, "flightlog.replay/1")
    assert result.returncode == 0
    assert counts["runs"] == 5
    assert answers(home) == before
    assert call(home, "verify", "--full").returncode == 0


@pytest.mark.fault(52, 53)
def test_replay_heals_a_damaged_database_and_part(home: Path) -> None:
    before = answers(home)
    (home / "state.db").write_bytes(b"nonsense" * 1000)
    flip(parts(home)[0], 1000)

    assert call(home, "replay").returncode == 0
    assert answers(home) == before


def test_replay_steps_aside_for_a_daemon(served: Path) -> None:
    result = call(served, "replay")

    assert result.returncode == 1
    assert "flightlogd stop" in result.stderr
    assert parts(served)


def test_replay_of_a_damaged_log_needs_force(home: Path) -> None:
    flip(segment(home), position_of(home, b"odd") + 200)

    refused = call(home, "replay")

    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert parts(home)
    assert call(home, "replay", "--force").returncode == 0


# Exit codes and words


@pytest.mark.parametrize(
    "arguments", [("show", "nobody"), ("show", "demo/nobody"), ("ls", "nothing")]
)
def test_unknown_is_3(home: Path, arguments: tuple[str, ...]) -> None:
    result = call(home, *arguments)

    assert result.returncode == 3
    assert result.stdout == ""
    assert arguments[-1] in result.stderr


@pytest.mark.parametrize(
    "command", [("ls",), ("show", "x"), ("verify",), ("replay",), ("gc",), ("jobs",)]
)
def test_no_home_is_3_and_none_is_made(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    result = call(tmp_path / "nowhere", *command)

    assert result.returncode == 3
    assert "FLIGHTLOG_HOME" in result.stderr
    assert not (tmp_path / "nowhere").exists()


def test_wrong_usage_is_2(home: Path) -> None:
    assert call(home, "show").returncode == 2
    assert call(home, "nonsense").returncode == 2
    assert call(home, "show", "a//b").returncode == 2


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(name: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_existing", interrupt)

    with pytest.raises(SystemExit) as end:
        commands.main(["ls"])

    assert end.value.code == 130


def test_home_option_wins_over_the_environment(home: Path, tmp_path: Path) -> None:
    result = call(tmp_path / "other", "ls", "--home", str(home))

    assert result.returncode == 0
    assert "ada/demo/first" in result.stdout


@pytest.mark.parametrize("command", ["ls", "show", "verify", "replay", "gc", "jobs"])
def test_help_teaches_with_an_example(home: Path, command: str) -> None:
    result = call(home, command, "--help")

    assert result.returncode == 0
    assert f"  flightlog {command}" in result.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from flightlog.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print('modules', *sys.modules)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )

    loaded = set(done.stdout.partition("modules")[2].split())
    assert loaded & {"numpy", "pyarrow", "rich", "sqlite3", "pandas"} == set()
    assert "click" in loaded


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain ünïcode 日本 👩\u200d🔬", "plain ünïcode 日本 👩\u200d🔬"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\tb\nc\x9b", r"a\tb\nc\x9b"),
        ("right\u202eleft", r"right\u202eleft"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_steers_a_terminal_is_made_visible(text: str, safe: str) -> None:
    assert plain(text) == safe


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 10_000)) < 300
    assert len(shown(["x" * 10_000])) < 300


def test_flat_joins_keys_with_dots() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": 2}) == {"a.b": 1, "a.c": {}, "d": 2}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "now"), (59, "59 s ago"), (3600, "1 h ago"), (200_000, "2 d ago")],
)
def test_age(seconds: float, text: str) -> None:
    assert age(1e9 - seconds, 1e9) == text


@pytest.mark.fault(47)
def test_json_has_words_for_what_is_not_finite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    emit_json("x/1", {"a": [float("nan"), -float("inf"), 1.5]})

    assert json.loads(capsys.readouterr().out)["data"] == {
        "a": ["NaN", "-Infinity", 1.5]
    }


# sql


def test_sql_prints_tabs_in_a_pipe_and_in_full(home: Path) -> None:
    query = "SELECT 'a' || chr(9) || repeat('b', 300) AS x, NULL AS y, 1/3 AS z"

    header, line = call(home, "sql", query).stdout.splitlines()

    assert header == "x\ty\tz"
    assert line == rf"a\t{'b' * 300}" + f"\t\t{1 / 3}"


def test_sql_json_is_versioned(home: Path) -> None:
    query = """
        SELECT run_id, sum(row_count) AS count, 'nan'::DOUBLE AS odd, tags, created_at,
               INTERVAL 2 HOUR AS wait, '\\x41'::BLOB AS raw
        FROM runs WHERE run_id = 'first' GROUP BY ALL
    """

    found = data(call(home, "sql", query, "--json"), "flightlog.sql/1")

    (row,) = found["rows"]
    assert found["columns"] == list(row)
    assert row.pop("created_at").endswith("Z")
    assert row == {
        "run_id": "first",
        "count": 400,
        "odd": "NaN",
        "tags": ["one"],
        "wait": "0 months 0 days 7200 s",
        "raw": "41",
    }


def test_sql_json_refuses_two_columns_of_one_name(home: Path) -> None:
    result = call(home, "sql", "SELECT 1 AS a, 2 AS a", "--json")

    assert result.returncode == 2
    assert "AS" in result.stderr


def test_sql_csv_is_quoted(home: Path) -> None:
    query = "SELECT 'a,\"b\"' AS x, [1, 2] AS y, true AS z, NULL AS none"

    result = call(home, "sql", query, "--csv")

    assert result.stdout == 'x,y,z,none\n"a,""b""","[1, 2]",true,\n'


def test_sql_reads_the_query_from_stdin(home: Path) -> None:
    result = subprocess.run(
        [*COMMAND, "sql", "-"],
        input="SELECT count(*) AS n\nFROM runs;\n",
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=60,
    )

    assert result.stdout == "n\n5\n"


def test_sql_neutralises_escapes(home: Path) -> None:
    result = call(home, "sql", "SELECT name, chr(27) AS e FROM runs ORDER BY run_id")

    assert "\x1b" not in result.stdout
    assert r"esc \x1b[31mred" in result.stdout


def _all_of(terminal: int) -> Iterator[bytes]:
    """Yield what is written to a terminal until its other end is closed."""
    try:
        while data := os.read(terminal, 1 << 16):
            yield data
    except OSError:  # So Linux tells that it is closed.
        return


def test_sql_draws_a_table_on_a_terminal_and_says_what_is_left(home: Path) -> None:
    master, terminal = pty.openpty()
    # A terminal that nobody reads holds up who writes to it.
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.extend(_all_of(master)))
    reader.start()
    result = subprocess.run(
        [*COMMAND, "sql", "SELECT 'r' || range AS a, 1.5e300 AS b FROM range(1005)"],
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home) | {"NO_COLOR": "1", "COLUMNS": "20", "TERM": "dumb"},
        check=True,
        timeout=60,
    )
    os.close(terminal)
    reader.join()
    os.close(master)

    drawn = b"".join(read).decode()
    assert "r3" in drawn
    assert "1.5e+300" in drawn
    assert "5 more rows" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["SELEC 1"], 2, "LINE 1"),
        (["COPY runs TO 'x.csv'"], 2, "not for reading"),
        (["SELECT 1", "--csv", "--json"], 2, "not both"),
        (["SELECT 1", "--memory", "1"], 2, "memory_mb"),
        (["FROM range(100000000000)", "--memory", "64"], 1, "raise memory_mb"),
        (["SELECT 1", "--home", "nowhere"], 3, "nothing has been logged"),
    ],
)
def test_sql_tells_by_its_exit_code(
    home: Path, arguments: list[str], code: int, message: str
) -> None:
    result = call(home, "sql", *arguments)

    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
