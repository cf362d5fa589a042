"""Runs that begin on a disk without room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.conftest import Lab, rows_of
from tests.system.harness import small_disk

from flightlog_storage.home import Home

pytestmark = pytest.mark.fault(12)

BEGINS = """
import flightlog, os, sys
filler = os.path.dirname(os.environ["FLIGHTLOG_HOME"]) + "/filler"
with open(filler, "wb", buffering=0) as file:
    try:
        while True: file.write(bytes(4096))
    except OSError:
        pass
run = flightlog.init(id="late", config={"lr": 1})
assert flightlog.init() is run
for n in range(10): run.log({"n": n})
run.tags = ("a",)
run.summary["best"] = 3
try: run.log({"n": Ellipsis})
except TypeError: pass
assert not run.flush(0)
"""
GOES_ON = """
os.unlink(filler)
assert run.flush(20)
for n in range(10, 20): run.log({"n": n})
run.finish()
"""
FORKS = """
child = os.fork()
if not child:
    assert flightlog.init(id="other") is not run
    run.log({"n": 1})
    flightlog.finish()
    os._exit(0)
assert os.waitpid(child, 0) == (child, 0)
assert flightlog.init() is run
"""
IS_TOLD = "[Errno 28] No space left on device"


@pytest.fixture
def small_lab(tmp_path: Path) -> Iterator[Lab]:
    """A home that is not made yet, on a disk of 12 MiB."""
    with small_disk(tmp_path / "disk", "12m") as disk:
        made = Lab(disk / "home")
        yield made
        made.close()


@pytest.fixture(params=["a home", "no home"])
def lab_to_be(small_lab: Lab, request: pytest.FixtureRequest) -> Lab:
    if request.param == "a home":
        Home(small_lab.home).create()
        return small_lab
    # The last inode is the filler's.
    disk = small_lab.home.parent
    limit = ["mount", "-o", "remount,size=12m,nr_inodes=4", str(disk)]
    subprocess.run(limit, check=True, timeout=30)
    return small_lab


def test_a_run_that_found_no_room_goes_on_when_there_is(lab_to_be: Lab) -> None:
    code = GOES_ON
    if not lab_to_be.home.exists():
        disk = lab_to_be.home.parent
        code = f"os.system('mount -o remount,size=12m,nr_inodes=999 {disk}')" + code

    done = lab_to_be.execute(BEGINS + code)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be recorded") == 1
    assert IS_TOLD in done.stderr
    read = lab_to_be.ended("late")
    assert rows_of(read, "n") == [(n, n) for n in range(10, 20)]
    assert (read.lost_count, read.state) == (10, "finished")
    assert (dict(read.config), read.tags) == ({"lr": 1}, ["a"])
    assert read.summary["best"] == 3


@pytest.mark.parametrize("end", ["run.finish()", ""])
def test_training_goes_on_where_there_is_no_room_to_its_end(
    lab_to_be: Lab, end: str
) -> None:
    done = lab_to_be.execute(BEGINS + FORKS + end)

    assert done.returncode == 0, done.stderr
    assert "the disk refused all of it, 10 rows, which are lost" in done.stderr
    assert not [*lab_to_be.home.glob("spool/*")]


def test_resume_auto_goes_on_without_room_to_remember(small_lab: Lab) -> None:
    code = BEGINS.replace('config={"lr": 1}', 'config={"lr": 1}, resume="auto"')

    done = small_lab.execute(code)

    assert done.returncode == 0, done.stderr
    assert "cannot remember the run" in done.stderr
