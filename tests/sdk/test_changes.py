"""Changing a run through the read API, with a real daemon."""

import json
import math
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.sdk.conftest import Lab
from tests.system.harness import wait_until

import flightlog
from flightlog import BadArgumentError, CommError, NotFoundError
from flightlog.apis.public import Api, Run
from flightlog.apis.public.project import Project


@pytest.fixture
def run(lab: Lab, home: Path, request: pytest.FixtureRequest) -> Run:
    """A finished run."""
    name = f"{request.node.originalname}-{time.time_ns()}"[-100:]
    live = flightlog.init(
        project="changes", id=name, config={"lr": 0.1, "deep": {"a": 1}}, tags=["one"]
    )
    live.log({"loss": 1.0, "nested": {"x": 1, "y": 2}})
    live.finish()
    return lab.find(name, "changes")


def again(run: Run) -> Run:
    """Return the run as another reader finds it."""
    return Api(home=run.client.home.root).run("/".join(run.path))


def test_fields_are_recorded_by_update_and_not_before(run: Run) -> None:
    run.name = "better"
    run.notes = "why"
    run.description = "what"
    run.group = "g"
    run.job_type = "train"
    run.tags.append("two")
    run.config["lr"] = 0.2
    assert (run.name, run.tags, run.config["lr"]) == ("better", ["one", "two"], 0.2)
    assert (again(run).tags, again(run).config["lr"]) == (["one"], 0.1)

    run.update()

    for found in (run, again(run)):
        assert (found.name, found.display_name) == ("better", "better")
        assert (found.notes, found.description) == ("why", "what")
        assert (found.group, found.job_type) == ("g", "train")
        assert found.tags == ["one", "two"]
        assert found.config == {"lr": 0.2, "deep": {"a": 1}}
        assert found.state == "finished"


def test_update_sends_only_what_changed(run: Run) -> None:
    other = again(run)
    other.config["theirs"] = 1
    other.tags = ["three"]
    other.update()

    run.config["ours"] = 2
    run.save()

    assert again(run).config == {"lr": 0.1, "deep": {"a": 1}, "theirs": 1, "ours": 2}
    assert again(run).tags == ["three"]


def test_config_is_changed_in_depth_replaced_and_emptied(run: Run) -> None:
    run.config["deep"]["a"] = [1, {"b": math.inf}]
    del run.config["lr"]
    run.update()
    assert again(run).config == {"deep": {"a": [1, {"b": math.inf}]}}

    run.config = {"only": "this"}
    run.update()

    assert again(run).config == {"only": "this"}
    assert json.loads(again(run).json_config) == {
        "only": {"value": "this", "desc": None}
    }


ALONE = """
import flightlog, os
import flightlog._daemon as d
d.DaemonStarter.start = lambda self, now: "not now"
d.find_socket = lambda home: None
run = flightlog.init(project="p", id="alone", config={"a": 1})
run.log({"x": 1})
os.kill(os.getpid(), 9)
"""


def test_a_run_that_is_in_a_spool_only_is_changed_and_deleted(own_lab: Lab) -> None:
    own_lab.execute(ALONE)
    read = own_lab.find("alone", "p")
    read.config["b"] = 2
    read.tags.append("t")
    read.update()
    assert again(read).config == {"a": 1, "b": 2}
    assert (again(read).tags, again(read).state) == (["t"], "crashed")

    own_lab.stop()
    own_lab.execute(ALONE.replace("alone", "gone"))
    own_lab.find("gone", "p").delete()

    with pytest.raises(NotFoundError):
        own_lab.find("gone", "p")


def test_too_large_a_change_records_nothing_of_it(run: Run) -> None:
    run.notes = "half"
    run.config["large"] = "x" * (40 << 20)

    with pytest.raises(BadArgumentError, match="too many"):
        run.update()

    assert again(run).notes is None


def test_the_config_keeps_its_order(lab: Lab, home: Path) -> None:
    config = {f"key{n}": n for n in (5, 3, 9, 1, 7)}
    with flightlog.init(project="changes", config=config) as live:
        pass

    assert list(lab.find(live.id, "changes").config) == list(config)


def test_update_without_changes_records_nothing(run: Run) -> None:
    before = run.client.home.log
    size = sum(path.stat().st_size for path in before.iterdir())

    run.update()

    assert sum(path.stat().st_size for path in before.iterdir()) == size


def test_handed_out_values_stay_the_users(run: Run) -> None:
    tags, config = run.tags, run.config
    tags.append("two")
    run.update()
    tags.append("three")
    config["x"] = 1
    run.update()

    assert run.tags is tags
    assert again(run).tags == ["one", "two", "three"]
    assert again(run).config["x"] == 1


