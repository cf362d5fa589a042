import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgpack
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage.compaction import merge_parts
from flightlog_storage.event import Rows
from flightlog_storage.history import Query, read_history
from flightlog_storage.parts import write_part
from flightlog_storage.points import Points
from flightlog_storage.rows import decode
from flightlog_storage.sampled import read_sample
from flightlog_storage.sampling import extremes, spread

TIME = 1_700_000_000
Row = dict[str, Any]
Logged = tuple[int, int, float, Row]  # rank, step, time, values


def descriptor(value: Any) -> Any:
    """What a writer sends for a value."""
    if type(value) is int and not -(2**63) <= value < 2**64:
        return {"_type": "int", "value": str(value)}
    return value


def points_of(logged: list[Logged]) -> Points:
    points = Points()
    for rank, step, time, values in logged:
        row = [0, step, time, *map(descriptor, values.values())]
        payload = msgpack.packb([[0, list(values)]]) + msgpack.packb(row)
        for _, item in decode(payload, 1):
            assert isinstance(item, Rows)
            points.add(item, rank)
    return points


def log(*rows: Row) -> Points:
    """Points of rows whose `_step` is their step."""
    return points_of([(0, row["_step"], TIME, without_step(row)) for row in rows])


def without_step(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "_step"}


def read(points: Points, **query: Any) -> list[Row]:
    return list(read_history([], points, Query(**query)).to_dicts())


def test_inner_join_needs_a_value_of_every_key() -> None:
    points = log(
        {"_step": 1, "a": 1.0, "b": math.nan},
        {"_step": 2, "a": 1.0},
        {"_step": 3, "a": 1.0, "b": None},
        {"_step": 4, "b": 2.0, "a": 0},
    )

    rows = read(points, keys=["b", "a"], join="inner")

    assert repr(rows) == repr(
        [{"_step": 1, "b": math.nan, "a": 1.0}, {"_step": 4, "b": 2.0, "a": 0}]
    )


def test_outer_join_keeps_rows_of_none() -> None:
    points = log({"_step": 1, "a": None}, {"_step": 2, "b": 1.0})

    assert read(points) == [{"_step": 1, "a": None}, {"_step": 2, "b": 1.0}]
    assert read(points, keys=["a"]) == [{"_step": 1, "a": None}]


def test_unknown_key() -> None:
    points = log({"_step": 1, "a": 1.0})

    assert read(points, keys=["a", "none"], join="inner") == []
    assert read(points, keys=["a", "none"]) == [{"_step": 1, "a": 1.0}]
    table = read_history([], points, Query(keys=["none"], join="inner")).to_arrow()
    assert table.column_names == ["_step", "none"]


def test_time_of_a_row_is_its_latest() -> None:
    points = points_of([(0, 1, 20.5, {"a": 1.0}), (0, 1, 10.5, {"b": 1.0})])

    assert read(points, with_time=True) == [
        {"_step": 1, "_timestamp": 20.5, "a": 1.0, "b": 1.0}
    ]


def test_ranks_are_told_when_there_are_others() -> None:
    logged: list[Logged] = [
        (r, s, TIME, {"a": float(r)}) for r in (1, 0) for s in (1, 2)
    ]

    assert read(points_of(logged)) == [
        {"_step": 1, "_rank": 0, "a": 0.0},
        {"_step": 1, "_rank": 1, "a": 1.0},
        {"_step": 2, "_rank": 0, "a": 0.0},
        {"_step": 2, "_rank": 1, "a": 1.0},
    ]


def test_reserved_names_are_not_keys() -> None:
    assert read(log({"_step": 1, "_timestamp": 5.0, "a": 1.0})) == [
        {"_step": 1, "a": 1.0}
    ]


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        ([1.0, math.inf], pa.float64(), [1.0, math.inf]),
        ([1, 2**60 + 1], pa.int64(), [1, 2**60 + 1]),
        ([1, None], pa.int64(), [1, None]),
        ([1, 2**63], pa.float64(), [1.0, 2.0**63]),
        ([True, None], pa.bool_(), [True, None]),
        ([True, 1], pa.float64(), [1.0, 1.0]),
        ([1, 0.5], pa.float64(), [1.0, 0.5]),
        (["x", None], pa.string(), ["x", None]),
        (["x", 1], pa.string(), ["x", "1"]),
        ([[1], True], pa.string(), ["[1]", "true"]),
        ([[1], {"_type": "y"}], pa.string(), ["[1]", '{"_type":"y"}']),
        ([None, None], pa.float64(), [None, None]),
    ],
)
def test_arrow_types(
    values: list[Any], type_: pa.DataType, expected: list[Any]
) -> None:
    points = log(*({"_step": step, "x": value} for step, value in enumerate(values)))

    column = read_history([], points).to_arrow().column("x")

    assert column.type == type_
    assert column.to_pylist() == expected


def test_nan_is_not_null() -> None:
    points = log({"_step": 0, "x": math.nan}, {"_step": 1, "y": 1.0})

    column = read_history([], points).to_arrow().column("x")

    assert math.isnan(column[0].as_py())
    assert column[1].as_py() is None


KEYS = ("a", "b", "c")
values = st.one_of(
    st.floats(width=16),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
    st.lists(st.integers(0, 2) | st.none(), max_size=2),
)
logged_rows = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 2]),
        st.integers(-5, 12),
        st.integers(0, 100).map(float),
        st.dictionaries(st.sampled_from(KEYS), values, min_size=1),
    ),
    max_size=25,
)
queries = st.builds(
    Query,
    keys=st.none()
    | st.lists(st.sampled_from([*KEYS, "none"]), min_size=1, unique=True),
    join=st.sampled_from(["inner", "outer"]),
    min_step=st.none() | st.integers(-6, 13),
    max_step=st.none() | st.integers(-6, 13),
    with_time=st.booleans(),
)


