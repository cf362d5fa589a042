"""The archiver, with a real recorder and materializer around it."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.daemon.conftest import durable, refusing_blobs
from tests.effort import tries
from tests.system.harness import environment, run_state, wait_until, worker_pid

from flightlog_storage import archive as module
from flightlog_storage.assets import Asset
from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.copies import Staged, hash_file, stage_file
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.home import Home
from flightlog_storage.manifest import decode_manifest
from flightlogd import lane
from flightlogd.archiver import Archiver
from flightlogd.worker import Worker

pytestmark = pytest.mark.once

# Logs datasets that are to be archived, and an image.
LOGGER = """
import sys, flightlog
run = flightlog.init(entity="someone", project="project", id="run")
for path in sys.argv[1:]:
    run.log_dataset(path, path, save=True)
run.log_image("x", b"image")
run.finish()
"""


@pytest.fixture
def archiver(idle: Home) -> Iterator[Archiver]:
    """An archiver in this process; the daemon's own has stopped."""
    archiver = Archiver(idle, DiskRoom(idle, 0))
    yield archiver
    archiver.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in range(200):
        path = folder / f"{number % 7}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(100 * number))
    return folder


def log(home: Home, *paths: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", LOGGER, *map(str, paths)],
        env=environment(home),
        check=True,
        timeout=60,
    )


def assets(home: Home) -> list[Asset]:
    state = run_state(home)
    return [] if state is None else list(state.assets.values())


def lost_count(home: Home) -> int:
    state = run_state(home)
    assert state is not None
    return state.lost_count


def is_done(home: Home, count: int = 1) -> bool:
    found = assets(home)
    return len(found) == count and all(asset.job is None for asset in found)


def work(archiver: Archiver, home: Home, until: Callable[[], bool]) -> None:
    """Have the archiver look again and again, as its process does."""

    def worked() -> bool:
        archiver.durable = durable(home)
        archiver.work()
        return until()

    wait_until(worked)


def assert_is_whole(home: Home, asset: Asset, data: Path) -> None:
    store = BlobStore(home.blobs)
    assert asset.manifest is not None
    with store.open_verified(asset.manifest) as file:
        entries = decode_manifest(file.read())
    assert len(entries) == asset.file_count == 200
    for entry in entries:
        assert entry.size == (data / entry.path).stat().st_size
        assert check_blob(store, entry.blob or "", entry.size, full=True) is None


@pytest.mark.parametrize("seed", range(tries(3)))
def test_an_archive_killed_at_any_moment_is_whole_in_the_end(
    home: Home, daemon: "subprocess.Popen[bytes]", data: Path, seed: int
) -> None:
    chance = random.Random(seed)
    log(home, data, data)

    for _ in range(4):
        least = chance.randrange(200)
        wait_until(partial(has_blobs, home, least))
        with suppress(ProcessLookupError):  # Dead already, and not yet restarted.
            os.kill(worker_pid(home), signal.SIGKILL)

    wait_until(lambda: is_done(home, 2))
    for asset in assets(home):
        assert_is_whole(home, asset, data)
    assert lost_count(home) == 0
    # 200 files, one of them empty, and the image and the manifest, each of them once.
    assert blob_count(home) == 202


def blob_count(home: Home) -> int:
    return sum(path.is_file() for path in home.blobs.rglob("*"))


def has_blobs(home: Home, count: int) -> bool:
    return blob_count(home) >= count


def test_an_archive_keeps_no_image_waiting(
    home: Home, archiver: Archiver, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_at_it, go_on = threading.Event(), threading.Event()

    def slow(*args: Any, **rest: Any) -> Staged:
        is_at_it.set()
        assert go_on.wait(60)
        return stage_file(*args, **rest)

    monkeypatch.setattr(module, "stage_file", slow)
    log(home, data)
    thread = threading.Thread(target=work, args=(archiver, home, lambda: is_done(home)))
    thread.start()
    try:
        assert is_at_it.wait(60)
        worker = Worker(home)
        worker.durable = durable(home)
        wait_until(lambda: worker.work() is not None and has_image(home))
        assert assets(home)[0].job == "archive", "it is at that yet"
        worker.close()
    finally:
        go_on.set()
        thread.join()

    assert_is_whole(home, assets(home)[0], data)


def has_image(home: Home) -> bool:
    state = run_state(home)
    return state is not None and len(state.files) == 1


def test_an_archive_is_left_when_the_process_is_to_end(
    home: Home, archiver: Archiver, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def staged_and_stopped(*args: Any, **rest: Any) -> Staged:
        archiver.stop()
        return stage_file(*args, **rest)

    log(home, data)
    wait_until(lambda: len(assets(home)) == 1)
    archiver.durable = durable(home)
    with monkeypatch.context() as patch:
        patch.setattr(module, "stage_file", staged_and_stopped)
        wait_until(lambda: not archiver.work() and has_stopped(archiver))

    assert assets(home)[0].job == "archive"
    assert not any(path.is_file() for path in home.staging.rglob("*"))
    other = Archiver(home, DiskRoom(home, 0))
    work(other, home, lambda: is_done(home))
    other.close()
    assert_is_whole(home, assets(home)[0], data)


def has_stopped(archiver: Archiver) -> bool:
    return archiver._stopping.is_set()


def refusing(error: OSError, match: str = "") -> Callable[..., Staged]:
    def refuse(source: Path, *args: Any, **rest: Any) -> Staged:
        if match in str(source):
            raise error
        return stage_file(source, *args, **rest)

    return refuse


@pytest.mark.fault(11)
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Quota exceeded"),
    ],
)
def test_a_full_disk_is_tried_again(
    home: Home,
    archiver: Archiver,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
) -> None:
    monkeypatch.setattr(lane, "RETRY_S", 0.0)
    log(home, data)
    wait_until(lambda: len(assets(home)) == 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "stage_file", refusing(error))
        work(archiver, home, lambda: archiver._retry_at > 0)
    assert assets(home)[0].job == "archive"

    work(archiver, home, lambda: is_done(home))

    assert_is_whole(home, assets(home)[0], data)


