"""Logged artifacts found, downloaded, verified, with a real daemon."""

import json
import os
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

import flightlog
from flightlog import (
    Api,
    Artifact,
    BadArgumentError,
    CommError,
    CorruptError,
    NotFoundError,
)
from flightlog_storage.event import ManifestEntry
from flightlog_storage.manifest import MANIFEST_INLINE_SIZE_MAX


def test_artifacts_are_found_by_path_and_type(run: Any, api: Api, name: str) -> None:
    logged(run, name, ["odd:alias"[:3]], a="one")
    full = f"{run.entity}/{PROJECT}/{name}"

    assert api.artifact(name, type="data").version == "v0"
    assert (api.artifact_exists(full), api.artifact_exists(f"{name}:v9")) == (
        True,
        False,
    )
    assert api.artifact_exists(name, type="model") is False
    assert api.artifact_collection_exists(name, "data")
    assert not api.artifact_collection_exists(name, "model")
    assert not api.artifact_collection_exists("none", "data")
    with pytest.raises(BadArgumentError, match=r"'model'.*'data'"):
        api.artifact(name, type="model")
    path: Any
    for path in ("none", f"{name}:x", f"other/{name}", f"a/b/c/{name}", f"{name}:a:b"):
        with pytest.raises(NotFoundError, match="not found"):
            api.artifact(path)
    for path in (None, "", " ", "/", f"//{name}", 3):
        with pytest.raises(BadArgumentError):
            api.artifact(path)


def test_collections_and_types(run: Any, api: Api, name: str) -> None:
    where = f"types-{name}"
    run.finish()
    with flightlog.init(project=where) as other:
        logged(other, "b", ["x"], a="one")
        logged(other, "b", ["y"], a="two")
        logged(other, "a", a="one")
        other.log_artifact(made("m", "model", a="one")).wait()

    types = api.artifact_types(where)
    collections = api.artifact_collections(where, "data")
    collection = api.artifact_collection("data", f"{where}/b")

    assert [each.name for each in types] == ["data", "model"]
    assert [each.name for each in collections] == ["a", "b"]
    assert (len(collections), collections[1].name) == (2, "b")
    assert [a.version for a in collection.artifacts()] == ["v1", "v0"]
    assert [a.version for a in collection.versions(order="version_index")] == [
        "v0",
        "v1",
    ]
    assert (collection.type, collection.entity, collection.project) == (
        "data",
        run.entity,
        where,
    )
    assert collection.aliases == ["latest", "x", "y"]
    assert collection.created_at <= collection.updated_at
    assert collection.id != collections[0].id
    assert api.artifact_type("data", where).collection("a").name == "a"
    assert api.artifact(f"{where}/b").collection.name == "b"
    project = api.project(where)
    assert [each.name for each in project.artifacts_types()] == ["data", "model"]
    assert [each.name for each in project.collections()] == ["a", "b", "m"]
    for wrong in (("model", "b"), ("data", "none")):
        with pytest.raises(NotFoundError, match="not found"):
            api.artifact_collection(wrong[0], f"{where}/{wrong[1]}")
    with pytest.raises(NotFoundError):
        api.artifacts("model", f"{where}/b")


def test_versions_can_be_paged_ordered_and_filtered(
    run: Any, api: Api, name: str
) -> None:
    for number in range(5):
        tags = ["even"] if number % 2 == 0 else ["odd", "x"]
        run.log_artifact(made(name, a=str(number)), tags=tags)
    run.finish()

    found = api.artifacts("data", name, per_page=2)

    assert (found.more, found.cursor, found.objects) == (True, None, [])
    assert (len(found), found.length, len(found.objects)) == (5, 5, 2)
    assert found[3].version == "v1"
    assert (len(found.objects), found.more) == (4, True)
    assert [a.version for a in found.convert_objects()] == ["v2", "v1"]
    assert found[-1].version == "v0"
    assert [a.version for a in found[1:3]] == ["v3", "v2"]
    pairs = [(a.version, b.version) for a in found for b in found]
    assert len(set(pairs)) == 25
    assert (next(found), found.next()) == (found[0], found[1])
    assert (found.more, found.cursor) == (False, "5")
    with pytest.raises(IndexError):
        found[5]
    ordered = api.artifacts("data", name, order="+version_index")
    assert [a.version for a in ordered] == [f"v{n}" for n in range(5)]
    tagged = api.artifact_versions("data", name)
    assert len(tagged) == 5
    chosen: Any
    for chosen, expected in (("even", 3), (["odd", "x"], 2), (["even", "x"], 0)):
        assert len(api.artifacts("data", name, tags=chosen)) == expected
    wrong: Any
    for wrong in ({"per_page": 0}, {"order": "up"}):
        with pytest.raises(BadArgumentError):
            api.artifacts("data", name, **wrong)


