"""Artifacts logged by live runs, with a real daemon: versions, kills, replay."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.artifacts.conftest import (
    PROJECT,
    blob_of,
    command,
    contents,
    logged,
    made,
)
from tests.sdk.conftest import Lab
from tests.system.harness import wait_until

import flightlog
from flightlog import (
    Api,
    Artifact,
    ArtifactFinalizedError,
    ArtifactNotLoggedError,
    CommError,
)


def test_an_artifact_is_logged_and_read_back(
    run: Any, api: Api, name: str, tmp_path: Path
) -> None:
    draft = made(name, a="one", d__b="two")
    draft.description, draft.metadata["lr"] = "text", {"deep": [1, None]}

    assert run.log_artifact(draft, aliases=["best"], tags=["t"]) is draft
    draft.wait()
    found = api.artifact(name)

    for artifact in (draft, found):
        assert artifact.name == f"{name}:v0"
        assert artifact.qualified_name == f"{run.entity}/{PROJECT}/{name}:v0"
        assert (artifact.version, artifact.type, artifact.state) == (
            "v0",
            "data",
            "COMMITTED",
        )
        assert (artifact.entity, artifact.project) == (run.entity, PROJECT)
        assert artifact.aliases == ["latest", "best"]
        assert (artifact.tags, artifact.description) == (["t"], "text")
        assert artifact.metadata == {"lr": {"deep": [1, None]}}
        assert (artifact.size, artifact.file_count) == (6, 2)
        assert artifact.created_at == artifact.updated_at
        assert artifact.created_at.endswith("Z")
        assert list(artifact.manifest.entries) == ["a", "d/b"]
        assert artifact.source_qualified_name == artifact.qualified_name
        assert (artifact.incremental, artifact.history_step) == (False, None)
        assert not artifact.is_draft()
    assert (found.digest, found.id) == (
        made(name, a="one", d__b="two").digest,
        draft.id,
    )
    assert contents(found.download(tmp_path / "d")) == {"a": "one", "d/b": "two"}
    assert repr(found) == f"<Artifact {found.qualified_name} (data)>"


def test_before_it_is_waited_for_it_says_so(run: Any, name: str) -> None:
    artifact = run.log_artifact(made(name, a="one"))

    with pytest.raises(ArtifactNotLoggedError, match="wait"):
        artifact.version  # noqa: B018  # Raises.
    with pytest.raises(ArtifactNotLoggedError, match="wait"):
        artifact.description = "late"
    with pytest.raises(ArtifactFinalizedError, match="final"):
        artifact.new_file("b")
    assert artifact.wait().version == "v0"


def test_what_was_added_is_what_is_stored(run: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("then")
    artifact = Artifact(name, "t")
    artifact.add_file(path)

    path.write_text("later")
    run.log_artifact(artifact).wait()

    assert contents(artifact.download(tmp_path / "d")) == {"f": "then"}


def test_an_immutable_file_that_changes_is_not_logged(
    run: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f"
    path.write_text("then")
    kept = Artifact(name, "t")
    kept.add_file(path, policy="immutable")
    run.log_artifact(kept).wait()
    path.write_text("now.")
    changed = Artifact(name, "t")
    changed.add_file(path, policy="immutable")
    path.write_text("late")

    run.log_artifact(changed)

    with pytest.raises(CommError, match="changed after it was added"):
        changed.wait()
    run.finish()
    assert capsys.readouterr().err.count("is lost and counted") == 1
    read = Api().run(run.path)
    assert (read.lost_count, read.state) == (1, "finished")
    assert [each.name for each in read.logged_artifacts()] == [f"{name}:v0"]


def test_a_path_that_is_no_text_costs_nothing_else(
    run: Any, name: str, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"\xff") / "f"
    path.parent.mkdir()
    path.write_text("early")
    changed = Artifact(name, "t")
    changed.add_file(path, policy="immutable")
    path.write_text("late")

    run.log_artifact(changed)
    kept = logged(run, f"{name}-2", f="kept")

    with pytest.raises(CommError, match="changed after it was added"):
        changed.wait()
    run.finish()
    read = Api().run(run.path)
    assert read.lost_count == 1
    assert [each.name for each in read.logged_artifacts()] == [kept.name]


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        ("pass", "finished"),
        ("raise ValueError", "failed"),
        ("sys.exit(3)", "failed"),
        ("interrupt()", "failed"),
        ("del a, draft", "finished"),
        ("run.use_artifact(a)", "finished"),  # Which waits for it.
    ],
)
def test_a_process_that_ends_without_finish_keeps_what_it_logged(
    lab: Lab, name: str, ending: str, state: str, tmp_path: Path
) -> None:
    code = f"""
    import os, signal, sys, time, flightlog
    run = flightlog.init(project="art", id={name!r})
    draft = flightlog.Artifact("unlogged", "t")
    with draft.new_file("f") as f:
        f.write("x")
    a = flightlog.Artifact({name!r}, "t")
    with a.new_file("f", mode="wb") as f:
        f.write(bytes(16 << 20))
    run.log_artifact(a)
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        while True:  # Another thread may take it; the main one then looks, awake.
            time.sleep(0.01)
    {ending}
    """

    done = lab.execute(code)

    assert "counted" not in done.stderr, done.stderr
    run = lab.ended(name, project=PROJECT)
    assert (run.state, run.lost_count) == (state, 0), done.stderr
    (artifact,) = run.logged_artifacts()
    artifact.download(tmp_path / "d")
    assert (tmp_path / "d/f").stat().st_size == 16 << 20
    folders = [p for p in (lab.home / "staging").rglob("*") if p.is_file()]
    assert folders == []


def test_paths_become_artifacts(run: Any, tmp_path: Path) -> None:
    (tmp_path / "sub dir").mkdir()
    path = tmp_path / "sub dir" / "we ights.bin"
    path.write_text("w")

    file = run.log_artifact(str(path), type="model").wait()
    folder = run.log_artifact(path.parent, name="named", tags=["t"]).wait()
    uri = run.log_artifact("s3://bucket/key").wait()

    assert file.name == f"run-{run.id}-we_ights.bin:v0"
    assert (file.type, folder.type, uri.type) == ("model", "unspecified", "unspecified")
    assert (folder.name, folder.tags) == ("named:v0", ["t"])
    assert list(folder.manifest.entries) == ["we ights.bin"]
    assert uri.manifest.entries["key"].ref == "s3://bucket/key"


def test_wrong_arguments_raise_at_the_call(run: Any, name: str) -> None:
    draft = made(name, a="one")
    wrong: Any
    for wrong in ("/no/such/path", ""):
        with pytest.raises(ValueError, match="no file"):
            run.log_artifact(wrong)
    with pytest.raises(TypeError, match="needed"):
        run.log_artifact(3)
    for wrong in (["a/b"], ["a:b"], [""], ["v3"]):
        with pytest.raises(ValueError, match="alias"):
            run.log_artifact(draft, aliases=wrong)
    for wrong in ("best", [3], 3):
        with pytest.raises(TypeError, match="alias"):
            run.log_artifact(draft, aliases=wrong)
    with pytest.raises(ValueError, match="path"):
        run.log_artifact(draft, name="other")
    with pytest.raises(flightlog.UsageError, match="tag"):
        run.log_artifact(draft, tags=[""])
    draft.metadata["bad"] = float("inf")
    with pytest.raises(ValueError, match="infinity"):
        run.log_artifact(draft)
    draft.metadata = {"long": "x" * (1 << 20)}
    with pytest.raises(ValueError, match="metadata"):
        run.log_artifact(draft)

    draft.metadata = None
    assert run.log_artifact(draft).wait().version == "v0"


def test_another_type_for_a_name_is_refused(run: Any, name: str) -> None:
    logged(run, name, a="one")
    with pytest.raises(ValueError, match="type 'data' already"):
        run.log_artifact(made(name, "model", a="two"))
    run.finish()

    other = flightlog.init(project=PROJECT)

    def is_known() -> bool:
        try:
            other.log_artifact(made(name, "model", a="two"))
        except ValueError:
            return True
        return False

    wait_until(is_known)  # That is when it is folded.


def test_nothing_is_logged_after_the_end(run: Any, name: str) -> None:
    run.finish()

    for call, given in (
        (run.log_artifact, made(name, a="one")),
        (run.use_artifact, name),
        (run.save, "*"),
    ):
        with pytest.raises(flightlog.UsageError, match="finished"):
            call(given)


def test_finish_waits_for_what_is_on_its_way(
    run: Any, api: Api, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(32 << 20))
    artifact = Artifact(name, "t")
    artifact.add_file(path)
    run.log_artifact(artifact)

    run.finish()

    assert api.artifact(name).size == 32 << 20
    assert artifact.wait(timeout=0.0).version == "v0"


def test_the_module_has_the_calls_of_the_run(
    run: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_text("x")

    flightlog.log_artifact(made(name, a="one")).wait()
    made(f"{name}2", a="one").save()
    assert flightlog.use_artifact(name).name == f"{name}:v0"
    assert flightlog.save("f") == [str(tmp_path / "f")]
    flightlog.finish()

    read = Api().run(run.path)
    assert [each.name for each in read.logged_artifacts()] == [
        f"{name}:v0",
        f"{name}2:v0",
    ]
    assert [each.name for each in read.used_artifacts()] == [f"{name}:v0"]
    assert [each.name for each in read.files()] == ["f"]


def test_a_disabled_run_has_all_of_it(tmp_path: Path, name: str) -> None:
    run = flightlog.init(mode="disabled")
    draft = made(name, a="one")

    assert run.log_artifact(draft, aliases=["a"]).wait() is draft
    assert run.log_artifact(str(tmp_path), type="t").wait().type == "t"
    assert run.use_artifact("some:v3", use_as="x").type == "unspecified"
    assert run.use_artifact(draft) is draft
    assert run.save("*", policy="end") == []
    run.finish()


def test_versions_aliases_and_digests(run: Any, api: Api, name: str) -> None:
    first = logged(run, name, ["good", "latest"], a="one")
    same = logged(run, name, ["also"], a="one")
    second = logged(run, name, ["good"], a="two")

    assert [a.version for a in (first, same, second)] == ["v0", "v0", "v1"]
    assert api.artifact(f"{name}:v0").aliases == ["also"]
    assert api.artifact(f"{PROJECT}/{name}").aliases == ["latest", "good"]
    for alias in ("latest", "good", "v1"):
        assert api.artifact(f"{run.entity}/{PROJECT}/{name}:{alias}").version == "v1"
    third = logged(run, name, a="one")
    assert third.version == "v2"  # Equal to an older one, not to the latest.


def test_two_processes_log_versions_of_one_artifact(lab: Lab, name: str) -> None:
    code = f"""
    import flightlog
    run = flightlog.init(project="art", id="ranks-{name}", rank=RANK)
    for n in range(10):
        a = flightlog.Artifact("{name}", "t")
        with a.new_file("f") as f:
            f.write(f"RANK {{n}}")
        run.log_artifact(a)
    print(a.wait().version)
    """
    ranks = [lab.start(code.replace("RANK", str(rank))) for rank in (0, 1)]

    for process in ranks:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err

    found = Api(home=lab.home).artifacts("t", f"someone/art/{name}")
    assert [int(each.version[1:]) for each in found] == list(reversed(range(20)))
    texts = [blob_of(lab.home, f"{r} {n}") for r in (0, 1) for n in range(10)]
    assert all(path.exists() for path in texts)
    digests = {each.digest for each in found}
    assert len(digests) == 20
    run = lab.find(f"ranks-{name}", PROJECT)
    assert [each.version for each in run.logged_artifacts()] == [
        f"v{number}" for number in range(20)
    ]


def test_a_kill_during_logging_leaves_whole_versions(own_lab: Lab) -> None:
    code = """
    import os, flightlog
    run = flightlog.init(project="art", id="killed")
    for n in range(200):
        a = flightlog.Artifact("model", "t")
        with a.new_file("f", mode="wb") as f:
            f.write(os.urandom(200_000))
        run.log_artifact(a)
        print(n, flush=True)
    a.wait()
    """
    process = own_lab.start(code)
    assert process.stdout is not None
    for _ in range(30):
        process.stdout.readline()
    process.kill()
    returned = 30 + len(process.communicate()[0].splitlines())

    run = own_lab.ended("killed", project=PROJECT)
    found = list(run.logged_artifacts())
    for artifact in found:
        artifact.download(own_lab.home.parent / artifact.name)
        artifact.verify(own_lab.home.parent / artifact.name)
    assert [each.version for each in found] == [f"v{n}" for n in range(len(found))]
    assert run.state == "crashed"
    # The call that was cut off may be among them.
    assert len(found) + run.lost_count in (returned, returned + 1)
    own_lab.stop()  # It sweeps each minute, and so may have done it already.
    own_lab.run_script("import flightlog; flightlog.init().finish()")
    wait_until(lambda: not any((own_lab.home / "staging").iterdir()))


def test_a_replay_gives_the_same_versions(own_lab: Lab, tmp_path: Path) -> None:
    own_lab.run_script(
        """
        import flightlog
        for run_id in ("a", "b"):
            run = flightlog.init(project="art", id=run_id)
            for n in range(5):
                a = flightlog.Artifact("model", "t")
                with a.new_file("f") as f:
                    f.write(str(n // 2) + run_id)
                run.log_artifact(a, aliases=[f"n{n % 2}"])
            run.use_artifact(a)
            run.finish()
        """
    )

    def told() -> list[Any]:
        api = Api({"entity": "someone", "project": PROJECT}, home=own_lab.home)
        versions = [
            (a.name, a.digest, a.aliases, a.created_at, len(a.used_by()))
            for a in api.artifacts("t", "model")
        ]
        runs = [
            [a.name for a in each]
            for run_id in ("a", "b")
            for run in [api.run(f"{PROJECT}/{run_id}")]
            for each in (run.logged_artifacts(), run.used_artifacts())
        ]
        return [versions, runs]

    before = told()
    assert len(before[0]) == 6
    own_lab.stop()
    assert command(own_lab, "replay").returncode == 0

    assert told() == before


def test_a_copy_that_may_not_be_written_can_be_read(
    own_lab: Lab, tmp_path: Path
) -> None:
    own_lab.run_script(
        """
        import flightlog
        run = flightlog.init(project="art", id="a")
        a = flightlog.Artifact("model", "t")
        with a.new_file("f") as f:
            f.write("x")
        run.log_artifact(a)
        run.finish()
        """
    )
    own_lab.stop()
    copy = tmp_path / "copy"
    shutil.copytree(own_lab.home, copy)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)

    artifact = Api({"entity": "someone"}, home=copy).artifact("art/model")

    assert contents(artifact.download(tmp_path / "d")) == {"f": "x"}
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o700)


def test_a_draft_may_come_from_another_disk(
    name: str, own_lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    memory = Path(f"/dev/shm/flightlog-{name}")
    disks = [os.stat(path).st_dev for path in ("/dev/shm", tmp_path)]
    if disks[0] == disks[1]:
        pytest.skip("there is one disk only")
    monkeypatch.setenv("FLIGHTLOG_HOME", str(memory))
    try:
        draft = made(name, a="one")
        run = flightlog.init(project=PROJECT, home=own_lab.home)
        run.log_artifact(draft).wait()
        run.finish()

        assert contents(draft.download(tmp_path / "d")) == {"a": "one"}
        assert [p for p in (memory / "staging").rglob("*") if p.is_file()] == []
    finally:
        shutil.rmtree(memory, ignore_errors=True)
