"""Datasets and pretrained models: told of, archived by the daemon, read back."""

import hashlib
import inspect
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sdk.conftest import Lab, state_of, wait_done, write_files
from tests.system.harness import wait_until

import flightlog
from flightlog import BadArgumentError, CorruptError, NotFoundError, _inputs
from flightlog.apis.public import Api, Run
from flightlog.apis.public.assets import Asset
from flightlog_storage.blobs import BlobStore
from flightlog_storage.manifest import decode_manifest
from flightlog_storage.named_blobs import named_blobs
from flightlog_storage.reader import HomeReader

FILES = {"a.txt": b"one", "b/c.txt": b"two", "b/same.txt": b"one"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def live(lab: Lab, home: Path) -> flightlog.Run:
    return flightlog.init(project="assets", reinit="create_new")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data", FILES)


def read(live: flightlog.Run) -> Run:
    live.finish()
    return Api(home=live.home.root).run(live.path)


def only(live: flightlog.Run) -> Asset:
    """Return the one asset that the run was told of, once nothing is owed of it."""
    run = read(live)
    wait_done(run)
    (asset,) = [*run.assets.datasets, *run.assets.pretrained]
    return asset


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_signatures_are_as_people_know_them() -> None:
    dataset = inspect.signature(flightlog.Run.log_dataset).parameters
    pretrained = inspect.signature(flightlog.Run.log_pretrained).parameters
    shared = {
        "save": False,
        "description": None,
        "force_save": False,
        "max_archive_bytes": 5 * 1024**3,
        "max_archive_files": 2_000_000,
    }

    def defaults(parameters: Any) -> dict[str, Any]:
        return {
            name: each.default
            for name, each in parameters.items()
            if each.kind is each.KEYWORD_ONLY
        }

    assert list(dataset)[:3] == ["self", "name", "root_or_uri"]
    assert defaults(dataset) == {"context": "train", **shared}
    assert list(pretrained)[:3] == ["self", "name", "path_or_uri"]
    assert defaults(pretrained) == {
        "path_or_uri": None,
        "source_type": "unknown",
        **shared,
    }


# --- told of ---


def test_a_folder_is_told_of_by_sizes_and_times(
    live: flightlog.Run, folder: Path
) -> None:
    live.log_dataset("digits", folder, description="by hand")

    asset = only(live)

    status = folder.stat()
    assert (asset.kind, asset.name, asset.key) == ("dataset", "digits", "digits")
    assert (asset.context, asset.source_type) == ("train", None)
    assert asset.description == "by hand"
    assert (asset.uri, asset.path) == (str(folder), str(folder))
    assert asset.fingerprint == {
        "mtime": status.st_mtime,
        "file_count": 3,
        "total_size_bytes": 9,
        "newest_mtime": max(p.stat().st_mtime for p in folder.rglob("*.txt")),
    }
    assert (asset.saved, asset.size, asset.error) == (False, 9, None)
    assert asset.created_at.endswith("Z")
    with pytest.raises(NotFoundError, match="was not to be saved"):
        asset.open()


def test_a_file_is_told_of_by_size_and_time(live: flightlog.Run, folder: Path) -> None:
    path = folder / "a.txt"
    live.log_pretrained(
        "model", path_or_uri=str(path), source_type="local", description="small"
    )

    asset = only(live)

    assert (asset.kind, asset.name, asset.context) == ("pretrained", "model", None)
    assert (asset.source_type, asset.description) == ("local", "small")
    assert asset.fingerprint == {"size_bytes": 3, "mtime": path.stat().st_mtime}
    assert asset.size == 3


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket//key",
        "https://host/a?b=c#d",
        "hf-internal/tiny-model",
        "elsewhere//a-model/",
        "file:///nowhere/at/all",
        {"repo": "x", "files": ["a", 1, None], "deep": {"n": 1 << 70}},
        None,
    ],
)
def test_what_is_elsewhere_is_kept_as_it_was_given(
    live: flightlog.Run, uri: object
) -> None:
    live.log_dataset("d", uri, context="test")
    live.log_pretrained("p", path_or_uri=uri)
    assets = read(live).assets

    for asset in (*assets.datasets, *assets.pretrained):
        assert asset.uri == uri
        assert (asset.path, asset.fingerprint, asset.size) == (None, None, None)
    assert assets.datasets[0].context == "test"
    assert assets.pretrained[0].source_type == "unknown"


