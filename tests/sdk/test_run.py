import argparse
import copy
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab, rows_of, state_of
from tests.system.harness import wait_until

import flightlog
from flightlog._disabled import DisabledRun
from flightlog._settings import describe_process

pytestmark = pytest.mark.usefixtures("home")


# --- config ---


def test_config_is_recorded_from_everywhere(lab: Lab) -> None:
    run = flightlog.init(config=argparse.Namespace(lr=0.1, layers=[1, 2]))
    run.config["--batch-size"] = 32
    run.config.depth = 3
    run.config.update({"a": {"b": 1}}, seed=7)
    run.config.setdefaults({"lr": 5, "new": True})
    run.config.gone = 1
    del run.config["gone"]
    run.finish()

    assert lab.ended(run.id).config == {
        "lr": 0.1,
        "layers": [1, 2],
        "batch-size": 32,
        "depth": 3,
        "a": {"b": 1},
        "seed": 7,
        "new": True,
    }


def test_config_key_does_not_change_by_accident(lab: Lab) -> None:
    run = flightlog.init(config={"lr": 1})
    run.config.lr = 1

    with pytest.raises(flightlog.ConfigError, match="'lr' is 1"):
        run.config.lr = 2
    with pytest.raises(flightlog.ConfigError):
        run.config.update({"new": 1, "lr": 2})
    assert run.config.as_dict() == {"lr": 1}

    run.config.update({"lr": 2}, allow_val_change=True)
    run.finish()
    assert lab.ended(run.id).config == {"lr": 2}


def test_config_may_change_where_that_was_said() -> None:
    run = flightlog.init(config={"lr": 1}, allow_val_change=True)

    run.config.lr = 2

    assert run.config["lr"] == run.config.lr == 2


def test_config_refuses_what_cannot_be_stored() -> None:
    run = flightlog.init()

    with pytest.raises(TypeError, match="'model'"):
        run.config.model = object()
    with pytest.raises(AttributeError, match="no key 'x'"):
        _ = run.config.x

    assert dict(run.config) == {}


# --- summary ---


def test_summary_shows_last_values_and_what_was_set(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"loss": 2, "val": 1})
    run.summary["best"] = 1.5
    run.summary["loss"] = 99
    run.summary["val"] = 99
    run.log({"loss": 1})
    run.summary.update({"nested": {"a": {"b": 1}, "c": 2}})
    run.summary["nested"]["a"]["b"] = 5
    del run.summary["nested"]["c"]
    run.summary["gone"] = 1
    del run.summary["gone"]
    latest = run.summary.as_dict()
    run.finish()

    found = {k: v for k, v in lab.ended(run.id).summary.items() if k[0] != "_"}

    assert found == latest
    assert found == {"loss": 1, "val": 99, "best": 1.5, "nested": {"a": {"b": 5}}}


def test_summary_lacks_what_was_never_set() -> None:
    run = flightlog.init()

    with pytest.raises(KeyError):
        del run.summary["x"]
    with pytest.raises(AttributeError, match="no key 'x'"):
        _ = run.summary.x
    assert run.summary.get("x") is None


# --- metrics ---


def test_metrics_are_summarised_as_defined(lab: Lab) -> None:
    run = flightlog.init()
    run.define_metric("train/*", summary="min,max,mean,first,last")
    run.define_metric("hidden", summary="none")
    for value in (1, 8, 3):
        run.log({"train/loss": value, "hidden": value})
    run.finish()

    summary = lab.ended(run.id).summary

    assert summary["train/loss"] == {
        "min": 1,
        "max": 8,
        "mean": 4,
        "first": 1,
        "last": 3,
    }
    assert "hidden" not in summary


def test_step_metric_is_written_into_rows_that_lack_it(lab: Lab) -> None:
    run = flightlog.init()
    run.define_metric("val/*", step_metric="epoch")
    run.define_metric("free", step_metric="epoch", step_sync=False)
    run.log({"epoch": 3})
    run.log({"val/loss": 1.5})
    run.log({"free": 1})
    run.log({"val/loss": 2.5, "epoch": 4})
    run.finish()

    read = lab.ended(run.id)

    assert rows_of(read, "epoch", "val/loss") == [(1, 3, 1.5), (3, 4, 2.5)]
    assert rows_of(read, "epoch", "free") == []


