import math
import weakref
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import mongomock.filtering
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries
from tests.storage.filter_model import passes, sort_key, values_of

from flightlog_storage import filter_sql
from flightlog_storage.database import Database
from flightlog_storage.event import WriterId
from flightlog_storage.filters import parse_filter
from flightlog_storage.names import default_name
from flightlog_storage.patterns import Search
from flightlog_storage.run_pages import RunPage, read_page, read_states
from flightlog_storage.run_query import RunQuery, Window, parse_order
from flightlog_storage.runstate import Changes, RunState, State, WriterState

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

SECOND = 1_700_000_000.25


def make_run(id: str, logged: Iterable[str] = (), **given: Any) -> RunState:
    """Return a run that is to be saved whole; `number` follows from the id."""
    number = int.from_bytes(id.encode()[:7])
    given = {"created_at": 1.0, "updated_at": 1.0} | given
    state = with_changes(RunState("e", "p", id, number, **given))
    state.changes.logged = dict.fromkeys(logged)
    return state


def with_changes(state: RunState) -> RunState:
    state.changes = Changes(
        config=dict.fromkeys(state.config),
        summary=dict.fromkeys(state.summary),
        tags=True,
    )
    return state


class Store:
    """Runs, some of them saved in a database and some that have moved on."""

    def __init__(self, *saved: RunState, moved: Iterable[RunState] = ()) -> None:
        self.database = Database.empty()
        weakref.finalize(self, self.database.close)
        self.moved = {state.number: state for state in moved}
        self.save(*saved)

    def save(self, *states: RunState) -> None:
        with self.database.transaction():
            for state in states:
                self.database.save_run(state)

    def page(
        self,
        filters: object = None,
        order: str = "+created_at",
        window: Window | None = None,
    ) -> RunPage:
        query = RunQuery("e", "p", parse_filter(filters), parse_order(order))
        window = window or Window(1000, count=True)
        return read_page(self.database, self.moved, query, window, 1000)

    def ids(self, filters: object = None, order: str = "+name") -> list[str]:
        return [run.id for run in self.page(filters, order).runs]


# --- against the model ---

