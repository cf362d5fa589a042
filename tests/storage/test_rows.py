import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage import budget
from flightlog_storage import rows as rows_module
from flightlog_storage.codec import encode_event
from flightlog_storage.event import (
    AlertRaised,
    Kind,
    Malformed,
    Rows,
    Series,
    TagsChanged,
    Unknown,
)
from flightlog_storage.rows import decode

TIME = 1_700_000_000.5
MICROSECONDS = 1_700_000_000_500_000
JSON_INT = '{"_type":"int","value":[]}'


def pack(*objects: object) -> bytes:
    return b"".join(msgpack.packb(one) for one in objects)


def payload_of(keys: list[str], rows: list[list[Any]]) -> bytes:
    return pack([[0, keys]], *([0, *row] for row in rows))


def only(keys: list[str], rows: list[list[Any]]) -> Rows:
    [(index, item)] = decode(payload_of(keys, rows), len(rows))
    assert index == 0
    assert isinstance(item, Rows)
    return item


def points(series: Series) -> list[tuple[int, int, str, int, str | None]]:
    """What a series says, in a form in which NaN equals NaN."""
    kinds = series.kinds or bytes(len(series.steps))
    return [
        (step, time, repr(value), kind, series.texts.get(index))
        for index, (step, time, value, kind) in enumerate(
            zip(series.steps, series.times, series.values, kinds, strict=True)
        )
    ]


def plain(payload: bytes, count: int) -> list[Any]:
    """All that a payload decodes to, in a form that can be compared."""
    return [
        (
            index,
            list(item.steps),
            item.time,
            [(series.path, points(series)) for series in item.series],
        )
        if isinstance(item, Rows)
        else (index, repr(item))
        for index, item in decode(payload, count)
    ]


def test_rows_become_columns() -> None:
    rows = only(["a", "b"], [[1, TIME, 0.5, 2], [2, TIME + 1, 1.5, 3.0]])

    assert list(rows.steps) == [1, 2]
    assert rows.time == TIME + 1
    first, second = rows.series
    assert first.path == ("a",)
    assert list(first.times) == [MICROSECONDS, MICROSECONDS + 1_000_000]
    assert list(first.values) == [0.5, 1.5]
    assert first.kinds == b""
    assert second.kinds == bytes([Kind.INT, Kind.FLOAT])


@pytest.mark.parametrize(
    ("value", "number", "kind", "text"),
    [
        (None, math.nan, Kind.NULL, None),
        (True, 1.0, Kind.BOOL, None),
        (2**53, 2.0**53, Kind.INT, None),
        (2**53 + 1, 2.0**53, Kind.INT, "9007199254740993"),
        (2**64 - 1, 2.0**64, Kind.INT, "18446744073709551615"),
        (-(2**63), -(2.0**63), Kind.INT, "-9223372036854775808"),
        ({"_type": "int", "value": "9" * 400}, math.inf, Kind.INT, "9" * 400),
        ({"_type": "int", "value": "-7"}, -7.0, Kind.INT, None),
        ({"_type": "int", "value": []}, math.nan, Kind.JSON, JSON_INT),
        ({"_type": "image", "n": 1}, math.nan, Kind.JSON, '{"_type":"image","n":1}'),
        (math.inf, math.inf, Kind.FLOAT, None),
        ("ü\0", math.nan, Kind.STR, "ü\0"),
        (b"a\xff", math.nan, Kind.STR, "a\\xff"),
        ([1, math.nan, "ü", None], math.nan, Kind.JSON, '[1,NaN,"ü",null]'),
        ({}, math.nan, Kind.JSON, "{}"),
    ],
)  # fmt: skip
def test_each_kind_of_value(
    value: object, number: float, kind: Kind, text: str | None
) -> None:
    [series] = only(["x"], [[7, TIME, value]]).series

    assert points(series) == [(7, MICROSECONDS, repr(number), kind, text)]