@pytest.mark.parametrize(
    "arguments",
    [("a*b",), ("",), ("a", "b*"), ("a", None, None, None, "median")],
)
def test_wrong_definitions_are_refused(arguments: tuple[Any, ...]) -> None:
    run = flightlog.init()

    with pytest.raises(flightlog.Error, match="define_metric"):
        run.define_metric(*arguments)


# --- what a run is ---


def test_descriptions_are_recorded(lab: Lab) -> None:
    run = flightlog.init(
        name="one", tags=["a", "b", "a"], notes="n", group="g", job_type="j"
    )
    assert (run.name, run.tags, run.notes) == ("one", ("a", "b"), "n")

    run.name, run.notes, run.group, run.job_type = "two", None, "h", "eval"
    run.tags = [*run.tags, "c"]
    run.finish()

    read = lab.ended(run.id)
    assert (read.name, read.tags) == ("two", ["a", "b", "c"])
    assert (read.notes, read.group, read.job_type) == (None, "h", "eval")


def test_projects_may_hold_slashes(lab: Lab) -> None:
    with flightlog.init(path="cv/resnet50/long-run", id="slashed") as run:
        run.log({"a": 1})

    read = flightlog.Api(home=lab.home).run("cv/resnet50/long-run/slashed")

    assert read.path == ["someone", "cv/resnet50/long-run", "slashed"]
    assert run.path == "someone/cv/resnet50/long-run/slashed"


def test_alerts_are_not_repeated_within_their_wait(lab: Lab) -> None:
    run = flightlog.init()
    for _ in range(3):
        run.alert("one", "text", level="ERROR")
    run.alert("one", wait_duration=0)
    with pytest.raises(ValueError, match="LOUD"):
        run.alert("one", level="LOUD")
    run.finish()

    alerts = state_of(lab.ended(run.id)).alerts

    assert [(alert.title, alert.level) for alert in alerts] == [
        ("one", "ERROR"),
        ("one", "INFO"),
    ]


def test_flush_makes_all_so_far_readable_and_durable(lab: Lab) -> None:
    run = flightlog.init()
    run.log({"a": 1})

    assert run.flush(20)

    assert rows_of(lab.find(run.id), "a") == [(0, 1)]
    assert lab.find(run.id).state == "running"


def test_announced_preemption_shows(lab: Lab) -> None:
    run = flightlog.init()
    run.mark_preempting()
    run.flush(20)
    while_running = lab.find(run.id).state

    run.finish(exit_code=1)

    assert while_running == "preempting"
    assert lab.ended(run.id).state == "preempted"


def test_finished_run_takes_no_more() -> None:
    run = flightlog.init(config={"a": 1})
    run.log({"a": 1})
    run.finish()
    run.finish(exit_code=1)

    def rename() -> None:
        run.name = "x"

    for use in (
        lambda: run.log({"a": 1}),
        lambda: run.config.update(b=1),
        lambda: run.summary.update(b=1),
        lambda: run.alert("x"),
        lambda: run.define_metric("x"),
        run.mark_preempting,
        rename,
    ):
        with pytest.raises(
            flightlog.UsageError, match=rf"Run \({run.id}\) is finished"
        ):
            use()


def test_finish_neither_syncs_all_disks_nor_collects_garbage_nor_sleeps() -> None:
    run = flightlog.init()
    run.log({"a": 1})
    called = set()

    def note(frame: object, event: str, given: Any) -> None:
        if event == "c_call":
            called.add(given.__name__)

    sys.setprofile(note)
    try:
        run.finish()
    finally:
        sys.setprofile(None)

    assert "acquire" in called, "which is seen if calls are"
    assert called.isdisjoint(("sync", "collect", "sleep"))


def test_exception_in_a_with_block_marks_the_run_failed(lab: Lab) -> None:
    with pytest.raises(ZeroDivisionError), flightlog.init() as run:
        run.log({"a": 1 / 0})

    assert (lab.ended(run.id).state, lab.ended(run.id).exit_code) == ("failed", 1)


def test_active_run_is_returned_or_finished_or_joined_by_another() -> None:
    run = flightlog.init()

    assert flightlog.init() is run
    other = flightlog.init(reinit="create_new")
    third = flightlog.init(reinit="finish_previous")

    assert flightlog.run is third
    assert len({run.id, other.id, third.id}) == 3
    with pytest.raises(flightlog.UsageError, match="finished"):
        run.log({})
    other.finish()


# --- resuming ---