@pytest.mark.parametrize("given", ["data", Path("data"), "./data", "data/../data"])
def test_a_relative_path_is_made_absolute(
    live: flightlog.Run, folder: Path, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    live.log_dataset("d", given)

    assert only(live).uri == str(folder)


def test_a_path_of_a_user_is_expanded(
    live: flightlog.Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    live.log_dataset("d", "~/data")

    assert (only(live).path, only(live).size) == (str(folder), 9)


def test_a_uri_of_a_file_is_kept_and_is_a_path(
    live: flightlog.Run, folder: Path
) -> None:
    path = (folder / "a.txt").rename(folder / "a b.txt")
    live.log_pretrained("m", path_or_uri=path.as_uri())

    asset = only(live)

    assert (asset.uri, asset.path, asset.size) == (path.as_uri(), str(path), 3)


def test_a_path_with_nothing_there_is_told_of_all_the_same(
    live: flightlog.Run, tmp_path: Path
) -> None:
    live.log_dataset("d", tmp_path / "later")

    asset = only(live)

    assert (asset.uri, asset.path) == (str(tmp_path / "later"), None)
    assert (asset.fingerprint, asset.error) == (None, None)


def test_each_call_is_one_asset(live: flightlog.Run, folder: Path) -> None:
    for context in ("train", "test", "train"):
        live.log_dataset("d", folder, context=context)

    found = read(live).assets.datasets

    assert [asset.context for asset in found] == ["train", "test", "train"]


def test_a_walk_that_takes_too_long_is_finished_by_the_daemon(
    live: flightlog.Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_inputs, "SURVEY_TIMEOUT_S", -1.0)
    given = _inputs.Given("dataset", "d", folder, context="train")
    saving = _inputs.Saving(False, False, 0, 0)
    event = _inputs.make_input(given, saving, live.home)
    assert (event.job, event.fingerprint) == ("survey", None)

    live.log_dataset("d", folder)
    asset = only(live)

    assert asset.fingerprint["total_size_bytes"] == 9
    assert (asset.saved, asset.size) == (False, 9)


# --- archived ---


def test_a_file_is_archived_and_comes_back(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    live.log_pretrained("m", path_or_uri=folder / "b" / "c.txt", save=True)
    asset = only(live)
    (folder / "b" / "c.txt").unlink()

    assert (asset.saved, asset.size) == (True, 3)
    assert asset.fingerprint == sha256(b"two")
    with asset.open() as file:
        assert file.read() == b"two"
    assert asset.download(tmp_path).read_bytes() == b"two"
    assert (tmp_path / "c.txt").read_bytes() == b"two"
    assert asset.restore(tmp_path / "new" / "x").read_bytes() == b"two"


def test_a_file_that_is_called_as_a_manifest_is_a_file(
    live: flightlog.Run, tmp_path: Path
) -> None:
    path = tmp_path / "manifests" / "a.json"
    path.parent.mkdir()
    path.write_text('{"files": {"../x": {"sha256": "0"}}}')
    live.log_dataset("d", path, save=True)

    back = only(live).restore(tmp_path / "back.json")

    assert back.read_bytes() == path.read_bytes()


def test_a_folder_is_archived_and_comes_back(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    live.log_dataset("d", folder, save=True)
    asset = only(live)

    told = "".join(f"{name}\0{sha256(FILES[name])}\0" for name in sorted(FILES))
    assert (asset.saved, asset.size) == (True, 9)
    assert asset.fingerprint == sha256(told.encode())
    assert files_in(asset.restore(tmp_path / "restored")) == FILES
    assert files_in(asset.download(tmp_path / "downloaded")) == FILES
    with pytest.raises(BadArgumentError, match="is a folder"):
        asset.open()


def test_equal_bytes_are_stored_once(live: flightlog.Run, folder: Path) -> None:
    live.log_dataset("d", folder, save=True)
    run = read(live)
    wait_until(lambda: run.assets.datasets[0].saved)
    (known,) = state_of(run).assets.values()
    store = BlobStore(live.home.blobs)
    with store.open_verified(known.manifest or "") as file:
        entries = {entry.path: entry.blob for entry in decode_manifest(file.read())}

    assert entries == {name: sha256(data) for name, data in FILES.items()}
    assert entries["a.txt"] == entries["b/same.txt"]


def test_the_same_bytes_are_saved_for_each_that_was_told_of_them(
    live: flightlog.Run, folder: Path
) -> None:
    other = flightlog.init(project="assets", reinit="create_new")
    for run, name in ((live, "a"), (live, "b"), (other, "c")):
        run.log_dataset(name, folder, save=True)
        run.log({"loss": 1})
    runs = [read(live), read(other)]
    wait_until(lambda: all(a.saved for run in runs for a in run.assets.datasets))

    found = [asset for run in runs for asset in run.assets.datasets]
    assert [asset.name for asset in found] == ["a", "b", "c"]
    assert len({asset.fingerprint for asset in found}) == 1
    assert [len(list(run.scan_history())) for run in runs] == [2, 1]
    assert [state_of(run).lost_count for run in runs] == [0, 0]


def test_the_blobs_of_assets_are_known_to_be_needed(
    live: flightlog.Run, folder: Path
) -> None:
    live.log_dataset("d", folder, save=True)
    live.log_pretrained("m", path_or_uri=folder / "a.txt", save=True)
    run = read(live)
    wait_done(run)

    def needed() -> set[str]:
        store = BlobStore(live.home.blobs)
        named = HomeReader(live.home).look(
            lambda database, folding: list(named_blobs(database, folding, store))
        )
        return {blob.sha256 for blob in named if run.id in blob.use}

    manifest = next(iter(state_of(run).assets.values())).manifest
    wait_until(lambda: needed() == {manifest, sha256(b"one"), sha256(b"two")})
    run.delete()
    wait_until(lambda: not needed())


def test_an_empty_folder_is_archived(live: flightlog.Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    live.log_dataset("d", tmp_path / "empty", save=True)
    asset = only(live)

    assert (asset.saved, asset.fingerprint) == (True, sha256(b""))
    assert asset.restore(tmp_path / "back").is_dir()


def test_what_is_left_out_of_a_folder_is_told(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "out").symlink_to("../secret")
    (folder / "broken").symlink_to("gone")
    (folder / "in").symlink_to("a.txt")
    os.mkfifo(folder / "fifo")
    live.log_dataset("d", folder, save=True)
    asset = only(live)

    assert files_in(asset.restore(tmp_path / "back")) == {**FILES, "in": b"one"}
    assert asset.skipped_count == 3
    assert {each["path"] for each in asset.skipped} == {"out", "broken", "fifo"}


def test_an_archive_in_which_nothing_would_be_is_none(
    live: flightlog.Run, tmp_path: Path
) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "links" / "model").symlink_to("../blob")
    live.log_pretrained("m", path_or_uri=tmp_path / "links", save=True)
    run = read(live)
    wait_until(lambda: state_of(run).lost_count == 1)

    (asset,) = run.assets.pretrained
    assert not asset.saved
    assert "leads out of the folder" in (asset.error or "")
    with pytest.raises(NotFoundError, match="is not saved"):
        asset.restore(tmp_path / "back")


def test_a_home_in_the_folder_is_no_part_of_it(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    live.log_dataset("d", live.home.root.parent, save=True)
    (live.home.root.parent / "beside").write_bytes(b"beside")
    asset = only(live)

    assert "beside" in files_in(asset.restore(tmp_path / "back"))
    assert not (tmp_path / "back" / live.home.root.name).exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"max_archive_bytes": 8}, "dataset too large to archive; set force_save=True"),
        ({"max_archive_files": 2}, "dataset too large to archive; set force_save=True"),
    ],
)
def test_a_folder_beyond_the_limits_is_refused_at_the_call(
    live: flightlog.Run, folder: Path, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        live.log_dataset("d", folder, save=True, **change)
    live.log_dataset("forced", folder, save=True, force_save=True, **change)
    live.log_dataset("told", folder, **change)
    run = read(live)
    wait_until(lambda: run.assets.datasets[0].saved)

    forced, told = run.assets.datasets
    assert (forced.name, told.name) == ("forced", "told")
    assert told.fingerprint["file_count"] == 3, "the limits are for what is saved"


def test_as_much_as_the_limits_allow_is_archived(
    live: flightlog.Run, folder: Path
) -> None:
    live.log_dataset("d", folder, save=True, max_archive_bytes=9, max_archive_files=3)

    assert only(live).saved


def test_of_a_file_only_the_size_is_limited(live: flightlog.Run, folder: Path) -> None:
    path = folder / "a.txt"
    with pytest.raises(ValueError, match="pretrained file too large to archive"):
        live.log_pretrained("m", path_or_uri=path, save=True, max_archive_bytes=2)
    live.log_pretrained("m", path_or_uri=path, save=True, max_archive_files=0)

    assert only(live).saved


def test_limits_hold_for_a_folder_of_a_model_unless_forced(
    live: flightlog.Run, folder: Path
) -> None:
    given: Any = {"path_or_uri": folder, "save": True, "max_archive_files": 2}
    with pytest.raises(ValueError, match="pretrained too large to archive"):
        live.log_pretrained("m", **given)
    live.log_pretrained("m", force_save=True, **given)

    assert only(live).saved


def test_limits_that_are_found_late_are_a_job_that_failed(
    live: flightlog.Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_inputs, "SURVEY_TIMEOUT_S", -1.0)
    live.log_dataset("d", folder, save=True, max_archive_files=2)
    live.log_dataset("e", folder, save=True, max_archive_files=2, force_save=True)
    run = read(live)
    wait_done(run)

    failed, forced = run.assets.datasets
    assert state_of(run).lost_count == 1
    assert not failed.saved
    assert "too large to archive" in (failed.error or "")
    assert forced.saved


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"name": 3}, TypeError, "name"),
        ({"name": ""}, ValueError, "name"),
        ({"root_or_uri": 3}, TypeError, "root_or_uri"),
        ({"root_or_uri": [1]}, TypeError, "root_or_uri"),
        ({"root_or_uri": ""}, ValueError, "no path and no URI"),
        ({"root_or_uri": "a\0b"}, ValueError, "no path and no URI"),
        ({"root_or_uri": "nowhere", "save": True}, FileNotFoundError, "/nowhere"),
        ({"root_or_uri": "/dev/null", "save": True}, ValueError, "neither"),
        ({"root_or_uri": "s3://b", "save": True}, ValueError, "save=True requires"),
        ({"root_or_uri": {}, "save": True}, ValueError, "save=True requires"),
        ({"root_or_uri": None, "save": True}, ValueError, "save=True requires"),
        ({"root_or_uri": {"a": "x" * (8 << 20)}}, ValueError, "too many"),
        ({"context": 3}, TypeError, "context"),
        ({"description": 3}, TypeError, "description"),
        ({"save": "yes"}, TypeError, "save"),
        ({"force_save": 1}, TypeError, "force_save"),
        ({"max_archive_bytes": -1}, ValueError, "max_archive_bytes"),
        ({"max_archive_files": 1.5}, TypeError, "max_archive_files"),
        ({"max_archive_files": True}, TypeError, "max_archive_files"),
        ({"max_archive_bytes": 1 << 70}, ValueError, "max_archive_bytes"),
        ({"max_archive_files": np.arange(2)}, TypeError, "max_archive_files"),
        ({"root_or_uri": "\ud800"}, ValueError, "root_or_uri .* is no path"),
    ],
)
def test_what_is_wrong_is_told_at_the_call_and_leaves_nothing(
    live: flightlog.Run,
    folder: Path,
    change: dict[str, Any],
    error: type[Exception],
    word: str,
) -> None:
    with pytest.raises(error, match=word):
        live.log_dataset(**{"name": "d", "root_or_uri": folder, **change})

    assert read(live).assets.datasets == []


