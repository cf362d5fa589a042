import os
import random
import subprocess
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.counts import count

from flightlog_storage.columns import Column, concatenate
from flightlog_storage.compaction import merge_parts
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import Rows, Series
from flightlog_storage.history import Query, read_history
from flightlog_storage.part_reader import Part, verify_part
from flightlog_storage.parts import (
    GROUP_POINTS_MAX,
    GROUP_POINTS_MIN,
    SCHEMA,
    write_part,
)
from flightlog_storage.points import Points


def add(points: Points, key: str, steps: Sequence[int], rank: int = 0) -> None:
    """Add points whose values tell their step and key."""
    numbers = np.array(steps, np.int64)
    series = Series(
        (key,),
        array("q", numbers.tobytes()),
        array("q", (numbers * 1000).tobytes()),
        array("d", (numbers + len(key) / 8).tobytes()),
    )
    points.add(Rows(series.steps, 0.0, (series,)), rank)


def add_text(points: Points, key: str, step: int, text: str) -> None:
    column = array("q", [step])
    series = Series(
        (key,), column, column, array("d", [float("nan")]), bytes([3]), {0: text}
    )
    points.add(Rows(column, 0.0, (series,)), 0)


def small() -> Points:
    points = Points()
    for key in ("acc", "loss"):
        for rank in (0, 1):
            add(points, key, range(20), rank)
    add_text(points, "note", 3, "hello")
    add_text(points, "note", 9, "world")
    return points


def groups(path: Path) -> list[list[tuple[str, int]]]:
    """The keys and numbers of points of each row group."""
    with Part(path) as part:
        count = part.spans[-1].group + 1
        return [
            [(s.key, s.points) for s in part.spans if s.group == group]
            for group in range(count)
        ]


def test_part_is_plain_sorted_parquet(tmp_path: Path) -> None:
    points = Points()
    add(points, "b", [3, 1, 2])
    add(points, "a", [5], rank=1)
    add(points, "a", [7])

    info = write_part(tmp_path, "p.parquet", points)

    table = pq.read_table(tmp_path / "p.parquet")
    assert table.schema.equals(SCHEMA)
    rows = [(r["key"], r["rank"], r["step"], r["kind"]) for r in table.to_pylist()]
    assert rows == [
        ("a", 0, 7, "float"),
        ("a", 1, 5, "float"),
        ("b", 0, 1, "float"),
        ("b", 0, 2, "float"),
        ("b", 0, 3, "float"),
    ]
    assert (info.points, info.min_step, info.max_step) == (5, 1, 7)
    assert info.size == (tmp_path / "p.parquet").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


def test_later_point_of_a_step_wins(tmp_path: Path) -> None:
    points = Points()
    series = Series(
        ("x",), array("q", [1, 1, 0]), array("q", [1, 2, 3]), array("d", [1, 2, 3])
    )
    points.add(Rows(series.steps, 0.0, (series,)), 0)

    write_part(tmp_path, "p", points)

    values = pq.read_table(tmp_path / "p").column("value").to_pylist()
    assert values == [3.0, 2.0]


def test_equal_points_give_equal_bytes(tmp_path: Path) -> None:
    first = write_part(tmp_path, "a", small())
    second = write_part(tmp_path, "b", small())

    assert first.sha256 == second.sha256
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_small_keys_share_a_row_group_and_large_ones_do_not(tmp_path: Path) -> None:
    points = Points()
    add(points, "a", range(10))
    add(points, "b", range(20))
    add(points, "large", range(GROUP_POINTS_MIN))
    add(points, "z", range(30))
    add(points, "zz", range(40))

    write_part(tmp_path, "p", points)

    assert groups(tmp_path / "p") == [
        [("a", 10), ("b", 20)],
        [("large", GROUP_POINTS_MIN)],
        [("z", 30), ("zz", 40)],
    ]


def test_row_group_has_a_largest_size(tmp_path: Path) -> None:
    points = Points()
    add(points, "a", range(GROUP_POINTS_MAX + 5))

    write_part(tmp_path, "p", points)

    assert groups(tmp_path / "p") == [[("a", GROUP_POINTS_MAX)], [("a", 5)]]
    history = read_history([tmp_path / "p"], None, Query(keys=["a"]))
    assert len(history) == GROUP_POINTS_MAX + 5


def test_part_without_points(tmp_path: Path) -> None:
    info = write_part(tmp_path, "p", Points())

    assert (info.points, info.min_step) == (0, None)
    assert len(read_history([tmp_path / "p"])) == 0
    assert verify_part(tmp_path / "p", info.sha256) == []