def test_nested_dicts_are_flattened() -> None:
    value = {"a": {"b": 1.0, 2: {}}, "c": {"_type": "image"}, b"d": True}

    rows = only(["x"], [[0, TIME, value]])

    paths = {series.path: series.texts.get(0) for series in rows.series}
    assert paths == {
        ("x", "a", "b"): None,
        ("x", "a", "2"): "{}",
        ("x", "c"): '{"_type":"image"}',
        ("x", "d"): None,
    }


def test_dicts_nested_too_deeply_are_json() -> None:
    value: Any = 1.0
    for _ in range(100):
        value = {"a": value}

    [series] = only(["x"], [[0, TIME, value]]).series

    assert len(series.path) < 40
    assert series.texts[0].startswith('{"a":{"a":')


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "row",
    [
        [],
        [0, 1],
        [9, 1, TIME, 1.0],
        [[], 1, TIME, 1.0],
        [True, 1, TIME, 1.0],
        [0, 1, TIME],
        [0, 1, TIME, 1.0, 2.0],
        [0, 1.0, TIME, 1.0],
        [0, 2**63, TIME, 1.0],
        [0, "1", TIME, 1.0],
        [0, 1, None, 1.0],
        [0, 1, math.nan, 1.0],
        [0, 1, -1.0, 1.0],
        [0, 1, 1e300, 1.0],
        [0, 1, TIME, [{b"bytes": 1}]],
    ],
)
def test_wrong_row_costs_only_itself(row: list[Any]) -> None:
    good = [0, 1, TIME, 1.0]

    items = list(decode(pack([[0, ["x"]]], good, row, good), 3))

    before, wrong, after = items
    assert [index for index, _ in items] == [0, 1, 2]
    assert isinstance(before[1], Rows)
    assert isinstance(wrong[1], Malformed)
    assert wrong[1].raw == msgpack.packb(row)
    assert isinstance(after[1], Rows)


def test_events_stand_between_rows() -> None:
    alert = AlertRaised(time=TIME, title="hot")
    row = pack([0, 1, TIME, 1.0])
    payload = pack([[0, ["x"]]]) + row * 2 + encode_event(alert) + row

    items = list(decode(payload, 4))

    assert [(index, type(item)) for index, item in items] == [
        (0, Rows),
        (2, AlertRaised),
        (3, Rows),
    ]
    assert items[1][1] == alert


def test_other_events() -> None:
    payload = pack([], {"event": "New", "x": 1}, {"event": 1}, "text") + encode_event(
        TagsChanged(time=TIME, tags=["a"])
    )

    items = [item for _, item in decode(payload, 4)]

    assert list(map(type, items)) == [Unknown, Malformed, Malformed, TagsChanged]


def test_cut_payload_keeps_what_came_before() -> None:
    rows = [[step, TIME, 1.0, "x"] for step in range(40)]
    payload = payload_of(["a", "b"], rows)
    start = len(payload_of(["a", "b"], []))

    for cut in range(start, len(payload)):
        items = [item for _, item in decode(payload[:cut], 40)]
        whole = (cut - start) * 40 // (len(payload) - start)
        assert isinstance(items[-1], Malformed)
        if whole:
            assert isinstance(items[0], Rows)
            assert len(items[0].steps) == whole


def test_what_follows_the_last_event_is_told() -> None:
    rows, rest = decode(payload_of(["x"], [[1, TIME, 1.0]]) + b"\x01", 1)

    assert isinstance(rows[1], Rows)
    assert isinstance(rest[1], Malformed)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", pack(1), pack([[0]]), pack([["a", []]])]
)
def test_payload_without_definitions(payload: bytes) -> None:
    [(index, item)] = decode(payload, 3)

    assert index == 0
    assert isinstance(item, Malformed)


