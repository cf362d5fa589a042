import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage import budget
from flightlog_storage.budget import check_cost, is_cheap, refusal
from flightlog_storage.codec import encode_event, unpacker
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import ConfigUpdated
from flightlog_storage.frame import EVENT_SIZE_MAX, PAYLOAD_SIZE_MAX

SMALL_BUDGET = 1 << 20
BOMB = msgpack.packb([{}] * 100_000)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=40)
    ),
)
LONG: tuple[object, ...] = (
    *("x" * size for size in (31, 32, 255, 256, 65_535, 65_536)),
    *(b"x" * size for size in (255, 256, 65_535, 65_536)),
    *([1] * size for size in (15, 16, 65_535, 65_536)),
    *(dict.fromkeys(range(size), 1) for size in (15, 16, 1000)),
    *(
        msgpack.ExtType(5, b"x" * size)
        for size in (1, 2, 3, 4, 8, 16, 255, 256, 65_536)
    ),
    1.5,
)


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "DECODED_SIZE_MAX", SMALL_BUDGET)


def assert_walked_to_its_end(value: object) -> None:
    encoded = msgpack.packb(value)

    check_cost(encoded + BOMB)
    check_cost(BOMB + encoded, len(BOMB))
    with pytest.raises(MalformedEvent, match="more than 1,048,576 bytes"):
        check_cost(b"\x92" + encoded + BOMB)


@settings(max_examples=tries(200))
@given(VALUES)
def test_any_value_is_looked_at_up_to_its_end(value: object) -> None:
    assert_walked_to_its_end(value)


@pytest.mark.parametrize("value", LONG, ids=lambda value: repr(value)[:20])
def test_each_form_is_looked_at_up_to_its_end(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "DECODED_SIZE_MAX", 7 << 20)

    encoded = msgpack.packb(value)

    check_cost(encoded + BOMB)
    with pytest.raises(MalformedEvent):
        check_cost(b"\x92" + encoded + BOMB)


@pytest.mark.parametrize("cut", range(len(msgpack.packb([2**40, "text", {"a": [1]}]))))
def test_a_value_without_its_end_is_nobodys_fault(cut: int) -> None:
    check_cost(msgpack.packb([2**40, "text", {"a": [1]}])[:cut])


@pytest.mark.parametrize(
    "part",
    [
        1,
        1000,
        0.5,
        "",
        "two",
        "ü" * 10,
        "\N{PARROT}" + "x" * 100,
        b"bytes",
        [],
        [1],
        [0.5, 0.5],
        {},
        {0: 0},
        {"a": 0.5, "b": [1]},
        {str(n): n for n in range(6)},
        {str(n): n for n in range(11)},
        {str(n): n for n in range(1000)},
        {n: n for n in range(1000, 4000)},
    ],
    ids=lambda part: repr(part)[:20],
)
def test_objects_take_no_more_than_was_counted(part: Any) -> None:
    one = msgpack.packb(part)
    parts = 1
    while not is_over(b"\xdd" + (2 * parts).to_bytes(4) + 2 * parts * one):
        parts *= 2
    data = b"\xdd" + parts.to_bytes(4) + parts * one

    stream = unpacker(data)
    tracemalloc.start()
    try:
        value = stream.unpack()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(value) == parts
    assert not is_over(data)
    assert taken <= SMALL_BUDGET


def is_over(data: bytes) -> bool:
    try:
        check_cost(data)
    except MalformedEvent:
        return True
    return False


@settings(max_examples=tries(200))
@given(st.lists(VALUES, max_size=60))
def test_what_is_cheap_at_a_look_is_not_over(values: list[object]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "UNCOUNTED_SIZE_MAX", 0)
        patch.setattr(budget, "DECODED_SIZE_MAX", 4096)
        data = msgpack.packb(values)

        assert not (is_cheap(data) and is_over(data))


def test_what_is_small_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "UNCOUNTED_SIZE_MAX", len(BOMB))

    assert is_cheap(BOMB)
    assert not is_cheap(BOMB + b"\0")


def config(value: object) -> bytes:
    return encode_event(ConfigUpdated(time=1.0, changes={"k": value}))


@pytest.mark.parametrize(
    "event",
    [
        config({f"key {n}": n / 3 for n in range(50_000)}),
        config([n / 7 for n in range(700_000)]),
        config([[n, n] for n in range(500_000)]),
        config("text " * 1_400_000),
        msgpack.packb([0, 1, 1.0, *(n / 3 for n in range(100_000))]),
        msgpack.packb([0, [f"layer {n} weight" for n in range(budget.ROW_POINTS_MAX)]]),
    ],
    ids=["keys", "floats", "pairs", "text", "row", "names"],
)
def test_what_people_log_is_stored(
    event: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    assert refusal(event) is None


def test_what_cannot_be_stored_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    assert "7,340,033 bytes are too many" in str(refusal(bytes(EVENT_SIZE_MAX + 1)))
    assert "many small values" in str(refusal(config([{}] * 4_000_000)))
    assert EVENT_SIZE_MAX < PAYLOAD_SIZE_MAX
