"""Backups of a home in use: whole, the same after a kill, and homes themselves."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.effort import EFFORT, tries
from tests.simulation.power import Disk, Variant
from tests.simulation.recorded import can_trace, read_trace, trace
from tests.storage.recording import Recorded, flip, rows_of
from tests.system.harness import (
    Trainer,
    daemon,
    environment,
    is_ended,
    make_home,
    read_rows,
    run_state,
    status,
    wait_until,
)

from flightlog_storage import backup
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import stage_file
from flightlog_storage.event import FileRequested, FileSaved
from flightlog_storage.home import Home, HomeLock
from flightlog_storage.inbox import inbox_path, make_token, put_in_inbox
from flightlog_storage.logreader import LogPosition, LogReader
from flightlog_storage.runstate import State
from flightlog_storage.staging import staging_folder

pytestmark = pytest.mark.once

CLI = (sys.executable, "-c", "from flightlog.cli import main; main()")
# The process kills itself right before the Nth of the calls that change the copy.
KILLED = """
import itertools, os, signal, sys
from flightlog.cli import main
from flightlog_storage import spool_copies
counter = itertools.count(1)
nth = int(sys.argv.pop(1))
def killing(call):
    def called(*arguments, **options):
        if next(counter) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return called
for name in ("rename", "fsync", "unlink", "rmdir"):
    setattr(os, name, killing(getattr(os, name)))
spool_copies._exchange = killing(spool_copies._exchange)
main()
"""
CALLS = 10  # So many of them there are at least.
LOGS_FILES = """
import os, sys, flightlog
os.chdir(sys.argv[1])
with flightlog.init(entity="someone", project="project", id="run") as run:
    run.log({"n": 1})
    for name in ("a", "b"):
        with open(name, "w") as file:
            file.write(name * 100_000)
        run.save(name)
    run.log_image("x", b"image")
    with open(os.path.join(run.dir, "notes"), "w") as file:
        file.write("of the user's")
print("done")
"""


def command(home: Home, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CLI, *arguments, "--home", str(home.root)],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def back_up(home: Home, target: Home) -> dict[str, Any]:
    done = command(home, "backup", str(target.root), "--json")
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    return data


def refusal(home: Home, target: Path) -> str:
    done = command(home, "backup", str(target))
    assert done.returncode == 1, done.stdout
    return done.stderr


def assert_sound(target: Home) -> None:
    done = command(target, "verify", "--full")
    assert done.returncode == 0, done.stdout


def rows_up_to(target: Home) -> int:
    """Return how many rows are there; they are the first, each once."""
    rows = read_rows(target)
    assert rows == [(n, n) for n in range(len(rows))]
    return len(rows)


def log_files(home: Home, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", LOGS_FILES, str(folder)],
        env=environment(home),
        check=True,
        timeout=60,
    )


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Home:
    return Home(tmp_path / "backup")


def test_a_backup_has_all_that_was_logged_before_it_began(
    home: Home, target: Home
) -> None:
    with daemon(home):
        trainer = Trainer(home, 1 << 30, pause_s=1e-5)
        try:
            for count in (1_000, 50_000):
                trainer.wait_for(count)
                returned = trainer.returned
                back_up(home, target)
                assert rows_up_to(target) >= returned
                assert_sound(target)
        finally:
            trainer.kill()
            trainer.wait()


def test_a_backup_without_a_daemon_has_what_waits_in_spools(
    home: Home, target: Home
) -> None:
    with closing(HomeLock(home)):  # So that no daemon can be started.
        assert Trainer(home, 1_000, how="kill").wait() == -signal.SIGKILL
        back_up(home, target)

    assert rows_up_to(target) == 1_000
    assert_sound(target)


@pytest.mark.fault(5)
@pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace")
@pytest.mark.parametrize("has_files", [True, False])
def test_a_backup_that_is_done_outlives_a_loss_of_power(
    home: Home, target: Home, tmp_path: Path, has_files: bool
) -> None:
    with daemon(home):
        assert Trainer(home, 100).wait() == 0
        if has_files:
            log_files(home, tmp_path / "work")
    with closing(HomeLock(home)):  # So that a spool and the inbox wait.
        assert Trainer(home, 100, how="kill", run="other").wait() == -signal.SIGKILL
    put_in_inbox(inbox_path(home.inbox, make_token("0" * 32, 1)), [b"pixels"])
    disk = Disk(target.root, left_out="nothing")

    trace(
        [*CLI, "backup", str(target.root), "--home", str(home.root)],
        tmp_path / "trace",
        environment(home),
        timeout_s=120,
    )

    for moment in read_trace(tmp_path / "trace"):
        disk.take(moment)
    (tmp_path / "left").mkdir()
    disk.put_into(tmp_path / "left", Variant(names=False, contents=False))
    left, there = files_in(tmp_path / "left"), files_in(target.root)
    assert left == there
    folders = {name.split("/")[0] for name in left}
    assert folders >= {"log", "inbox", "spool"}
    assert has_files == (folders >= {"blobs", "files"})


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Overtaken(LogReader):
    """Something happens right before, and right after, it first sees the log's end."""

    actions: ClassVar[list[Callable[[], object]]] = []

    def end_position(self) -> LogPosition | None:
        for_now, self.actions[:] = self.actions[:2], self.actions[2:]
        for act in for_now[:1]:
            act()
        end = super().end_position()
        for act in for_now[1:]:
            act()
        return end


