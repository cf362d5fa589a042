import math
from array import array
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage.database import Database
from flightlog_storage.event import (
    AlertRaised,
    ConfigUpdated,
    Event,
    Gap,
    Kind,
    MetricDefined,
    PreemptionAnnounced,
    Rows,
    RunDescribed,
    RunFinished,
    RunStarted,
    Series,
    SummaryUpdated,
    TagsChanged,
    Unknown,
    WriterId,
    WriterLost,
)
from flightlog_storage.fold import ALERTS_MAX, apply, receive
from flightlog_storage.runstate import RunState, State, WriterStatus

A, B, C = (WriterId(letter * 16) for letter in (b"a", b"b", b"c"))
Step = tuple[WriterId, Event | Rows | Unknown]


def started(rank: int = 0, time: float = 100.0, **given: Any) -> RunStarted:
    return RunStarted(time=time, entity="e", project="p", run="r", rank=rank, **given)


def finished(exit_code: int = 0) -> RunFinished:
    return RunFinished(time=110.0, exit_code=exit_code)


def finished_by_implication() -> RunFinished:
    return RunFinished(time=110.0, exit_code=0, implied=True)


def lost(**given: Any) -> WriterLost:
    return WriterLost(time=111.0, reason="gone", **given)


def series(name: str | tuple[str, ...], *values: Any, step: int = 0) -> Series:
    """Return values as their kinds: float, int, bool, str, None or (list) JSON."""
    path = (name,) if isinstance(name, str) else name
    kinds, numbers, texts = bytearray(), array("d"), {}
    for index, value in enumerate(values):
        kind, number, text = _point(value)
        kinds.append(kind)
        numbers.append(number)
        if text is not None:
            texts[index] = text
    steps = array("q", range(step, step + len(values)))
    times = array("q", [0] * len(values))
    return Series(
        path, steps, times, numbers, bytes(kinds) if any(kinds) else b"", texts
    )


def _point(value: Any) -> tuple[Kind, float, str | None]:
    match value:
        case bool():
            return Kind.BOOL, float(value), None
        case int():
            big = abs(value) > 2**53
            return Kind.INT, float(value), str(value) if big else None
        case float():
            return Kind.FLOAT, value, None
        case str():
            return Kind.STR, math.nan, value
        case None:
            return Kind.NULL, math.nan, None
        case _:
            return Kind.JSON, math.nan, value[0]


def rows(*columns: Series, time: float = 105.0) -> Rows:
    count = max(len(column.steps) for column in columns)
    steps = max((column.steps for column in columns), key=len)
    assert len(steps) == count
    return Rows(steps, time, columns)


def folded(*steps: Step, state: RunState | None = None) -> RunState:
    state = state or RunState("e", "p", "r", 7)
    for writer, event in steps:
        apply(state, writer, event)
    return state


def logged(*columns: Series, before: tuple[Event, ...] = ()) -> dict[str, Any]:
    """Return the summary, less what is in every one."""
    definitions = [(A, event) for event in before]
    points = [(A, rows(column)) for column in columns]
    summary = folded((A, started()), *definitions, *points).summary
    return {key: value for key, value in summary.items() if not key.startswith("_")}


def content(state: RunState) -> str:
    """Return what two equal states have in common, NaN included."""
    shown = {f.name: getattr(state, f.name) for f in fields(state) if f.compare}
    return repr(
        {k: sorted(v.items()) if type(v) is dict else v for k, v in shown.items()}
    )


ROW = rows(series("x", 1.0))
PREEMPTED = PreemptionAnnounced(time=106.0)