def test_files_of_an_artifact(
    run: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = logged(run, name, a="one", d__b="two")
    monkeypatch.chdir(tmp_path)

    files = artifact.files()
    assert [(f.name, f.size, f.md5) for f in files] == [
        (e.path, e.size, e.digest) for e in artifact.manifest.entries.values()
    ]
    assert [f.name for f in artifact.files(["d/b", "none"])] == ["d/b"]
    with artifact.files(["a"])[0].download("x") as text:
        assert text.read() == "one"
    with pytest.raises(BadArgumentError, match="artifact"):
        files[0].delete()
    entry = artifact["d/b"]
    assert entry.download() == f"artifacts/{name}:v0/d/b"
    assert entry.parent_artifact() is artifact
    assert entry.ref_url().endswith(f"{name}:v0/d/b")
    assert contents(f"artifacts/{name}:v0") == {"d/b": "two"}
    with pytest.raises(ValueError, match="2 files"):
        artifact.file()
    single = logged(run, f"{name}-1", only="1")
    assert Path(single.file(tmp_path / "s")).read_text() == "1"


def test_downloads_leave_what_is_right_and_what_is_not_theirs(
    run: Any, name: str, tmp_path: Path
) -> None:
    artifact = logged(run, name, a="one", d__b="two", d__c="three")
    root = tmp_path / "d"

    artifact.download(root, path_prefix="d/")
    assert contents(root) == {"d/b": "two", "d/c": "three"}
    before = (root / "d/b").stat().st_ino
    (root / "d/c").write_text("other")
    (root / "mine").write_text("mine")
    (root / "empty").mkdir()
    assert artifact.download(root) == str(root)

    assert (root / "d/b").stat().st_ino == before
    whole = {"a": "one", "d/b": "two", "d/c": "three"}
    assert contents(root) == whole | {"mine": "mine"}
    with pytest.raises(CorruptError, match="mine"):
        artifact.verify(root)
    artifact.checkout(root)
    assert contents(root) == whole
    assert not (root / "empty").exists()
    artifact.verify(root)
    (root / "a").write_text("ONE")
    with pytest.raises(ValueError, match="a is not what"):
        artifact.verify(root)
    (root / "a").unlink()
    with pytest.raises(CorruptError, match="a is not what"):
        artifact.verify(root)


def test_downloads_do_not_follow_links(run: Any, name: str, tmp_path: Path) -> None:
    artifact = logged(run, name, a="one", d__b="two")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "target").write_text("precious")
    root = tmp_path / "d"
    root.mkdir()
    (root / "a").symlink_to(outside / "target")
    (root / "d").symlink_to(outside)

    with pytest.raises(CommError):
        artifact.download(root)

    assert contents(outside) == {"target": "precious"}
    (root / "d").unlink()
    artifact.checkout(root)
    assert contents(outside) == {"target": "precious"}
    assert not (root / "a").is_symlink()
    assert contents(root) == {"a": "one", "d/b": "two"}


def test_checkout_deletes_links_and_not_what_they_lead_to(
    run: Any, name: str, tmp_path: Path
) -> None:
    artifact = logged(run, name, a="one")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("precious")
    root = tmp_path / "d"
    root.mkdir()
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "f")

    artifact.checkout(root)

    assert sorted(os.listdir(root)) == ["a"]
    assert contents(outside) == {"f": "precious"}


