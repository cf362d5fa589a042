"""What a user does by a slip, and what is there to be read afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.sdk.conftest import Lab, clean_environment
from tests.system.harness import wait_until

import flightlog
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import choose_home
from flightlog_storage.runstate import State


def test_init_that_raises_leaves_no_run(home: Path) -> None:
    with pytest.raises(TypeError, match="model"):
        flightlog.init(project="slip", config={"model": object()})

    with flightlog.init(project="slip") as run:
        run.log({"a": 1})
    assert [found.id for found in flightlog.Api().runs("slip")] == [run.id]


def is_folded(home: Path, run: str) -> bool:
    """Whether state.db knows that the run is finished."""
    try:
        with Database.open_reader(home / "state.db") as database:
            rows = database.find_runs()
    except HomeUnusable:
        return False
    return any(row.id == run and row.state is State.FINISHED for row in rows)


def test_id_of_an_ended_run_given_again_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flightlog.init(id="exp").finish()
    assert "there already" not in capsys.readouterr().err
    wait_until(lambda: is_folded(home, "exp"))

    flightlog.init(id="exp").finish()

    assert "run exp is there already (finished)" in capsys.readouterr().err


def test_id_of_a_deleted_run_given_again_is_a_new_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flightlog.init(id="gone").finish()
    wait_until(lambda: is_folded(home, "gone"))
    flightlog.Api().run("uncategorized/gone").delete()
    wait_until(lambda: not is_folded(home, "gone"))

    flightlog.init(id="gone").finish()

    assert "there already" not in capsys.readouterr().err


def test_a_shared_run_that_has_ended_is_told_when_it_is_logged_into_again(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flightlog.init(id="job", shared=True, rank=0).finish()
    wait_until(lambda: is_folded(home, "job"))

    flightlog.init(id="job", shared=True, rank=1).finish()
    assert "there already" not in capsys.readouterr().err, "rank 0 tells"
    wait_until(lambda: is_folded(home, "job"))
    flightlog.init(id="job", shared=True, rank=0).finish()

    assert "run job is there already (finished)" in capsys.readouterr().err


def test_a_second_init_tells_what_it_does_not_use(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLIGHTLOG_QUIET")
    run = flightlog.init(project="loop", config={"lr": 0.1})
    capsys.readouterr()

    assert flightlog.init() is run
    assert flightlog.init(project="loop", reinit="return_previous") is run
    assert capsys.readouterr().err == ""
    assert flightlog.init(project="loop", config={"lr": 0.2}) is run

    told = capsys.readouterr().err
    assert f"run {run.path} is active" in told
    assert "without project, config: finish() it first" in told


def test_a_pattern_of_save_that_matches_nothing_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flightlog.init().save("checkpoint.ptt") == []

    assert "no file matches checkpoint.ptt" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.zeros((64, 64, 3)), Image.new("L", (8, 8))])
def test_an_image_given_to_log_is_shown_the_way(home: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"log_image\(\)"):
        flightlog.init().log({"pred": value})


def test_runs_say_what_they_are(home: Path) -> None:
    run = flightlog.init(project="p")
    run.finish()

    runs = flightlog.Api().runs("p")

    assert repr(runs) == f"<Runs {run.entity}/p>"
    assert repr(runs[0]) == f"<Run {run.path} (finished)>"


def test_scan_gives_the_times_that_are_asked_for(home: Path) -> None:
    with flightlog.init() as run:
        run.log({"a": 1})
    found = flightlog.Api().run(run.path)

    assert [set(row) for row in found.scan_history(keys=["a", "_timestamp"])] == [
        {"_step", "a", "_timestamp"}
    ]
    assert [set(row) for row in found.scan_history(keys=["_runtime"])] == [
        {"_step", "_runtime"}
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"home": 5}, TypeError, "home must be a path"),
        ({"home": "/tmp/a\0b"}, flightlog.UsageError, "null character"),
        ({"path": 3}, TypeError, "path must be a str"),
        ({"notes": "x" * 2_000_000}, ValueError, "notes has 2,000,000 characters"),
    ],
)
def test_wrong_argument_is_named(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        flightlog.init(**arguments)  # type: ignore[arg-type]


def test_wrong_arguments_of_log_and_alert(home: Path) -> None:
    with flightlog.init() as run:
        with pytest.raises(TypeError, match=r"^Run\.log\(\) got an unexpected"):
            run.log({"a": 1}, stp=3)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="step must be an int, not True"):
            run.log({"a": 1}, True)
        with pytest.raises(TypeError, match="wait_duration must be a number"):
            run.alert("x", wait_duration="3")  # type: ignore[arg-type]
        run.alert("x", level="warn")
        run.alert("y", level=flightlog.AlertLevel.ERROR)


def test_that_forked_workers_log_too_is_said_once_however_many_they_are(
    lab: Lab,
) -> None:
    done = lab.execute(
        """
        import flightlog, os
        run = flightlog.init()
        for _ in range(3):
            if os.fork() == 0:
                run.log({"a": 1})
                if os.fork() == 0:
                    run.log({"a": 2})
                    os._exit(0)
                os.wait()
                os._exit(0)
            os.wait()
        """,
        FLIGHTLOG_QUIET="",
    )

    assert done.stderr.count("logs into it, too") == 1


def test_dead_run_is_not_shown_as_running_without_a_daemon(own_lab: Lab) -> None:
    lab = own_lab
    process = lab.start(
        """
        import flightlog, time
        run = flightlog.init(id="r")
        run.log({"a": 1})
        run.flush()
        time.sleep(60)
        """
    )
    wait_until(
        lambda: lab.home.exists() and len(flightlog.Api(home=lab.home).runs()) > 0
    )
    wait_until(lambda: lab.find("r").lastHistoryStep == 0)
    assert lab.find("r").state == "running"

    wait_until(lambda: choose_home(lab.home, {}).daemon() is not None)
    daemon = choose_home(lab.home, {}).daemon()
    assert daemon is not None
    os.kill(daemon.process.pid, signal.SIGKILL)
    wait_until(lambda: not daemon.process.is_alive())
    process.kill()
    process.communicate()

    assert lab.find("r").state == "crashed"


@pytest.mark.parametrize("command", ["start", "run"])
def test_daemon_refuses_a_home_with_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "flightlogd", command, "--home", tmp_path / "file"],
        env={**os.environ, **clean_environment()},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "cannot be made" in done.stderr
    assert done.stderr.count("\n") == 1


def test_log_of_a_started_daemon_is_private(own_lab: Lab) -> None:
    own_lab.serve()

    assert (own_lab.home / "daemon.log").stat().st_mode & 0o077 == 0


def test_arguments_of_wandb_without_meaning_are_told_once(lab: Lab) -> None:
    done = lab.execute(
        """
        import flightlog as wandb
        for id in ("w1", "w2"):
            wandb.init(id=id, anonymous="x", dir="/x", settings=object(), force=None)
            wandb.finish()
        """
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("anonymous, dir, settings") == 1
    assert "force" not in done.stderr


@pytest.mark.parametrize(
    ("argument", "error", "text"),
    [
        ({"tag": ["a"]}, TypeError, r"'tag'; did you mean 'tags'\?"),
        ({"zzz": 1}, TypeError, r"unexpected argument 'zzz'$"),
        ({"run_id": "a"}, TypeError, r"'run_id'; did you mean 'id'\?"),
        ({"storage": "a"}, TypeError, r"'storage'; did you mean 'home'\?"),
        ({"save_code": "yes"}, TypeError, "save_code must be a bool"),
        ({"fork_from": "x?_step=3"}, flightlog.UsageError, "fork_from"),
        ({"resume_from": "x?_step=3"}, flightlog.UsageError, "resume_from"),
        (
            {"config_exclude_keys": ["a"], "config_include_keys": ["b"]},
            flightlog.UsageError,
            "not both",
        ),
        ({"config": {}, "config_exclude_keys": "a"}, TypeError, "lists of str"),
        ({"config": "conf.yaml"}, TypeError, "not str: read a file with"),
        ({"config": 5, "config_exclude_keys": ["a"]}, TypeError, "not int"),
    ],
)
def test_wrong_arguments_of_init_are_named(
    home: Path, argument: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        flightlog.init(**argument)


def test_config_keys_are_left_out_as_in_wandb(home: Path) -> None:
    config = {"a": 1, "b": 2, "c": 3}

    with flightlog.init(config=config, config_exclude_keys=["a"]) as one:
        pass
    with flightlog.init(config=config, config_include_keys=("a",)) as other:
        pass

    assert (dict(one.config), dict(other.config)) == ({"b": 2, "c": 3}, {"a": 1})


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"k": value}
    return value


@pytest.mark.parametrize("depth", [32, 33, 64])
def test_depth_is_the_same_for_the_first_row_and_the_next(
    home: Path, depth: int
) -> None:
    with flightlog.init() as run:
        run.log({"a": nested(depth)})
        run.log({"a": nested(depth)})

    first, second = flightlog.Api().run(run.path).scan_history()

    del first["_timestamp"], first["_runtime"], first["_step"]
    del second["_timestamp"], second["_runtime"], second["_step"]
    assert first == second != {}


@pytest.mark.parametrize("depth", [100, 256, 300, 505])
def test_too_deep_a_value_of_a_known_key_is_cut_and_not_lost(
    home: Path, depth: int
) -> None:
    with flightlog.init() as run:
        run.log({"a": {"k": 1}, "b": 1})
        run.log({"a": nested(depth), "b": 2})

    read = flightlog.Api().run(run.path)

    assert [row["b"] for row in read.scan_history(keys=["b"])] == [1, 2]
    (name,) = {key for row in read.scan_history() for key in row if len(key) > 50}
    assert name.startswith("a.k.k")
    assert len(list(read.scan_history(keys=[name]))) == 1


def test_too_deep_a_value_is_refused(home: Path) -> None:
    with flightlog.init() as run, pytest.raises(TypeError, match="64 levels"):
        run.log({"a": nested(66)})


def test_a_socket_of_another_homes_daemon_is_told(lab: Lab, tmp_path: Path) -> None:
    lab.run_script("import flightlog; flightlog.init().finish()")
    daemon = choose_home(lab.home, {}).daemon()
    assert daemon is not None
    home = str(tmp_path / "h")
    code = f"import flightlog; flightlog.init(id='astray', home={home!r}).finish()"

    astray = lab.execute(code, FLIGHTLOG_SOCKET=daemon.socket)
    at_home = lab.execute(
        "import flightlog; flightlog.init().finish()", FLIGHTLOG_SOCKET=daemon.socket
    )

    assert f"serves another home than {tmp_path / 'h'}" in astray.stderr
    assert lab.find("astray").state == "finished"
    assert at_home.stderr == ""
