"""Trees: what is found below a folder, and what is told to be left out."""

import os
import socket
from pathlib import Path

import pytest

from flightlog_storage.trees import (
    SKIPPED_MAX,
    Entries,
    Limits,
    Scandir,
    Survey,
    leaves,
    survey,
)


def nothing() -> None:
    pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "one").write_bytes(b"1")
    (root / "a" / "b" / "two").write_bytes(b"22")
    return root


def look(root: Path, limits: Limits = Limits(), never: str = "") -> Survey:  # noqa: B008
    return survey(str(root), never, limits, "dataset", nothing)


def paths(
    root: Path, scandir: Scandir = os.scandir
) -> tuple[list[str], dict[str, str]]:
    skipped: dict[str, str] = {}

    def skip(path: str, why: object) -> None:
        skipped[path] = str(why)

    found = leaves(str(root), "", skip, nothing, scandir)
    return sorted(leaf.path for leaf in found), skipped


def test_a_folder_is_surveyed_with_all_below_it(root: Path) -> None:
    os.utime(root / "one", (1, 5))
    os.utime(root / "a" / "b" / "two", (1, 9))
    os.utime(root, (1, 3))

    assert look(root).fingerprint == {
        "mtime": 3.0,
        "file_count": 2,
        "total_size_bytes": 3,
        "newest_mtime": 9.0,
    }


def test_a_file_is_surveyed(root: Path) -> None:
    os.utime(root / "one", (1, 5))

    found = look(root / "one")

    assert found.fingerprint == {"size_bytes": 1, "mtime": 5.0}
    assert found.file_count is None


def test_a_change_that_keeps_the_size_changes_the_fingerprint(root: Path) -> None:
    before = look(root).fingerprint
    (root / "one").write_bytes(b"9")
    os.utime(root / "one", (1, before["newest_mtime"] + 1))

    assert look(root).fingerprint != before


@pytest.mark.fault(41)
def test_links_that_lead_out_or_nowhere_are_told_and_not_followed(root: Path) -> None:
    (root.parent / "secret").write_bytes(b"secret")
    (root.parent / "root-too").write_bytes(b"secret")
    (root / "out").symlink_to("../secret")
    (root / "near").symlink_to("../root-too")
    (root / "up").symlink_to("..")
    (root / "folder").symlink_to("a")
    (root / "nowhere").symlink_to("gone")
    (root / "loop").symlink_to("loop")
    (root / "in").symlink_to("a/b/two")

    found, skipped = paths(root)

    assert found == ["a/b/two", "in", "one"]
    assert skipped == {
        "out": "is a link that leads out of the folder",
        "near": "is a link that leads out of the folder",
        "up": "is a link that leads out of the folder",
        "folder": "is a link to what is no regular file",
        "nowhere": "is a link that leads nowhere",
        "loop": skipped["loop"],
    }


def test_a_root_that_is_a_link_is_followed(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to("root")
    (root / "in").symlink_to("one")

    assert paths(link) == (["a/b/two", "in", "one"], {})


@pytest.mark.fault(41)
def test_what_is_no_file_is_told(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)

    found, skipped = paths(root)

    assert found == ["a/b/two", "one"]
    assert skipped == dict.fromkeys(("fifo", "socket"), "is no regular file")


def test_a_name_that_is_no_text_is_told(root: Path) -> None:
    with open(os.fsencode(root) + b"/\xff", "wb"):
        pass

    found = look(root)

    assert found.file_count == 2
    assert [path for path, _ in found.skipped] == ["\\xff"]


def test_what_is_skipped_is_counted_and_the_first_are_named(root: Path) -> None:
    for number in range(SKIPPED_MAX + 5):
        (root / f"l{number}").symlink_to("gone")

    found = look(root)

    assert (found.skipped_count, len(found.skipped)) == (SKIPPED_MAX + 5, SKIPPED_MAX)


def test_a_folder_that_cannot_be_listed_is_told(root: Path) -> None:
    def refused(path: str) -> Entries:
        if path.endswith("b/"):
            raise PermissionError(13, "Permission denied", path)
        return os.scandir(path)

    assert paths(root, refused) == (
        ["one"],
        {"a/b/": f"[Errno 13] Permission denied: '{root}/a/b/'"},
    )


def test_the_folder_that_is_never_to_be_in_it_is_not(root: Path) -> None:
    assert look(root, never=str(root / "a")).file_count == 1


def test_as_much_as_is_allowed_is_fine(root: Path) -> None:
    assert look(root, Limits(3, 2)).size == 3
    assert look(root / "one", Limits(1, 0)).size == 1


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (
            Limits(2, None),
            "dataset too large to archive; set force_save=True or use save=False",
        ),
        (Limits(None, 1), "max_archive_files=1"),
        (Limits(0, 0), "max_archive_bytes=0"),
    ],
)
def test_more_than_is_allowed_is_refused(root: Path, limits: Limits, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        look(root, limits)


def test_a_file_larger_than_allowed_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="dataset file too large to archive"):
        look(root / "one", Limits(0))


def test_what_is_neither_is_refused(root: Path) -> None:
    os.mkfifo(root / "fifo")

    with pytest.raises(ValueError, match="neither a regular file nor a folder"):
        look(root / "fifo")


def test_a_survey_ends_when_its_time_is_over(root: Path) -> None:
    left = [1, 2]

    with pytest.raises(IndexError):
        survey(str(root), "", Limits(), "dataset", left.pop)