def model(logged: list[Logged], query: Query) -> list[Row]:
    """The same answer, from dicts alone."""
    cells: dict[tuple[int, int], dict[str, tuple[Any, float]]] = {}
    for rank, step, time, values_ in logged:
        for key, value in values_.items():
            if query.keys is None or key in query.keys:
                cells.setdefault((step, rank), {})[key] = (value, time)
    keys = sorted(KEYS) if query.keys is None else query.keys
    join: Literal["inner", "outer"] = "outer" if query.keys is None else query.join
    low = -math.inf if query.min_step is None else query.min_step
    high = math.inf if query.max_step is None else query.max_step
    rows = [
        (place, own)
        for place, own in sorted(cells.items())
        if low <= place[0] < high
        and (join == "outer" or all(own.get(k, (None,))[0] is not None for k in keys))
    ]
    ranked = any(rank for (_, rank), _ in rows)
    return [
        {"_step": step}
        | ({"_rank": rank} if ranked else {})
        | ({"_timestamp": max(t for _, t in own.values())} if query.with_time else {})
        | {key: own[key][0] for key in keys if key in own}
        for (step, rank), own in rows
    ]


@settings(max_examples=tries(150))
@given(st.lists(logged_rows, max_size=4), logged_rows, queries)
def test_history_is_what_was_logged(
    parts: list[list[Logged]], tail: list[Logged], query: Query
) -> None:
    expected = model([row for part in [*parts, tail] for row in part], query)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, part in enumerate(parts):
            write_part(folder, str(number), points_of(part))
        paths = [folder / str(number) for number in range(len(parts))]
        history = read_history(paths, points_of(tail), query)

    assert repr(list(history.to_dicts())) == repr(expected)
    table = history.to_arrow()
    assert table.num_rows == len(expected)
    assert table.column("_step").to_pylist() == [row["_step"] for row in expected]
    for key in query.keys or ():
        known = [row.get(key) is not None for row in expected]
        assert [cell is not None for cell in table.column(key).to_pylist()] == known


@settings(max_examples=tries(40))
@given(st.lists(logged_rows, min_size=1, max_size=4))
def test_merged_parts_hold_the_same_history(parts: list[list[Logged]]) -> None:
    query = Query(with_time=True)
    expected = model([row for part in parts for row in part], query)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, part in enumerate(parts):
            write_part(folder, str(number), points_of(part))
        merge_parts(folder, [folder / str(n) for n in range(len(parts))], "merged")
        rows = list(read_history([folder / "merged"], None, query).to_dicts())

    assert json.dumps(rows) == json.dumps(expected)


@settings(max_examples=tries(150))
@given(st.lists(logged_rows, max_size=4), logged_rows, queries, st.integers(1, 30))
def test_a_sample_is_some_of_the_history(
    parts: list[list[Logged]], tail: list[Logged], query: Query, samples: int
) -> None:
    query = replace(query, min_step=None, max_step=None)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, part in enumerate(parts):
            write_part(folder, str(number), points_of(part))
        paths = [folder / str(number) for number in range(len(parts))]
        whole = read_history(paths, points_of(tail), query)
        sample = read_sample(paths, points_of(tail), query, samples)

    expected = whole.take(spread(len(whole), samples))
    assert repr(list(sample.to_dicts())) == repr(list(expected.to_dicts()))


@settings(max_examples=tries(150))
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=1, unique=True), max_size=4),
    st.lists(st.integers(0, 400), max_size=40),
    st.integers(6, 30),
    st.sampled_from(["inner", "outer"]),
    st.booleans(),
)
def test_extremes_are_those_of_the_whole_history(
    parts: list[list[int]], tail: list[int], samples: int, join: Any, overlap: bool
) -> None:
    logged: list[list[Logged]] = []
    for number, steps in enumerate([*parts, tail]):
        first = 0 if overlap else 70 * number
        logged.append(
            [
                (
                    0,
                    first + s,
                    TIME,
                    {"a": float(s * 37 % 11), "b": -s if s % 7 else math.nan},
                )
                for s in steps
            ]
        )
    query = Query(keys=["a", "b"], join=join)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, part in enumerate(logged[:-1]):
            write_part(folder, str(number), points_of(part))
        paths = [folder / str(number) for number in range(len(parts))]
        whole = read_history(paths, points_of(logged[-1]), query)
        sample = read_sample(paths, points_of(logged[-1]), query, samples, ["b", "a"])

    expected = whole.take(extremes(whole, ["a", "b"], samples))
    assert repr(list(sample.to_dicts())) == repr(list(expected.to_dicts()))


def test_a_sample_of_long_parts_with_equal_steps(tmp_path: Path) -> None:
    steps = [0, *range(5, 300), 700, 900]
    first, second = steps[:200], steps[200:]
    for name, own in (("0", first), ("1", second)):
        rows = [{"_step": s, "a": float(s), "b": s, "c": str(s)} for s in own]
        write_part(tmp_path, name, log(*rows))
    tail = log(*({"_step": s, "a": 1.0, "b": 2, "c": "t"} for s in (901, 905)))
    query = Query(keys=["a", "c", "b"], join="inner")

    sample = read_sample([tmp_path / "0", tmp_path / "1"], tail, query, 7)

    rows = list(sample.to_dicts())
    assert [row["_step"] for row in rows] == [
        [*steps, 901, 905][place] for place in spread(299 + 1, 7)
    ]
    assert rows[1]["c"] == str(rows[1]["_step"])
    assert rows[-1] == {"_step": 905, "a": 1.0, "c": "t", "b": 2}
