import datetime
import decimal
import enum
import math
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sdk.conftest import Lab, rows_of, state_of

import flightlog
from flightlog.apis.public import Run

pytestmark = pytest.mark.usefixtures("home")


def finished(lab: Lab, run: flightlog.Run) -> Run:
    run.finish()
    return lab.ended(run.id)


# --- steps ---


def test_steps_in_any_order_are_all_stored(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"n": 1})
    run.log({"n": 11}, commit=False)
    run.log({"n": 2}, step=100)
    run.log({"n": 3}, step=100)
    run.log({"n": 8}, step=101)
    run.log({"n": 5}, step=102)
    run.log({"cool": 2}, step=2)
    run.log({"cool": 2}, step=4)
    next_step = run.step

    read = finished(lab, run)

    assert next_step == 102
    assert rows_of(read, "n") == [(0, 1), (1, 11), (100, 3), (101, 8), (102, 5)]
    assert rows_of(read, "cool") == [(2, 2), (4, 2)]


def test_rows_of_equal_step_merge_key_by_key(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": 1, "b": 1}, commit=False)
    run.log({"b": 2, "c": 2}, commit=False)
    run.log({"c": 3})
    run.log({"a": 4})

    rows = list(finished(lab, run).scan_history())

    assert [(row["_step"], row.get("a"), row.get("c")) for row in rows] == [
        (0, 1, 3),
        (1, 4, None),
    ]
    assert rows[0]["b"] == 2


def test_a_committed_step_takes_more(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": 1}, step=5, commit=True)
    after = run.step
    run.log({"b": 2}, step=5)

    read = finished(lab, run)

    assert after == 6
    assert rows_of(read, "a", "b") == [(5, 1, 2)]


def test_empty_row_advances_the_step() -> None:
    run = flightlog.init()

    run.log({})
    run.log({}, commit=False)

    assert run.step == 1


@pytest.mark.parametrize("step", [np.int64(7), 7.0, True + 6])
def test_steps_that_are_whole_numbers_are_taken(step: Any) -> None:
    run = flightlog.init()

    run.log({"a": 1}, step=step)

    assert run.step == 7


def test_row_is_not_changed() -> None:
    run = flightlog.init()
    run.define_metric("a", step_metric="epoch")
    run.log({"epoch": 1})
    row = {"a": {"b": np.float32(1)}, "c": [1]}

    run.log(row)

    assert row == {"a": {"b": np.float32(1)}, "c": [1]}


def test_rows_get_time_and_runtime(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": 1})

    (row,) = finished(lab, run).scan_history()

    assert abs(row["_timestamp"] - run.start_time) < 60
    assert row["_runtime"] >= 0


# --- values ---


class Colour(enum.Enum):
    RED = "r"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    y: float


class Tensor:
    """Can what tensors can: of torch, jax and tensorflow alike."""

    def __init__(self, values: Any, shape: tuple[int, ...]) -> None:
        self._values = values
        self.shape = shape

    def item(self) -> Any:
        return self._values

    def tolist(self) -> Any:
        return self._values


class Eager:
    """As tensorflow's: no tolist, but numpy."""

    shape = ()

    def numpy(self) -> Any:
        return np.float32(0.5)


STORED = {
    "int": (3, 3),
    "negative": (-3, -3),
    "beyond float": (2**53 + 1, 2**53 + 1),
    "int 64": (2**63, 2**63),
    "beyond 64": (-(2**70), -(2**70)),
    "float": (0.1, 0.1),
    "bool": (True, True),
    "str": ("ä\0", "ä\0"),
    "surrogate": ("a\ud800", "a\\ud800"),
    "list": ([1, [2.5, "x"], None], [1, [2.5, "x"], None]),
    "tuple": ((1, 2), [1, 2]),
    "set": ({2, 1}, [1, 2]),
    "decimal": (decimal.Decimal("0.25"), 0.25),
    "datetime": (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
    "timedelta": (datetime.timedelta(seconds=1.5), 1.5),
    "enum": (Colour.RED, "RED"),
    "int enum": (Level.HIGH, 3),
    "bytes": (b"ab\xff", "ab\\xff"),
    "array": (np.arange(3), [0, 1, 2]),
    "0-d array": (np.array(2.5), 2.5),
    "longdouble": (np.longdouble(1.5), 1.5),
    "longdoubles": (np.array([1.5], np.longdouble), [1.5]),
    "numpy str": (np.str_("x"), "x"),
    "tensor": (Tensor(0.5, ()), 0.5),
    "tensors": (Tensor([1, 2], (2,)), [1, 2]),
    "eager": (Eager(), 0.5),
}


@pytest.mark.fault(47)
@pytest.mark.parametrize("known", [False, True], ids=["new shape", "known shape"])
def test_values_come_back_as_they_were(lab: Lab, known: bool) -> None:
    run = flightlog.init()
    if known:
        run.log(dict.fromkeys(STORED, 0))

    run.log({key: value for key, (value, _) in STORED.items()}, step=7)

    row = list(finished(lab, run).scan_history())[-1]
    found = {key: row[key] for key in STORED}
    assert found == {key: wanted for key, (_, wanted) in STORED.items()}
    assert {key: type(found[key]) for key in STORED} == {
        key: type(wanted) for key, (_, wanted) in STORED.items()
    }


@pytest.mark.fault(47)
def test_floats_keep_their_bits(lab: Lab) -> None:
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]
    run = flightlog.init()
    for value in values:
        run.log({"x": value})

    found = [value for _, value in rows_of(finished(lab, run), "x")]

    assert [struct.pack("<d", x) for x in found] == [
        struct.pack("<d", x) for x in values
    ]


@pytest.mark.parametrize("code", "?bBhHiIlLqQefd")
def test_numpy_scalars_become_numbers(lab: Lab, code: str) -> None:
    run = flightlog.init(id=f"numpy-{ord(code)}")
    run.log({"x": np.dtype(code).type(1), "y": np.array(1, code)})
    latest = run.summary.as_dict()

    assert latest == {"x": 1, "y": 1}
    assert type(latest["x"]) is type(np.dtype(code).type(1).item())


def test_nested_values_are_dotted_in_history_and_nested_in_summary(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": {"b": {"c": 1}, "d": Point(1, 2.5)}})
    latest = run.summary.as_dict()

    read = finished(lab, run)

    assert rows_of(read, "a.b.c", "a.d.x", "a.d.y") == [(0, 1, 1, 2.5)]
    assert read.summary["a"] == {"b": {"c": 1}, "d": {"x": 1, "y": 2.5}} == latest["a"]


def test_none_counts_as_absent(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": None, "b": 1})
    run.log({"a": 1, "b": 1})

    assert rows_of(finished(lab, run), "a", "b") == [(1, 1, 1)]


@pytest.mark.fault(48)
@pytest.mark.parametrize(
    "key", ["", "a.b", "train/loss", "ключ", "a\0b", "\u202eabc", "e\u0301", "\xe9"]
)
def test_keys_are_kept(lab: Lab, key: str) -> None:
    run = flightlog.init()
    run.log({key: 1.5})

    (row,) = finished(lab, run).scan_history()

    assert row[key] == 1.5


@pytest.mark.fault(31)
@pytest.mark.fault(48)
def test_the_longest_keys_and_those_that_are_no_text_are_kept(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a\ud800": 1.5, "x" * 1024: 2.5, "é" * 512: 3.5})

    (row,) = finished(lab, run).scan_history()

    assert (row["a\\ud800"], row["x" * 1024], row["é" * 512]) == (1.5, 2.5, 3.5)


@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_mappings_with_odd_keys_harm_no_row(lab: Lab, first: bool) -> None:
    run = flightlog.init()
    if not first:
        run.log({"a": 0})
    run.log({"a": {(1, 2): 3, None: 4, b"k": 5}})
    run.log({"a": {"b": 1}})

    read = finished(lab, run)

    assert rows_of(read, "a.b") == [(run.step - 1, 1)]
    assert len(list(read.scan_history())) == run.step


class Stubborn:
    shape = ()

    def tolist(self) -> Any:
        raise RuntimeError("on another device")


REFUSED = {
    "object": object(),
    "function": len,
    "complex": 1j,
    "numpy complex": np.complex64(1),
    "complex array": np.array([1j]),
    "longest complex": np.clongdouble(1j),
    "large array": np.zeros(2000),
    "huge int": 10**5000,
    "object in a list": [1, object()],
    "object in a dict": {"x": {"y": object()}},
}


@pytest.mark.parametrize("known", [False, True], ids=["new shape", "known shape"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_stored_is_refused_by_name(what: str, known: bool) -> None:
    run = flightlog.init(id=f"refused-{known}")
    if known:
        run.log({"good": 1, "the key": 1})
    step = run.step

    with pytest.raises(TypeError, match="the key"):
        run.log({"good": 1, "the key": REFUSED[what]})

    assert run.step == step
    run.log({"good": 2})
    assert run.summary["good"] == 2


def test_error_of_a_value_is_told_and_costs_no_step() -> None:
    run = flightlog.init()

    with pytest.raises(TypeError, match=r"'a'.*another device"):
        run.log({"a": Stubborn()})

    assert run.step == 0


def test_cycles_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    run = flightlog.init()

    with pytest.raises(TypeError, match="'a' is nested"):
        run.log({"a": cycle})


@pytest.mark.fault(50)
def test_a_metric_may_change_its_type(lab: Lab) -> None:
    values = [1, 2.5, "three", True, [4], {"x": 5}, None, 2**70]
    run = flightlog.init()
    for value in values:
        run.log({"a": value})

    rows = list(finished(lab, run).scan_history())

    assert [row.get("a") for row in rows if "a" in row] == [
        1, 2.5, "three", True, [4], *([None] if rows[6].get("a", 0) is None else []),
        2**70,
    ]  # fmt: skip
    assert rows[5]["a.x"] == 5


# --- much ---


@pytest.mark.fault(49)
def test_row_with_100_000_keys_is_stored(lab: Lab) -> None:
    run = flightlog.init()
    row = {f"layer/{number}": number for number in range(100_000)}
    run.log(row)
    run.log(row)
    run.log({"after": 1})

    read = finished(lab, run)

    assert rows_of(read, "after") == [(2, 1)]
    assert rows_of(read, "layer/0", "layer/99999") == [(0, 0, 99999), (1, 0, 99999)]


@pytest.mark.fault(49)
def test_100_000_keys_over_many_rows_are_stored(lab: Lab) -> None:
    run = flightlog.init()
    for number in range(100_000):
        run.log({f"layer/{number}": number})
    assert run.flush(30)

    read = finished(lab, run)

    assert rows_of(read, "layer/99999") == [(99999, 99999)]
    assert read.history_line_count == 100_000


@pytest.mark.fault(27)
@pytest.mark.parametrize("known", [False, True], ids=["new shape", "known shape"])
def test_20_mb_value_is_refused_and_its_neighbours_kept(lab: Lab, known: bool) -> None:
    run = flightlog.init()
    run.log({"a": "small"} if known else {"b": 1})

    with pytest.raises(ValueError, match=r"20,0.*'a'.*at most 7,340,032"):
        run.log({"a": "x" * 20_000_000})

    run.log({"b": 2})
    assert finished(lab, run).summary["b"] == 2


@pytest.mark.fault(27)
@pytest.mark.parametrize("size", [4 << 20, 7_300_000])
def test_values_larger_than_a_chunk_are_stored(lab: Lab, size: int) -> None:
    run = flightlog.init()
    run.log({"a": "x"})
    run.log({"a": "x" * size})
    run.log({"a": "y"})

    found = [len(str(value)) for _, value in rows_of(finished(lab, run), "a")]

    assert found == [1, size, 1]


@pytest.mark.fault(27)
def test_names_too_long_together_are_refused() -> None:
    run = flightlog.init()

    with pytest.raises(ValueError, match="names of the 8,000 keys"):
        run.log({f"{number:01000}": 1 for number in range(8000)})


@pytest.mark.fault(30)
def test_too_many_small_values_are_refused_and_their_neighbours_kept(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": 1})

    bombs: list[dict[str, Any]] = [
        {"b": [{}] * 3_000_000},
        {"c": {str(n): n for n in range(300_000)}},
    ]
    for data in bombs:
        with pytest.raises(ValueError, match=r"too many small values|300,000 values"):
            run.log(data)
    with pytest.raises(ValueError, match="ConfigUpdated: these are too many small"):
        run.config["k"] = [{}] * 3_000_000

    run.log({"a": 2})
    read = finished(lab, run)
    assert rows_of(read, "a") == [(0, 1), (1, 2)]
    assert read.lost_count == 0


@pytest.mark.fault(30)
def test_too_many_small_values_in_a_later_row_are_counted(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": 1})
    run.log({"a": [{}] * 3_000_000})
    run.log({"a": 2})

    read = finished(lab, run)

    assert rows_of(read, "a") == [(0, 1), (2, 2)]
    assert read.lost_count == 1


# --- how the module looks ---


def test_module_level_functions_work_as_wandb(lab: Lab, home: Path) -> None:
    lab.run_script(
        """
        import flightlog as wandb
        run = wandb.init(project="p", id="module", config={"lr": 1})
        assert wandb.run is run
        wandb.config.epochs = 3
        wandb.define_metric("loss", summary="min")
        wandb.log({"loss": 2})
        wandb.log({"loss": 3})
        wandb.summary["best"] = 5
        wandb.alert("title", "text", level="WARN")
        wandb.mark_preempting()
        wandb.finish()
        assert wandb.run is None
        """
    )

    read = lab.find("module", "p")

    assert (read.state, read.config) == ("finished", {"lr": 1, "epochs": 3})
    assert (read.summary["loss"], read.summary["best"]) == ({"min": 2}, 5)
    assert [alert.title for alert in state_of(read).alerts] == ["title"]


def test_all_that_is_offered_exists() -> None:
    with pytest.raises(flightlog.UsageError, match=r"call flightlog.init\(\)"):
        _ = flightlog.config
    run = flightlog.init()

    assert [name for name in flightlog.__all__ if not hasattr(flightlog, name)] == []
    assert flightlog.run is run


# --- what is easily stored wrong ---


def test_long_list_is_read_back(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": [1]})
    for _ in range(2):
        run.log({"a": [1] * 1_500_000})

    read = finished(lab, run)

    assert [len(row["a"]) for row in read.scan_history()] == [1, 1_500_000, 1_500_000]
    assert read.lost_count == 0


@pytest.mark.parametrize("key", ["_step", "_timestamp", "_runtime", "_rank"])
def test_key_that_each_row_has_anyway_is_refused(key: str) -> None:
    run = flightlog.init()

    with pytest.raises(ValueError, match=f"'{key}' is made by flightlog"):
        run.log({"a": 1, key: 5})

    assert run.step == 0


def test_large_ints_are_ints_wherever_they_are(lab: Lab) -> None:
    run = flightlog.init(config={"seed": 2**70, "list": [2**70]})
    run.log({"a": [2**70, {"b": -(2**80)}]})
    assert run.config == {"seed": 2**70, "list": [2**70]}

    read = finished(lab, run)

    assert rows_of(read, "a") == [(0, [2**70, {"b": -(2**80)}])]
    assert read.config == {"seed": 2**70, "list": [2**70]}


def test_step_metric_goes_with_nested_names(lab: Lab) -> None:
    run = flightlog.init()
    run.define_metric("val.*", step_metric="epoch.n")
    run.log({"epoch": {"n": 3}})
    run.log({"val": {"a": 1}})
    run.log({"epoch": {"n": 4}})
    run.log({"val": {"a": 2}})

    assert rows_of(finished(lab, run), "val.a", "epoch.n") == [(1, 1, 3), (3, 2, 4)]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (np.datetime64("2024-01-02T03:04:05"), "2024-01-02T03:04:05"),
        (np.datetime64(1704164645123456789, "ns"), "2024-01-02T03:04:05.123456789"),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.timedelta64(5, "ns"), 5e-9),
        (np.array(["2024-01-02"], "datetime64[ns]"), ["2024-01-02T00:00:00.000000000"]),
        (np.array([2, 3], "timedelta64[s]"), [2.0, 3.0]),
    ],
)
def test_times_of_numpy(lab: Lab, value: Any, stored: Any) -> None:
    run = flightlog.init()
    run.log({"a": value})

    assert rows_of(finished(lab, run), "a") == [(0, stored)]


@pytest.mark.parametrize(
    "value",
    [decimal.Decimal("1e999"), np.longdouble("1e400"), {1: "a", "1": "b"}, np.float32],
)
def test_what_would_change_silently_is_refused(value: Any) -> None:
    run = flightlog.init()

    with pytest.raises(TypeError, match="'a'"):
        run.log({"a": value})

    run.log({"a": 1}, step=np.float32(5))  # type: ignore[arg-type]  # As 5.0 is.
    assert run.step == 5


def test_equal_numbers_are_no_change_of_the_config() -> None:
    run = flightlog.init(config={"a": 4, "b": True})

    run.config.update({"a": 4.0})
    with pytest.raises(flightlog.Error, match="'b'"):
        run.config.update({"b": 1})


def test_a_late_row_costs_no_more_calls_than_an_early_one() -> None:
    run = flightlog.init()

    def call_count() -> int:
        found = 0

        def count(*_: object) -> None:
            nonlocal found
            found += 1

        sys.setprofile(count)
        try:
            run.log({"loss": 0.5, "n": 1})
        finally:
            sys.setprofile(None)
        return found

    early = min(call_count() for _ in range(20))
    for _ in range(5000):
        run.log({"loss": 0.5, "n": 1})

    assert min(call_count() for _ in range(20)) == early
