"""`Runs`: pages, filters and orders as W&B's users know them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog.apis.public import Api, Runs
from flightlog.errors import BadArgumentError, CommError, NotFoundError

COUNT = 7


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    lab = Lab(tmp_path_factory.mktemp("runs") / "home")
    yield lab.home
    lab.close()


@pytest.fixture(scope="module")
def api(home: Path) -> Api:
    for number in range(COUNT):
        run = flightlog.init(
            entity="e",
            project="p",
            id=f"r{number}",
            home=home,
            config={"n": number, "opt": {"lr": 0.5}, "run_id": "other"},
            tags=["even"] if number % 2 == 0 else [],
        )
        run.log({"loss": 10.0 - number})
        run.finish()
    return Api(home=home)


def ids(runs: Runs) -> list[str]:
    return [run.id for run in runs]


def make_runs(api: Api, order: str | None = "+created_at", per_page: int = 3) -> Runs:
    return Runs(api.client, "e", "p", order=order, per_page=per_page)


def test_nothing_is_read_before_it_is_asked_for(api: Api) -> None:
    runs = make_runs(api)

    assert (runs.objects, runs.cursor, runs.more) == ([], None, True)
    assert repr(runs) == "<Runs e/p>"
    with pytest.raises(NotFoundError, match="Could not find project p"):
        runs.convert_objects()


def test_the_length_is_that_of_all_and_reads_one_page(api: Api) -> None:
    runs = make_runs(api)

    assert (len(runs), runs.length, len(runs.objects)) == (COUNT, COUNT, 3)
    assert runs.more
    assert ids(runs) == [f"r{number}" for number in range(COUNT)]
    assert len(runs.objects) == COUNT
    assert not runs.more


@pytest.mark.parametrize("read", [1, 3, 4, COUNT])
def test_the_length_is_the_same_whenever_it_is_asked_for(api: Api, read: int) -> None:
    runs = make_runs(api)
    some = runs[:read]

    assert (len(runs), len(some)) == (COUNT, read)
    assert ids(runs) == [f"r{number}" for number in range(COUNT)]
    assert len(runs) == COUNT


def test_an_index_reads_as_far_as_it_must(api: Api) -> None:
    runs = make_runs(api)

    assert runs[3].id == "r3"
    assert len(runs.objects) == 6
    assert runs[3] is runs[3]
    assert runs[-1].id == "r6"
    with pytest.raises(IndexError):
        runs[COUNT]


@pytest.mark.parametrize(
    "piece",
    [slice(0, 2), slice(2, None), slice(-2, None), slice(None, None, -1), slice(5, 2)],
    ids=str,
)
def test_a_slice_is_that_of_a_list(api: Api, piece: slice) -> None:
    every = [f"r{number}" for number in range(COUNT)]

    assert [run.id for run in make_runs(api)[piece]] == every[piece]


def test_nested_loops_do_not_disturb_each_other(api: Api) -> None:
    runs = make_runs(api)

    pairs = [(one.id, other.id) for one in runs for other in runs]

    assert len(set(pairs)) == COUNT**2


def test_next_has_a_place_of_its_own(api: Api) -> None:
    runs = make_runs(api)

    assert (next(runs).id, runs.next().id) == ("r0", "r1")
    assert len(ids(runs)) == COUNT
    assert [run.id for run in runs.convert_objects()] == ["r6"]
    assert [next(runs).id for _ in range(COUNT - 2)][-1] == "r6"
    with pytest.raises(StopIteration):
        next(runs)


def test_cursors_differ_page_by_page(api: Api) -> None:
    runs = make_runs(api)
    cursors = {runs.cursor for run in runs}

    assert len(cursors) == 3
    assert None not in cursors


def test_the_default_order_of_runs_made_directly_is_the_newest_first(api: Api) -> None:
    assert ids(make_runs(api, None))[0] == ids(make_runs(api, "desc"))[0] == "r6"
    assert ids(make_runs(api, "asc"))[0] == "r0"
    assert ids(api.runs("e/p"))[0] == "r0"


def test_filters_and_order_find_runs(api: Api) -> None:
    runs = api.runs(
        "e/p", {"tags": "even", "config.n": {"$gt": 0}}, "+summary_metrics.loss"
    )

    assert ids(runs) == ["r6", "r4", "r2"]
    assert len(runs) == 3
    assert runs[0].config["opt"] == {"lr": 0.5}
    assert runs.filters == {"tags": "even", "config.n": {"$gt": 0}}
    assert len(api.runs("e/p", {"name": "missing"})) == 0
    assert ids(api.runs(filters={"config.opt.lr": 0.5, "name": "r1"})) == ["r1"]


def test_equal_arguments_give_the_same_object_until_flush(home: Path, api: Api) -> None:
    api = Api(home=home)
    runs = api.runs("e/p", {"state": "finished"})

    assert api.runs("e/p", {"state": "finished"}) is runs
    assert api.runs("e/p", {"state": "finished"}, per_page=2) is not runs
    api.flush()
    assert api.runs("e/p", {"state": "finished"}) is not runs


def test_an_unknown_project_is_told_at_the_first_use(api: Api) -> None:
    runs = api.runs("e/missing", {"name": "x"})

    with pytest.raises(NotFoundError, match="Could not find project missing"):
        len(runs)
    with pytest.raises(ValueError, match="Could not find project"):
        runs[0]


def test_what_is_wrong_is_told_at_the_call(api: Api) -> None:
    with pytest.raises(BadArgumentError, match="unknown operator '\\$all'"):
        api.runs("e/p", {"tags": {"$all": ["x"]}})
    with pytest.raises(CommError, match="unknown field 'colour'"):
        api.runs("e/p", order="-colour")
    with pytest.raises(BadArgumentError, match="order must be a str, not int"):
        api.runs("e/p", order=1)  # type: ignore[arg-type]  # That is tested.
    with pytest.raises(BadArgumentError, match="per_page"):
        api.runs("e/p", per_page=0)
    with pytest.raises(BadArgumentError, match="entity must be a str, not ''"):
        Runs(api.client, "", "p")


def test_configs_and_summaries_are_tables(api: Api) -> None:
    configs, summaries = api.runs("e/p").configs, api.runs("e/p").summaries

    assert list(configs.columns) == [
        *("run_id", "run_name", "run_state", "n", "opt.lr")
    ]
    assert list(configs["run_id"]) == [f"r{number}" for number in range(COUNT)]
    assert list(configs["n"]) == list(range(COUNT))
    assert list(summaries["loss"]) == [10.0 - number for number in range(COUNT)]
    assert set(summaries["run_state"]) == {"finished"}


def test_without_pandas_tables_are_lists(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    (first, *_) = api.runs("e/p").configs

    assert (first["run_id"], first["n"], first["opt.lr"]) == ("r0", 0, 0.5)


def test_runs_that_arrive_or_go_meanwhile_disturb_nobody(home: Path, api: Api) -> None:
    api = Api(home=home)
    runs = Runs(api.client, "e", "p", order="-config.n", per_page=2)
    assert runs[1].id == "r5"

    api.create_run(run_id="new", entity="e", project="p")
    api.run("e/p/r3").delete()

    assert ids(runs) == ["r6", "r5", "r4", "r2", "r1", "r0", "new"]