STATE_RULES: dict[str, tuple[list[Step], State, int | None, int | None]] = {
    "running": ([(A, started())], State.RUNNING, None, None),
    "exit 0": ([(A, started()), (A, finished())], State.FINISHED, 0, None),
    "exit 1": ([(A, started()), (A, finished(1))], State.FAILED, 1, None),
    "Ctrl-C": ([(A, started()), (A, finished(255))], State.FAILED, 255, None),
    "exit 143": ([(A, started()), (A, finished(143))], State.KILLED, 143, 15),
    "vanished": ([(A, started()), (A, lost())], State.CRASHED, None, None),
    "SIGKILL": ([(A, started()), (A, lost(signal=9))], State.CRASHED, None, 9),
    "SIGSEGV": ([(A, started()), (A, lost(signal=11))], State.CRASHED, None, 11),
    "SIGTERM": ([(A, started()), (A, lost(signal=15))], State.KILLED, None, 15),
    "SIGINT": ([(A, started()), (A, lost(signal=2))], State.KILLED, None, 2),
    "SIGHUP": ([(A, started()), (A, lost(signal=1))], State.KILLED, None, 1),
    "os._exit(0)": ([(A, started()), (A, lost(exit_code=0))], State.FINISHED, 0, None),
    "os._exit(3)": ([(A, started()), (A, lost(exit_code=3))], State.FAILED, 3, None),
    "exit 3, told by the daemon alone": (
        [(A, started()), (A, finished_by_implication()), (A, lost(exit_code=3))],
        State.FAILED,
        3,
        None,
    ),
    "exit 0, implied": (
        [(A, started()), (A, finished_by_implication())],
        State.FINISHED,
        0,
        None,
    ),
    "exit 0, told, whatever the process does then": (
        [(A, started()), (A, finished()), (A, lost(exit_code=3))],
        State.FINISHED,
        0,
        None,
    ),
    "a forked worker was terminated": (
        [
            (A, started()),
            (B, started(forked=True)),
            (B, lost(signal=15)),
            (A, finished()),
        ],
        State.FINISHED,
        0,
        None,
    ),
    "a forked worker vanished": (
        [(A, started()), (B, started(forked=True)), (B, lost()), (A, finished())],
        State.FINISHED,
        0,
        None,
    ),
    "a forked worker was killed": (
        [
            (A, started()),
            (B, started(forked=True)),
            (B, lost(signal=9)),
            (A, finished()),
        ],
        State.CRASHED,
        None,
        9,
    ),
    "a forked worker starts after the end": (
        [(A, started()), (A, finished(1)), (B, started(forked=True)), (B, lost())],
        State.FAILED,
        1,
        None,
    ),
    "one of two ranks ended": (
        [(A, started()), (B, started(1)), (A, lost(signal=9))],
        State.RUNNING,
        None,
        None,
    ),
    "the worst of two ranks": (
        [(A, started()), (B, started(1)), (A, finished(2)), (B, finished())],
        State.FAILED,
        2,
        None,
    ),
    "killed is worse than failed": (
        [(A, started()), (B, started(1)), (A, finished(143)), (B, finished(1))],
        State.KILLED,
        143,
        15,
    ),
    "crashed is worse than killed": (
        [(A, started()), (B, started(1)), (A, lost(signal=15)), (B, lost())],
        State.CRASHED,
        None,
        None,
    ),
    "a later rank counts with the first": (
        [(A, started()), (A, finished(1)), (B, started(1)), (B, finished())],
        State.FAILED,
        1,
        None,
    ),
    "a later rank runs": (
        [(A, started()), (A, finished(1)), (B, started(1))],
        State.RUNNING,
        None,
        None,
    ),
    "a resumed run forgets": (
        [
            (A, started()),
            (A, lost(signal=9)),
            (B, started(1, resumed=True)),
            (B, finished()),
        ],
        State.FINISHED,
        0,
        None,
    ),
    "a rank seen before is a new session": (
        [(A, started()), (A, finished(1)), (B, started()), (B, finished())],
        State.FINISHED,
        0,
        None,
    ),
    "resumed before the death is known": (
        [
            (A, started()),
            (B, started(resumed=True)),
            (A, lost(signal=9)),
            (B, finished()),
        ],
        State.FINISHED,
        0,
        None,
    ),
    "resumed while the first goes on and fails": (
        [
            (A, started()),
            (B, started(resumed=True)),
            (B, finished()),
            (A, finished(1)),
        ],
        State.FAILED,
        1,
        None,
    ),
    "speaks again": (
        [(A, started()), (A, lost()), (A, ROW)],
        State.RUNNING,
        None,
        None,
    ),
    "speaks again and finishes": (
        [(A, started()), (A, lost()), (A, ROW), (A, finished())],
        State.FINISHED,
        0,
        None,
    ),
    "finishes after it was given up": (
        [(A, started()), (A, lost()), (A, finished())],
        State.FINISHED,
        0,
        None,
    ),
    "finishes twice": (
        [(A, started()), (A, finished()), (A, finished(1))],
        State.FINISHED,
        0,
        None,
    ),
    "lost after it finished": (
        [(A, started()), (A, finished()), (A, lost(signal=9))],
        State.FINISHED,
        0,
        None,
    ),
    "a gap is no sign of life": (
        [(A, started()), (A, lost()), (A, Gap(time=1.0, count=2, reason="torn"))],
        State.CRASHED,
        None,
        None,
    ),
    "preempting": ([(A, started()), (A, PREEMPTED)], State.PREEMPTING, None, None),
    "preempted, exit 0": (
        [(A, started()), (A, PREEMPTED), (A, finished())],
        State.FINISHED,
        0,
        None,
    ),
    "preempted, exit 1": (
        [(A, started()), (A, PREEMPTED), (A, finished(1))],
        State.PREEMPTED,
        1,
        None,
    ),
    "preempted, vanished": (
        [(A, started()), (A, PREEMPTED), (A, lost(signal=9))],
        State.PREEMPTED,
        None,
        9,
    ),
    "preempted, then resumed": (
        [(A, started()), (A, PREEMPTED), (A, lost()), (B, started(resumed=True))],
        State.RUNNING,
        None,
        None,
    ),
    "preempted, resumed, failed": (
        [
            (A, started()),
            (A, PREEMPTED),
            (A, lost()),
            (B, started(resumed=True)),
            (B, finished(1)),
        ],
        State.FAILED,
        1,
        None,
    ),
    "unknown kinds are ignored": (
        [(A, started()), (A, finished()), (A, Unknown("New", {}))],
        State.FINISHED,
        0,
        None,
    ),
}


