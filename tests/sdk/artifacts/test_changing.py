"""Logged artifacts changed, deleted, and linked with runs, with a real daemon."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.artifacts.conftest import PROJECT, again, command, logged, made
from tests.sdk.conftest import Lab

import flightlog
from flightlog import (
    Api,
    ArtifactFinalizedError,
    BadArgumentError,
    CommError,
    NotFoundError,
)


def test_what_is_said_of_a_version_is_recorded_by_save(run: Any, name: str) -> None:
    artifact = logged(run, name, ["a", "b"], a="one")
    artifact.description = "new"
    artifact.metadata["k"] = [1]
    artifact.aliases.remove("a")
    artifact.aliases.append("c")
    artifact.tags = ["t", "u"]
    assert again(artifact).description is None

    artifact.save()

    for found in (artifact, again(artifact)):
        assert (found.description, found.metadata) == ("new", {"k": [1]})
        assert (found.aliases, found.tags) == (["latest", "b", "c"], ["t", "u"])
        assert found.updated_at > found.created_at


def test_a_save_reverts_nothing_of_others(run: Any, name: str) -> None:
    mine = logged(run, name, ["a"], a="one")
    theirs = again(mine)
    theirs.aliases = ["a", "theirs"]
    theirs.tags.append("theirs")
    theirs.metadata = {"k": 1}
    theirs.save()

    mine.aliases.append("mine")
    mine.tags.append("mine")
    mine.save()

    found = again(mine)
    assert found.aliases == ["latest", "a", "mine", "theirs"]
    assert (found.tags, found.metadata) == (["theirs", "mine"], {"k": 1})
    assert mine.aliases == found.aliases


def test_a_save_without_changes_records_nothing(
    run: Any, name: str, home: Path
) -> None:
    artifact = logged(run, name, ["a"], a="one")
    run.finish()
    size = sum(path.stat().st_size for path in (home / "log").iterdir())

    artifact.save()

    assert sum(path.stat().st_size for path in (home / "log").iterdir()) == size


def test_an_alias_given_moves_from_another_version(
    run: Any, api: Api, name: str
) -> None:
    first = logged(run, name, ["best"], a="one")
    second = logged(run, name, a="two")

    second.aliases.append("best")
    second.save()

    assert api.artifact(f"{name}:best").version == "v1"
    assert again(first).aliases == []


def test_what_cannot_be_is_refused_by_save(run: Any, name: str) -> None:
    artifact = logged(run, name, a="one")
    wrong: Any
    for wrong in (["a/b"], ["v1"], "text"):
        with pytest.raises(BadArgumentError, match="alias"):
            artifact.aliases = wrong
    artifact.aliases.append("a:b")
    with pytest.raises(BadArgumentError, match="alias"):
        artifact.save()
    artifact.aliases.remove("a:b")
    artifact.metadata["k"] = float("inf")
    with pytest.raises(BadArgumentError, match="infinity"):
        artifact.save()
    with pytest.raises(TypeError, match="description"):
        artifact.description = 3  # type: ignore[assignment]  # As above.
    with pytest.raises(ArtifactFinalizedError):
        artifact.new_file("b")


def test_a_version_is_deleted(run: Any, api: Api, name: str) -> None:
    first = logged(run, name, ["keep"], a="one")
    second = logged(run, name, a="two")
    with pytest.raises(ValueError, match="latest"):
        second.delete()
    with pytest.raises(BadArgumentError, match="keep"):
        first.delete()

    second.delete(delete_aliases=True)

    assert second.state == "DELETED"
    assert not api.artifact_exists(f"{name}:v1")
    assert api.artifact(name).version == "v0"
    with pytest.raises(NotFoundError):
        second.save()
    assert [a.version for a in Api().run(run.path).logged_artifacts()] == ["v0"]
    first = again(first)
    first.aliases = []
    first.save()
    with pytest.raises(BadArgumentError, match="latest"):
        first.delete()
    first.delete(delete_aliases=True)
    assert not api.artifact_collection_exists(name, "data")
    assert logged(run, name, a="one").version == "v2"


def test_runs_and_artifacts_know_each_other(run: Any, api: Api, name: str) -> None:
    artifact = logged(run, name, a="one")
    run.finish()
    with flightlog.init(project="elsewhere") as user:
        used = user.use_artifact(f"{PROJECT}/{name}:latest", type="data", use_as="init")
        user.use_artifact(used)

    assert used.qualified_name == artifact.qualified_name
    read, reader = api.run(run.path), api.run(user.path)
    assert [a.name for a in read.logged_artifacts()] == [f"{name}:v0"]
    assert [a.name for a in read.used_artifacts()] == []
    assert [a.name for a in reader.used_artifacts(per_page=1)] == [f"{name}:v0"]
    assert [r.id for r in used.used_by()] == [user.id]
    logger = used.logged_by()
    assert logger is not None
    assert logger.id == run.id
    with pytest.raises(BadArgumentError):
        read.logged_artifacts(per_page=0)


def test_a_live_run_uses_what_there_is(run: Any, name: str) -> None:
    artifact = run.log_artifact(made(name, a="one"))
    run.use_artifact(artifact)
    artifact.wait()

    for wrong in ("none", f"{name}:none", f"none/{name}"):
        with pytest.raises(ValueError, match="not found"):
            run.use_artifact(wrong)
    for given in (name, artifact):
        with pytest.raises(ValueError, match="type"):
            run.use_artifact(given, type="model")
    with pytest.raises(ValueError, match="draft"):
        run.use_artifact(made(f"{name}-2"))
    with pytest.raises(TypeError):
        run.use_artifact(3)
    with pytest.raises(TypeError):
        run.use_artifact(artifact, use_as=3)
    run.finish()
    assert [a.name for a in Api().run(run.path).used_artifacts()] == [f"{name}:v0"]


def test_a_logged_artifact_is_declared_by_another_run(
    run: Any, api: Api, name: str
) -> None:
    artifact = logged(run, name, ["best"], a="one")
    newest = logged(run, name, a="two")
    run.finish()
    with flightlog.init(project=PROJECT) as second:
        second.log_artifact(artifact, aliases=["live"])
    read = api.run(second.path)
    with flightlog.init(project=PROJECT) as third:
        pass
    late = api.run(third.path)

    declared = late.log_artifact(newest, aliases=["best"], tags=["t"])
    assert late.use_artifact(artifact, use_as="x") is artifact

    assert (declared.aliases, declared.tags) == (["latest", "best"], ["t"])
    assert [a.version for a in read.logged_artifacts()] == ["v0"]
    assert [a.version for a in late.logged_artifacts()] == ["v1"]
    assert [a.version for a in late.used_artifacts()] == ["v0"]
    assert late.state == "finished"
    logger = artifact.logged_by()
    assert logger is not None
    assert (logger.id, again(artifact).aliases) == (run.id, ["live"])


def test_a_run_read_back_takes_logged_artifacts_of_its_project(
    run: Any, api: Api, name: str
) -> None:
    artifact = logged(run, name, a="one")
    run.finish()
    other = flightlog.init(project="elsewhere")
    with pytest.raises(ValueError, match="different project"):
        other.log_artifact(artifact)
    other.finish()
    read, elsewhere = api.run(run.path), api.run(other.path)

    calls: list[Callable[[], Any]] = [
        lambda: read.log_artifact("name"),  # type: ignore[arg-type]  # Tested.
        lambda: read.use_artifact(3),  # type: ignore[arg-type]  # Tested.
        lambda: read.log_artifact(made(name)),
        lambda: read.use_artifact(made(name)),
        lambda: elsewhere.log_artifact(artifact),
        lambda: read.log_artifact(artifact, aliases=["a/b"]),
        lambda: read.log_artifact(artifact, tags=[""]),
        lambda: read.use_artifact(artifact, use_as=3),  # type: ignore[arg-type]  # As above.
    ]
    for call in calls:
        with pytest.raises(BadArgumentError):
            call()
    elsewhere.use_artifact(artifact)
    assert [r.id for r in artifact.used_by()] == [other.id]


@pytest.mark.parametrize("with_artifacts", [False, True])
def test_a_run_is_deleted_with_or_without_its_artifacts(
    run: Any, api: Api, name: str, with_artifacts: bool
) -> None:
    artifact = logged(run, name, ["best"], a="one")
    run.finish()

    api.run(run.path).delete(delete_artifacts=with_artifacts)

    assert api.artifact_exists(f"{name}:best") is not with_artifacts
    if not with_artifacts:
        assert artifact.logged_by() is None
        artifact.tags = ["still changeable"]
        artifact.save()
        assert again(artifact).tags == ["still changeable"]


def test_a_forked_child_logs_artifacts_of_its_own(
    run: Any, api: Api, name: str
) -> None:
    run.log_artifact(made(name, a="one")).wait()

    pid = os.fork()
    if not pid:
        try:
            run.log_artifact(made(name, a="child")).wait(timeout=30)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)

    assert api.artifact(name).version == "v1"


def test_who_changes_artifacts_is_seen_as_no_run(run: Any, name: str) -> None:
    where = f"quiet-{name}"
    run.finish()
    with flightlog.init(project=where) as other:
        artifact = logged(other, name, a="one")
    artifact.tags.append("t")
    artifact.save()

    api = Api()
    assert [each.id for each in api.runs(where)] == [other.id]
    assert [each.name for each in api.projects()].count(where) == 1
    listed = command(Lab(api.home.root), "ls", "--json")
    assert listed.returncode == 0
    found = json.loads(listed.stdout)["data"]
    assert [each["id"] for each in found if each["project"] == where] == [other.id]


def test_homes_do_not_mix(run: Any, api: Api, name: str, own_lab: Lab) -> None:
    artifact = logged(run, name, a="one")
    run.finish()
    other = flightlog.init(project=PROJECT, home=own_lab.home)

    with pytest.raises(ValueError, match="another home"):
        other.log_artifact(artifact)
    with pytest.raises(ValueError, match="another home"):
        other.use_artifact(artifact)
    draft = other.log_artifact(artifact.new_draft())
    with pytest.raises(CommError, match="not in this home"):
        draft.wait()
    other.finish()
    read = Api(home=own_lab.home).run(other.path)
    for change in (read.log_artifact, read.use_artifact):
        with pytest.raises(BadArgumentError, match="another home"):
            change(artifact)
    assert read.lost_count == 1
