"""News of folders, with the kernel's real inotify."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.daemon.test_materializer import FEIGNED, can_feign

from flightlog_storage import folder_news
from flightlog_storage.folder_news import FolderNews

# Looks twice into each folder; says whether all is quiet.
LOOKER = """
import sys
from flightlog_storage.folder_news import FolderNews
news = FolderNews(sys.argv[1:2], print)
for _ in range(2):
    news.begin()
    for folder in sys.argv[1:]:
        list(news.scandir(folder))
print(news.is_quiet())
"""


class Looked:
    """A folder that was looked into, with what changes it."""

    def __init__(self, folder: Path) -> None:
        self.elsewhere = folder / "elsewhere"
        self.out = folder / "out"
        self.deep = self.out / "a/b"
        self.file = self.deep / "model.pt"
        for each in (self.elsewhere / "full", self.deep):
            each.mkdir(parents=True)
        (self.elsewhere / "full/one.pt").write_bytes(b"one")
        self.file.write_bytes(b"model")
        self.link = folder / "link"
        self.link.symlink_to(self.out)
        self.told: list[str] = []
        self.dirs = [str(self.link), str(folder / "none")]
        self.news = FolderNews(self.dirs, self.told.append)
        self.look()

    def look(self) -> None:
        self.news.begin()
        for folder, _, _ in os.walk(self.out):
            with self.news.scandir(folder) as entries:
                list(entries)

    def overwrite(self) -> None:
        with self.file.open("r+b") as file:
            file.write(b"other")

    def make_again(self) -> None:
        shutil.copytree(self.out, self.out.with_name("copy"))
        self.out.rename(self.out.with_name("old"))
        self.out.with_name("copy").rename(self.out)

    def link_elsewhere(self) -> None:
        self.link.unlink()
        self.link.symlink_to(self.elsewhere)


@pytest.fixture
def looked(tmp_path: Path) -> Iterator[Looked]:
    looked = Looked(tmp_path)
    yield looked
    looked.news.close()


def test_what_nobody_changes_is_quiet(looked: Looked) -> None:
    looked.file.read_bytes()
    os.listdir(looked.deep)

    assert looked.news.is_quiet()
    assert looked.told == []


@pytest.mark.parametrize(
    "change",
    [
        Looked.overwrite,
        Looked.make_again,
        Looked.link_elsewhere,
        lambda looked: os.truncate(looked.file, 1),
        lambda looked: os.utime(looked.file, (1, 1)),
        lambda looked: looked.file.unlink(),
        lambda looked: looked.file.rename(looked.elsewhere / "gone.pt"),
        lambda looked: looked.file.rename(looked.deep / "renamed.pt"),
        lambda looked: (looked.deep / "new.pt").touch(),
        lambda looked: (looked.deep / "last.pt").symlink_to("model.pt"),
        lambda looked: (looked.out / "new/deep").mkdir(parents=True),
        lambda looked: (looked.elsewhere / "full").rename(looked.deep / "full"),
        lambda looked: looked.deep.rename(looked.elsewhere / "b"),
        lambda looked: shutil.rmtree(looked.out),
        lambda looked: looked.out.with_name("none").mkdir(),
    ],
)
def test_a_change_is_told_until_the_next_look(
    looked: Looked, change: Callable[[Looked], object]
) -> None:
    change(looked)

    assert not looked.news.is_quiet()

    looked.look()
    assert looked.news.is_quiet()


def test_what_changes_during_a_look_is_told(looked: Looked) -> None:
    looked.news.begin()
    for folder in (looked.out, looked.out / "a", looked.deep):
        with looked.news.scandir(str(folder)) as entries:
            list(entries)
        if folder == looked.out:
            (looked.out / "new.pt").touch()

    assert not looked.news.is_quiet()


def test_folders_that_came_later_have_news_from_the_next_look_on(
    looked: Looked,
) -> None:
    (looked.elsewhere / "full").rename(looked.deep / "full")
    looked.look()
    assert looked.news.is_quiet()

    (looked.deep / "full/one.pt").write_bytes(b"two")

    assert not looked.news.is_quiet()


def test_what_was_moved_away_is_no_news_any_more(looked: Looked) -> None:
    looked.deep.rename(looked.elsewhere / "b")
    looked.look()

    (looked.elsewhere / "b/model.pt").write_bytes(b"other")

    assert looked.news.is_quiet()


def test_a_write_through_another_name_is_not_told(looked: Looked) -> None:
    other = looked.elsewhere / "same.pt"
    other.hardlink_to(looked.file)
    looked.look()

    other.write_bytes(b"other")

    assert looked.news.is_quiet()  # That is why nothing rests on it.


def test_a_folder_that_may_not_be_watched_is_in_doubt(looked: Looked) -> None:
    looked.news.begin()
    with looked.news.scandir("/proc/self"):  # Of which the kernel tells nothing.
        assert not looked.news.is_quiet()

    looked.look()
    assert looked.news.is_quiet()
    assert looked.told == []


@pytest.mark.fault(44)
def test_more_folders_than_may_be_are_in_doubt(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_news, "FOLDERS_MAX", 2)

    looked.look()
    looked.look()

    assert not looked.news.is_quiet()
    assert looked.told == ["looked for by the clock alone: more than 2 folders"]


@pytest.mark.fault(44)
@pytest.mark.skipif(not can_feign(), reason="needs user namespaces")
@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("1 > /proc/sys/user/max_inotify_watches", "No space left on device"),
        ("0 > /proc/sys/user/max_inotify_instances", "Too many open files"),
    ],
)
def test_where_the_system_has_no_more_all_is_in_doubt(
    looked: Looked, limit: str, why: str
) -> None:
    folders = [str(looked.out), str(looked.deep)]
    shell = f'echo {limit} && exec "$@"'
    command = [*FEIGNED, shell, "sh", sys.executable, "-c", LOOKER, *folders]

    done = subprocess.run(command, check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() == [
        f"looked for by the clock alone: {why}",
        "False",
    ]