def test_merged_part_reads_as_its_parts(tmp_path: Path) -> None:
    paths = []
    for number in range(5):
        points = Points()
        add(points, "a", range(number * 100, number * 100 + 150))  # They overlap.
        add(points, f"only in {number}", [7, 3])
        add_text(points, "note", number, f"text {number}")
        paths.append(tmp_path / str(number))
        write_part(tmp_path, str(number), points)

    info = merge_parts(tmp_path, paths, "merged")

    merged = tmp_path / "merged"
    assert verify_part(merged, info.sha256) == []
    before = list(read_history(paths, None, Query(with_time=True)).to_dicts())
    after = list(read_history([merged], None, Query(with_time=True)).to_dicts())
    assert after == before
    assert len(after) == 550


def test_merge_cuts_where_steps_do_not_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flightlog_storage.compaction.GROUP_POINTS_MAX", 10)
    paths = []
    for number in (2, 0, 1):
        points = Points()
        add(points, "a", range(number * 8, number * 8 + 8))
        paths.append(tmp_path / str(number))
        write_part(tmp_path, str(number), points)

    merge_parts(tmp_path, paths, "merged")

    rows = list(read_history([tmp_path / "merged"]).to_dicts())
    assert [row["_step"] for row in rows] == list(range(24))
    assert verify_part(tmp_path / "merged") == []


def test_merge_holds_few_texts_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flightlog_storage.compaction.GROUP_TEXT_SIZE_MAX", 1000)
    monkeypatch.setattr("flightlog_storage.parts.GROUP_TEXT_SIZE_MAX", 1000)
    paths = []
    for number in (2, 0, 1, 3):
        points = Points()
        for step in range(number * 8, number * 8 + 8):
            add_text(points, "a", step, f"{step:0100}")
        paths.append(tmp_path / str(number))
        write_part(tmp_path, str(number), points)
    joined = []

    def join(columns: Sequence[Column]) -> Column:
        joined.append(len(columns))
        return concatenate(columns)

    monkeypatch.setattr("flightlog_storage.compaction.concatenate", join)

    merge_parts(tmp_path, paths, "merged")

    assert joined == [2, 2]
    rows = list(read_history([tmp_path / "merged"]).to_dicts())
    assert [int(row["a"]) for row in rows] == list(range(32))
    assert verify_part(tmp_path / "merged") == []


def test_row_group_has_few_texts_whatever_lies_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flightlog_storage.parts.GROUP_TEXT_SIZE_MAX", 150)
    points = Points()
    for key in ("a", "c", "e"):
        add_text(points, key, 0, "t" * 100)
    add(points, "b", [0])
    add(points, "d", [0])

    write_part(tmp_path, "p", points)

    assert groups(tmp_path / "p") == [
        [("a", 1), ("b", 1)],
        [("c", 1), ("d", 1)],
        [("e", 1)],
    ]


def test_failed_merge_leaves_nothing(tmp_path: Path) -> None:
    write_part(tmp_path, "a", small())
    data = bytearray((tmp_path / "a").read_bytes())
    group = pq.ParquetFile(tmp_path / "a").metadata.row_group(0)
    column = group.column(SCHEMA.get_field_index("value"))
    data[column.data_page_offset + column.total_compressed_size - 5] ^= 1
    (tmp_path / "a").write_bytes(data)

    with pytest.raises(CorruptData, match="a: corrupt"):
        merge_parts(tmp_path, [tmp_path / "a"], "merged")

    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.fault(53)
def test_part_cut_at_any_byte_is_told(tmp_path: Path) -> None:
    info = write_part(tmp_path, "p", small())
    part = tmp_path / "p"

    assert verify_part(part, info.sha256) == []
    for size in reversed(range(info.size)):
        os.truncate(part, size)
        count("cuts at a byte")
        with pytest.raises(CorruptData):
            read_history([part])


@pytest.mark.fault(8, 53)
def test_any_wrong_bit_is_told_or_harmless(tmp_path: Path) -> None:
    info = write_part(tmp_path, "p", small())
    part = tmp_path / "p"
    whole = part.read_bytes()
    query = Query(with_time=True)
    expected = list(read_history([part], None, query).to_dicts())
    chance = random.Random(7)

    for _ in range(1500):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        part.write_bytes(damaged)
        count("bits flipped")
        try:
            rows = list(read_history([part], None, query).to_dicts())
        except CorruptData:
            continue
        assert rows == expected
        assert verify_part(part, info.sha256) != []


def test_missing_part_is_not_corrupt(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_history([tmp_path / "none"])

    assert "No such file" in verify_part(tmp_path / "none")[0]


def test_reading_needs_no_pandas_and_exits_well(tmp_path: Path) -> None:
    write_part(tmp_path, "p", small())
    code = (
        "import pathlib, sys;"
        "from tests.storage.test_parts import small;"
        "from flightlog_storage.history import read_history;"
        "read_history([pathlib.Path(sys.argv[1])], small()).to_arrow();"
        "sys.exit('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "p")]

    subprocess.run(command, cwd=Path(__file__).parent.parent.parent, check=True)