def test_a_pretrained_model_is_saved_from_a_path_alone(live: flightlog.Run) -> None:
    with pytest.raises(ValueError, match="save=True requires path_or_uri"):
        live.log_pretrained("m", save=True)
    with pytest.raises(TypeError, match="source_type"):
        live.log_pretrained("m", source_type=None)  # type: ignore[arg-type]

    assert read(live).assets.pretrained == []


# --- read back ---


def test_what_is_there_is_not_replaced_unasked(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    live.log_dataset("d", folder, save=True)
    asset = only(live)
    target = tmp_path / "back"
    target.mkdir()
    (target / "a.txt").write_bytes(b"mine")
    (target / "other").write_bytes(b"other")

    with pytest.raises(FileExistsError, match="overwrite"):
        asset.restore(target)
    with pytest.raises(BadArgumentError, match="overwrite must be a bool"):
        asset.restore(target, overwrite="no")  # type: ignore[arg-type]
    assert (target / "a.txt").read_bytes() == b"mine"

    asset.restore(target, overwrite=True)
    assert files_in(target) == {**FILES, "other": b"other"}


def test_damage_is_found_and_nothing_half_is_left(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    (folder / "z").write_bytes(b"only here, in this test")
    live.log_dataset("d", folder, save=True)
    live.log_pretrained("m", path_or_uri=folder / "z", save=True)
    run = read(live)
    wait_done(run)
    blob = BlobStore(live.home.blobs).path(sha256(b"only here, in this test"))
    blob.chmod(0o600)
    blob.write_bytes(b"only here, in that test")

    (dataset,), (model,) = run.assets.datasets, run.assets.pretrained
    with pytest.raises(CorruptError):
        dataset.restore(tmp_path / "back")
    with pytest.raises(CorruptError):
        model.open()
    with pytest.raises(CorruptError):
        model.restore(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    blob.unlink()


def test_limits_are_whole_numbers_of_any_library(
    live: flightlog.Run, folder: Path
) -> None:
    live.log_dataset("d", folder, save=True, max_archive_files=np.int64(9))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_archive_bytes=1"):
        live.log_dataset("e", folder, save=True, max_archive_bytes=np.uint8(1))  # type: ignore[arg-type]

    assert [each.name for each in read(live).assets.datasets] == ["d"]


@pytest.mark.parametrize("path", ["", 3, None, "a\0b", "\ud800"])
def test_what_is_no_path_is_refused(
    live: flightlog.Run, folder: Path, path: Any
) -> None:
    live.log_dataset("d", folder, save=True)
    asset = only(live)

    with pytest.raises(BadArgumentError, match="target must"):
        asset.restore(path)
    with pytest.raises(BadArgumentError, match="path must"):
        asset.download(path)


def test_the_code_is_an_asset(lab: Lab, home: Path, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("pass")
    live = flightlog.init(
        project="assets",
        reinit="create_new",
        snapshot_code=True,
        workspace_root=tmp_path / "code",
    )
    code = read(live).assets.code

    assert code is not None
    assert (code.kind, code.saved) == ("code", True)
    with code.open() as file:
        assert file.read(2) == b"PK"
    assert code.download(tmp_path).name == "snapshot.zip"


def test_a_run_that_was_told_of_nothing_has_none(live: flightlog.Run) -> None:
    assets = read(live).assets

    assert (assets.code, assets.datasets, assets.pretrained) == (None, [], [])
    assert assets.config == {}


# --- ends ---


@pytest.mark.parametrize(
    ("call", "where"),
    [("log_dataset", "root_or_uri"), ("log_pretrained", "path_or_uri")],
)
def test_after_the_end_it_is_a_line_and_no_error(
    live: flightlog.Run,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    call: str,
    where: str,
) -> None:
    run = read(live)

    getattr(live, call)("d", **{where: folder})

    assert f"{call}() comes too late" in capfd.readouterr().err
    assert (run.assets.datasets, run.assets.pretrained) == ([], [])


def test_a_disabled_run_takes_them() -> None:
    run = flightlog.init(mode="disabled")

    run.log_dataset("d", 3, save=True)
    run.log_pretrained("m", path_or_uri=3, save=True)


def test_an_archive_outlives_the_process_that_asked_for_it(
    own_lab: Lab, folder: Path
) -> None:
    done = own_lab.execute(
        f"""
        import os, flightlog
        run = flightlog.init(id="r", project="p")
        run.log_dataset("d", {str(folder)!r}, save=True)
        os.kill(os.getpid(), 9)
        """
    )
    assert done.returncode == -signal.SIGKILL
    own_lab.serve()

    run = own_lab.ended("r", project="p")
    wait_until(lambda: run.assets.datasets[0].saved)
