"""Histories point by point, out of parts and the tail."""

import math
from pathlib import Path
from typing import Any

import pytest
from tests.storage.test_history import TIME, Row, log, points_of

from flightlog_storage import open_history as module
from flightlog_storage.columns import Column
from flightlog_storage.errors import CorruptData
from flightlog_storage.history import Query, read_history
from flightlog_storage.open_history import OpenHistory
from flightlog_storage.parts import write_part
from flightlog_storage.points import Points

EARLIER: list[Row] = [{"_step": s, "a": float(s), "b": s} for s in range(6)]
LATER: list[Row] = [{"_step": s, "a": -float(s)} for s in (4, 2)]


def part(folder: Path, name: str, points: Points) -> Path:
    write_part(folder, name, points)
    return folder / name


def read(opened: OpenHistory, *keys: str) -> dict[tuple[str, int], list[Any]]:
    def pairs(column: Column) -> list[Any]:
        return list(zip(column.steps.tolist(), column.values.tolist(), strict=True))

    columns = opened.columns(keys, with_time=False)
    return {(column.key, column.rank): pairs(column) for column in columns}


def test_later_values_win_across_parts_and_tail(tmp_path: Path) -> None:
    paths = [
        part(tmp_path, "1.parquet", log(*EARLIER[:4])),
        part(tmp_path, "2.parquet", log(*EARLIER[4:], LATER[0])),
    ]

    with OpenHistory(paths, log(LATER[1])) as opened:
        found = read(opened, "a")

    assert found == {("a", 0): [(0, 0), (1, 1), (2, -2), (3, 3), (4, -4), (5, 5)]}


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_the_size_of_groups_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(module, "POINTS_AT_ONCE", at_once)
    paths = [part(tmp_path, "1.parquet", log(*EARLIER))]

    with OpenHistory(paths, log(*LATER)) as opened:
        assert opened.counts() == {"a": 8, "b": 6}
        found = read(opened, "a", "b")

    rows = list(read_history(paths, log(*LATER), Query()).to_dicts())
    for key in ("a", "b"):
        assert found[key, 0] == [(row["_step"], row[key]) for row in rows]


def test_only_the_keys_asked_for_are_there(tmp_path: Path) -> None:
    paths = [part(tmp_path, "1.parquet", log(*EARLIER))]

    with OpenHistory(paths, Points()) as opened:
        assert set(read(opened, "b", "absent")) == {("b", 0)}


def test_ranks_are_columns_of_their_own_and_points_keep_their_time() -> None:
    tail = points_of([(1, 0, TIME + 1, {"a": math.nan}), (0, 0, TIME, {"a": 1.0})])

    with OpenHistory([], tail) as opened:
        first, second = opened.columns(["a"], with_time=True)

    assert (first.rank, second.rank) == (0, 1)
    assert first.times is not None
    assert second.times is not None
    assert second.times[0] - first.times[0] == 1_000_000


def test_an_open_history_outlives_its_files(tmp_path: Path) -> None:
    path = part(tmp_path, "1.parquet", log(*EARLIER))

    with OpenHistory([path], Points()) as opened:
        path.unlink()

        assert len(read(opened, "a")["a", 0]) == 6


def test_a_damaged_part_is_told(tmp_path: Path) -> None:
    sound = part(tmp_path, "1.parquet", log(*EARLIER))
    damaged = tmp_path / "2.parquet"
    damaged.write_bytes(sound.read_bytes()[:-1])

    with pytest.raises(CorruptData, match=r"2\.parquet"):
        OpenHistory([sound, damaged], Points())