KEYS = st.sampled_from(["a", "b", "a.b", "b.a", "", "value", "train/loss", "é"])
SCALARS = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, 0, 1, -1, 0.0, -0.0, 1.0, 0.5, math.nan, math.inf),
            *(-math.inf, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, -(2**63)),
            *(2**64, 2**64 + 1, 2**64 - 1, float(2**64), -(2**64) - 1, 10**400),
            *(-(10**400), 10**400 + 1, 1e308, 5e-324, "", "x", "X", "xy", "1"),
            *("\x00", "é", "\ud800", "\uffff", "𝄞"),
        ]
    ),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text("xyX.", max_size=3),
)
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=6,
)
DICTS = st.dictionaries(KEYS, DATA, max_size=3)
TAGS = st.lists(st.sampled_from(["x", "xy", "z"]), unique=True, max_size=3)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
FIELDS = st.one_of(
    PATHS.map("config.{}".format),
    PATHS.map("summary_metrics.{}".format),
    st.sampled_from(["tags", "config.a", "config.a.b", "group", "name"]),
)
ORDERED = SCALARS.filter(lambda value: value is not None)
CONDITIONS: st.SearchStrategy[Any] = st.one_of(
    DATA.filter(lambda value: not isinstance(value, dict)),
    DATA.map(lambda value: {"$eq": value}),
    DATA.map(lambda value: {"$ne": value}),
    st.builds(
        lambda name, value: {name: value},
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        ORDERED,
    ),
    st.lists(DATA, max_size=4).map(lambda values: {"$in": values}),
    st.lists(DATA, max_size=4).map(lambda values: {"$nin": values}),
    st.booleans().map(lambda value: {"$exists": value}),
    st.sampled_from(["x", "^x", "y$", "^$", "[xy]+", "."]).map(
        lambda pattern: {"$regex": pattern}
    ),
    st.just({"$regex": "^x", "$options": "i"}),
    st.sampled_from(["", "x", "y", "\x00"]).map(lambda text: {"$contains": text}),
)
NEGATED = CONDITIONS.filter(
    lambda given: isinstance(given, dict) and next(iter(given), "").startswith("$")
)
LEAVES = st.builds(
    lambda field, condition: {field: condition},
    FIELDS,
    CONDITIONS | NEGATED.map(lambda condition: {"$not": condition}),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda name, items: {name: items},
            st.sampled_from(["$and", "$or", "$nor"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        inner.map(lambda item: {"$not": item}),
        st.builds(lambda one, other: {**one, **other}, inner, inner),
    ),
    max_leaves=5,
)
RUNS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        config=DICTS,
        summary=DICTS,
        tags=TAGS,
        group=st.sampled_from([None, "", "x", "xy"]),
        created_at=st.sampled_from([1.0, 2.0, 3.0]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=tries(400))
@given(RUNS, FILTERS)
def test_filters_mean_what_the_model_says(
    given: list[dict[str, Any]], document: dict[str, Any]
) -> None:
    states = [make_run(f"r{place}", **each) for place, each in enumerate(given)]
    expected = [state.id for state in states if passes(state, document)]

    page = Store(*states).page(document, "+name")

    assert [run.id for run in page.runs] == expected
    assert page.total == len(expected)


@settings(max_examples=tries(150))
@given(RUNS, RUNS, FILTERS, st.sets(st.integers(0, 4)))
def test_it_makes_no_difference_which_runs_are_folded(
    before: list[dict[str, Any]],
    after: list[dict[str, Any]],
    document: dict[str, Any],
    moved: set[int],
) -> None:
    old = [make_run(f"r{place}", **each) for place, each in enumerate(before)]
    new = [make_run(f"r{place}", **each) for place, each in enumerate(after)]
    for was, now in zip(old, new, strict=False):
        now.changes.config |= was.changes.config
        now.changes.summary |= was.changes.summary
    store = Store(*old[: len(new)], moved=[new[n] for n in moved if n < len(new)])
    store.save(*(state for n, state in enumerate(new) if n not in moved))
    expected = [state.id for state in new if passes(state, document)]

    page = store.page(document, "+name")

    assert [run.id for run in page.runs] == expected
    assert page.total == len(expected)
    assert [state.id for state in page.states] == expected


@settings(max_examples=tries(150))
@given(RUNS, st.lists(FIELDS.map("{}".format), min_size=1, max_size=2), st.data())
def test_orders_and_pages_mean_what_the_model_says(
    given: list[dict[str, Any]], fields: list[str], data: st.DataObject
) -> None:
    signs = [data.draw(st.sampled_from(["", "+", "-"])) for _ in fields]
    order = ",".join(map("".join, zip(signs, fields, strict=True)))
    states = [make_run(f"r{place}", **each) for place, each in enumerate(given)]
    moved = [state for state in states if data.draw(st.booleans())]
    store = Store(*(s for s in states if s not in moved), moved=moved)

    found: list[str] = []
    window = Window(2)
    while True:
        page = store.page(None, order, window)
        found += [run.id for run in page.runs]
        if page.is_last:
            break
        window = Window(2, page.runs[-1].place)

    assert sorted(found) == sorted(state.id for state in states)
    by_id = {state.id: state for state in states}
    for one, other in pairwise(found):
        assert is_ordered(by_id[one], by_id[other], fields, signs)


def is_ordered(
    one: RunState, other: RunState, fields: list[str], signs: list[str]
) -> bool:
    for field, sign in zip(fields, signs, strict=True):
        if "value" in field or len(list(sortable(one, other, field))) != 2:
            return True  # Several values, of which the first by its split counts.
        a, b = sort_key(one, field), sort_key(other, field)
        if a is None or b is None:
            if a is not b:
                return b is None
            continue
        if a[0] == b[0] and a[1] is None:
            return True  # Lists and dicts are in some order.
        if a != b:
            return a > b if sign == "-" else a < b
    return (one.created_at, one.id) < (other.created_at, other.id)


def sortable(one: RunState, other: RunState, field: str) -> Iterable[RunState]:
    return (state for state in (one, other) if len(values_of(state, field)) < 2)


PLAIN_KEYS = st.sampled_from(["a", "b", "c"])
# As far as mongomock is MongoDB: for it False is 0.
PLAIN = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, "x", "xy", ""]),
    st.lists(st.integers(0, 2) | st.sampled_from(["x", "xy"]), max_size=2),
)
PLAIN_DICTS = st.dictionaries(
    PLAIN_KEYS, PLAIN | st.dictionaries(PLAIN_KEYS, PLAIN, max_size=2), max_size=3
)
PLAIN_LEAVES = st.builds(
    lambda path, condition: {f"config.{path}": condition},
    st.lists(PLAIN_KEYS, min_size=1, max_size=2).map(".".join),
    st.one_of(
        st.integers(-3, 3).map(lambda value: {"$gt": value}),
        st.sampled_from([0.5, 1, -1]).map(lambda value: {"$lte": value}),
        st.sampled_from(["x", "xy"]).map(lambda value: {"$gte": value}),
        st.integers(-3, 3).map(lambda value: {"$eq": value}),
        st.sampled_from(["x", "", 1]).map(lambda value: {"$ne": value}),
        st.lists(st.sampled_from([2, "x", "xy"]), min_size=1).map(lambda v: {"$in": v}),
        st.lists(st.sampled_from([2, "x", "xy"]), min_size=1).map(
            lambda v: {"$nin": v}
        ),
        st.booleans().map(lambda value: {"$exists": value}),
        st.sampled_from(["x", "y$"]).map(lambda value: {"$regex": value}),
    ),
)
PLAIN_FILTERS = st.recursive(
    PLAIN_LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"$and": items}),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"$or": items}),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: {"$nor": items}),
    ),
    max_leaves=4,
)


