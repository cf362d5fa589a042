"""`flightlog doctor`: each thing that can be wrong is made so, found, and cured."""

import json
import os
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import msgpack
import psutil
import pytest
from tests.daemon.test_materializer import FEIGNED, WITHOUT_INOTIFY, can_feign
from tests.sdk.conftest import Lab
from tests.storage.recording import Recorded, flip, rows_of
from tests.system.harness import (
    Trainer,
    daemon,
    flightlogd,
    folded_offset,
    kill_daemon,
    make_home,
    run_state,
    start_daemon,
    status,
    stop_daemon,
    stopped,
    wait_until,
)

from flightlog.cli import main
from flightlog_storage import compression
from flightlog_storage.backup import back_up
from flightlog_storage.codec import RunKey
from flightlog_storage.compression import compress, compressible
from flightlog_storage.event import AssetFailed, AssetLogged, FileRequested, Gap
from flightlog_storage.eventlog import EventLog
from flightlog_storage.files import RealFiles
from flightlog_storage.home import Home, HomeLock
from flightlog_storage.inbox import inbox_path, make_token, put_in_inbox
from flightlog_storage.process import this_process
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_writer import SpoolWriter

pytestmark = pytest.mark.once

COMMAND = (sys.executable, "-c", "from flightlog.cli import main; main()", "doctor")
LOGS_ALL = """
import os; os.umask(0)
import flightlog
run = flightlog.init(project="p", id="r")
run.log_image("x", b"image")
for i in range(10):
    run.log({"a": i})
path = os.path.join(run.dir, "kept.txt")
print("kept", file=open(path, "w"), flush=True)
run.save(path)
run.finish()
"""
OTHER_VERSION = """
import sys
import flightlogd.config
flightlogd.config.VERSION = "0.0.9"
from flightlogd.main import run
run(flightlogd.config.read_config(sys.argv[1]))
"""


def examine(home: Home, *flags: str, before: tuple[str, ...] = ()) -> Any:
    """Return what the doctor says; `before` is a command that it is run by."""
    arguments = ["--json", "--home", str(home.root), *flags]
    code, out = _outside(before, arguments) if before else _inside(arguments)
    data = json.loads(out)["data"]
    is_sound = "to do" not in {each["level"] for each in data["findings"]}
    assert (code, data["sound"]) == (not is_sound, is_sound)
    return data


def _inside(arguments: list[str]) -> tuple[object, str]:
    with redirect_stdout(StringIO()) as out, pytest.raises(SystemExit) as ended:
        main(["doctor", *arguments])
    return ended.value.code, out.getvalue()


