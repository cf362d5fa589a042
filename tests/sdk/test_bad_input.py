"""What a user may get wrong, and what the machine may."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab, rows_of
from tests.system.harness import enlarge, small_disk, wait_recorded

import flightlog
from flightlog_storage.home import Home

LONG = "x" * 129
# Arguments of init, the error, and a word of its text.
INIT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"id": ""}, flightlog.UsageError, "empty"),
    ({"id": " a"}, flightlog.UsageError, "blanks"),
    ({"id": "a/b"}, flightlog.UsageError, "must not contain '/'"),
    ({"id": "../../../victim"}, flightlog.UsageError, "must not contain '/'"),
    ({"id": "/etc"}, flightlog.UsageError, "must not contain '/'"),
    ({"id": "a\nb"}, flightlog.UsageError, "must not contain"),
    ({"id": ".."}, flightlog.UsageError, "dotted"),
    ({"id": LONG}, flightlog.UsageError, "129 characters; at most 128"),
    ({"id": 5}, TypeError, "id must be a str, not int"),
    ({"id": "\ud800"}, flightlog.UsageError, "not valid Unicode"),
    ({"project": ""}, flightlog.UsageError, "project '' is empty"),
    ({"project": "a//b"}, flightlog.UsageError, "empty or dotted part"),
    ({"project": "../b"}, flightlog.UsageError, "empty or dotted part"),
    ({"project": "a:b"}, flightlog.UsageError, "must not contain ':'"),
    ({"project": LONG}, flightlog.UsageError, "129 characters"),
    ({"project": b"x"}, TypeError, "project must be a str"),
    ({"project": "a", "path": "b"}, flightlog.UsageError, "another word"),
    ({"entity": "a/b"}, flightlog.UsageError, "entity"),
    ({"name": 5}, TypeError, "name must be a str"),
    ({"notes": []}, TypeError, "notes must be a str"),
    ({"tags": "abc"}, TypeError, "tags must be a list"),
    ({"tags": [1]}, TypeError, "tags must be a list of str"),
    ({"tags": [""]}, flightlog.UsageError, "1 to 64"),
    ({"tags": ["x" * 65]}, flightlog.UsageError, "1 to 64"),
    ({"config": 5}, TypeError, "config must be a dict"),
    ({"config": {1: 2}}, TypeError, "config keys must be str"),
    ({"config": {"a": Ellipsis}}, TypeError, "'a'"),
    ({"rank": "1"}, TypeError, "rank must be an int"),
    ({"rank": True}, TypeError, "rank must be an int"),
    ({"rank": -1}, ValueError, "rank must be from 0"),
    ({"mode": "fast"}, flightlog.UsageError, "mode 'fast'"),
    ({"resume": "maybe"}, flightlog.UsageError, "resume 'maybe'"),
    ({"reinit": "maybe"}, flightlog.UsageError, "reinit 'maybe'"),
    ({"home": "/proc/nothing"}, flightlog.UsageError, "choose another"),
    ({"home": "/dev/null"}, flightlog.UsageError, "choose another"),
    ({"home": 5}, TypeError, ""),
]
LOG: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((5,), TypeError, "must be passed a dictionary, not int"),
    ((None,), TypeError, "must be passed a dictionary"),
    ((["loss"],), TypeError, "must be passed a dictionary"),
    (({"loss"},), TypeError, "must be passed a dictionary"),
    (("loss",), TypeError, "must be passed a dictionary"),
    (({1: 2},), TypeError, "must be str; 1 is not"),
    (({None: 2},), TypeError, "must be str; None is not"),
    (({("loss",): 2},), TypeError, "must be str"),
    (({"x" * 1025: 2},), ValueError, "longer than 1024 bytes"),
    (({"loss": 1}, -1), ValueError, "from 0 to"),
    (({"loss": 1}, 2**63), ValueError, "from 0 to"),
    (({"loss": 1}, 1.5), TypeError, "step must be an int, not 1.5"),
    (({"loss": 1}, "1"), TypeError, "step must be an int, not '1'"),
    (({"loss": 1}, float("nan")), TypeError, "step must be an int"),
    (({"loss": Ellipsis},), TypeError, "'loss' has type ellipsis"),
]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("arguments", "error", "text"), INIT, ids=repr)
def test_wrong_arguments_of_init_are_told(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        flightlog.init(**arguments)

    assert text in str(caught.value)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("arguments", "error", "text"), LOG, ids=repr)
def test_wrong_arguments_of_log_are_told_and_harm_nothing(
    arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    run = flightlog.init(id="wrong-rows")
    run.log({"loss": 1})
    step = run.step

    with pytest.raises(error) as caught:
        run.log(*arguments)

    assert text in str(caught.value)
    assert (run.step, run.summary.as_dict()) == (step, {"loss": 1})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLIGHTLOG_MODE", "fast"),
        ("RANK", "one"),
        ("FLIGHTLOG_RESUME", "maybe"),
        ("FLIGHTLOG_LOW_WATER", "much"),
        ("FLIGHTLOG_SPOOL_SIZE_MAX", "none"),
        ("FLIGHTLOG_SPOOLS_SIZE_MAX", "-1"),
    ],
)
def test_wrong_variables_are_told(lab: Lab, variable: str, value: str) -> None:
    done = lab.execute("import flightlog; flightlog.init()", **{variable: value})

    assert done.returncode == 1
    assert value in done.stderr


@pytest.mark.fault(23)
def test_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to be two users")
    tmp_path.chmod(0o755)
    for folder in list(tmp_path.parents)[:-2]:  # Up to, not including, /tmp.
        folder.chmod(0o755)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import flightlog, os; os.setuid(65534);"
            f"flightlog.init(home={str(tmp_path / 'home')!r})",
        ],
        env={**Lab(tmp_path).environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "UsageError: home" in done.stderr
    assert "choose another" in done.stderr


LOGS = """
import flightlog
run = flightlog.init(id="run")
run.log({"a": 1})
print(run.flush(10))
"""


def test_home_with_a_long_path_works(tmp_path: Path) -> None:
    long_lab = Lab(tmp_path / ("x" * 120) / "home")

    told = long_lab.run_script(LOGS)
    long_lab.stop()

    assert told == "True"
    assert rows_of(long_lab.find("run"), "a") == [(0, 1)]


@pytest.mark.fault(23)
def test_foreign_runtime_folder_is_not_used(own_lab: Lab, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a folder away")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    os.chown(runtime, 65534, 65534)

    told = own_lab.run_script(LOGS, XDG_RUNTIME_DIR=str(runtime))

    assert told == "True"
    assert list(runtime.iterdir()) == []


FILLS = """
import flightlog, resource, sys
run = flightlog.init(id="full")
for n in range(100): run.log({"n": n, "text": "x" * 1000})
run.flush(10)
%s
for n in range(100, 30_000): run.log({"n": n, "text": "x" * 1000})
%s
run.flush(0)  # Asks the disk anew; else it is asked some times a second.
for n in range(30_000, 30_100): run.log({"n": n, "text": "x" * 1000})
assert run.flush(20)
"""


def check_dropped(lab: Lab, done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("rows are being dropped and counted") == 1
    read = lab.ended("full")
    found = [n for _, n in rows_of(read, "n")]
    assert found[:100] == list(range(100))
    assert found[-100:] == list(range(30_000, 30_100))
    assert read.lost_count > 0
    assert len(found) + read.lost_count == 30_100


FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"


@pytest.mark.parametrize(
    ("name", "gone"), [("full", FULL), ("closed", "sys.stderr.close()")]
)
def test_a_stderr_that_takes_nothing_costs_no_row(
    lab: Lab, name: str, gone: str
) -> None:
    code = f"import flightlog, os, sys\n{gone}\n" + (
        f"with flightlog.init(id='stderr-{name}') as run: run.log({{'n': 1}})"
    )

    lab.run_script(code, FLIGHTLOG_QUIET="0")

    read = lab.ended(f"stderr-{name}")
    assert (rows_of(read, "n"), read.state) == ([(0, 1)], "finished")


@pytest.mark.fault(12, 19)
def test_file_size_limit_costs_rows_that_are_counted(own_lab: Lab) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (%s, resource.RLIM_INFINITY))"

    done = own_lab.execute(
        FILLS % (limit % (1 << 15), limit % "resource.RLIM_INFINITY")
    )

    check_dropped(own_lab, done)


TAKES_BYTES = """
import os
fd = os.open(".fill", os.O_CREAT | os.O_WRONLY)
os.posix_fallocate(fd, 0, 5 << 20)
os.close(fd)
"""
TAKES_INODES = """
import contextlib, itertools, os
with contextlib.suppress(OSError):
    for number in itertools.count(): open(f".fill{number}", "x").close()