def test_summary_is_gathered_until_it_is_updated(run: Run) -> None:
    run.summary["best"] = 0.5
    run.summary["nested"]["x"] = 7
    run.summary.new = {"a": {"b": {"c": 1}}}
    del run.summary["loss"]
    assert run.summary["nested"]["x"] == 7
    assert "loss" not in run.summary
    assert again(run).summary["nested"]["x"] == 1

    run.summary.update()

    found = again(run).summary
    assert (found["best"], found["nested"]) == (0.5, {"x": 7, "y": 2})
    assert found["new"]["a"]["b"]["c"] == 1
    assert "loss" not in found


def test_summary_update_persists_at_once(run: Run) -> None:
    run.summary.update({"cool": 1000, " blank ": 1})
    run.summary.update({"cool": 1, "fresh": 2}, overwrite=False)

    found = again(run).summary
    assert (found["cool"], found["fresh"], found["blank"]) == (1000, 2, 1)
    assert found._json_dict["cool"] == 1000


def test_a_summary_key_is_renamed_as_users_do_it(run: Run) -> None:
    run.summary["lost"] = run.summary["loss"]
    del run.summary["loss"]
    run.update()

    assert again(run).summary["lost"] == 1.0
    assert "loss" not in again(run).summary
    with pytest.raises(KeyError):
        del run.summary["loss"]


def test_removing_a_part_and_setting_within_it_again(run: Run) -> None:
    run.summary["nested"]["z"] = 1
    del run.summary["nested"]
    run.summary["nested"] = {"w": 1}
    run.update()
    assert again(run).summary["nested"] == {"w": 1}

    run.summary["nested"]["v"] = 1
    del run.summary["nested"]
    run.update()

    assert "nested" not in again(run).summary


def test_a_process_that_logs_afterwards_wins_again(lab: Lab, home: Path) -> None:
    live = flightlog.init(project="changes", id="alive")
    live.log({"loss": 1.0})
    assert live.flush(20)
    read = lab.find("alive", "changes")
    read.summary.update({"loss": -1.0, "note": "kept"})
    assert (again(read).summary["loss"], again(read).state) == (-1.0, "running")

    live.log({"loss": 2.0})
    live.finish()

    assert again(read).summary["loss"] == 2.0
    assert again(read).summary["note"] == "kept"


def test_an_edit_while_the_run_is_read_keeps_following_it(lab: Lab, home: Path) -> None:
    live = flightlog.init(project="changes", id="followed", config={"a": 1})
    assert live.flush(20)
    read = lab.find("followed", "changes")
    read.config["mine"] = 1
    live.config["b"] = 2
    live.tags = ("x",)
    assert live.flush(20)

    assert read.config == {"a": 1, "mine": 1, "b": 2}
    assert read.tags == ["x"]
    live.finish()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda run: setattr(run, "name", 3), "name must be a str"),
        (lambda run: setattr(run, "notes", 3), "notes must be a str"),
        (lambda run: setattr(run, "tags", "text"), "tags must be a list"),
        (lambda run: setattr(run, "tags", [""]), "1 to 64 characters"),
        (lambda run: setattr(run, "config", 3), "config must be a dict"),
        (lambda run: run.summary.update(3), "takes a mapping"),
        (lambda run: run.summary.update({"x": object()}), "'x'"),
        (lambda run: run.summary.__setitem__(3, 1), "must be str"),
        (lambda run: run.update_state("great"), "'great'"),
        (lambda run: run.delete("yes"), "must be a bool"),
        (lambda run: run.to_html(height="a"), "height"),
        (lambda run: run.wait_until_finished("soon"), "timeout"),
    ],
)
def test_wrong_changes_are_told_at_the_call(
    run: Run, change: Callable[[Run], object], word: str
) -> None:
    with pytest.raises(BadArgumentError, match=word) as caught:
        change(run)

    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, CommError)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.config.update({"x": object()}),
        lambda run: run.config.update({3: 1}),
        lambda run: run.tags.append(3),
    ],
)
def test_what_cannot_be_stored_is_told_by_update_and_nothing_is_recorded(
    run: Run, change: Callable[[Run], object]
) -> None:
    run.notes = "not recorded"
    change(run)

    with pytest.raises(BadArgumentError):
        run.update()

    assert again(run).notes is None


def test_ids_cannot_be_assigned(run: Run) -> None:
    for name in ("id", "entity", "project", "path", "state"):
        with pytest.raises(AttributeError):
            setattr(run, name, "x")