FIRST = """
import flightlog, os, signal
run = flightlog.init(id={id!r}, config={{"a": 1}}, tags=["t"], project="resumed")
for n in range(1000): run.log({{"n": n}})
run.summary["best"] = 3
{end}
"""


@pytest.mark.parametrize("how", ["allow", "must", True])
@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_resumed_run_goes_on(lab: Lab, how: Any, end: str) -> None:
    id = f"resume-{how}-{len(end)}"
    lab.execute(FIRST.format(id=id, end=end))

    run = flightlog.init(project="resumed", id=id, resume=how, config={"a": 5, "b": 2})
    before = (run.step, run.config.as_dict(), run.summary["best"], run.resumed)
    run.log({"n": 1000})
    run.finish()

    assert before == (1000, {"a": 1, "b": 2}, 3, True)
    read = lab.find(id, "resumed")
    assert rows_of(read, "n") == [(n, n) for n in range(1001)]
    assert (read.tags, read.config) == (["t"], {"a": 1, "b": 2})


def test_resumed_run_is_not_crashed_by_its_predecessor(lab: Lab) -> None:
    end = "os.kill(os.getpid(), signal.SIGKILL)"
    lab.execute(FIRST.format(id="late", end=end))

    flightlog.init(project="resumed", id="late", resume="must").finish()

    wait_until(lambda: len(state_of(lab.find("late", "resumed")).writers) == 2)
    wait_until(lambda: lab.find("late", "resumed").state != "running")
    assert lab.find("late", "resumed").state == "finished"


def test_resuming_asks_for_what_must_or_must_not_be() -> None:
    with pytest.raises(flightlog.UsageError, match=r'"must", but there is no run'):
        flightlog.init(id="nowhere", resume="must")
    flightlog.init(id="there").finish()

    with pytest.raises(flightlog.UsageError, match=r'"never", but there is a run'):
        flightlog.init(id="there", resume="never")
    assert flightlog.init(id="not-there", resume="never").step == 0


def test_auto_continues_what_did_not_end_well(lab: Lab) -> None:
    code = """
    import flightlog, os
    run = flightlog.init(project="auto", resume="auto")
    run.log({"a": 1})
    print(run.id, run.step, flush=True)
    %s
    """
    crash = "run.flush(20); os.kill(os.getpid(), 9)"
    first = lab.execute(code % crash).stdout.split()

    second = lab.execute(code % "").stdout.split()
    third = lab.execute(code % "").stdout.split()

    assert second == [first[0], "2"]
    assert third[0] != first[0]
    assert third[1] == "1"


# --- disabled ---


def test_disabled_run_has_all_that_a_run_has() -> None:
    offered = {name for name in dir(flightlog.Run) if name[0] != "_"}

    assert offered - {"home"} - set(dir(DisabledRun())) == set()


def test_disabled_run_takes_the_arguments_that_a_run_takes() -> None:
    for name, method in inspect.getmembers(flightlog.Run, inspect.isfunction):
        if name[0] != "_":
            double = inspect.signature(getattr(DisabledRun, name)).parameters
            kinds = {each.kind for each in double.values()}
            missing = set(inspect.signature(method).parameters) - set(double)
            assert not missing or inspect.Parameter.VAR_KEYWORD in kinds, name


def test_of_a_process_nothing_is_told_that_may_be_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", "t0ps3cret"])
    monkeypatch.setenv("API_KEY", "t0ps3cret")

    told = describe_process()

    names = {"os", "python", "program", "executable", "host", "cwd"}
    assert told.keys() == names  # No address of a git remote, which may hold a token.
    assert "t0ps3cret" not in repr(told)


def test_disabled_run_does_nothing(home: Path) -> None:
    run = flightlog.init(mode="disabled", config={"a": 1})

    with run:
        run.log({"a": object()})
        run.summary["a"] = 1
        run.config.b = 2
        run.tags = ("x",)
        run.alert("x")
        run.mark_preempting()
        assert run.flush() is True
        assert run.define_metric("loss").name == "loss"
    flightlog.log({"a": 1})

    assert (run.summary["a"], run.config.a, run.config.b) == (1, 1, 2)
    assert pickle.loads(pickle.dumps(run)).config == {"a": 1, "b": 2}
    assert isinstance(pickle.loads(pickle.dumps(run)), DisabledRun)
    assert isinstance(copy.deepcopy(run), DisabledRun)
    assert run.disabled
