"""`flightlog gc`: what it says, and what it takes from a home of a real run."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.test_cli import call, daemon, data, environment
from tests.storage.recording import Recorded
from tests.system.harness import wait_until

from flightlog.cli.collecting import seconds_of
from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.emptying import holding_deleted
from flightlog_storage.event import TagsChanged
from flightlog_storage.files import RealFiles
from flightlog_storage.history import Query
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader
from flightlog_storage.segment_file import SegmentFile

pytestmark = pytest.mark.once

SAVE = """
import flightlog, sys
with flightlog.init(project="demo", id=sys.argv[1]) as run:
    run.save("model.txt", policy="now")
"""
DELETE = "import flightlog, sys; flightlog.Api().run(f'demo/{sys.argv[1]}').delete()"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    yield home
    daemon("stop", home)


def python(home: Path, code: str, run: str) -> None:
    subprocess.run(
        [sys.executable, "-c", code, run],
        check=True,
        env=environment(home),
        cwd=home.parent,
        timeout=60,
    )


def train(home: Path, run: str, *texts: str) -> None:
    """Save a file with each of the texts, one in place of the other."""
    for text in texts:
        (home.parent / "model.txt").write_text(text)
        python(home, SAVE, run)


def blobs(home: Path) -> set[str]:
    return {path.read_text() for path in (home / "blobs").glob("*/*")}


LOG = """
import flightlog, sys
with flightlog.init(project="demo", id=sys.argv[1]) as run:
    for n in range(2000):
        run.log({"text": f"said by {sys.argv[1]} at {n}", "n": n})
"""


def log_bytes(home: Path) -> bytes:
    found = b""
    for path in sorted((home / "log").iterdir()):
        file = SegmentFile(RealFiles(), path)
        found += file.read(0, file.size)
        file.close()
    return found


def test_rows_of_a_deleted_run_leave_the_log(home: Path) -> None:
    for run in ("a", "b"):
        python(home, LOG, run)
    daemon("stop", home)  # So that the segment is sealed.
    python(home, DELETE, "a")
    wait_until(lambda: b"RunDeleted" in log_bytes(home))
    wait_until(lambda: len(holding_deleted(Home(home))) == 1)
    assert b"said by a at 77" in log_bytes(home)

    dry = call(home, "gc", "--dry-run")
    assert "1 segments of the log may have rows of deleted runs" in dry.stderr
    found = data(call(home, "gc", "--json"), "flightlog.gc/1")["log"]

    assert found["segments"] == 1
    assert found["frames"] > 0
    assert found["bytes"] > 10_000
    assert b"said by a at 77" not in log_bytes(home)
    assert b"said by b at 77" in log_bytes(home)
    assert "frames of deleted runs" not in call(home, "gc").stderr
    assert call(home, "verify", "--full").returncode == 0
    rows = HomeReader(Home(home)).history(("ada", "demo", "b"), Query())
    assert rows is not None
    assert [row["n"] for row in rows.to_dicts()] == list(range(2000))


def test_it_takes_what_was_replaced_or_deleted_and_nothing_else(home: Path) -> None:
    train(home, "a", "old", "shared")
    train(home, "b", "shared")

    assert "1 more, with 3 B, are too young" in call(home, "gc").stderr
    listed = call(home, "gc", "--dry-run", "--grace", "0s")
    found = data(
        call(home, "gc", "--dry-run", "--grace=0s", "--json"), "flightlog.gc/1"
    )

    assert listed.stdout.splitlines()[0] == "PATH\tBYTES\tCHANGED"
    assert "1 files with 3 B that nothing needs would be deleted" in listed.stderr
    assert (found["dry_run"], found["count"], found["bytes"]) == (True, 1, 3)
    assert found["items"][0]["path"] in listed.stdout
    assert blobs(home) == {"old", "shared"}

    done = data(call(home, "gc", "--grace", "0s", "--json"), "flightlog.gc/1")

    assert (done["dry_run"], done["count"], done["failed"]) == (False, 1, [])
    assert blobs(home) == {"shared"}
    assert call(home, "verify", "--full").returncode == 0


def test_deleting_one_run_leaves_what_the_other_needs(home: Path) -> None:
    train(home, "a", "shared")
    train(home, "b", "shared")
    left: set[str]
    for run, left in (("a", {"shared"}), ("b", set())):
        python(home, DELETE, run)
        assert call(home, "gc", "--grace", "0s").returncode == 0
        assert blobs(home) == left


def test_where_it_cannot_be_told_nothing_goes_and_it_says_why(home: Path) -> None:
    train(home, "a", "old", "new")
    daemon("stop", home)
    (home / "state.db").write_bytes(b"nonsense" * 1000)

    result = call(home, "gc", "--grace", "0s")

    assert result.returncode == 1
    assert "state.db" in result.stderr
    assert blobs(home) == {"old", "new"}


@pytest.mark.skipif(os.getuid() == 0, reason="for root there are no permissions")
def test_what_cannot_be_deleted_is_told_and_the_code_is_1(home: Path) -> None:
    train(home, "a", "old", "new")
    folders = list((home / "blobs").iterdir())
    for folder in folders:
        folder.chmod(0o500)
    try:
        result = call(home, "gc", "--grace", "0s")
    finally:
        for folder in folders:
            folder.chmod(0o700)

    assert result.returncode == 1
    assert "cannot be deleted" in result.stderr
    assert blobs(home) == {"old", "new"}


def test_runs_that_ended_too_long_ago_go_when_asked(tmp_path: Path, home: Path) -> None:
    recorded = Recorded(tmp_path)
    for run in ("old", "kept"):
        recorded.finish(recorded.start(run, run))  # In 1970.
    editor = recorded.join("kept", "editor", EDITOR_RANK)
    recorded.tell(editor, TagsChanged(time=3.0, tags=["keep"]))
    recorded.log.close()
    train(home, "new", "text")
    daemon("stop", home)

    listed = call(home, "gc", "--retain", "90d", "--dry-run", "--json")
    dry = data(listed, "flightlog.gc/1")
    assert [each["run"] for each in dry["runs"]] == ["e/p/old"]
    assert HomeReader(Home(home)).state(("e", "p", "old"))

    result = call(home, "gc", "--retain", "90d")
    assert result.returncode == 0
    assert "1 runs that ended too long ago deleted" in result.stderr
    assert HomeReader(Home(home)).state(("e", "p", "old")) is None
    assert HomeReader(Home(home)).state(("e", "p", "kept"))


@pytest.mark.parametrize("retain", ["", "90", "23h"])
def test_a_retention_that_may_be_a_slip_is_2(home: Path, retain: str) -> None:
    train(home, "a", "new")

    result = call(home, "gc", f"--retain={retain}")

    assert result.returncode == 2
    assert ("24h" if retain != "23h" else "a day or more") in result.stderr


@pytest.mark.parametrize("grace", ["", "1", "-1h", "soon", "1 week", "nan h", "9e9d"])
def test_a_grace_that_is_no_time_is_2(home: Path, grace: str) -> None:
    train(home, "a", "new")

    result = call(home, "gc", f"--grace={grace}")

    assert result.returncode == 2
    assert "24h" in result.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("1.5h", 5400), ("30 min", 1800), ("2d", 172_800)]
)
def test_a_grace_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