@pytest.mark.parametrize("rule", STATE_RULES)
def test_state_follows(rule: str) -> None:
    steps, expected, exit_code, signal = STATE_RULES[rule]

    state = folded(*steps)

    assert (state.state, state.exit_code, state.signal) == (expected, exit_code, signal)
    assert state.active == (expected in (State.RUNNING, State.PREEMPTING))


def test_run_that_has_not_started_is_pending() -> None:
    state = RunState("e", "p", "r", 7)

    assert state.state is State.PENDING
    assert state.last_step == -1


def test_later_writer_keeps_what_it_does_not_give() -> None:
    first = started(name="n", notes="o", tags=["t"], group="g", metadata={"os": "L"})
    later = started(1, 200.0, job_type="eval", host="h", pid=5, metadata={"os": "M"})

    state = folded((A, first), (B, later))

    assert (state.name, state.notes, state.group) == ("n", "o", "g")
    assert (state.job_type, state.tags, state.metadata) == ("eval", ["t"], {"os": "L"})
    assert (state.created_at, state.updated_at) == (100.0, 200.0)
    assert (state.writers[B].host, state.writers[B].pid) == ("h", 5)
    assert state.writers[B].status is WriterStatus.ACTIVE


def test_tags_that_are_given_replace() -> None:
    state = folded((A, started(tags=["a", "b"])), (B, started(1, tags=["c", "c"])))
    assert state.tags == ["c"]

    apply(state, A, TagsChanged(time=1.0, tags=[]))
    assert state.tags == []


def test_description_can_be_taken_back() -> None:
    changes = {"name": None, "notes": "new", "state": "evil"}

    state = folded((A, started(name="n")), (A, RunDescribed(time=1.0, changes=changes)))

    assert (state.name, state.notes, state.state) == (None, "new", State.RUNNING)


def test_config_is_set_and_removed() -> None:
    first = ConfigUpdated(time=1.0, changes={"a": {"b": (1, b"x")}, "c": {1: 2}})
    second = ConfigUpdated(time=1.0, changes={"d": math.inf}, removed=["c", "none"])

    state = folded((A, started()), (A, first), (A, second))

    assert state.config == {"a": {"b": [1, "x"]}, "d": math.inf}


def test_int_beyond_64_bits_comes_as_its_digits() -> None:
    changes = {
        "a": [{"_type": "int", "value": "-" + "9" * 30}],
        "b": {"_type": "int", "value": "nine"},
        "c": {"_type": "int", "value": "9" * 5000},
    }

    state = folded((A, started()), (A, ConfigUpdated(time=1.0, changes=changes)))

    assert state.config == changes | {"a": [-int("9" * 30)]}


def test_config_nested_too_deeply_is_cut() -> None:
    value: Any = 1
    for _ in range(900):
        value = [value]

    state = folded((A, started()), (A, ConfigUpdated(time=1.0, changes={"a": value})))

    assert "too deeply" in repr(state.config["a"])


def test_alerts_are_the_last_ones() -> None:
    alerts = [AlertRaised(time=1.0, title=str(i)) for i in range(ALERTS_MAX + 5)]

    state = folded((A, started()), *((A, alert) for alert in alerts))

    assert [alert.title for alert in state.alerts] == [
        str(i) for i in range(5, ALERTS_MAX + 5)
    ]


