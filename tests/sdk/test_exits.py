"""How programs end, and what is known of it afterwards."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.sdk.conftest import SEEN_WITHIN_S, Lab, rows_of
from tests.system.harness import wait_until

import flightlog

LOGS = """
import contextlib, ctypes, os, signal, sys
import flightlog
def caught():
    with contextlib.suppress(SystemExit): sys.exit(5)
run = flightlog.init(id={id!r})
for n in range(500): run.log({{"n": n}})
{end}
"""
ABORT = "signal.signal(signal.SIGABRT, signal.SIG_DFL); os.abort()"
CAUGHT = "caught()"
# What ends the program, and the run's state, exit code and signal.
EXITS = {
    "return": ("", "finished", 0, None),
    "finish": ("run.finish()", "finished", 0, None),
    "finish 4": ("run.finish(4)", "failed", 4, None),
    "sys.exit": ("sys.exit()", "finished", 0, None),
    "sys.exit 3": ("sys.exit(3)", "failed", 3, None),
    "sys.exit text": ("sys.exit('no')", "failed", 1, None),
    "exit 3": ("exit(3)", "failed", 3, None),
    "exception": ("1 / 0", "failed", 1, None),
    "Ctrl-C": ("raise KeyboardInterrupt", "failed", 255, None),
    "os._exit": ("os._exit(0)", "finished", 0, None),
    "os._exit 3": ("os._exit(3)", "failed", 3, None),
    "SIGTERM": ("os.kill(os.getpid(), 15)", "killed", None, 15),
    "SIGKILL": ("os.kill(os.getpid(), 9)", "crashed", None, 9),
    "SIGSEGV": ("ctypes.string_at(0)", "crashed", None, 11),
    "abort": (ABORT, "crashed", None, 6),
    "caught sys.exit": (CAUGHT, "finished", 0, None),
    "caught sys.exit and 3": (CAUGHT + "; os._exit(3)", "failed", 3, None),
    "exec": ("os.execv('/bin/true', ['true'])", "finished", 0, None),
}


@pytest.fixture(autouse=True, scope="module")
def daemon(lab: Lab) -> None:
    """Have a daemon run: a program that ends at once may not come to start one."""
    lab.run_script("import flightlog; flightlog.init().finish()")


def _ending(lab: Lab, id: str) -> tuple[str, int | None, int | None]:
    read = lab.find(id)
    return read.state, read.exit_code, read.signal


@pytest.mark.fault(2)
@pytest.mark.parametrize("how", EXITS)
def test_end_of_a_program_is_told_and_costs_no_row(lab: Lab, how: str) -> None:
    end = EXITS[how][0]
    id = how.replace(" ", "-")

    process = lab.start(LOGS.format(id=id, end=end))
    lab.wait_unreaped(process)
    read = lab.ended(id, SEEN_WITHIN_S)
    # A caught sys.exit(5) is taken for the end until the daemon has seen the end.
    wait_until(lambda: _ending(lab, id) == EXITS[how][1:], SEEN_WITHIN_S)
    process.communicate()

    assert rows_of(read, "n") == [(n, n) for n in range(500)]
    assert read.lost_count == 0


def test_exit_code_that_python_forgets_is_told_by_the_daemon(lab: Lab) -> None:
    # Nothing of `raise SystemExit(3)` is left when exit handlers run. The program runs
    # long enough for the daemon to look at it once.
    end = """