"""
GIVES_BACK = "for name in os.listdir():\n    if name[:5] == '.fill': os.unlink(name)"


@pytest.mark.fault(12, 13)
@pytest.mark.parametrize(
    ("room", "takes"),
    [("10m", TAKES_BYTES), ("99m,nr_inodes=40", TAKES_INODES)],
    ids=["bytes", "inodes"],
)
def test_full_disk_costs_rows_that_are_counted(
    own_lab: Lab, room: str, takes: str
) -> None:
    own_lab.home.mkdir()
    with small_disk(own_lab.home / "spool", room) as spool:
        code = f"import os; os.chdir({str(spool)!r})\n" + FILLS

        done = own_lab.execute(code % (takes, GIVES_BACK))

        check_dropped(own_lab, done)
        own_lab.stop()


@pytest.mark.fault(12)
def test_rows_are_taken_again_when_there_is_room(own_lab: Lab) -> None:
    code = FULL_TO_THE_END % (FILL, AGAIN)
    with small_disk(own_lab.home, "12m"):
        done = own_lab.execute("import sys; sys.argv[1:] = ['mapped']" + code)
        assert done.returncode == 0, done.stderr
        read = own_lab.ended("full")
        found = [n for _, n in rows_of(read, "n")]
        own_lab.stop()

    last = found[-1]
    assert isinstance(last, int)
    assert last >= 8_000
    assert len(found) + read.lost_count == last + 1


TAKES_DESCRIPTORS = """
import os
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
held = []
try:
    while True: held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