def test_what_leaves_a_spool_amid_a_backup_is_in_it(
    home: Home, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(HomeLock(home)):
        Trainer(home, 1_000, how="kill").wait()

    def take() -> None:
        with daemon(home):
            wait_until(lambda: not [*home.spool.iterdir()])

    monkeypatch.setattr(backup, "LogReader", Overtaken)
    Overtaken.actions[:] = [int, take]
    backup.back_up(home, target)

    assert [*home.spool.iterdir()] == []
    assert rows_up_to(target) == 1_000


def test_a_file_that_comes_and_goes_amid_a_backup_is_in_it(
    tmp_path: Path, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Recorded(tmp_path)
    home, writer = recorded.home, recorded.start("r")
    token = make_token("0" * 32, 1)
    path = inbox_path(home.inbox, token)

    def come() -> None:
        put_in_inbox(path, [b"bytes"])
        owed = FileRequested(time=2.0, name="x", token=token, size=5)
        recorded.tell(writer, owed)

    def go() -> None:
        staged = stage_file(path, staging_folder(home.staging))
        found = staged.digests
        BlobStore(home.blobs).keep(staged)
        saved = FileSaved(
            time=3.0,
            name="x",
            blob=found.sha256,
            digest=found.md5,
            size=found.size,
            token=token,
        )
        recorded.tell(writer, saved)
        path.unlink()

    monkeypatch.setattr(backup, "LogReader", Overtaken)
    Overtaken.actions[:] = [come, go]
    backup.back_up(home, target)

    assert Overtaken.actions == []
    assert_sound(target)


def test_what_spools_hold_is_in_the_backup_as_the_log_takes_it_over(
    home: Home, target: Home
) -> None:
    with closing(HomeLock(home)):
        trainer = Trainer(home, 200_000, how="wait")  # Several chunks.
        trainer.wait_for(200_000)
        back_up(home, target)
        assert rows_up_to(target) == 200_000
    try:
        with daemon(home):
            wait_until(lambda: status(home)["end_offset"] > 200_000)
            back_up(home, target)
            assert rows_up_to(target) == 200_000
            assert_sound(target)
            trainer.go_on()
            trainer.wait()
            back_up(home, target)
        assert [*target.spool.iterdir()] == []
        assert rows_up_to(target) == 200_000
        state = run_state(target)
        assert state is not None
        assert state.state is State.FINISHED
    finally:
        trainer.close()


def test_a_backup_that_is_killed_anywhere_leaves_what_the_last_one_had(
    home: Home, target: Home, tmp_path: Path
) -> None:
    with closing(HomeLock(home)):
        Trainer(home, 1_000, how="kill").wait()
        back_up(home, target)  # It has all in a spool.
    pristine = tmp_path / "pristine"
    target.root.rename(pristine)
    with daemon(home):
        wait_until(lambda: (s := run_state(home)) is not None and not s.active)
        wait_until(lambda: not [*home.spool.iterdir()])

    for nth in range(1, CALLS + 1):
        shutil.copytree(pristine, target.root)
        kill_amid_backup(home, target, nth)
        assert rows_up_to(target) == 1_000, f"killed at call {nth}"
        if nth != CALLS:
            shutil.rmtree(target.root)
    back_up(home, target)
    assert_sound(target)


def test_a_killed_backup_of_a_run_that_goes_on(home: Home, target: Home) -> None:
    chance = random.Random(5 if EFFORT <= 1 else None)
    with daemon(home):
        trainer = Trainer(home, 1 << 30, pause_s=1e-5)
        try:
            trainer.wait_for(1_000)
            back_up(home, target)
            for _ in range(tries(3)):
                least = rows_up_to(target)
                kill_amid_backup(home, target, nth := chance.randrange(1, CALLS + 1))
                assert rows_up_to(target) >= least, f"killed at call {nth}"
                assert_sound(target)
            returned = trainer.returned
            back_up(home, target)
            assert rows_up_to(target) >= returned
        finally:
            trainer.kill()
            trainer.wait()
    assert_sound(target)


def kill_amid_backup(home: Home, target: Home, nth: int) -> None:
    """SIGKILL a backup right before one of its calls that change what is there."""
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(nth), "backup", str(target.root)],
        env=environment(home),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_a_second_backup_copies_what_is_new(
    home: Home, target: Home, tmp_path: Path
) -> None:
    with daemon(home):
        log_files(home, tmp_path / "work")
        assert command(home, "jobs", "--wait").returncode == 0
        first = back_up(home, target)
        inodes = {path: path.stat().st_ino for path in target.blobs.glob("*/*")}
        second = back_up(home, target)

    assert first["blobs"] == second["blobs_kept"] == len(inodes) == 3
    assert second["blobs"] == 0
    assert {p: p.stat().st_ino for p in target.blobs.glob("*/*")} == inodes
    assert (target.root / "files/someone/project/run/notes").read_text()
    assert command(target, "doctor", "--full").stdout.count("to do: home") == 0
    assert_sound(target)


def test_what_is_owed_is_made_by_a_daemon_of_the_backup(
    home: Home, target: Home, tmp_path: Path
) -> None:
    with daemon(home):
        worker = status(home)["worker_pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            log_files(home, tmp_path / "work")
            back_up(home, target)
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not is_ended(worker))
    shutil.rmtree(home.root)  # The machine is gone.
    assert_sound(target)

    with daemon(target):
        assert command(target, "jobs", "--wait").returncode == 0

    assert_sound(target)
    state = run_state(target)
    assert state is not None
    assert len(state.files) == 3
    assert state.lost_count == 0
    assert state.state is State.FINISHED


def test_a_run_that_goes_on_elsewhere_is_over_in_its_backup(
    home: Home, target: Home
) -> None:
    with daemon(home):
        trainer = Trainer(home, 1_000, how="wait")
        trainer.expect("ready")
        trainer.expect("logged")
        back_up(home, target)
        with daemon(target):
            wait_until(lambda: (s := run_state(target)) and not s.active)
        trainer.go_on()
        trainer.wait()

        assert rows_up_to(target) == 1_000
        assert_sound(target)
        assert "it is a home now" in refusal(home, target.root)
        assert rows_up_to(target) == 1_000


# --- what is no backup of this home ---


def test_a_backup_is_not_written_over_anything_else(tmp_path: Path) -> None:
    recorded, other = Recorded(tmp_path / "one"), Recorded(tmp_path / "other")
    recorded.start("r")
    other.start("r")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat.png").write_bytes(b"cat")

    assert "not a backup of this" in refusal(recorded.home, other.home.root)
    assert "holds other files" in refusal(recorded.home, tmp_path / "pictures")
    assert "lies within" in refusal(recorded.home, recorded.home.root / "files")
    with closing(HomeLock(other.home)):
        assert "a daemon serves" in refusal(recorded.home, other.home.root)
    assert rows_of(other.home, "r") == []
    assert os.listdir(tmp_path / "pictures") == ["cat.png"]


def test_a_log_that_was_lost_does_not_take_its_backup_along(
    tmp_path: Path, target: Home
) -> None:
    recorded = Recorded(tmp_path, segment_size_max=300)
    writer = recorded.start("r")
    for n in range(5):
        recorded.rows(writer, (n, n / 2))
    back_up(recorded.home, target)
    *_, last = sorted(recorded.home.log.iterdir())
    last.unlink()

    assert "has lost some of it" in refusal(recorded.home, target.root)
    assert rows_of(target, "r") == [(n, n / 2) for n in range(5)]


@pytest.mark.parametrize("change", ["cut", "a wrong bit", "another line of events"])
def test_an_open_segment_that_lost_something_does_not_replace_its_copy(
    tmp_path: Path, target: Home, change: str
) -> None:
    recorded = Recorded(tmp_path)
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0))
    (segment,) = recorded.home.log.iterdir()
    earlier = segment.read_bytes()
    recorded.rows(writer, (1, 0.5))
    back_up(recorded.home, target)
    data = bytearray(segment.read_bytes())
    data[len(earlier) + 80] ^= 1
    recorded.log.close()
    segment.write_bytes(data if change == "a wrong bit" else earlier)
    if change == "another line of events":
        recorded.log = recorded.open()
        recorded.rows(writer, (7, 7.0), (8, 8.0))

    assert "has lost some of it" in refusal(recorded.home, target.root)
    assert rows_of(target, "r") == [(0, 0.0), (1, 0.5)]
    assert_sound(target)