def _outside(before: tuple[str, ...], arguments: list[str]) -> tuple[object, str]:
    done = subprocess.run(
        [*before, *COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def advice(home: Home, level: str = "to do", where: str = "") -> dict[str, Any]:
    """Return the one finding there is of a level, on all but this machine."""
    found = [
        each
        for each in examine(home)["findings"]
        if each["level"] == level and each["where"] not in ("machine", "home")
    ]
    assert len(found) == 1, found
    assert set(found[0]) == {"level", "where", "what", "why", "cure"}
    assert found[0]["where"].startswith(where)
    one: dict[str, Any] = found[0]
    return one


def of_home(home: Home) -> list[dict[str, Any]]:
    found = examine(home)["findings"]
    return [e for e in found if e["where"] == "home" and e["level"] == "to do"]


def is_well(home: Home) -> bool:
    to_do = [e for e in examine(home, "--full")["findings"] if e["level"] == "to do"]
    return [e for e in to_do if e["where"] != "machine"] == []


def cure(found: dict[str, Any]) -> None:
    """Do what the advice says; the first word is a command of ours or the system's."""
    command = shlex.split(found["cure"].partition(", ")[0].partition(";")[0])
    if command[0] == "flightlogd":
        command[:1] = [sys.executable, "-m", "flightlogd"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


# --- a home, and where it lies ---


def test_all_that_is_made_in_a_home_is_its_owners_alone(own_lab: Lab) -> None:
    own_lab.run_script(LOGS_ALL)
    own_lab.ended("r", project="p")

    assert is_well(Home(own_lab.home)), "with its daemon"
    own_lab.stop()
    assert is_well(Home(own_lab.home)), "without"


def test_people_are_told_what_is_wrong_why_and_what_to_do(recorded: Recorded) -> None:
    recorded.tell(recorded.start("r"), Gap(time=2.0, count=7, reason="full disk"))
    recorded.home.log.chmod(0o755)

    done = subprocess.run(
        [*COMMAND, "--home", str(recorded.home.root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    lines = done.stdout.splitlines()
    place = lines.index("to do: home: 1 files are open to other users: log")
    assert lines[place + 2] == f"  cure: chmod -R go-rwx {recorded.home.root}"
    assert any(line.startswith("note: log: events of runs that") for line in lines)
    assert "to do in" in done.stderr


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o601])
def test_what_others_may_use_is_found_and_closed(recorded: Recorded, mode: int) -> None:
    recorded.start("r")
    segment = next(recorded.home.log.iterdir())
    segment.chmod(mode)

    (found,) = of_home(recorded.home)

    assert f"log/{segment.name}" in found["what"]
    cure(found)
    assert segment.stat().st_mode & 0o777 == 0o600
    assert is_well(recorded.home)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_belongs_to_others_is_found(recorded: Recorded) -> None:
    recorded.start("r")
    segment = next(recorded.home.log.iterdir())
    os.chown(segment, 65534, 65534)

    (found,) = of_home(recorded.home)

    assert found["what"] == f"1 files belong to another user: log/{segment.name}"


@pytest.mark.parametrize(
    "name", ["daemon.lock", "log/*.log", "spool/*/*.chunk", "spool/*/owner", "state.db"]
)
def test_a_pipe_in_place_of_a_file_is_told_and_not_waited_for(
    recorded: Recorded, name: str
) -> None:
    home = recorded.home
    recorded.start("r")
    HomeLock(home).close()
    recorded.fold()
    owner = SpoolOwner(bytes(16), this_process(), RunKey("e", "p", "s", 0))
    spool = SpoolWriter(home.spool, owner, lambda: None)
    file = next(home.root.glob(name))
    file.unlink()
    os.mkfifo(file, 0o600)

    listed = subprocess.run(
        [*COMMAND[:-1], "ls", "--home", str(home.root)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    (found,) = of_home(home)

    spool.close()
    assert ("e/p/r" in listed.stdout) == (file.parent != home.log)
    assert found["what"].endswith(f"no files: {file.relative_to(home.root)}")
    cure(found)
    assert not file.exists()


def test_what_waits_and_has_no_room_is_found(recorded: Recorded) -> None:
    recorded.start("r")
    free = os.statvfs(recorded.home.root)
    with open(recorded.home.inbox / "large", "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(free.f_bavail * free.f_frsize + 1)  # It takes no room itself.

    (found,) = of_home(recorded.home)

    assert "are free on its disk" in found["what"]
    cure(found | {"cure": f"rm {recorded.home.inbox / 'large'}"})
    assert is_well(recorded.home)


def test_damage_is_told_as_verify_tells_it(recorded: Recorded) -> None:
    recorded.rows(recorded.start("r"), (1, 1.0), (2, 2.0))
    recorded.log.close()
    segment = next(recorded.home.log.iterdir())
    flip(segment, -300)

    found = advice(recorded.home)

    assert found["where"].startswith(f"log/{segment.name}, byte")
    assert "of e/p/r" in found["why"]
    assert "backup" in found["cure"]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_segment_of_a_backup_is_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compressed: bool
) -> None:
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    monkeypatch.setattr(compression, "SHARE_MAX", 9)
    recorded = Recorded(tmp_path, segment_size_max=300)
    writer = recorded.start("r")
    for n in range(5):
        recorded.rows(writer, (n, n / 2))
    recorded.log.close()
    back_up(recorded.home, copy := Home(tmp_path / "copy"))
    name = min(recorded.home.log.iterdir()).name
    if is_compressed:
        for sealed in compressible(recorded.home.log, RealFiles(), 1 << 62):
            compress(recorded.home.log, RealFiles(), sealed)
    segment = min(recorded.home.log.iterdir())
    assert segment.name == (f"{name}z" if is_compressed else name)
    flip(segment, 200)
    recorded.fold()  # Without what is damaged.

    findings = examine(recorded.home)["findings"]
    found = next(each for each in findings if each["where"].startswith("log/"))
    assert f"log/{segment.name}, byte" in found["where"]
    assert "delete it and copy it from" in found["cure"]
    assert found["cure"].endswith("is no shorter; then flightlog replay")
    segment.unlink()
    shutil.copy(copy.log / name, recorded.home.log / name)
    with redirect_stdout(StringIO()), pytest.raises(SystemExit):
        main(["replay", "--home", str(recorded.home.root)])

    assert is_well(recorded.home)
    assert rows_of(recorded.home, "r") == [(n, n / 2) for n in range(5)]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_blob_that_is_stored_again_is_a_cure(
    own_lab: Lab, tmp_path: Path, is_there: bool
) -> None:
    home, kept = Home(own_lab.home), tmp_path / "kept"
    kept.write_bytes(b"kept")
    saves = f"""
        import flightlog
        with flightlog.init() as run:
            run.save("{kept}", base_path="{tmp_path}")
    """
    own_lab.run_script(saves)
    (blob,) = home.blobs.glob("*/*")
    if is_there:
        blob.write_bytes(b"lost")
    else:
        blob.unlink()

    (found,) = (
        each
        for each in examine(home, "--full")["findings"]
        if each["where"] == f"blobs/{blob.parent.name}/{blob.name}"
    )
    assert found["cure"].endswith("or store the same file again")
    if is_there:
        cure(found)
    own_lab.run_script(saves)

    assert blob.read_bytes() == b"kept"
    wait_until(lambda: is_well(home))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a folder away")
def test_that_no_daemon_can_listen_is_found(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("FLIGHTLOG_SOCKET", str(tmp_path / "run/socket"))
    assert is_well(recorded.home)
    os.chown(tmp_path / "run", 12345, 12345)

    assert "belongs to uid 12345" in advice(recorded.home, where="socket")["what"]

    monkeypatch.setenv("FLIGHTLOG_SOCKET", f"/tmp/{'x' * 200}")
    assert "too long" in advice(recorded.home, where="socket")["what"]


# --- the daemon ---


def test_a_daemon_that_does_not_answer_is_found(home: Home) -> None:
    with daemon(home) as process, stopped(process.pid):
        found = advice(home, where="daemon")

        assert f"process {process.pid}" in found["what"]


def test_a_daemon_that_was_killed_is_no_fault(home: Home) -> None:
    kill_daemon(start_daemon(home))

    assert is_well(home)


def test_a_daemon_of_another_version_is_found_and_replaced(home: Home) -> None:
    process = subprocess.Popen([sys.executable, "-c", OTHER_VERSION, str(home.root)])
    try:
        wait_until(lambda: bool(status(home)))

        found = advice(home, where="daemon")

        assert "0.0.9" in found["what"]
        cure(found)
        assert process.wait(60) == 0
        with daemon(home):
            assert is_well(home)
    finally:
        stop_daemon(process)


def test_a_lock_that_does_not_say_who_is_found(home: Home) -> None:
    stop_daemon(start_daemon(home))
    home.lock.write_bytes(b"\0" * 100)

    found = advice(home, where="daemon.lock")

    cure(found | {"cure": found["cure"].partition("then ")[2]})
    try:
        assert is_well(home)
    finally:
        assert flightlogd(home, "stop").returncode == 0


def test_a_process_that_keeps_dying_is_found(home: Home) -> None:
    with daemon(home):
        os.kill(status(home)["materializer_pid"], signal.SIGKILL)
        wait_until(lambda: bool(status(home)["materializer_restarts"]))

        assert "its materializer ended 1 times" in advice(home, where="daemon")["what"]


def test_a_nearly_full_disk_is_found(home: Home) -> None:
    with daemon(home, environ={"FLIGHTLOG_LOW_WATER": "9000TiB"}):
        (found,) = of_home(home)

    assert "less than its low-water mark, 9895.6 TB" in found["what"]
    assert found["cure"].startswith("flightlog gc ")


def test_a_log_that_nobody_folds_is_found(recorded: Recorded) -> None:
    home = recorded.home
    recorded.start("r")
    recorded.fold()
    recorded.start("late", "x")  # Long ago, as this log's clock has it.
    recorded.log.close()
    locked = sqlite3.connect(home.state, isolation_level=None)
    with closing(locked), daemon(home) as process:
        locked.execute("BEGIN IMMEDIATE")
        offset = folded_offset(home)
        assert offset == 1, "it was folded before the lock was had"
        for path in home.root.glob("state.db*"):
            os.utime(path, (1, 1))

        found = [e for e in examine(home)["findings"] if e["where"] == "log"]

        assert "and nothing is" in found[0]["what"]
        assert process.poll() is None
        locked.rollback()
        wait_until(lambda: folded_offset(home) == 2)
        assert not [e for e in examine(home)["findings"] if e["where"] == "log"]


# --- what is left over ---


def test_spools_of_the_dead_are_found_and_taken(home: Home) -> None:
    with closing(HomeLock(home)):  # So that no daemon can be started.
        trainer = Trainer(home, 100, how="kill")
        assert trainer.wait() == -signal.SIGKILL

    found = advice(home, where="spool")

    assert "1 dead writers" in found["what"]
    cure(found)
    try:
        wait_until(lambda: (s := run_state(home)) is not None and not s.active)
        assert is_well(home)
    finally:
        assert flightlogd(home, "stop").returncode == 0


def test_the_spool_of_a_living_writer_is_no_fault(home: Home) -> None:
    with closing(HomeLock(home)):
        trainer = Trainer(home, 10, how="wait")
        try:
            trainer.wait_for(10)

            assert is_well(home)
        finally:
            trainer.kill()
            trainer.wait()


def test_a_job_that_waits_for_long_is_found(recorded: Recorded) -> None:
    token = make_token("0" * 32, 1)
    path = inbox_path(recorded.home.inbox, token)
    put_in_inbox(path, [b"bytes"])
    owed = FileRequested(time=2.0, name="x.bin", token=token, size=5)
    recorded.tell(recorded.start("r"), owed)
    assert is_well(recorded.home), "it is young"
    os.utime(path, (time.time() - 4000,) * 2)

    found = advice(recorded.home, where="jobs")

    assert "x.bin of e/p/r" in found["what"]
    assert found["cure"].startswith("flightlogd start")


def test_failed_archives_and_refused_events_are_notes(recorded: Recorded) -> None:
    writer = recorded.start("r")
    logged = AssetLogged(time=1.0, kind="dataset", name="d", token="t", job="archive")
    recorded.tell(writer, logged)
    recorded.tell(writer, AssetFailed(time=2.0, token="t", reason="it is gone"))
    recorded.say(writer, msgpack.packb({"event": "MetricDefined", "time": "soon"}))
    recorded.fold()

    notes = [
        each["what"]
        for each in examine(recorded.home)["findings"]
        if each["level"] == "note"
    ]

    assert "1 archives failed: d of e/p/r: it is gone" in notes
    assert any("1 events were refused: offset 3" in note for note in notes)
    assert is_well(recorded.home)


def test_events_of_a_newer_version_are_found(recorded: Recorded) -> None:
    blob = "ab" * 32
    event = {"event": "HologramLogged", "time": 1.0, "blob": blob}
    recorded.say(recorded.start("r"), msgpack.packb(event))
    recorded.fold()

    assert "newer version" in advice(recorded.home, where="log")["what"]


def test_what_was_set_aside_is_told(recorded: Recorded) -> None:
    home = recorded.home
    recorded.start("r")
    for name in ("quarantine/0.log.64.torn", "state.db.damaged-1"):
        (home.root / name).touch(mode=0o600)
    assert is_well(home), "nothing is lost by these"
    notes = {
        each["where"]
        for each in examine(home)["findings"]
        if each["level"] == "note" and each["where"] not in ("machine", "home")
    }
    assert notes == {"quarantine/0.log.64.torn", "state.db.damaged-1"}
    (home.quarantine / "spool-ab").mkdir(mode=0o700)

    found = advice(home, where="quarantine/spool-ab")

    cure(found)
    assert is_well(home)


# --- the machine ---


def on_machine(home: Home, before: tuple[str, ...] = ()) -> list[str]:
    found = examine(home, before=before)["findings"]
    return [each["what"] for each in found if each["where"] == "machine"]


def test_few_descriptors_are_found(home: Home) -> None:
    EventLog.open(home.log, now_ns=lambda: 1, quarantine=home.quarantine).close()
    before = ("sh", "-c", 'ulimit -n 512 && exec "$@"', "sh")

    assert "a process may open 512 files" in on_machine(home, before)


def test_few_descriptors_of_the_daemon_are_found(home: Home) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    with daemon(home, preexec=limit):
        assert "a process may open 256 files" in on_machine(home)


@pytest.mark.skipif(not can_feign(), reason="needs user namespaces")
def test_that_nothing_can_be_watched_is_found(home: Home) -> None:
    EventLog.open(home.log, now_ns=lambda: 1, quarantine=home.quarantine).close()
    before = (*FEIGNED, WITHOUT_INOTIFY + '"$@"', "sh")

    assert any("no folder can be watched" in each for each in on_machine(home, before))


def test_a_clock_that_was_further_is_a_note(home: Home) -> None:
    later = time.time_ns() + 10**13
    EventLog.open(home.log, now_ns=lambda: later, quarantine=home.quarantine).close()

    found = advice(home, level="note", where="the end of the log")

    assert "the clock was" in found["what"]


def times(home: Home) -> dict[Path, int]:
    """Return when each file was changed, but what SQLite needs to read."""
    return {
        path: path.stat().st_mtime_ns
        for path in home.root.rglob("*")
        if not path.name.startswith("state.db-")
    }


def test_the_doctor_leaves_no_process_and_changes_nothing(recorded: Recorded) -> None:
    recorded.start("r")
    recorded.fold()
    before = times(recorded.home)

    examine(recorded.home, "--full")

    assert times(recorded.home) == before
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(recorded.home.root) in (process.info["cmdline"] or ())
    ]