"""


@pytest.mark.fault(38)
def test_a_program_without_descriptors_goes_on(own_lab: Lab) -> None:
    done = own_lab.execute(FILLS % (TAKES_DESCRIPTORS, "for fd in held: os.close(fd)"))

    check_dropped(own_lab, done)


@pytest.mark.fault(38)
def test_init_without_descriptors_says_so(own_lab: Lab) -> None:
    done = own_lab.execute(
        "import flightlog, resource\n" + TAKES_DESCRIPTORS + "flightlog.init()"
    )

    assert "UsageError" in done.stderr
    assert "Too many open files" in done.stderr


@pytest.mark.fault(59)
def test_a_runtime_folder_that_is_deleted_costs_nothing(
    own_lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runtime = tmp_path_factory.mktemp("r")  # Short, as paths of sockets have to be.

    own_lab.run_script(
        f"""
        import flightlog, pathlib, shutil
        said = pathlib.Path("{own_lab.home}/daemon.log")
        run = flightlog.init(id="run")
        run.log({{"n": 0}})
        assert run.flush(20)
        shutil.rmtree("{runtime}")
        for n in range(1, 1000): run.log({{"n": n}})
        while "stopping on SIGTERM" not in said.read_text(): pass
        assert run.flush(40)
        """,
        XDG_RUNTIME_DIR=str(runtime),
    )

    assert rows_of(own_lab.ended("run"), "n") == [(n, n) for n in range(1000)]
    said = (own_lab.home / "daemon.log").read_text()
    assert "the socket cannot be made anew" in said
    assert "Traceback" not in said


@pytest.mark.fault(59)
def test_a_spool_that_is_deleted_stops_neither_training_nor_daemon(
    own_lab: Lab,
) -> None:
    done = own_lab.execute(
        f"""
        import flightlog, shutil
        with flightlog.init(id="gone") as run:
            run.log({{"n": 0}})
            assert run.flush(20)
            shutil.rmtree("{own_lab.home}/spool")
            for n in range(1, 10_000): run.log({{"n": n, "text": "x" * 1000}})
        with flightlog.init(id="next") as run:
            run.log({{"n": 1}})
            assert run.flush(20)
        """
    )

    assert done.returncode == 0, done.stderr
    assert "rows, which are lost" in done.stderr
    assert rows_of(own_lab.ended("next"), "n") == [(0, 1)]


FULL_TO_THE_END = """
import flightlog, os, resource, signal, sys
from flightlog_storage import buffers
if sys.argv[1:] == ["plain"]: buffers._MAPPABLE = frozenset()
run = flightlog.init(id="full")
for n in range(100): run.log({"n": n, "text": "x" * 1000})
assert run.flush(10)
%s
for n in range(100, 8_000): run.log({"n": n, "text": "x" * 1000})
%s
"""
FILL = """
try:
    with open(os.environ["FLIGHTLOG_HOME"] + "/.fill", "wb", buffering=0) as fill:
        while True: fill.write(bytes(4096))
