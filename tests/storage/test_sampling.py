import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.effort import tries
from tests.storage.test_history import Logged, points_of

from flightlog_storage.cells import History
from flightlog_storage.history import Query, read_history
from flightlog_storage.sampling import Steps, bucket_starts, extremes, spread

numbers = st.floats(allow_nan=True) | st.integers(-(2**60), 2**60) | st.booleans()
steps = st.integers(0, 300) | st.integers(0, 2**62)
logged_rows = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1]),
        steps,
        st.just(0.0),
        st.dictionaries(st.sampled_from(["a", "b"]), numbers | st.none(), min_size=1),
    ),
    min_size=1,
    max_size=120,
)


def history_of(logged: list[Logged], join: Any = "outer") -> History:
    return read_history([], points_of(logged), Query(keys=["a", "b"], join=join))


@pytest.mark.parametrize(
    ("count", "samples", "places"),
    [
        (3, 5, [0, 1, 2]),
        (10, 1, [9]),
        (10, 2, [0, 9]),
        (11, 3, [0, 5, 10]),
        (0, 5, []),
    ],
)
def test_places_are_spread_evenly_with_both_ends(
    count: int, samples: int, places: list[int]
) -> None:
    assert spread(count, samples).tolist() == places


@given(st.integers(1, 10_000), st.integers(2, 600))
def test_as_many_places_as_asked_for(count: int, samples: int) -> None:
    places = spread(count, samples)

    assert len(set(places.tolist())) == min(count, samples)
    assert {int(places[0]), int(places[-1])} == {0, count - 1}
    assert len(set(np.diff(places).tolist())) <= 2


def widths() -> list[int]:
    """Return the widths of four significant bits, below 2**62: steps lie below it."""
    return [w for e in range(59) for w in {d << e for d in range(8, 16)}]


@settings(max_examples=tries(100))
@example([-1, 0, 15 << 58], 2)
@given(st.lists(st.integers(-50, 2**62), min_size=1, max_size=300), st.integers(1, 20))
def test_buckets_are_the_narrowest_that_fit(values: list[int], limit: int) -> None:
    ascending = np.array(sorted(values), np.int64)
    fitting = [
        starts
        for width in sorted({*range(1, 8), *widths()})
        if len(starts := first_of_each([v // width for v in ascending.tolist()]))
        <= limit
    ]

    starts = bucket_starts([ascending], limit).tolist()

    assert starts == (fitting[0] if fitting else [0])


@settings(max_examples=tries(100))
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3000)), min_size=1),
    st.integers(1, 20),
)
def test_buckets_are_the_same_block_by_block(
    holes: list[tuple[int, int]], limit: int
) -> None:
    blocks: list[Steps] = []
    for hole, count in holes:
        start = hole + (blocks[-1][-1] + 1 if blocks else 0)
        blocks.append(range(start, start + count))
    whole = np.concatenate([np.asarray(block) for block in blocks])

    starts = bucket_starts(blocks, limit)

    assert starts.tolist() == bucket_starts([whole], limit).tolist()


def first_of_each(buckets: list[int]) -> list[int]:
    return [
        place
        for place, bucket in enumerate(buckets)
        if place == 0 or bucket != buckets[place - 1]
    ]


def value(row: dict[str, Any], key: str) -> float:
    found = row.get(key)
    return math.nan if found is None else float(found)


@settings(max_examples=tries(200))
@given(logged_rows, st.integers(6, 40), st.sampled_from(["inner", "outer"]))
def test_extremes_hide_no_spike(logged: list[Logged], samples: int, join: str) -> None:
    history = history_of(logged, join)
    rows = list(history.to_dicts())

    places = extremes(history, ["a", "b"], samples).tolist()

    assert len(places) <= samples
    assert places == sorted(set(places))
    if not rows:
        return
    assert {places[0], places[-1]} == {0, len(rows) - 1}
    limit = (samples - 2) // 4
    starts = bucket_starts([history.steps], limit).tolist()
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        kept = [rows[place] for place in places if start <= place < stop]
        for key in ("a", "b"):
            bucket = [value(row, key) for row in rows[start:stop]]
            finite = [v for v in bucket if not math.isnan(v)]
            shown = [value(row, key) for row in kept]
            assert not finite or {min(finite), max(finite)} <= set(shown)


def test_a_bucket_of_nan_keeps_its_first_row() -> None:
    logged: list[Logged] = [
        (0, step, 0.0, {"a": float(step) if step < 50 else math.nan, "b": 0.0})
        for step in range(100)
    ]
    history = history_of(logged)

    places = extremes(history, ["a"], 12).tolist()

    assert any(50 <= place < 99 for place in places)


def test_a_key_of_the_rows_themselves_has_extremes_too() -> None:
    logged: list[Logged] = [(0, step, 0.0, {"a": 1.0}) for step in range(100)]

    places = extremes(history_of(logged), ["_step"], 10).tolist()

    assert places == [0, 25, 26, 51, 52, 77, 78, 99]