def test_a_damaged_copy_of_an_open_segment_is_replaced(
    tmp_path: Path, target: Home
) -> None:
    recorded = Recorded(tmp_path)
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0), (1, 0.5))
    back_up(recorded.home, target)
    (copy,) = target.log.iterdir()
    flip(copy, -20)

    back_up(recorded.home, target)

    assert_sound(target)


def test_damage_of_the_log_that_is_copied_is_told(tmp_path: Path, target: Home) -> None:
    recorded = Recorded(tmp_path)
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0))
    recorded.rows(writer, (1, 0.5))
    (segment,) = recorded.home.log.iterdir()
    flip(segment, 200)

    done = command(recorded.home, "backup", str(target.root))

    assert done.returncode == 1
    assert f"damaged: log/{segment.name}, byte" in done.stderr
    assert rows_of(target, "r") == rows_of(recorded.home, "r")


@pytest.mark.fault(18)
@pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace")
def test_a_bad_sector_does_not_end_a_backup(tmp_path: Path, target: Home) -> None:
    recorded = Recorded(tmp_path)
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0))
    (segment,) = recorded.home.log.iterdir()
    fault = ["strace", "-D", "-f", "-o", os.devnull, "-P", str(segment)]

    done = subprocess.run(
        [
            *(*fault, "-e", "inject=sendfile:error=EIO"),
            *(*CLI, "backup", str(target.root), "--home", str(recorded.home.root)),
        ],
        env=environment(recorded.home),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert rows_of(target, "r") == [(0, 0.0)]
    assert_sound(target)


def test_a_damaged_segment_does_not_replace_its_good_copy(
    tmp_path: Path, target: Home
) -> None:
    recorded = Recorded(tmp_path, segment_size_max=300)
    writer = recorded.start("r")
    for n in range(5):
        recorded.rows(writer, (n, n / 2))
    back_up(recorded.home, target)
    first, *_ = sorted(recorded.home.log.iterdir())
    flip(first, 200)

    recorded.rows(writer, (5, 2.5))
    back_up(recorded.home, target)

    assert rows_of(target, "r") == [(n, n / 2) for n in range(6)]
    assert_sound(target)


def test_a_damaged_blob_is_told_and_not_copied(
    home: Home, target: Home, tmp_path: Path
) -> None:
    with daemon(home):
        log_files(home, tmp_path / "work")
        assert command(home, "jobs", "--wait").returncode == 0
    blob, kept, _ = sorted(home.blobs.glob("*/*"))
    blob.write_bytes(b"?" * blob.stat().st_size)

    done = command(home, "backup", str(target.root))

    assert done.returncode == 1
    assert f"damaged: blobs/{blob.parent.name}/{blob.name}: not copied" in done.stderr
    there = {path.name for path in target.blobs.glob("*/*")}
    assert kept.name in there
    assert blob.name not in there
    assert [*target.staging.iterdir()] == []


# --- what else may lie in a home ---


def test_a_home_that_a_link_leads_to_is_copied(
    home: Home, target: Home, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    there = Home(tmp_path / "link" / home.root.name)
    with daemon(home):
        log_files(home, tmp_path / "work")
        assert command(home, "jobs", "--wait").returncode == 0

    assert back_up(there, target)["blobs"] == 3
    assert_sound(target)


def test_what_no_writer_left_keeps_no_backup_up(home: Home, target: Home) -> None:
    with closing(HomeLock(home)):
        Trainer(home, 100, how="kill").wait()
    os.mkfifo(home.inbox / "pipe")
    (home.inbox / "folder").mkdir()
    (home.spool / "file").touch()
    (home.blobs / "ab").mkdir()
    os.mkfifo(home.blobs / "ab" / ("ab" * 32))

    done = command(home, "backup", str(target.root))

    assert done.returncode == 1
    assert f"damaged: blobs/ab/{'ab' * 32}: not copied" in done.stderr
    assert rows_up_to(target) == 100


def test_a_spool_that_does_not_say_whose_it_is_is_copied(
    home: Home, target: Home
) -> None:
    with closing(HomeLock(home)):
        Trainer(home, 100, how="kill").wait()
    (spool,) = home.spool.iterdir()
    owner = (spool / "owner").read_bytes()
    (spool / "owner").unlink()

    back_up(home, target)

    (target.spool / spool.name / "owner").write_bytes(owner)
    assert rows_up_to(target) == 100


def test_a_chunk_that_says_it_is_endless_is_copied_as_far_as_it_is(
    home: Home, target: Home
) -> None:
    with closing(HomeLock(home)):
        Trainer(home, 100, how="kill").wait()
    (chunk,) = home.spool.glob("*/*.chunk")
    with chunk.open("r+b") as file:
        file.write((1 << 62).to_bytes(8, "little"))

    assert back_up(home, target)["spools"] == 1
