"""Copies of users' folders."""

import os
from pathlib import Path

import pytest

from flightlog_storage.folder_copies import copy_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source/files/run/new").mkdir(parents=True)
    (tmp_path / "source/files/run/new/weights").write_bytes(b"weights")
    (tmp_path / "copy").mkdir()
    (tmp_path / "staging").mkdir()
    return tmp_path / "source"


def copied(source: Path) -> Path:
    """Bring the copy up to date and return what it has of the run."""
    target = source.with_name("copy")
    copy_folder(source, target, "files", source.with_name("staging"))
    return target / "files/run"


def test_files_and_links_are_copied_as_they_are(source: Path) -> None:
    (source / "files/run/last").symlink_to("new")
    (source / "files/run/lost").symlink_to("nowhere")
    os.mkfifo(source / "files/run/pipe")

    run = copied(source)

    assert (run / "new/weights").read_bytes() == b"weights"
    assert os.readlink(run / "last") == "new"
    assert os.readlink(run / "lost") == "nowhere"
    assert sorted(os.listdir(run)) == ["last", "lost", "new"]


def test_a_folder_that_a_link_took_the_place_of_does_too_in_the_copy(
    source: Path,
) -> None:
    copied(source)
    (source / "files/run/new").rename(source / "files/run/newer")
    (source / "files/run/new").symlink_to("newer")

    run = copied(source)

    assert os.readlink(run / "new") == "newer"
    assert (run / "newer/weights").read_bytes() == b"weights"


def test_nothing_is_written_where_a_link_led_before(
    source: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (source / "files/run/data").symlink_to(elsewhere)
    copied(source)
    (source / "files/run/data").unlink()
    (source / "files/run/data").mkdir()
    (source / "files/run/data/rows").write_bytes(b"rows")

    run = copied(source)

    assert (run / "data/rows").read_bytes() == b"rows"
    assert os.listdir(elsewhere) == []


def test_a_file_that_was_a_link_is_copied(source: Path) -> None:
    (source / "files/run/last").symlink_to("new/weights")
    copied(source)
    (source / "files/run/last").unlink()
    os.link(source / "files/run/new/weights", source / "files/run/last")

    run = copied(source)

    assert not (run / "last").is_symlink()
    assert (run / "last").read_bytes() == b"weights"
