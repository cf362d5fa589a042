"""The watcher, with a real recorder and materializer around it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.conftest import durable
from tests.system.harness import (
    KEY,
    environment,
    run_state,
    wait_until,
)

from flightlog_storage.archive import Archive
from flightlog_storage.disk import DiskRoom
from flightlog_storage.event import Looking, WriterId
from flightlog_storage.home import Home
from flightlog_storage.outputs import Scanner
from flightlog_storage.runstate import RunState
from flightlog_storage.watches import Watch
from flightlogd import watching
from flightlogd.watcher import Watcher
from flightlogd.watching import Watching

# Has folders watched, one a run, and ends, or waits until it is to stop that.
LOGGER = """
import os, sys, flightlog
for path in sys.argv[2:]:
    run = flightlog.init(
        entity="someone", project="project", id=os.path.basename(path),
        workspace_root=os.path.dirname(path), reinit="create_new",
    )
    run.watch_outputs(output_dirs=path, interval_sec=0.05, min_age_sec=0)
    run.flush(60)
print("ready", flush=True)
if sys.argv[1] == "wait":
    sys.stdin.read()
    run.stop_outputs_watch()
    run.flush(60)
os._exit(0)
"""


@pytest.fixture
def watcher(idle: Home) -> Iterator[Watcher]:
    """A watcher in this process; the daemon's own has stopped."""
    watcher = Watcher(idle, DiskRoom(idle, 0))
    yield watcher
    watcher.stop()
    watcher.close()


@pytest.fixture
def trainers() -> "Iterator[list[subprocess.Popen[bytes]]]":
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.communicate()


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def watch(
    trainers: "list[subprocess.Popen[bytes]]", home: Home, how: str, *folders: Path
) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", LOGGER, how, *map(str, folders)],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    trainers.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def state_of(home: Home, run: str) -> RunState:
    state = run_state(home, run)
    assert state is not None
    return state


def kept(home: Home, run: str) -> list[str]:
    return sorted(asset.name for asset in state_of(home, run).assets.values())


def work(watcher: Watcher, home: Home, until: Callable[[], Any]) -> None:
    """Have the watcher look at the log again and again, as its process does."""

    def worked() -> bool:
        watcher.durable = durable(home)
        watcher.work()
        return bool(until())

    wait_until(worked)