end = time.monotonic() + 1.0
while time.monotonic() < end: run.log({"busy": 1})
raise SystemExit(3)
"""
    process = lab.start("import time" + LOGS.format(id="forgotten", end=end))
    lab.wait_unreaped(process)

    wait_until(lambda: lab.find("forgotten").state == "failed")

    process.communicate()
    assert lab.find("forgotten").exit_code == 3


def test_sigterm_that_is_handled_by_exiting_kills_the_run(lab: Lab) -> None:
    end = "signal.signal(15, lambda *_: sys.exit(143)); os.kill(os.getpid(), 15)"

    lab.execute(LOGS.format(id="handled", end=end))

    assert lab.ended("handled", SEEN_WITHIN_S).state == "killed"


@pytest.mark.fault(2)
def test_exec_into_a_program_that_stays_ends_the_run(lab: Lab) -> None:
    code = LOGS.format(id="exec-stays", end="os.execv('/bin/sleep', ['sleep', '60'])")
    process = lab.start(code)

    read = lab.ended("exec-stays", SEEN_WITHIN_S)
    process.kill()
    process.communicate()

    assert read.state == "finished"


LATE = (
    "flightlog.log({'late': 1})",
    "flightlog.config.late = 1",
    "flightlog.summary['late'] = 1",
    "flightlog.alert('late')",
    "flightlog.define_metric('late')",
    "run.config.update({'late': 1})",
    "run.mark_preempting()",
    "run.name = 'late'",
    "run.tags = ['late']",
    "run.finish()",
)


@pytest.mark.fault(57)
def test_whatever_exit_handlers_do_is_no_error(lab: Lab) -> None:
    hooks = "".join(f"atexit.register(lambda: exec({each!r}))\n" for each in LATE)

    done = lab.execute(
        "import atexit, flightlog\n" + hooks + "run = flightlog.init(id='late-calls')"
    )

    read = lab.ended("late-calls")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the process is ending" in done.stderr
    assert (read.state, read.config, read.tags) == ("finished", {}, [])


@pytest.mark.fault(57)
def test_exit_handlers_may_log(lab: Lab) -> None:
    done = lab.execute(
        """
        import atexit, flightlog
        # Runs after ours: the run has ended.
        atexit.register(lambda: [run.log({"late": n}) for n in range(3)])
        run = flightlog.init(id="handlers")
        atexit.register(lambda: run.log({"last": 1}))
        """
    )

    read = lab.ended("handlers")

    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "the process is ending" in done.stderr
    assert (rows_of(read, "last"), read.state) == ([(0, 1)], "finished")


@pytest.mark.fault(57)
def test_exit_is_quick_and_quiet_where_no_daemon_can_start(own_lab: Lab) -> None:
    done = own_lab.execute(
        """
        import fcntl, os, time
        home = os.environ["FLIGHTLOG_HOME"]
        os.makedirs(home)
        lock = open(home + "/daemon.lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        import flightlog
        run = flightlog.init(id="alone")
        for n in range(1000): run.log({"n": n})
        assert not run.flush(0.1)
        started = time.monotonic()
        run.finish()
        print(time.monotonic() - started)
        """
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 10
    assert rows_of(own_lab.find("alone"), "n") == [(n, n) for n in range(1000)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(("end", "state"), [("pass", "finished"), ("1/0", "failed")])
def test_run_of_a_worker_ends_as_the_worker_does(
    lab: Lab, tmp_path: Path, method: str, end: str, state: str
) -> None:
    id = f"{method}-{state}"
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing, time, flightlog

def work():
    flightlog.init(id="{id}").log({{"a": 1}})
    time.sleep(0.3)  # From Python 3.13 on, only the daemon can tell how it ends.
    {end}

if __name__ == "__main__":
    try:
        raise ValueError("handled while the worker starts")
    except ValueError:
        process = multiprocessing.get_context("{method}").Process(target=work)
        process.start()
    process.join()
"""
    )
    subprocess.run([sys.executable, script], env=lab.environ, check=True)

    lab.ended(id, SEEN_WITHIN_S)
    wait_until(lambda: lab.find(id).state == state, SEEN_WITHIN_S)
    read = lab.find(id)

    assert read.exit_code == int(state == "failed")
    assert rows_of(read, "a") == [(0, 1)]


@pytest.mark.parametrize(
    ("end", "state", "exit_code", "signal"),
    [
        ("raise SystemExit(4)", "failed", 4, None),
        ("os._exit(5)", "failed", 5, None),
        ("os.kill(os.getpid(), 9)", "crashed", None, 9),
    ],
)
def test_end_of_a_program_that_lived_two_tenths_of_a_second(
    lab: Lab, end: str, state: str, exit_code: int | None, signal: int | None
) -> None:
    flightlog.init(home=lab.home).finish()  # A daemon is there.
    id = f"short-{exit_code or signal}"
    code = f"""
        import os, time, flightlog
        flightlog.init(id="{id}").log({{"a": 1}})
        time.sleep(0.2)
        {end}
        """
    lab.execute(code)

    lab.ended(id, SEEN_WITHIN_S)

    def is_told() -> bool:  # The daemon corrects what the writer could not know.
        read = lab.find(id)
        return (read.state, read.exit_code, read.signal) == (state, exit_code, signal)

    wait_until(is_told, SEEN_WITHIN_S)