def test_a_deleted_run_is_gone_for_everyone(run: Run) -> None:
    held = again(run)
    run.delete()
    run.delete()

    with pytest.raises(NotFoundError):
        again(run)
    with pytest.raises(NotFoundError):
        held.load(force=True)
    held.notes = "late"
    with pytest.raises(NotFoundError):
        held.update()


def test_a_run_deleted_while_it_is_logged_into_stays_deleted(
    lab: Lab, home: Path
) -> None:
    live = flightlog.init(project="changes", id="doomed")
    live.log({"loss": 1.0})
    assert live.flush(20)
    lab.find("doomed", "changes").delete()

    live.log({"loss": 2.0})
    live.finish()

    with pytest.raises(NotFoundError):
        lab.find("doomed", "changes")


def test_a_made_run_is_pending_and_can_be_joined(lab: Lab, home: Path) -> None:
    api = Api({"project": "made"}, home=lab.home)
    made = api.create_run(run_id="mine", state="pending")
    other = Run.create(api)
    assert (made.state, made.config, made.tags) == ("pending", {}, [])
    assert len(made.summary) == 0
    assert (other.state, other.project, len(other.id)) == ("running", "made", 8)
    assert other.update_state("failed")
    with pytest.raises(BadArgumentError, match="already"):
        api.create_run(run_id="mine")

    flightlog.init(project="made", id="mine").finish()

    assert again(made).state == "finished"
    assert again(other).state == "failed"


def test_the_state_of_a_running_run_is_not_corrected(lab: Lab, home: Path) -> None:
    live = flightlog.init(project="changes", id="living")
    assert live.flush(20)
    read = lab.find("living", "changes")

    assert not read.update_state("failed")

    assert again(read).state == "running"
    live.finish()


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("run.finish()", "finished"),
        ("run.finish(3)", "failed"),
        ("os.kill(os.getpid(), 15)", "killed"),
        ("os.kill(os.getpid(), 9)", "crashed"),
        ("run.mark_preempting(); run.finish(1)", "preempted"),
    ],
)
def test_waiting_ends_with_the_run_however_it_ends(
    lab: Lab, code: str, state: str
) -> None:
    id = f"awaited-{state}"
    process = lab.start(
        f"""
        import flightlog, os, sys
        run = flightlog.init(id={id!r})
        run.log({{"loss": 1}})
        run.flush()
        print("ready", flush=True)
        import time; time.sleep(0.3)
        {code}
        """
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        run = lab.find(id)
        assert run.state in ("running", state)

        run.wait_until_finished(timeout=30)

        assert run.state == state
    finally:
        process.kill()
        process.communicate()


def test_waiting_is_bounded(lab: Lab, home: Path) -> None:
    live = flightlog.init(project="changes", id="endless")
    assert live.flush(20)

    with pytest.raises(CommError, match="running") as caught:
        lab.find("endless", "changes").wait_until_finished(timeout=0.05)

    assert isinstance(caught.value.exc, TimeoutError)
    live.finish()


def test_nothing_can_be_changed_without_a_daemon_that_records(
    own_lab: Lab, tmp_path: Path
) -> None:
    own_lab.run_script('import flightlog; flightlog.init(id="r", project="p").finish()')
    own_lab.stop()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(own_lab.home), str(copy)], check=True)
    (copy / "spool").rmdir()
    (copy / "spool").write_text("in the way")
    run = Api(home=copy).run("someone/p/r")

    run.notes = "x"
    with pytest.raises(CommError, match="cannot be written"):
        run.update()


def test_attributes_have_the_types_that_users_expect(run: Run) -> None:
    assert run.path == ["someone", "changes", run.id]
    assert run.url.endswith(f"/someone/changes/runs/{run.id}")
    assert (str(run.user), run.user.username, run.user.name) == ("someone",) * 3
    assert run.user.email is None
    with pytest.warns(DeprecationWarning, match="entity"):
        assert run.username == "someone"
    assert isinstance(run.storage_id, str)
    assert run.storage_id != run.id
    assert (
        run.project_internal_id
        == run._project_internal_id
        == again(run).project_internal_id
    )
    assert run.rawconfig == run.config
    assert run.summary_metrics == run.summary == run.summary.as_dict()
    assert (run.sweep, run.sweep_name, run.commit) == (None, None, None)
    assert (run.system_metrics, run.history_line_count) == ({}, 1)
    assert run.metadata["python"]
    assert not run.read_only
    assert Path(run.dir).is_dir()
    attributes = run.load()
    assert (attributes["name"], attributes["state"]) == (run.id, "finished")
    assert (run.displayName, run.createdAt) == (run.name, run.created_at)
    assert run.historyLineCount == 1
    with pytest.raises(AttributeError, match="nonsense"):
        _ = run.nonsense