def test_lost_events_are_counted() -> None:
    state = folded((A, started()), (A, Gap(time=1.0, count=3, reason="drop")))

    missing = [receive(state, A, *at) for at in ((0, 5), (5, 5), (14, 1), (2, 3))]

    assert missing == [0, 0, 4, 0]
    assert state.writers[A].next_sequence == 15
    assert state.lost_count == 7
    assert receive(state, C, 9, 1) == 0


def test_numbers_too_large_for_the_database_are_cut() -> None:
    gap = Gap(time=1.0, count=2**64 - 1, reason="")

    state = folded((A, started(pid=2**64 - 1)), (A, gap), (A, finished(2**64 - 1)))

    assert state.writers[A].pid == state.exit_code == state.lost_count == 2**63 - 1


# --- rows ---


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        math.inf,
        -math.inf,
        -0.0,
        3,
        2**60 + 1,
        10**40,
        True,
        False,
        "text",
        "",
        None,
    ],
)
def test_last_value_is_exact(value: Any) -> None:
    got = logged(series("x", 1.0, value))["x"]

    assert repr(got) == repr(value)


def test_last_value_may_be_nan() -> None:
    assert math.isnan(logged(series("x", 1.0, math.nan))["x"])


def test_json_is_taken_apart() -> None:
    assert logged(series("x", ['[1,{"a":null}]'])) == {"x": [1, {"a": None}]}


@pytest.mark.parametrize("text", ["{", "9" * 5000, "[" * 100_000])
def test_json_that_cannot_be_held_stays_text(text: str) -> None:
    assert logged(series("x", [text])) == {"x": text}


def test_values_nest_by_path_and_a_dot_in_a_key_is_literal() -> None:
    summary = logged(
        series(("a", "b"), 1.0), series("a.b", 2.0), series(("a", "c"), 3.0)
    )

    assert summary == {"a": {"b": 1.0, "c": 3.0}, "a.b": 2.0}


def test_what_is_in_the_way_gives_way() -> None:
    assert logged(series("a", 1.0), series(("a", "b"), 2.0)) == {"a": {"b": 2.0}}
    assert logged(series(("a", "b"), 2.0), series("a", 1.0)) == {"a": 1.0}


def test_rows_are_counted_and_steps_may_go_backwards() -> None:
    state = folded(
        (A, started(time=100.0)),
        (A, rows(series("x", 1.0, 2.0, step=8), time=130.0)),
        (A, rows(series("x", 3.0, step=2), time=120.0)),
    )

    assert (state.last_step, state.row_count) == (9, 3)
    assert state.summary == {
        "x": 3.0,
        "_step": 2,
        "_timestamp": 130.0,
        "_runtime": 30.0,
    }


def test_summary_set_by_hand_stays_until_logged_again() -> None:
    state = folded((A, started()), (A, rows(series("x", 1.0))))
    by_hand = SummaryUpdated(time=1.0, changes=[(["x"], 9), (["n", "m"], 1)])

    apply(state, A, by_hand)
    apply(state, A, rows(series("y", 1.0)))
    assert (state.summary["x"], state.summary["n"]) == (9, {"m": 1})

    apply(state, A, rows(series("x", 2.0)))
    assert state.summary["x"] == 2.0


def test_summary_is_removed_also_nested() -> None:
    state = folded((A, started()), (A, rows(series(("n", "m"), 1.0), series("x", 1.0))))
    removal = SummaryUpdated(time=1.0, removed=[["n", "m"], ["x"], ["no", "such"], []])

    apply(state, A, removal)

    assert state.summary.keys() == {"n", "_step", "_timestamp", "_runtime"}
    assert state.summary["n"] == {}


def test_fold_keeps_nothing_of_an_event() -> None:
    value = {"b": 1}
    event = SummaryUpdated(time=1.0, changes=[(["a"], value)])

    folded((A, started()), (A, event), (A, rows(series(("a", "b"), 2.0))))

    assert value == {"b": 1}


# --- define_metric ---