@pytest.mark.fault(45)
@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a\0b", "x" * 300])
def test_a_manifest_cannot_lead_out_of_the_folder(
    run: Any, name: str, tmp_path: Path, path: str
) -> None:
    """As written by somebody who does not use this SDK."""
    artifact = logged(run, name, a="one")
    (known,) = artifact.logged.entries().values()
    entry = ManifestEntry(path=path, digest=known.digest, size=3, blob=known.blob)
    artifact.logged.entries()[path] = entry

    with pytest.raises(CorruptError, match="refused"):
        artifact.download(tmp_path / "in" / "d")

    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "a"] == []
    with pytest.raises(CommError, match="path"):
        artifact.files([path])[0].download(str(tmp_path / "in"), exist_ok=True)


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damage_is_told_and_costs_one_file(
    own_lab: Lab, tmp_path: Path, damage: str
) -> None:
    own_lab.run_script(
        """
        import flightlog
        run = flightlog.init(project="art", id="a")
        a = flightlog.Artifact("model", "t")
        for name in ("bad", "good"):
            with a.new_file(name) as f:
                f.write(name * 100)
        run.log_artifact(a)
        run.finish()
        """
    )
    path = blob_of(own_lab.home, "bad" * 100)
    data = path.read_bytes()
    changed = {"flipped": data[:-1] + b"!", "cut": data[:-1]}.get(damage)
    path.unlink() if changed is None else path.write_bytes(changed)
    artifact = Api({"entity": "someone"}, home=own_lab.home).artifact("art/model")

    with pytest.raises(CorruptError, match="bad"):
        artifact.download(tmp_path / "d")
    artifact["good"].download(tmp_path / "d")

    assert contents(tmp_path / "d") == {"good": "good" * 100}
    own_lab.stop()
    done = command(own_lab, "verify", "--full", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)["data"]
    assert report["sound"] is False
    assert [problem["where"] for problem in report["problems"]] == [
        f"blobs/{path.parent.name}/{path.name}"
    ]
    assert "someone/art/model:v0/bad" in report["problems"][0]["what"]


def test_a_large_manifest_is_a_blob(
    run: Any, api: Api, name: str, tmp_path: Path
) -> None:
    artifact = Artifact(name, "t")
    for number in range(MANIFEST_INLINE_SIZE_MAX // 50):
        artifact.add_reference(f"s3://bucket/{number:020d}")
    with artifact.new_file("f") as file:
        file.write("x")

    run.log_artifact(artifact).wait()

    found = api.artifact(name)
    assert found.logged.state.manifest is not None
    assert list(found.manifest.entries) == list(artifact.manifest.entries)
    assert (found.digest, found.file_count) == (artifact.digest, artifact.file_count)
    found.download(tmp_path / "d")
    assert contents(tmp_path / "d") == {"f": "x"}


def test_references_are_followed_on_this_machine(
    run: Any, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some file"
    path.write_text("one")
    artifact = Artifact(name, "t")
    artifact.add_reference(path.as_uri())
    artifact.add_reference(path.as_uri(), name="unchecked", checksum=False)
    artifact.add_reference("s3://bucket/key")
    run.log_artifact(artifact).wait()

    artifact.download(tmp_path / "d")

    assert contents(tmp_path / "d") == {"some file": "one", "unchecked": "one"}
    assert "1 references are not fetched" in capsys.readouterr().err
    path.write_text("two")
    with pytest.raises(CorruptError, match="not any more"):
        artifact.download(tmp_path / "e")
    path.unlink()
    with pytest.raises(CommError, match="cannot be copied"):
        artifact.download(tmp_path / "f")
    artifact.download(tmp_path / "f", allow_missing_references=True)
    assert contents(tmp_path / "f") == {}


def test_a_draft_of_a_version_takes_over_its_files(
    run: Any, api: Api, name: str, tmp_path: Path
) -> None:
    first = logged(run, name, a="one", b="two")
    other = logged(run, f"{name}-2", c="three")

    draft = api.artifact(name).new_draft()
    draft.remove("b")
    draft.add(other["c"], "d/c")
    draft.add_reference(other["c"], name="e")
    run.log_artifact(draft).wait()

    assert draft.version == "v1"
    assert contents(draft.download(tmp_path / "d")) == {
        "a": "one",
        "d/c": "three",
        "e": "three",
    }
    assert first.digest != draft.digest