@settings(max_examples=tries(200))
@given(st.lists(PLAIN_DICTS, min_size=1, max_size=4), PLAIN_FILTERS)
def test_filters_mean_what_mongomock_says(
    configs: list[dict[str, Any]], document: dict[str, Any]
) -> None:
    states = [make_run(f"r{place}", config=each) for place, each in enumerate(configs)]
    oracle: Any = mongomock.filtering.filter_applies
    expected = [
        state.id for state in states if oracle(document, {"config": state.config})
    ]

    assert Store(*states).ids(document) == expected


# --- fields ---


@pytest.fixture
def store() -> Store:
    return Store(
        make_run(
            "one",
            name="First",
            group="g",
            job_type="train",
            notes="good\nrun",
            metadata={"commit": "abc"},
            state=State.FINISHED,
            tags=["a", "b"],
            config={"lr": 0.1, "optimizer.lr": 1, "opt": {"name": "adam"}, "n": None},
            summary={"loss": {"min": 0.5}, "train/loss": 2, "_step": 3},
            writers={WriterId(b"w" * 16): WriterState(host="node7")},
            created_at=SECOND,
            updated_at=SECOND + 90,
            logged=["loss", "train/loss"],
        ),
        make_run("two", created_at=SECOND + 3600, updated_at=SECOND + 3600),
    )