def test_notebooks_are_shown_escaped_text(run: Run) -> None:
    run.name = "<script>"
    run.config["<b>"] = "<i>"
    run.update()

    html = run.to_html(height=100, hidden=True)
    assert f'src="{run.url}?jupyter=true"' in html
    assert "height:100px" in html
    assert "<button" in html
    assert "display:none" in html
    assert "<button" not in run.to_html()
    table = run._repr_html_()
    assert "<script>" not in html + table
    assert "&lt;b&gt;" in table
    assert run.display() is False


def test_projects_are_found_and_described(run: Run) -> None:
    api = Api(home=run.client.home.root)

    (found,) = [each for each in api.projects() if each.name == "changes"]

    assert (found.entity, found.path) == ("someone", ["someone", "changes"])
    assert found.url.endswith("someone/changes/workspace")
    assert found.id == api.project("changes").id
    assert found.created_at <= time.time()
    assert "someone/changes" in found._repr_html_()
    assert "changes" in found.to_html()
    assert found.sweeps() == []
    assert api.projects()[0].name
    assert list(api.projects("nobody")) == []
    with pytest.raises(NotFoundError, match="nothing"):
        _ = api.project("nothing").id


def test_from_path_knows_projects_and_runs(run: Run) -> None:
    api = Api(home=run.client.home.root)
    for path in (f"someone/changes/{run.id}", f"/someone/changes/runs/{run.id}"):
        found = api.from_path(path)
        assert isinstance(found, Run)
        assert found.id == run.id
    for path in ("changes", "someone/changes"):
        project = api.from_path(path)
        assert isinstance(project, Project)
        assert (project.entity, project.name) == ("someone", "changes")
    for path in ("", "a//b", "a/b/sweeps/c", "a/b/reports/c"):
        with pytest.raises(BadArgumentError, match="Invalid path"):
            api.from_path(path)


def test_an_api_takes_what_wandbs_takes(lab: Lab) -> None:
    api = Api(
        {"entity": "me", "project": "p", "base_url": "http://x//"},
        19,
        "key",
        home=lab.home,
    )

    assert (api.default_entity, str(api.viewer), api.api_key) == ("me", "me", "key")
    assert dict(api.settings) == {
        "entity": "me",
        "project": "p",
        "base_url": "http://x",
        "run": None,
    }
    assert api.client.home.root == lab.home
    assert api.user_agent


@pytest.mark.parametrize(
    "wrong",
    [
        lambda api, home: api("x", home=home),
        lambda api, home: api({"entitty": "x"}, home=home),
        lambda api, home: api({"entity": 3}, home=home),
        lambda api, home: api(timeout="x", home=home),
        lambda api, home: api(api_key=3, home=home),
        lambda api, home: api(home=3),
        lambda api, home: api(home=home).create_run(run_id="a/b"),
        lambda api, home: api(home=home).create_run(run_id=""),
        lambda api, home: api(home=home).create_run(project=3),
        lambda api, home: api(home=home).create_run(state="finished"),
        lambda api, home: api(home=home).project(3),
        lambda api, home: api(home=home).project("../x"),
        lambda api, home: api(home=home).projects(per_page=0),
        lambda api, home: api(home=home).from_path(3),
        lambda api, home: Run(api(home=home).client, "", "p", "r"),
        lambda api, home: Run(api(home=home).client, "e", cast(str, 3), "r"),
    ],
)
def test_wrong_arguments_of_the_api_are_told(
    lab: Lab, wrong: Callable[[Any, Path], object]
) -> None:
    with pytest.raises(BadArgumentError):
        wrong(Api, lab.home)


def test_a_run_is_made_directly_as_the_page_shows(run: Run) -> None:
    made = Run(run.client, run.entity, run.project, run.id)

    assert (made.id, repr(made)) == (run.id, repr(run))
    nothing = Run(run.client, "someone", "changes", "nothing", attrs={})
    assert repr(nothing) == "<Run someone/changes/nothing (not found)>"
    with pytest.raises(NotFoundError, match="not found"):
        Run(run.client, "someone", "changes", "nothing")


def test_nothing_warns_in_ordinary_use(run: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.update()
    wait_until(lambda: list(run.client.home.spool.iterdir()) == [])