def defined(name: str, *summary: str, **given: Any) -> MetricDefined:
    return MetricDefined(time=1.0, name=name, summary=list(summary), **given)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        (["min"], {"min": 1}),
        (["max"], {"max": 8}),
        (["mean"], {"mean": 4}),
        (["first"], {"first": 1}),
        (["last"], {"last": 3}),
        (["best"], {"best": 1}),
        (["min", "max"], {"min": 1, "max": 8}),
        (["copy"], 3),
        ([], 3),
    ],
)
@pytest.mark.parametrize("blocks", [1, 3])
def test_aggregates_of_1_8_3(summary: list[str], expected: Any, blocks: int) -> None:
    columns = (
        [series("x", 1, 8, 3)] if blocks == 1 else [series("x", v) for v in (1, 8, 3)]
    )

    assert logged(*columns, before=(defined("x", *summary),)) == {"x": expected}


def test_none_keeps_the_key_out() -> None:
    assert logged(series("x", 1.0), before=(defined("x", "none"),)) == {}


@pytest.mark.parametrize(
    ("goal", "best"), [("maximize", 8), ("minimize", 1), (None, 1)]
)
def test_best_is_by_goal(goal: str | None, best: int) -> None:
    definition = defined("x", "best", goal=goal)

    assert logged(series("x", 1, 8, 3), before=(definition,)) == {"x": {"best": best}}


def test_strings_between_are_ignored() -> None:
    definition = defined("x", "min", "max", "mean", "first", "last")

    summary = logged(series("x", "a", 1, "b", 8, None, 3, "z"), before=(definition,))

    assert summary == {"x": {"min": 1, "max": 8, "mean": 4, "first": 1, "last": "z"}}


def test_one_nan_stays_for_good() -> None:
    definition = defined("x", "min", "max", "mean", "first", "last")

    for columns in (
        [series("x", 2.0, math.nan, 1.0)],
        [series("x", 2.0), series("x", math.nan), series("x", 1.0)],
    ):
        value = logged(*columns, before=(definition,))["x"]
        assert all(math.isnan(value[name]) for name in ("min", "max", "mean"))
        assert (value["first"], value["last"]) == (2.0, 1.0)


@pytest.mark.parametrize(("goal", "best"), [("maximize", 2.0), ("minimize", 1.0)])
@pytest.mark.parametrize("count", [1, 20])
def test_nan_is_never_the_best(goal: str, best: float, count: int) -> None:
    definition = defined("x", "best", "min", goal=goal)
    nans = series("x", *[math.nan] * count)
    numbers = series("x", *[math.nan, 2.0, 1.0] * count)

    for columns in ((nans, numbers), (numbers, nans), (numbers,)):
        value = logged(*columns, before=(definition,))["x"]
        assert value["best"] == best
        assert math.isnan(value["min"])
    assert math.isnan(logged(nans, before=(definition,))["x"]["best"])


def test_nested_metric_is_summarised_in_place() -> None:
    path = ("this", "that")

    summary = logged(
        series(path, 3, 2, 4), before=(defined("this.that", "min", "max"),)
    )

    assert summary == {"this": {"that": {"min": 2, "max": 4}}}


def test_escaped_dot_names_the_literal_key() -> None:
    columns = (series(("a", "b"), 1, 2), series("a.b", 1, 2))

    summary = logged(*columns, before=(defined(r"a\.b", "min"),))

    assert summary == {"a": {"b": 2}, "a.b": {"min": 1}}


@pytest.mark.parametrize(
    ("glob", "path", "hit"),
    [
        ("*", ("x",), True),
        ("*", ("a", "b"), True),
        ("train/*", ("train/loss",), True),
        ("train/*", ("val/loss",), False),
        ("a.*", ("a", "b"), True),
        ("*", ("_x",), False),
        ("_*", ("_x",), False),
    ],
)
def test_prefix_matches(glob: str, path: tuple[str, ...], hit: bool) -> None:
    definition = defined(glob, "max")

    state = folded((A, started()), (A, definition), (A, rows(series(path, 2, 1))))

    assert (path in state.aggregates) == hit


def test_exact_name_beats_prefixes_and_the_longest_prefix_the_others() -> None:
    before = (defined("*", "max"), defined("a*", "min"), defined("ab", "mean"))

    summary = logged(*(series(name, 1, 3) for name in ("x", "ax", "ab")), before=before)

    assert summary == {"x": {"max": 3}, "ax": {"min": 1}, "ab": {"mean": 2}}


def test_definitions_join_unless_overwritten() -> None:
    first = defined("x", "min", step_metric="epoch")
    joined = defined("x", "max", hidden=True)
    replaced = defined("x", "last", overwrite=True)

    assert logged(series("x", 1, 8), before=(first, joined)) == {
        "x": {"min": 1, "max": 8}
    }
    assert logged(series("x", 1, 8), before=(first, replaced)) == {"x": {"last": 8}}
    definition = folded((A, started()), (A, first), (A, joined)).definitions["x"]
    assert (definition.step_metric, definition.hidden) == ("epoch", True)