@pytest.mark.parametrize(
    "document",
    [
        {"name": "one"},
        {"displayName": "First"},
        {"display_name": {"$regex": "^fir", "$options": "i"}},
        {"state": "finished"},
        {"group": "g"},
        {"jobType": "train"},
        {"job_type": {"$in": ["train", "eval"]}},
        {"group": {"$ne": None}},
        {"group": {"$exists": True}},
        {"host": "node7"},
        {"commit": "abc"},
        {"notes": {"$contains": "\n"}},
        {"$and": [{"username": "e"}, {"user": "e"}, {"entity": "e"}, {"name": "one"}]},
        {"tags": "a"},
        {"tags": {"$in": ["b", "c"]}},
        {"tags": ["a", "b"]},
        {"tags": {"$ne": []}},
        {"config.lr": 0.1},
        {"config.lr.value": {"$gt": 0}},
        {"config.optimizer.lr": 1},
        {"config.optimizer.lr.value": 1},
        {"config.opt.name": "adam"},
        {"config.opt.value.name": "adam"},
        {"config.opt": {"name": "adam"}},
        {"config.n": {"$exists": True}},
        {"summary_metrics.loss.min": {"$lte": 0.5}},
        {"summary.train/loss": 2},
        {"summaryMetrics.train/loss": {"$gte": 2}},
        {"keys_info.keys.train/loss": {"$exists": True}},
        {"keys_info.keys.train/loss": {"$ne": None}},
        {"keysInfo.keys.loss": {"$exists": True}},
        {"duration": {"$gte": 90}},
        {"duration": 90},
        {"created_at": {"$lt": "2023-11-14T22:30:00"}},
        {"createdAt": "2023-11-14T22:13:20.250Z"},
        {"created_at": "2023-11-14T23:13:20.25+01:00"},
        {"created_at": {"$lte": datetime.fromtimestamp(SECOND, UTC)}},
        {"created_at": {"$lt": SECOND + 1}},
        {"heartbeat_at": {"$lte": SECOND + 90}},
        {"updatedAt": {"$lt": "2023-11-14T23:00"}},
        {"created_at": {"$in": [SECOND, None]}},
        {"$or": [{"$and": [{"tags": {"$in": ["a"]}}]}]},
        {"$nor": [{"$or": [{"tags": None}, {"tags": {"$ne": "a"}}]}]},
    ],
    ids=str,
)
def test_fields_find_the_one_run(store: Store, document: dict[str, Any]) -> None:
    assert store.ids(document) == ["one"]
    assert store.ids({"$not": document}) == ["two"]


@pytest.mark.parametrize(
    "document",
    [None, {}, {"$and": []}, {"$or": [{"$and": []}]}, {"created_at": {"$gte": "2023"}}],
    ids=str,
)
def test_filters_that_every_run_passes(store: Store, document: object) -> None:
    if document == {"created_at": {"$gte": "2023"}}:
        document = {"created_at": {"$gte": "2023-01-01"}}
    assert store.ids(document) == ["one", "two"]


@pytest.mark.parametrize(
    "document",
    [
        {"sweep": {"$ne": None}},
        {"created_at": None},
        {"created_at": {"$in": []}},
        {"config.lr": {"$gt": "0"}},
        {"config.lr": True},
        {"tags": {"$exists": False}},
        {"name": 1},
        {"name": "\ud800"},
        {"config.opt": {"$gt": 0}},
        {"keys_info.keys._step": {"$exists": True}},
        {"keys_info.keys.loss.min": {"$exists": True}},
    ],
    ids=str,
)
def test_filters_that_no_run_passes(store: Store, document: object) -> None:
    assert store.ids(document) == []


def test_a_run_without_a_name_is_found_by_the_one_shown(store: Store) -> None:
    assert store.ids({"displayName": default_name("two")}) == ["two"]


@pytest.mark.parametrize("place", range(40))
def test_the_time_that_is_shown_finds_its_run(place: int) -> None:
    time = SECOND + place * 2**-22
    shown = datetime.fromtimestamp(time, UTC).isoformat()
    store = Store(make_run("r", created_at=time))

    assert store.ids({"created_at": shown}) == ["r"]
    assert store.ids({"created_at": {"$lte": shown}}) == ["r"]
    assert store.ids({"created_at": {"$gt": shown}}) == []


def test_deleted_runs_are_not_found() -> None:
    config = {"a": {"b": 1}, "c": [1]}
    state = make_run("r", ["k", "l"], config=config, tags=["t"])
    store = Store(state)
    gone = make_run("r", deleted=True)
    gone.changes = Changes(reset=True)
    store.save(gone)

    assert store.ids() == []
    assert not store.page().project_exists
    assert store.database._connection.execute("SELECT * FROM facts").fetchall() == []


def test_only_what_changed_of_the_facts_is_written() -> None:
    config = {"a": 1, "b": {"c": [1, 2]}, "d": "x"}
    store = Store(make_run("r", config=config))
    changed = make_run("r", config={**config, "a": 2, "b": {"c": [1, 3]}})
    before = store.database._connection.total_changes

    store.save(changed)

    written = store.database._connection.total_changes - before
    facts = 1 + 4  # a; b, b.c, its new element and the old one's end.
    assert written <= facts + len(("the run", "config a", "config b"))


# --- pages ---


