"""What a user does by a slip, and what is there to be read afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sdk.conftest import Lab, clean_environment, wait_until

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


def test_runs_say_what_they_are(home: Path) -> None:
    run = flightlog.init(project="p")
    run.finish()

    runs = flightlog.Api().runs("p")

    assert repr(runs) == f"<Runs of {run.entity}/p: 1>"
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


def test_forked_worker_says_that_it_logs_too(lab: Lab) -> None:
    done = lab.execute(
        """
        import flightlog, os
        run = flightlog.init()
        if os.fork() == 0:
            run.log({"a": 1})
            run.log({"a": 2})
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
    command = [sys.executable, "-m", "flightlogd", "start", "--home", str(own_lab.home)]
    subprocess.run(command, env=own_lab.environ, check=True)

    assert (own_lab.home / "daemon.log").stat().st_mode & 0o077 == 0
