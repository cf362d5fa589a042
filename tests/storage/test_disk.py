"""How full a disk is, on disks of their own; those of many GiB take no memory."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.harness import small_disk, small_home

from flightlog_storage.archive import Archive
from flightlog_storage.disk import DiskRoom, parse_size, read_disk
from flightlog_storage.home import Home

GIB, MIB = 1 << 30, 1 << 20


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home on a disk of 16 MiB."""
    with small_home(tmp_path, "16m") as home:
        yield home


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500000", 500_000),
        ("4k", 4096),
        ("64MiB", 64 * MIB),
        ("1.5 GB", 3 * GIB // 2),
        (" 2tib ", 2048 * GIB),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1e9", "1 GiB free", "٣", "nan"])
def test_what_is_no_size_is_none(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("size", "low_water"),
    [("1g", GIB // 10), ("20g", GIB), ("500g", 10 * GIB)],
)
def test_a_fiftieth_is_to_stay_free_and_a_gibibyte_but_a_tenth_at_most(
    tmp_path: Path, size: str, low_water: int
) -> None:
    with small_disk(tmp_path / "home", size) as root:
        found = read_disk(Home(root))

    assert found.low_water == low_water
    assert (found.folder, found.is_low) == (str(root), False)


def test_a_disk_below_the_mark_is_low_until_there_is_more_than_that(home: Home) -> None:
    room = DiskRoom(home, 8 * MIB)
    filler = home.root / "filler"

    seen = []
    for size in (7, 9, 8, 7.5, 6.5, 7.5, 9):
        filler.write_bytes(bytes(int(size * MIB)))
        seen.append(room.look().is_low)

    assert seen == [False, True, True, True, False, False, True]


def test_the_fullest_of_a_homes_disks_counts(home: Home) -> None:
    with small_disk(home.blobs, "4m"):
        found = read_disk(home, 8 * MIB)

    assert (found.folder, found.size, found.is_low) == (str(home.blobs), 4 * MIB, True)


def test_a_mark_of_zero_is_never_reached(home: Home) -> None:
    with pytest.raises(OSError, match="No space"):
        (home.root / "filler").write_bytes(bytes(17 * MIB))

    assert read_disk(home, 0).free == 0
    assert not DiskRoom(home, 0).is_low


def test_what_would_pass_the_mark_is_refused_alone(home: Home) -> None:
    room = DiskRoom(home, 8 * MIB)

    room.check(7 * MIB)
    with pytest.raises(OSError, match="9,437,184 bytes more") as refused:
        room.check(9 * MIB)

    assert refused.value.errno == errno.EFBIG
    assert refused.value.filename == str(home.staging)


def test_below_the_mark_all_is_refused(home: Home) -> None:
    (home.root / "filler").write_bytes(bytes(9 * MIB))

    with pytest.raises(OSError, match="nearly full") as refused:
        DiskRoom(home, 8 * MIB).check(0)

    assert refused.value.errno == errno.ENOSPC


def test_it_is_looked_at_once_a_second_at_most(home: Home) -> None:
    times = iter([0.0, 0.9, 1.1, 1.1])
    room = DiskRoom(home, 8 * MIB, lambda: next(times))
    (home.root / "filler").write_bytes(bytes(9 * MIB))

    assert [room.is_low, room.is_low] == [False, True]


def test_a_home_that_is_gone_is_as_it_was(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    room = DiskRoom(home, 1 << 62)
    before = room.state
    shutil.rmtree(home.root)

    assert room.look() == before


def test_a_file_without_room_is_not_begun(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(9 * MIB))
    archive = Archive(home, lambda: None, room=DiskRoom(home, 8 * MIB))

    with pytest.raises(OSError, match="9,437,184 bytes more") as refused:
        archive.keep_file(str(source))

    assert archive.is_ours(refused.value)
    assert read_disk(home).free > 15 * MIB
    assert archive.keep_file(__file__).size


def test_an_archive_is_left_when_the_room_is_gone(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(7 * MIB))
    filler = home.root / "filler"
    times = iter(range(1000))
    room = DiskRoom(home, 8 * MIB, lambda: next(times))
    archive = Archive(home, lambda: filler.write_bytes(bytes(8 * MIB)), room=room)

    with pytest.raises(OSError, match="nearly full") as refused:
        archive.keep_file(str(source))

    assert archive.is_ours(refused.value)
    assert [*home.staging.rglob("*")] == [*home.staging.iterdir()]
    filler.unlink()
    whole = Archive(home, lambda: None, room=room).keep_file(str(source))
    assert whole.size == 7 * MIB