def test_a_home_that_refuses_is_tried_again(
    home: Home, archiver: Archiver, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "RETRY_S", 0.0)
    log(home, data)
    wait_until(lambda: len(assets(home)) == 1)
    with refusing_blobs(home):
        work(archiver, home, lambda: bool(archiver._refused))
    assert assets(home)[0].job == "archive"

    work(archiver, home, lambda: is_done(home))

    assert_is_whole(home, assets(home)[0], data)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/data/0/7.bin"),
        FileNotFoundError(errno.ENOENT, "No such file", "/data/0/7.bin"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read_fails_the_archive_and_is_told(
    home: Home,
    archiver: Archiver,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
) -> None:
    log(home, data, data / "0")
    wait_until(lambda: len(assets(home)) == 2)
    monkeypatch.setattr(module, "stage_file", refusing(error, "data/1/8.bin"))

    work(archiver, home, lambda: is_done(home, 2))

    failed, other = assets(home)
    assert not failed.is_saved
    assert (error.strerror or "") in (failed.error or "")
    assert other.is_saved, "others are not kept waiting"
    assert lost_count(home) == 1


def test_a_folder_that_cannot_be_listed_fails_the_archive(
    home: Home, archiver: Archiver, data: Path
) -> None:
    folder = os.open(data / "1", os.O_RDONLY)
    for _ in range(17):  # Deeper than a path can tell.
        os.mkdir("x" * 250, dir_fd=folder)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    log(home, data)

    work(archiver, home, lambda: is_done(home, 1))

    (failed,) = assets(home)
    assert (failed.is_saved, lost_count(home)) == (False, 1)
    assert "too long" in (failed.error or "")


def test_a_folder_that_is_gone_fails_the_archive(
    home: Home, archiver: Archiver, data: Path
) -> None:
    log(home, data)
    data.rename(data.parent / "away")

    work(archiver, home, lambda: is_done(home))

    assert "No such file" in (assets(home)[0].error or "")
    assert lost_count(home) == 1


def test_what_is_gone_from_a_folder_in_the_home_fails_and_keeps_none_waiting(
    home: Home, archiver: Archiver, data: Path
) -> None:
    inside = home.root / "runs" / "made-by-a-run"
    inside.mkdir(parents=True)
    log(home, inside, data)
    inside.rmdir()

    work(archiver, home, lambda: is_done(home, 2))

    gone, other = assets(home)
    assert "No such file" in (gone.error or "")
    assert other.is_saved


def test_a_reason_that_names_what_is_no_text_can_be_told(
    home: Home, archiver: Archiver, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(home, data)
    wait_until(lambda: len(assets(home)) == 1)

    def refuse(*_: object, **rest: object) -> Staged:
        raise SourceUnusable(Path(os.fsdecode(b"/d/\xff")), "changed each time")

    monkeypatch.setattr(module, "stage_file", refuse)

    work(archiver, home, lambda: is_done(home))

    assert assets(home)[0].error == "/d/\\udcff: changed each time"


def test_what_is_archived_and_not_said_is_said_without_doing_it_again(
    home: Home, archiver: Archiver, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "RETRY_S", 0.0)
    log(home, data)
    wait_until(lambda: len(assets(home)) == 1)

    def refuse(*_: object) -> None:
        raise ConnectionRefusedError("the recorder is full")

    with monkeypatch.context() as patch:
        patch.setattr(archiver._reporter, "tell", refuse)
        work(archiver, home, lambda: bool(archiver._untold))
    monkeypatch.setattr(module, "stage_file", refusing(OSError("read again")))

    work(archiver, home, lambda: is_done(home))

    assert_is_whole(home, assets(home)[0], data)


def test_what_is_deleted_before_it_is_named_is_archived_again(
    home: Home, archiver: Archiver, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "RETRY_S", 0.0)
    log(home, data, data / "3" / "3.bin")
    wait_until(lambda: len(assets(home)) == 2)
    outcome, left = archiver._outcome, [blob_of(home, data / "3" / "3.bin")] * 2

    def outcome_and_gone(*given: Any) -> Any:
        found = outcome(*given)
        if left:
            left.pop().unlink()
        return found

    monkeypatch.setattr(archiver, "_outcome", outcome_and_gone)

    work(archiver, home, lambda: is_done(home, 2))

    assert left == []
    assert_is_whole(home, assets(home)[0], data)


def blob_of(home: Home, path: Path) -> Path:
    return BlobStore(home.blobs).path(hash_file(path).sha256)
