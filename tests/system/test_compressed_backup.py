"""Backups of a log whose segments are compressed, some before and some meanwhile."""

import shutil
from pathlib import Path

import pytest
from tests.storage.recording import Recorded, flip, rows_of
from tests.storage.test_compression import compress_all
from tests.system.test_backup import (
    Overtaken,
    assert_sound,
    back_up,
    command,
    kill_amid_backup,
)

from flightlog_storage import backup, compression
from flightlog_storage.files import RealFiles
from flightlog_storage.home import Home
from flightlog_storage.segment import compressed_name

pytestmark = pytest.mark.once

ROWS = [(n, n / 2) for n in range(300)]
CALLS = 10  # So many there are at least, of those that change the copy.


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    recorded = Recorded(tmp_path, segment_size_max=3_000)
    recorded.start("r")
    write(recorded, 0)
    return recorded


@pytest.fixture
def target(tmp_path: Path) -> Home:
    return Home(tmp_path / "backup")


def write(recorded: Recorded, begin: int) -> None:
    writer = recorded.join("r")
    for n in range(begin, len(ROWS), 20):
        recorded.rows(writer, *ROWS[n : n + 20])


def compress_log(recorded: Recorded) -> int:
    return len(compress_all(RealFiles(), recorded.home.log))


def names(home: Home) -> list[str]:
    return sorted(path.name for path in home.log.iterdir())


def test_compressed_segments_take_the_place_of_the_others(
    recorded: Recorded, target: Home
) -> None:
    first = back_up(recorded.home, target)
    count = compress_log(recorded)
    assert count > 1

    second = back_up(recorded.home, target)
    third = back_up(recorded.home, target)

    assert first["segments"] == second["segments"] == count + 1
    assert third["segments"] == 1
    assert names(target) == names(recorded.home)
    assert rows_of(target, "r") == ROWS
    assert_sound(target)


def test_a_new_backup_takes_them_as_they_are(recorded: Recorded, target: Home) -> None:
    compress_log(recorded)

    back_up(recorded.home, target)

    assert names(target) == names(recorded.home)
    assert rows_of(target, "r") == ROWS
    assert_sound(target)


def test_a_kill_leaves_each_segment_in_one_form_at_least(
    recorded: Recorded, target: Home, tmp_path: Path
) -> None:
    back_up(recorded.home, target)
    pristine = tmp_path / "pristine"
    target.root.rename(pristine)
    compress_log(recorded)

    for nth in range(1, CALLS + 1):
        shutil.rmtree(target.root, ignore_errors=True)
        shutil.copytree(pristine, target.root)
        kill_amid_backup(recorded.home, target, nth)
        assert rows_of(target, "r") == ROWS, f"killed at call {nth}"
        assert_sound(target)
    back_up(recorded.home, target)

    assert names(target) == names(recorded.home)


def test_what_is_compressed_after_the_cut_is_copied_up_to_it(
    recorded: Recorded, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs were copied as of the cut: what came later may name others."""
    writer = recorded.join("r")
    recorded.rows(writer, *((n, 0.0) for n in range(300, 310)))

    def go_on() -> None:
        recorded.rows(writer, *((n, 0.0) for n in range(310, 500)))
        recorded.rows(writer, (500, 0.0))
        assert compress_log(recorded) > 1

    monkeypatch.setattr(backup, "LogReader", Overtaken)
    Overtaken.actions[:] = [int, go_on]
    backup.back_up(recorded.home, target)

    steps = [step for step, _ in rows_of(target, "r")]
    assert steps == list(range(310))
    assert names(target)[-1].endswith(".log")
    assert_sound(target)
    monkeypatch.undo()
    backup.back_up(recorded.home, target)
    assert [step for step, _ in rows_of(target, "r")] == list(range(501))
    assert names(target) == names(recorded.home)


def test_a_segment_that_is_compressed_right_then_is_copied(
    recorded: Recorded, target: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    def look(offset: int) -> str:
        """Be where the segment's form has been looked for, and not opened yet."""
        looked.append(offset)
        if len(looked) == 1:
            path = recorded.home.log / compressed_name(offset)
            compress_log(recorded)
            path.rename(path.with_suffix(".hidden"))
            hidden.append(path)
            return path.name
        if hidden:
            path = hidden.pop()
            path.with_suffix(".hidden").rename(path)
        return compressed_name(offset)

    hidden: list[Path] = []
    monkeypatch.setattr(backup, "compressed_name", look)

    backup.back_up(recorded.home, target)

    assert looked[0] == looked[1]
    assert rows_of(target, "r") == ROWS
    assert_sound(target)


@pytest.mark.parametrize("damage", ["a block", "its index"])
def test_a_damaged_one_does_not_replace_a_good_copy(
    recorded: Recorded, target: Home, damage: str
) -> None:
    back_up(recorded.home, target)
    compress_log(recorded)
    path = sorted(recorded.home.log.glob("*.logz"))[0]
    middle = path.stat().st_size // 2
    for at in {"a block": [middle], "its index": [70, -20]}[damage]:
        flip(path, at)

    back_up(recorded.home, target)

    assert f"{path.stem}.log" in names(target)
    assert path.name not in names(target)
    assert rows_of(target, "r") == ROWS
    assert_sound(target)


def test_damage_of_one_is_told_and_it_is_copied_all_the_same(
    recorded: Recorded, target: Home
) -> None:
    compress_log(recorded)
    path = sorted(recorded.home.log.glob("*.logz"))[0]
    flip(path, path.stat().st_size // 2)

    done = command(recorded.home, "backup", str(target.root))

    assert done.returncode == 1
    assert f"log/{path.name}" in done.stderr
    assert rows_of(target, "r") == rows_of(recorded.home, "r")
