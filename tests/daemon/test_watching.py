"""A watch at work: which looks are left out, and that none is that matters."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.harness import KEY, wait_until

from flightlog_storage.disk import DiskRoom
from flightlog_storage.event import (
    Looking,
    OutputArchived,
    OutputsWatchStopped,
    WriterId,
)
from flightlog_storage.folder_news import FolderNews
from flightlog_storage.home import Home
from flightlog_storage.outputs import Scan, Scanner
from flightlog_storage.watches import Watch
from flightlogd import watching
from flightlogd.watching import Watching

INTERVAL_S = 0.02


class Watched:
    """A folder that is watched; knows how often it was looked at, and how often not."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.elsewhere, self.out = folder / "elsewhere", folder / "out"
        self.elsewhere.mkdir()
        self.out.mkdir()
        self.file = self.out / "a.pt"
        self.file.write_bytes(b"one")
        self.other = self.elsewhere / "same.pt"  # Another name of it.
        self.other.hardlink_to(self.file)
        self.looks = self.left_out = 0
        self.told: list[Any] = []
        self._home = Home(folder / "home")
        self._home.create()
        self._watchings: list[Watching] = []
        monkeypatch.setattr(Scanner, "scan", self._counted(Scanner.scan))
        monkeypatch.setattr(FolderNews, "is_quiet", self._asked(FolderNews.is_quiet))

    def start(self, *, is_notified: bool = True, looks: int = 1) -> Watching:
        looking = Looking(
            dirs=[str(self.out)],
            root=str(self.out),
            stable_required=looks,
            min_age_s=0.0,
        )
        watch = Watch("t", WriterId(bytes(16)), INTERVAL_S, looking)
        room = DiskRoom(self._home, 0)
        served = Watching(
            self._home, KEY, watch, self._tell, room, is_notified=is_notified
        )
        self._watchings.append(served)
        served.start()
        return served

    def stop(self) -> None:
        for each in self._watchings:
            each.stop()
            each._thread.join(60)

    def put(self, name: str) -> None:
        """Bring a file into the folder, whole."""
        made = self.elsewhere / "made"
        made.write_bytes(b"new")
        made.rename(self.out / name)

    def write_unseen(self) -> None:
        """Write to the file by its other name, all at once."""
        with self.other.open("r+b") as file:
            file.write(b"two")

    def wait_archived(self, *keys: str) -> None:
        """Wait until these are what was archived; then forget it."""
        wait_until(lambda: len(self.told) >= len(keys))
        assert sorted(event.key for event in self.told) == sorted(keys)
        self.told.clear()

    def wait_left_out(self) -> None:
        before = self.left_out
        wait_until(lambda: self.left_out >= before + 5)

    def _tell(self, run: object, event: object) -> None:
        self.told.append(event)

    def _counted(self, scan: Callable[..., Scan]) -> Callable[..., Scan]:
        def counted(*args: Any, **rest: Any) -> Scan:
            self.looks += 1
            return scan(*args, **rest)

        return counted

    def _asked(self, is_quiet: Callable[..., bool]) -> Callable[..., bool]:
        def asked(news: FolderNews) -> bool:
            found = is_quiet(news)
            self.left_out += found
            return found

        return asked


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """What is watched, with no look that nothing asks for."""
    monkeypatch.setattr(watching, "LEFT_OUT_INTERVALS_MAX", 1_000_000)
    watched = Watched(tmp_path, monkeypatch)
    yield watched
    watched.stop()


def test_a_quiet_folder_is_not_looked_into(watched: Watched) -> None:
    watched.start()
    watched.wait_archived("a.pt")
    watched.wait_left_out()
    looks = watched.looks

    watched.wait_left_out()

    assert watched.looks == looks


def test_what_changes_after_a_quiet_time_is_archived(watched: Watched) -> None:
    watched.start()
    watched.wait_archived("a.pt")
    watched.wait_left_out()

    watched.put("a.pt")
    watched.wait_archived("a.pt")
    watched.wait_left_out()
    (watched.out / "new/deep").mkdir(parents=True)
    watched.wait_left_out()
    watched.put("new/deep/b.pt")
    watched.wait_archived("new/deep/b.pt")


def test_a_folder_that_is_moved_in_is_archived_and_watched(watched: Watched) -> None:
    full = watched.elsewhere / "full"
    full.mkdir()
    (full / "b.pt").write_bytes(b"b")
    watched.start()
    watched.wait_archived("a.pt")
    watched.wait_left_out()

    full.rename(watched.out / "full")
    watched.wait_archived("full/b.pt")
    watched.wait_left_out()
    watched.put("full/c.pt")
    watched.wait_archived("full/c.pt")


def test_a_folder_that_is_made_later_or_again_is_looked_into(watched: Watched) -> None:
    old = watched.out.rename(watched.elsewhere / "old")
    watched.start()
    watched.wait_left_out()
    old.rename(watched.out)
    watched.wait_archived("a.pt")
    watched.wait_left_out()

    watched.out.rename(old)
    watched.wait_left_out()
    watched.out.mkdir()
    watched.put("b.pt")
    watched.wait_archived("b.pt")


def test_what_is_not_at_rest_is_looked_at_again_without_news(watched: Watched) -> None:
    watched.start(looks=3)

    watched.wait_archived("a.pt")
    assert watched.looks == 3


def test_what_nobody_tells_is_found_after_some_intervals(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LEFT_OUT_INTERVALS_MAX", 10)
    watched.start()
    watched.wait_archived("a.pt")
    watched.wait_left_out()

    watched.write_unseen()

    watched.wait_archived("a.pt")


def test_the_last_look_is_never_left_out(watched: Watched) -> None:
    served = watched.start()
    watched.wait_archived("a.pt")
    watched.wait_left_out()

    watched.write_unseen()
    served.end()

    wait_until(lambda: len(watched.told) == 2)
    archived, stopped = watched.told
    assert isinstance(archived, OutputArchived)
    assert isinstance(stopped, OutputsWatchStopped)


def test_without_notification_no_look_is_left_out(watched: Watched) -> None:
    watched.start(is_notified=False)
    watched.wait_archived("a.pt")
    wait_until(lambda: watched.looks >= 5)

    watched.write_unseen()

    watched.wait_archived("a.pt")
    assert watched.left_out == 0