except OSError:
    pass
"""
AGAIN = """
import itertools, pathlib, time
os.unlink(os.environ["FLIGHTLOG_HOME"] + "/.fill")
spool, = pathlib.Path(os.environ["FLIGHTLOG_HOME"], "spool").iterdir()
before = max(spool.glob("*.chunk"))
for n in itertools.count(8_000):
    run.log({"n": n, "text": "x" * 1000})
    if max(spool.glob("*.chunk")) != before: break
    time.sleep(0.01)
run.finish()
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
ENDS = [("run.finish()", "finished"), ("", "finished"), (KILL, "crashed")]


def check_counted(lab: Lab, state: str) -> None:
    """Check a run when the daemon has taken all of it."""
    wait_recorded(Home(lab.home), timeout_s=60)
    read = lab.ended("full")
    found = [n for _, n in rows_of(read, "n")]
    assert len(found) == len(set(found))
    assert found[:100] == list(range(100))
    assert 0 < read.lost_count == 8_000 - len(found)
    assert read.state == state


@pytest.mark.fault(11, 12)
@pytest.mark.parametrize("buffer", ["mapped", "plain"])
@pytest.mark.parametrize(("end", "state"), ENDS)
def test_a_run_counts_what_a_disk_refused_that_stayed_full_to_its_end(
    own_lab: Lab, end: str, state: str, buffer: str
) -> None:
    with small_disk(own_lab.home, "12m") as home:
        code = f"import sys; sys.argv[1:] = [{buffer!r}]" + FULL_TO_THE_END
        done = own_lab.execute(code % (FILL, end))
        assert done.stderr.count("rows are being dropped and counted") == 1
        enlarge(home)
        check_counted(own_lab, state)
        own_lab.stop()


@pytest.mark.fault(12)
@pytest.mark.parametrize(("end", "state"), ENDS)
def test_a_run_counts_what_a_limit_of_file_sizes_refused_to_its_end(
    own_lab: Lab, end: str, state: str
) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))"

    done = own_lab.execute(FULL_TO_THE_END % (limit, end))

    assert done.stderr.count("rows are being dropped and counted") == 1
    check_counted(own_lab, state)
