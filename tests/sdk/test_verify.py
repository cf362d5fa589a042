"""`flightlog verify`: what is lost, and the blobs that a home needs, folded or not."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab, state_of
from tests.storage.recording import Recorded, settled
from tests.system.harness import wait_until

from flightlog.apis.public import Api
from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.event import (
    ArtifactDeleted,
    ArtifactLogged,
    FileDeleted,
    FileRequested,
    FileSaved,
    Gap,
    ManifestEntry,
    RunDeleted,
    WriterId,
)
from flightlog_storage.inbox import inbox_path, make_token, put_in_inbox

pytestmark = pytest.mark.once

LOGS_ASSETS = """
import flightlog
from pathlib import Path
run = flightlog.init(project="p", id="r")
Path("kept.txt").write_text("of the run")
run.save("kept.txt")
model = flightlog.Artifact("weights", "model")
with model.new_file("w") as file:
    file.write("of the artifact")
run.log_artifact(model)
run.finish()
"""
FILLS_ITS_DISK = """
import resource
import flightlog
run = flightlog.init(project="p", id="r")
assert run.flush(20)  # The daemon runs, and without the limit.
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, resource.RLIM_INFINITY))
for i in range(30_000):
    run.log({"a": i, "s": "x" * 200})
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
run.log({"a": 1})
run.finish()
"""


def verify(home: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    code = "from flightlog.cli import main; main()"
    arguments = ["verify", "--home", str(home), *flags]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def report(home: Path, *flags: str) -> Any:
    done = verify(home, "--json", *flags)
    data = json.loads(done.stdout)["data"]
    assert done.returncode == (not data["sound"])
    return data


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def missing(text: str, *, by: str) -> str:
    sha256 = digest(text)
    return f"blobs/{sha256[:2]}/{sha256}: the blob is missing; needed by {by}"


def told(home: Path, *flags: str) -> list[str]:
    problems = report(home, *flags)["problems"]
    return sorted(f"{each['where']}: {each['what']}" for each in problems)


# What is lost


@pytest.mark.parametrize("flags", [(), ("--full",)])
def test_losses_that_a_writer_told_are_listed_folded_or_not(
    recorded: Recorded, flags: tuple[str, ...]
) -> None:
    home = recorded.home.root
    recorded.start("whole", "other")
    recorded.tell(recorded.start("r"), Gap(time=2.0, count=73_665, reason="full disk"))

    for _ in settled(recorded):
        done = verify(home, *flags)

        assert done.returncode == 0, done.stdout
        assert "73,665 of e/p/r" in done.stdout
        assert "sound, though events are lost: " in done.stdout
        assert "whole" not in done.stdout
        data = report(home, *flags)
        assert data["lost_events"] == {"e/p/r": 73_665}
        assert any("73,665 of e/p/r" in note for note in data["notes"])


def test_losses_of_a_run_that_was_deleted_are_not_listed(recorded: Recorded) -> None:
    recorded.tell(recorded.start("r"), Gap(time=2.0, count=7, reason="full disk"))
    recorded.fold()
    recorded.tell(recorded.join("r", "ed", EDITOR_RANK), RunDeleted(time=2.0))

    assert [report(recorded.home.root)["lost_events"] for _ in settled(recorded)] == [
        {}
    ] * 3


def test_what_a_full_disk_cost_is_listed(own_lab: Lab) -> None:
    own_lab.run_script(FILLS_ITS_DISK)
    lost = own_lab.ended("r", project="p").lost_count
    own_lab.stop()

    data = report(own_lab.home, "--full")

    assert lost > 0
    assert data["lost_events"] == {"someone/p/r": lost}
    assert data["sound"], data["problems"]


# The blobs of a copy


@pytest.fixture
def copy(own_lab: Lab, tmp_path: Path) -> Path:
    """A copy of a log, which is not folded, that names three blobs; none is there."""
    (tmp_path / "work").mkdir()
    own_lab.run_script(
        f"import os; os.chdir({str(tmp_path / 'work')!r})\n{LOGS_ASSETS}"
    )
    own_lab.stop()
    copy = tmp_path / "copy"
    shutil.copytree(own_lab.home / "log", copy / "log")
    return copy


@pytest.mark.parametrize("flags", [(), ("--full",)])
def test_a_copy_without_blobs_is_not_sound(
    own_lab: Lab, copy: Path, flags: tuple[str, ...]
) -> None:
    lacking = told(copy, *flags)

    assert lacking == sorted(
        [
            missing("of the run", by="someone/p/r/kept.txt"),
            missing("of the artifact", by="someone/p/weights:v0/w"),
        ]
    )
    shutil.copytree(own_lab.home / "histories", copy / "histories")
    shutil.copyfile(own_lab.home / "state.db", copy / "state.db")
    assert told(copy, *flags) == lacking, "folded it is another"
    shutil.copytree(own_lab.home / "blobs", copy / "blobs")
    assert told(copy, *flags) == []


def test_the_run_of_a_missing_blob_is_named_where_it_is_one_runs(copy: Path) -> None:
    lines = verify(copy).stdout.splitlines()

    follows = {
        line.split("needed by ")[1]: lines[n + 1]
        for n, line in enumerate(lines)
        if "needed by" in line
    }
    assert follows["someone/p/r/kept.txt"] == "  run:  someone/p/r"
    assert "run" not in follows["someone/p/weights:v0/w"]


def test_a_full_verify_reads_the_blobs_of_a_copy(own_lab: Lab, copy: Path) -> None:
    shutil.copytree(own_lab.home / "blobs", copy / "blobs")
    sha256 = digest("of the run")
    (copy / "blobs" / sha256[:2] / sha256).write_text("of the RUN")

    assert told(copy) == []
    (problem,) = told(copy, "--full")
    assert "its bytes are not what it is named" in problem


def saved(name: str, text: str = "x") -> FileSaved:
    return FileSaved(time=2.0, name=name, blob=digest(text), digest="", size=len(text))


def test_blobs_that_nothing_needs_any_more_are_not_missed(recorded: Recorded) -> None:
    writer = recorded.start("r")
    entry = ManifestEntry(path="f", digest="", size=1, blob=digest("x"))
    logged = ArtifactLogged(
        time=2.0, name="m", token="t", type="t", digest="d", entries=[entry]
    )
    recorded.tell(writer, saved("gone"))
    recorded.tell(writer, saved("kept", "y"))
    recorded.tell(writer, logged)
    recorded.fold()
    recorded.tell(writer, FileDeleted(time=3.0, name="gone"))
    recorded.tell(writer, saved("new", "z"))
    editor = recorded.join("", "ed", EDITOR_RANK)
    recorded.tell(editor, ArtifactDeleted(time=3.0, name="m", number=0))

    assert [told(recorded.home.root) for _ in settled(recorded)] == [
        sorted([missing("y", by="e/p/r/kept"), missing("z", by="e/p/r/new")])
    ] * 3


def test_a_manifest_that_was_damaged_in_state_db_is_told(recorded: Recorded) -> None:
    entry = ManifestEntry(path="f", digest="", size=1, blob=digest("x"))
    recorded.tell(
        recorded.start("r"),
        ArtifactLogged(
            time=2.0, name="m", token="t", type="t", digest="d", entries=[entry]
        ),
    )
    recorded.fold()
    with closing(sqlite3.connect(recorded.home.state)) as connection, connection:
        connection.execute("UPDATE artifact_manifests SET entries = x'c1'")

    (problem,) = report(recorded.home.root)["problems"]

    assert problem["where"] == "state.db"


def test_without_the_log_verify_says_that_it_checks_no_blobs(
    recorded: Recorded,
) -> None:
    recorded.tell(recorded.start("r"), saved("f"))
    recorded.fold()
    shutil.rmtree(recorded.home.log)

    assert "blobs are not checked" in verify(recorded.home.root).stdout


# Files that are owed


@pytest.fixture
def owed(recorded: Recorded) -> Path:
    """What is left in the inbox for a file that is owed."""
    writer = recorded.start("r")
    token = make_token(WriterId(writer).hex(), 1)
    path = inbox_path(recorded.home.inbox, token)
    put_in_inbox(path, [b"pixels"])
    recorded.tell(writer, FileRequested(time=2.0, name="i.png", token=token, size=6))
    return path


def test_what_is_left_for_an_owed_file_is_sound(recorded: Recorded, owed: Path) -> None:
    for _ in settled(recorded):
        data = report(recorded.home.root)

        assert (data["problems"], data["checked"]["owed files"]) == ([], 1)


@pytest.mark.parametrize("how", ["gone", "cut", "unreadable"])
def test_an_owed_file_whose_bytes_are_gone_is_damage_folded_or_not(
    recorded: Recorded, owed: Path, how: str
) -> None:
    if how == "cut":
        os.truncate(owed, 2)
    else:
        owed.unlink()
    if how == "unreadable":
        owed.symlink_to(owed.name)  # The system refuses to look at it.

    for _ in settled(recorded):
        (problem,) = report(recorded.home.root)["problems"]

        assert problem["where"] == f"inbox/{owed.name}"
        assert "needed by e/p/r/i.png" in problem["what"]
        assert (problem["run"], problem["events"]) == ("e/p/r", 1)


def test_a_file_that_was_made_needs_nothing_in_the_inbox(
    recorded: Recorded, owed: Path
) -> None:
    recorded.fold()
    owed.unlink()
    made = FileSaved(
        time=3.0, name="i.png", token=owed.name, blob=digest("x"), digest="", size=1
    )
    recorded.tell(recorded.join("r", "ed", EDITOR_RANK), made)

    assert [told(recorded.home.root) for _ in settled(recorded)] == [
        [missing("x", by="e/p/r/i.png")]
    ] * 3


# A copy while something trains


TRAINS = """
import flightlog
run = flightlog.init(project="p", id="r")
print("up", flush=True)
step = 0
while True:
    run.log({"step": step})
    step += 1
    if step % 1000 == 0:
        run.flush(20)
"""


def test_a_copy_in_the_order_of_the_docs_has_all_rows_while_training(
    own_lab: Lab, tmp_path: Path
) -> None:
    process = own_lab.start(TRAINS)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        own_lab.stop()  # The training process starts the next one.
        wait_until(lambda: state_of(own_lab.find("r", "p")).last_step > 3000)
        before = state_of(own_lab.find("r", "p")).last_step
        for name in ("spool", "inbox", "log", "blobs"):
            shutil.copytree(own_lab.home / name, tmp_path / "copy" / name)
    finally:
        process.kill()
        process.communicate()

    assert told(tmp_path / "copy", "--full") == []
    run = Api(home=tmp_path / "copy").run("someone/p/r")
    steps = [row["step"] for row in run.scan_history(keys=["step"])]
    assert steps == list(range(len(steps)))
    assert len(steps) > before