def test_runs_that_arrive_are_neither_repeated_nor_skipped() -> None:
    store = Store(*(make_run(f"r{n}", summary={"x": n}) for n in range(1, 7)))
    first = store.page(None, "-summary_metrics.x", Window(3))

    store.save(make_run("new1", summary={"x": 9}), make_run("new2", summary={"x": 2.5}))
    gone = make_run("r4", deleted=True)
    gone.changes = Changes(reset=True)
    store.save(gone)
    second = store.page(None, "-summary.x", Window(9, first.runs[-1].place))

    assert [run.id for run in first.runs] == ["r6", "r5", "r4"]
    assert [run.id for run in second.runs] == ["r3", "new2", "r2", "r1"]


@pytest.mark.parametrize("sign", "+-")
def test_missing_values_and_nan_come_last(sign: str) -> None:
    values = {"n1": 1, "n2": 2.5, "s": "x", "t": True, "nan": math.nan, "none": None}
    store = Store(
        *(make_run(id, summary={"x": value}) for id, value in values.items()),
        make_run("missing"),
    )

    found = store.ids(None, f"{sign}summary_metrics.x")

    known = ["n1", "n2", "s", "t"]
    assert found[:4] == (known if sign == "+" else known[::-1])
    assert found[4:] == ["missing", "nan", "none"]


def test_a_key_with_a_dot_and_a_nested_one_are_sorted_by_alike() -> None:
    store = Store(
        make_run("a", config={"opt.lr": 3}),
        make_run("b", config={"opt": {"lr": 2}}),
        make_run("c", config={"opt": {"value": {"lr": 1}}}),
    )

    assert store.ids(None, "config.opt.lr") == ["b", "a", "c"]
    assert store.ids(None, "config.opt.value.lr") == ["c", "b", "a"]


def test_states_come_in_the_order_asked_for() -> None:
    saved = [make_run(id, config={"id": id}, tags=[id]) for id in "abc"]
    moved = make_run("b", config={"id": "newer"})
    first = replace(make_run("z", config={"id": "first"}), number=0)
    store = Store(*saved, moved=[moved, make_run("d", deleted=True), first])

    found = read_states(
        store.database, store.moved, [("e", "p", id) for id in "cbxadz"]
    )

    assert [state.id for state in found] == ["c", "b", "a", "z"]
    assert [state.config["id"] for state in found] == ["c", "newer", "a", "first"]


def test_a_project_is_known_though_nothing_in_it_passes() -> None:
    query = RunQuery("e", "p", parse_filter({"name": "x"}))
    other = RunQuery("e", "q")
    store = Store(make_run("r"), moved=[make_run("s")])

    page = read_page(store.database, store.moved, query, Window(9, count=True), 0)

    assert (page.runs, page.total, page.project_exists) == ([], 0, True)
    missing = read_page(store.database, store.moved, other, Window(9), 0)
    assert not missing.project_exists


def test_searching_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_sql, "FINDING_TIME_MAX_S", -1)
    store = Store(make_run("r"))

    with pytest.raises(TimeoutError, match=r"\$regex took more than"):
        store.ids({"name": {"$regex": "r"}})


def test_a_pattern_is_searched_only_where_an_equal_value_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []

    def compile_search(pattern: str, flags: int) -> Search:
        def search(text: str, seconds: float) -> bool:
            searched.append(text)
            return True

        return search

    monkeypatch.setattr(filter_sql, "compile_search", compile_search)
    store = Store(*(make_run(f"r{n}", config={"n": n, "x": "x"}) for n in range(9)))

    assert store.ids({"config.x": {"$regex": "x"}, "config.n": 7}) == ["r7"]
    assert searched == ["x"]


@pytest.mark.parametrize("is_moved", [True, False])
def test_one_endless_search_ends_in_time(
    monkeypatch: pytest.MonkeyPatch, is_moved: bool
) -> None:
    monkeypatch.setattr(filter_sql, "FINDING_TIME_MAX_S", 0.05)
    run = make_run("r", notes="a" * 100 + "b")
    store = Store(moved=[run]) if is_moved else Store(run)

    with pytest.raises(TimeoutError, match=r"\$regex took more than"):
        store.ids({"notes": {"$regex": "(a|aa)+$"}})