@pytest.mark.parametrize("first", [100, 200, 65_500, 2**32 - 40, 2**63 - 80])
def test_steps_and_ints_of_growing_width(first: int) -> None:
    rows = [[step, TIME, step, -step, 0.5] for step in range(first, first + 80)]

    up, down, half = only(["up", "down", "half"], rows).series

    assert list(up.steps) == [row[0] for row in rows]
    exact = [int(up.texts.get(i, up.values[i])) for i in range(80)]
    assert exact == [row[2] for row in rows]
    assert [int(down.texts.get(i, down.values[i])) for i in range(80)] == [
        row[3] for row in rows
    ]
    assert half.kinds == b""


@pytest.mark.fault(31)
def test_same_key_twice_in_a_shape_keeps_log_order() -> None:
    [series] = only(["x", "x"], [[step, TIME, 1.0, 2.0] for step in range(50)]).series

    assert list(series.values) == [1.0, 2.0] * 50


FORMS = st.sampled_from([1.0, 2, None, "text", [3], {"a": 1.0}, {"b": 2, "a": 1.0}])


@settings(max_examples=tries(200))
@given(st.lists(st.tuples(FORMS, FORMS), min_size=1, max_size=40))
def test_series_have_each_point_and_stand_in_order_of_first_ones(
    rows: list[tuple[Any, ...]],
) -> None:
    expected: dict[tuple[str, ...], list[int]] = {}
    for step, row in enumerate(rows):
        for key, value in zip("xy", row, strict=True):
            inner = [(key, name) for name in value] if type(value) is dict else [(key,)]
            for path in inner:
                expected.setdefault(path, []).append(step)

    found = only(["x", "y"], [[step, TIME, *row] for step, row in enumerate(rows)])

    assert [(each.path, list(each.steps)) for each in found.series] == [
        *expected.items()
    ]


floats = st.floats() | st.floats(width=32)
values = st.one_of(
    floats,
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.just({"a": 1.0}),
)


@st.composite
def payloads(draw: st.DrawFn) -> tuple[bytes, int]:
    """Stretches of rows of one form, some of them long, some with a fault."""
    data = bytearray(pack([[0, ["a", "b"]], [1, ["b", "c"]]]))
    count = 0
    for _ in range(draw(st.integers(1, 5))):
        shape = draw(st.integers(0, 1))
        step = draw(st.integers(-300, 70_000) | st.just(2**63 - 20))
        row = draw(st.lists(values, min_size=2, max_size=2))
        time = draw(st.sampled_from([TIME, TIME, TIME, -1.0, 3]))
        narrow = draw(st.booleans())
        for index in range(draw(st.sampled_from([1, 3, 40, 150]))):
            encoded = [shape, step + index, time, *row]
            try:
                data += msgpack.packb(encoded, use_single_float=narrow)
            except OverflowError:
                data += msgpack.packb(encoded)
            count += 1
    return bytes(data), count


@settings(max_examples=tries(200))
@given(payloads())
def test_stretches_decode_as_single_rows_do(payload: tuple[bytes, int]) -> None:
    fast = plain(*payload)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "STRETCH_ROWS_MIN", 1 << 60)
        slow = plain(*payload)

    assert fast == slow


@pytest.mark.fault(28)
@settings(max_examples=tries(300))
@given(payloads(), st.data())
def test_damaged_payload_never_raises(
    payload: tuple[bytes, int], data: st.DataObject
) -> None:
    damaged = bytearray(payload[0])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(
            st.integers(0, 255)
        )

    indices = [index for index, _ in decode(bytes(damaged), payload[1])]

    assert indices == sorted(indices)


@pytest.mark.fault(28)
@settings(max_examples=tries(300))
@given(st.binary(max_size=200), st.integers(0, 50))
def test_any_bytes_never_raise(tail: bytes, count: int) -> None:
    list(decode(tail, count))
    list(decode(pack([[0, ["x"]]]) + tail, count))