def test_aggregates_do_not_depend_on_how_points_were_grouped() -> None:
    values = [0.1 * i**3 - 7 for i in range(300)]
    before = (defined("x", "mean", "min", "max", "first"),)

    whole = logged(series("x", *values), before=before)
    single = logged(*(series("x", value) for value in values), before=before)

    assert repr(whole) == repr(single)


def test_big_ints_and_infinities_are_aggregated() -> None:
    definition = defined("x", "min", "max", "mean")
    values = [10**400, -(2**60) - 1, math.inf, -math.inf] + [1.0] * 20
    kinds = bytes([Kind.INT, Kind.INT] + [Kind.FLOAT] * 22)
    texts = {0: str(values[0]), 1: str(values[1])}
    numbers = array("d", [math.inf, float(values[1]), *map(float, values[2:])])
    column = Series(
        ("x",), array("q", range(24)), array("q", [0] * 24), numbers, kinds, texts
    )

    value = logged(column, before=(definition,))["x"]

    assert (value["min"], value["max"]) == (-math.inf, 10**400)
    assert math.isnan(value["mean"])


# --- the fold may stop and go on anywhere ---

names = st.sampled_from(["a", "b", "a.b", "é\x00", ""]) | st.text(max_size=3)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2)
    ),
    max_leaves=4,
)
paths = st.lists(names, min_size=1, max_size=2)
times = st.floats(0, 1e10)
summaries = st.lists(
    st.sampled_from(["min", "max", "mean", "first", "last", "best", "copy", "none"]),
    max_size=3,
)
columns = st.builds(
    lambda path, points, step: series(tuple(path), *points, step=step),
    paths,
    st.lists(scalars, min_size=1, max_size=3),
    st.integers(0, 100),
)
events = st.one_of(
    st.builds(
        started,
        st.integers(0, 2),
        times,
        name=st.none() | names,
        tags=st.none() | st.lists(names, max_size=2),
        resumed=st.booleans(),
        forked=st.booleans(),
        metadata=st.dictionaries(names, values, max_size=2),
    ),
    st.builds(RunFinished, time=times, exit_code=st.sampled_from([0, 1, 143])),
    st.builds(
        WriterLost,
        time=times,
        reason=names,
        exit_code=st.sampled_from([None, 0, 1]),
        signal=st.sampled_from([None, 9, 15]),
    ),
    st.builds(PreemptionAnnounced, time=times),
    st.builds(
        ConfigUpdated,
        time=times,
        changes=st.dictionaries(names, values, max_size=2),
        removed=st.lists(names, max_size=1),
    ),
    st.builds(
        SummaryUpdated,
        time=times,
        changes=st.lists(st.tuples(paths, values), max_size=2),
        removed=st.lists(paths, max_size=1),
    ),
    st.builds(
        MetricDefined,
        time=times,
        name=st.sampled_from(["*", "a*"]) | names,
        summary=summaries,
        goal=st.sampled_from([None, "maximize"]),
        overwrite=st.booleans(),
    ),
    st.builds(TagsChanged, time=times, tags=st.lists(names, max_size=2)),
    st.builds(AlertRaised, time=times, title=names),
    st.builds(Gap, time=times, count=st.integers(0, 5), reason=names),
    st.builds(rows, columns, time=times),
)
histories = st.lists(st.tuples(st.sampled_from([A, B, C]), events), max_size=8)


@settings(
    max_examples=tries(50),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(before=histories, after=histories)
def test_fold_goes_on_after_a_restart_as_if_it_had_not_stopped(
    tmp_path: Path, before: list[Step], after: list[Step]
) -> None:
    first, whole = (A, started()), RunState("e", "p", "r", 7)
    folded(first, *before, *after, state=whole)

    with (
        TemporaryDirectory(dir=tmp_path) as folder,
        Database.open_writer(Path(folder) / "state.db") as database,
    ):
        loaded = saved(database, folded(first, *before))
        assert content(loaded) == content(folded(first, *before))
        folded(*after, state=loaded)
        assert content(saved(database, loaded)) == content(whole)


def saved(database: Database, state: RunState) -> RunState:
    with database.transaction():
        database.save_run(state)
    loaded = database.load_run("e", "p", "r")
    assert loaded is not None
    return loaded
