from array import array

from flightlog_storage.event import Kind, Rows, Series
from flightlog_storage.points import Points


def rows(*series: Series) -> Rows:
    return Rows(array("q", [0]), 0.0, series)


def series(
    *path: str, kinds: bytes = b"", texts: dict[int, str] | None = None
) -> Series:
    return Series(
        path, array("q", [1, 2]), array("q", [10, 20]), array("d", [0.5, 1.5]),
        kinds, texts or {},
    )  # fmt: skip


def test_points_gather_by_name_and_rank() -> None:
    points = Points()

    points.add(rows(series("b"), series("a")), rank=1)
    points.add(rows(series("a")), rank=0)
    points.add(rows(series("a")), rank=1)

    assert points.count == 8
    found = [(one.name, one.rank, list(one.steps)) for one in points.series()]
    assert found == [
        ("a", 0, [1, 2]),
        ("a", 1, [1, 2, 1, 2]),
        ("b", 1, [1, 2]),
    ]


def test_paths_with_one_name_are_one_metric() -> None:
    points = Points()

    points.add(rows(series("a.b")), rank=0)
    points.add(rows(series("a", "b")), rank=0)

    assert [len(one.steps) for one in points.get("a.b")] == [4]


def test_kinds_and_texts_keep_their_places() -> None:
    points = Points()

    points.add(rows(series("a")), rank=0)
    kinds = bytes([Kind.FLOAT, Kind.STR])
    points.add(rows(series("a", kinds=kinds, texts={1: "x"})), rank=0)

    [found] = points.get("a")
    assert found.kinds == bytes(3) + bytes([Kind.STR])
    assert found.texts == {3: "x"}