@pytest.mark.fault(29)
@pytest.mark.parametrize("inner", [b"\x91", b"\x81\x01", b"\x81\xa5event"])
@pytest.mark.parametrize("depth", [40, 300, 900, 990, 1010, 2000])
def test_deep_nesting_never_raises(inner: bytes, depth: int) -> None:
    row = pack([0, 1, TIME, 1])[:-1]
    definitions = pack([[0, ["x"]]])

    list(decode(definitions + inner * depth + b"\x01", 1))
    list(decode(definitions + row + inner * depth + b"\x01", 1))
    list(decode(definitions + b"\x82\xa5event\xaaRunStarted\x01" + inner * depth, 1))


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "UNCOUNTED_SIZE_MAX", 0)
    monkeypatch.setattr(budget, "DECODED_SIZE_MAX", 1 << 20)


@pytest.mark.fault(30)
@pytest.mark.usefixtures("small_budget")
@pytest.mark.parametrize(
    "bomb",
    [
        [0, 2, TIME, [{}] * 50_000],
        [0, 2, TIME, {str(n): n for n in range(50_000)}],
        {"event": "ConfigUpdated", "time": TIME, "changes": {"k": [{}] * 50_000}},
        {"event": "NoSuchThing", "inner": [[0]] * 50_000},
        [[]] * 50_000,
    ],
    ids=["row", "leaves", "event", "unknown", "neither"],
)
def test_an_event_over_the_budget_costs_itself_alone(bomb: object) -> None:
    payload = pack([[0, ["a"]]], [0, 1, TIME, 1.0], bomb, [0, 3, TIME, 3.0])

    (_, before), (index, refused), (after_index, after) = decode(payload, 3)

    assert isinstance(before, Rows)
    assert isinstance(after, Rows)
    assert list(before.steps) + list(after.steps) == [1, 3]
    assert (index, after_index) == (1, 2)
    assert isinstance(refused, Malformed)
    assert refused.count == 1
    assert refused.reason == "as objects it would take more than 1,048,576 bytes"
    assert refused.raw == msgpack.packb(bomb)


@pytest.mark.fault(30)
@pytest.mark.usefixtures("small_budget")
def test_definitions_over_the_budget_cost_their_frame() -> None:
    payload = pack([[0, ["a"]], [1, [""] * 50_000]], [0, 1, TIME, 1.0])

    [(_, refused)] = decode(payload, 1)

    assert isinstance(refused, Malformed)
    assert "as objects" in refused.reason


@pytest.mark.fault(30)
@pytest.mark.usefixtures("small_budget")
def test_an_event_over_the_budget_and_without_its_end_ends_the_frame() -> None:
    payload = pack([[0, ["a"]]], [0, 1, TIME, 1.0]) + pack([{}] * 50_000)[:-1]

    (_, before), (_, refused) = decode(payload, 5)

    assert isinstance(before, Rows)
    assert isinstance(refused, Malformed)
    assert refused.count == 4


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([1, 2, TIME, 1, 1, 1], "more than 4 keys in one frame"),
        ([0, 2, TIME, 1, {"x": 1, "y": 1, "z": 1}], "more than 4 keys in one frame"),
        ([0, 2, TIME, 1, dict.fromkeys("vwxyz", 1)], "more than 4 values"),
    ],
    ids=["keys", "nested", "many nested"],
)
def test_more_keys_than_a_row_may_have_are_refused(
    row: list[Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "ROW_POINTS_MAX", 4)
    payload = pack([[0, ["a", "b"]], [1, ["c", "d", "e"]]], [0, 1, TIME, 1, 1], row)

    (_, before), (_, refused) = decode(payload, 2)

    assert isinstance(before, Rows)
    assert isinstance(refused, Malformed)
    assert refused.reason == reason


@pytest.mark.fault(30)
@pytest.mark.parametrize("form", [1.0, "text"], ids=["stretch", "single"])
def test_more_values_than_a_frame_may_have_are_refused(
    form: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "FRAME_POINTS_MAX", 81)
    rows = [[step, TIME, form, form] for step in range(50)]
    payload = payload_of(["a", "b"], rows)

    first, *refused = (item for _, item in decode(payload, 50))

    assert isinstance(first, Rows)
    assert len(first.steps) == 40
    assert [item.reason for item in refused if isinstance(item, Malformed)] == [
        "more than 81 values in one frame"
    ] * 10
