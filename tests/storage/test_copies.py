"""Copies of files: what is hashed is what is written, and odd files are refused."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.storage.test_blobs import DATA, files, source

from flightlog_storage.copies import (
    digests_of,
    hash_file,
    read_small,
    stage_file,
)
from flightlog_storage.errors import SourceUnusable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path


def command(*words: str | Path) -> None:
    """Run a command of the system, or skip the test that needs it."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{words[0]} is not installed")
    if done.returncode:
        pytest.skip(f"{words[0]} does not work here: {done.stderr.strip()}")


@pytest.fixture
def sharing_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk whose files can share their blocks."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    disk.mkdir()
    command("mkfs.btrfs", "--quiet", image)
    command("mount", "-o", "loop", image, disk)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def used(disk: Path) -> int:
    subprocess.run(["sync", "--file-system", disk], check=True)
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_a_copy_shares_the_blocks_of_its_file_where_the_disk_can(
    sharing_disk: Path,
) -> None:
    size = 16 << 20
    path = source(sharing_disk, os.urandom(size))
    before = used(sharing_disk)

    staged = stage_file(path, sharing_disk)

    assert used(sharing_disk) - before < size / 4
    path.write_bytes(bytes(size))
    assert hash_file(staged.path) == staged.digests


@pytest.mark.fault(43)
def test_a_file_that_never_holds_still_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(root, bytes(3 << 20))
    pread = os.pread

    def read_and_grow(fd: int, size: int, offset: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"!")
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", read_and_grow)

    for read in (hash_file, lambda path: stage_file(path, root / "staging")):
        with pytest.raises(SourceUnusable, match="changed each time"):
            read(path)

    assert files(root / "staging") == []


@pytest.mark.fault(41)
def test_only_regular_files_are_read(root: Path) -> None:
    pipe = root / "pipe"
    os.mkfifo(pipe)

    for path in (pipe, root, Path("/dev/null")):
        with pytest.raises(SourceUnusable, match="regular file"):
            stage_file(path, root / "staging")
        with pytest.raises(SourceUnusable, match="regular file"):
            read_small(path, 1 << 20)

    assert files(root / "staging") == []


def test_a_small_file_is_read_and_a_large_one_is_not(root: Path) -> None:
    path = source(root)

    assert read_small(path, len(DATA)) == DATA
    assert read_small(path, len(DATA) - 1) is None


def test_a_small_file_that_changes_while_it_is_read_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(root, b"0")
    pread = os.pread
    changes = iter(range(1, 10))
    last = 2

    def read_and_change(fd: int, size: int, position: int) -> bytes:
        data = pread(fd, size, position)
        change = next(changes)
        if change <= last:
            path.write_bytes(b"%d" % change)
            os.utime(path, ns=(change, change))  # Whatever the clock's grain is.
        return data

    monkeypatch.setattr(os, "pread", read_and_change)

    assert read_small(path, 10) == b"2"
    last = 9
    with pytest.raises(SourceUnusable, match="changed each time"):
        read_small(path, 10)


def test_a_file_that_says_it_is_empty_and_is_not_is_refused() -> None:
    with pytest.raises(SourceUnusable, match="changed each time"):
        read_small(Path(f"/proc/{os.getpid()}/status"), 1 << 20)


def test_links_are_followed_only_when_that_is_meant(root: Path) -> None:
    link = root / "link"
    link.symlink_to(source(root))

    with pytest.raises(OSError, match="symbolic links"):
        stage_file(link, root / "staging", follow=False)
    with pytest.raises(OSError, match="symbolic links"):
        read_small(link, 1 << 20)
    (root / "above").symlink_to(root)
    for path in (root / "above/source", root / "above/staging/../source"):
        with pytest.raises(NotADirectoryError):
            stage_file(path, root / "staging", follow=False)
        with pytest.raises(NotADirectoryError):
            read_small(path, 1 << 20)
        assert stage_file(path, root / "staging").digests == digests_of(DATA)

    assert stage_file(link, root / "staging").digests == digests_of(DATA)


def test_a_missing_file_is_an_error_of_the_system(root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stage_file(root / "none", root / "staging")