def test_a_folder_that_hangs_keeps_no_other_run_waiting(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hung, well = make(tmp_path / "hung", "a.pt"), make(tmp_path / "well", "b.pt")
    go_on, scan = threading.Event(), Scanner.scan

    def slow(self: Scanner, *args: Any, **rest: Any) -> Any:
        if self._looking.dirs == [str(hung)]:
            assert go_on.wait(60)
        return scan(self, *args, **rest)

    monkeypatch.setattr(Scanner, "scan", slow)
    watch(trainers, home, "wait", hung, well)
    try:
        work(watcher, home, lambda: kept(home, "well") == ["b.pt"])
        assert kept(home, "hung") == []
    finally:
        go_on.set()

    work(watcher, home, lambda: kept(home, "hung") == ["a.pt"])


def test_a_look_that_fails_does_not_end_the_watch(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watching, "RETRY_S", 0.01)
    folder = make(tmp_path / "run", "a.pt")
    failed: list[int] = []
    scan = Scanner.scan

    def broken(self: Scanner, *args: Any, **rest: Any) -> Any:
        if not failed:
            failed.append(1)
            raise RuntimeError("a bug")
        return scan(self, *args, **rest)

    monkeypatch.setattr(Scanner, "scan", broken)
    watch(trainers, home, "wait", folder)

    work(watcher, home, lambda: kept(home, KEY[2]) == ["a.pt"])
    assert failed
    assert "cannot be looked for" in caplog.text
    assert "a bug" in caplog.text


def test_a_recorder_that_refuses_is_asked_again(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "RETRY_S", 0.01)
    folder = make(tmp_path / "run", "a.pt")
    refused: list[object] = []
    tell = watcher._reporter.tell

    def refuse(*args: Any) -> None:
        if len(refused) < 2:
            refused.append(args)
            raise ConnectionRefusedError("the recorder is full")
        tell(*args)

    monkeypatch.setattr(watcher._reporter, "tell", refuse)
    watch(trainers, home, "end", folder)

    work(watcher, home, lambda: not state_of(home, KEY[2]).watches)
    assert len(refused) == 2
    assert kept(home, KEY[2]) == ["a.pt"]
    assert state_of(home, KEY[2]).lost_count == 0


def test_what_cannot_be_archived_after_the_end_is_lost_and_counted(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watching, "RETRY_S", 0.01)
    folder = make(tmp_path / "run", "a.pt", "b.pt")
    keep = Archive.keep_file

    def unreadable(self: Any, source: str, **rest: Any) -> Any:
        if source.endswith("a.pt"):
            raise PermissionError(13, "Permission denied", source)
        return keep(self, source, **rest)

    monkeypatch.setattr(Archive, "keep_file", unreadable)
    watch(trainers, home, "end", folder)

    work(watcher, home, lambda: not state_of(home, KEY[2]).watches)
    assert kept(home, KEY[2]) == ["b.pt"]
    assert state_of(home, KEY[2]).lost_count == 1
    assert f"output run/a.pt of {'/'.join(KEY)} is lost" in caplog.text


def test_only_so_many_watches_are_told_of_changes(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flightlogd.watcher.NOTIFIED_MAX", 1)
    one, two = make(tmp_path / "one", "a.pt"), make(tmp_path / "two", "b.pt")
    watch(trainers, home, "wait", one, two)

    work(watcher, home, lambda: kept(home, "one") and kept(home, "two"))
    watchings = watcher._watchings.values()
    assert sorted(each._folders._is_able for each in watchings) == [False, True]


def test_a_watch_of_another_machine_is_not_served(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watcher, "_host", "elsewhere")
    folder = make(tmp_path / "run", "a.pt")
    watch(trainers, home, "end", folder)

    work(watcher, home, lambda: "not here" in caplog.text)
    assert watcher._watchings == {}
    assert kept(home, KEY[2]) == []


def test_a_watch_that_is_stopped_looks_no_more(
    home: Home,
    watcher: Watcher,
    trainers: "list[subprocess.Popen[bytes]]",
    tmp_path: Path,
) -> None:
    trainer = watch(trainers, home, "wait", make(tmp_path / "run", "a.pt"))
    work(watcher, home, lambda: kept(home, KEY[2]) == ["a.pt"])
    (served,) = watcher._watchings.values()

    trainer.communicate(timeout=60)
    work(watcher, home, lambda: not watcher._watchings)

    served._thread.join(60)
    assert not served._thread.is_alive()


def test_a_watch_that_was_stopped_leaves_its_look(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = make(tmp_path / "run") / "a.pt"
    big.write_bytes(b"x" * (8 << 20))
    told: list[object] = []
    started, tick = threading.Event(), Watching._tick

    def stopping(self: Watching) -> None:
        started.set()
        self.stop()
        tick(self)

    monkeypatch.setattr(Watching, "_tick", stopping)
    served = Watching(
        home,
        KEY,
        watch_of(big.parent),
        lambda *args: told.append(args),
        DiskRoom(home, 0),
    )
    served.start()
    assert started.wait(60)
    served._thread.join(60)

    assert not served._thread.is_alive()
    assert told == []


def watch_of(folder: Path) -> Watch:
    looking = Looking(dirs=[str(folder)], root="/", stable_required=0, min_age_s=0.0)
    return Watch("t", WriterId(bytes(16)), 3600.0, looking)


@pytest.mark.parametrize(
    ("due", "now", "following"),
    [(0.0, 3.0, 10.0), (0.0, 13.0, 20.0), (10.0, 10.0, 20.0), (0.0, 35.0, 40.0)],
)
def test_looks_stay_in_step_however_long_they_take(
    due: float, now: float, following: float
) -> None:
    assert watching._next(due, 10.0, now) == following
