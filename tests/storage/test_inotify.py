import threading
from pathlib import Path

import pytest

from flightlog_storage.inotify import FolderEvent, FolderWatch, is_told_of_all


def test_a_change_wakes_and_is_drained(tmp_path: Path) -> None:
    with FolderWatch([tmp_path], FolderEvent.CREATED | FolderEvent.DELETED) as watch:
        assert not watch.wait(0)
        (tmp_path / "a").touch()
        assert watch.wait(10)
        assert not watch.wait(0)
        (tmp_path / "a").unlink()
        assert watch.wait(10)


def test_only_what_was_asked_for_wakes(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with FolderWatch([tmp_path], FolderEvent.MODIFIED) as watch:
        (tmp_path / "b").touch()
        assert not watch.wait(0)
        (tmp_path / "a").write_text("more")
        assert watch.wait(10)


def test_a_folder_that_tells_once_tells_again_when_it_is_watched_anew(
    tmp_path: Path,
) -> None:
    once = FolderEvent.CREATED | FolderEvent.ONCE
    with FolderWatch([tmp_path], once) as watch:
        (tmp_path / "a").touch()
        assert watch.wait(10)
        (tmp_path / "b").touch()
        assert not watch.wait(0)
        watch.add(tmp_path)
        (tmp_path / "c").touch()
        assert watch.wait(10)


def test_what_is_not_there_cannot_be_added(tmp_path: Path) -> None:
    with (
        FolderWatch([], FolderEvent.CREATED) as watch,
        pytest.raises(FileNotFoundError),
    ):
        watch.add(tmp_path / "none")


def test_the_kernel_is_told_of_all_on_file_systems_of_this_machine(
    tmp_path: Path,
) -> None:
    assert is_told_of_all(str(tmp_path))
    assert not is_told_of_all("/proc")
    with pytest.raises(FileNotFoundError):
        is_told_of_all(str(tmp_path / "none"))


def test_a_wait_ends_when_another_thread_changes_something(tmp_path: Path) -> None:
    with FolderWatch([tmp_path], FolderEvent.CREATED) as watch:
        threading.Timer(0.05, (tmp_path / "a").touch).start()

        assert watch.wait(10)


def test_a_missing_folder_is_left_out(tmp_path: Path) -> None:
    with FolderWatch([tmp_path / "none", tmp_path], FolderEvent.CREATED) as watch:
        (tmp_path / "a").touch()

        assert watch.wait(10)


def test_a_closed_watch_can_be_closed_again(tmp_path: Path) -> None:
    watch = FolderWatch([tmp_path], FolderEvent.CREATED)
    watch.close()

    watch.close()

    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.drain()
