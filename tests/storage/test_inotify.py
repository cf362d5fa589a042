import threading
from pathlib import Path

import pytest

from flightlog_storage.inotify import FolderEvent, FolderWatch


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
