"""Assets written to zip archives: whole, checked, and under names that can be."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab, wait_done, write_files

import flightlog
from flightlog import BadArgumentError, CommError, CorruptError, NotFoundError
from flightlog.apis.public import Api
from flightlog.apis.public.assets import Asset
from flightlog.apis.public.client import Client
from flightlog_storage.assets import Asset as Known
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import digests_of, stage_bytes
from flightlog_storage.event import ManifestEntry
from flightlog_storage.home import Home
from flightlog_storage.manifest import encode_manifest

FILES = {"a.txt": b"one", "b/c.txt": b"two" * 100_000, "b/same.txt": b"one"}


@pytest.fixture
def live(lab: Lab, home: Path) -> flightlog.Run:
    return flightlog.init(project="zips", reinit="create_new")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data", FILES)


def dataset(live: flightlog.Run, path: Path, *, save: bool = True) -> Asset:
    live.log_dataset("d", path, save=save)
    live.finish()
    run = Api(home=live.home.root).run(live.path)
    wait_done(run)
    return run.assets.datasets[0]


def files_in(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_folder_becomes_an_archive_of_its_files(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    asset = dataset(live, folder)
    target = tmp_path / "new" / "x.zip"

    assert asset.to_zip(str(target)) == target
    assert files_in(target) == FILES
    asset.to_zip(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == target.read_bytes()


def test_a_file_becomes_an_archive_of_one(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    target = dataset(live, folder / "b" / "c.txt").to_zip(tmp_path / "x.zip")

    assert files_in(target) == {"c.txt": FILES["b/c.txt"]}


def test_code_is_an_archive_already(
    lab: Lab, home: Path, folder: Path, tmp_path: Path
) -> None:
    live = flightlog.init(
        project="zips", reinit="create_new", snapshot_code=True, workspace_root=folder
    )
    live.finish()
    code = Api(home=live.home.root).run(live.path).assets.code
    assert code is not None

    assert files_in(code.to_zip(tmp_path / "code.zip")) == FILES


def test_what_is_there_is_replaced_only_if_that_is_said(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    asset, target = dataset(live, folder), tmp_path / "x.zip"
    target.write_bytes(b"mine")

    with pytest.raises(FileExistsError, match="overwrite"):
        asset.to_zip(target)
    with pytest.raises(BadArgumentError, match="overwrite must be a bool"):
        asset.to_zip(target, overwrite="no")  # type: ignore[arg-type]
    assert target.read_bytes() == b"mine"
    with pytest.raises(BadArgumentError, match="is a folder"):
        asset.to_zip(folder, overwrite=True)

    assert files_in(asset.to_zip(target, overwrite=True)) == FILES


def test_damage_leaves_what_was_there(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    data = b"only here, among these tests"
    (folder / "z").write_bytes(data)
    asset, target = dataset(live, folder), tmp_path / "x.zip"
    target.write_bytes(b"mine")
    blob = BlobStore(live.home.blobs).path(digests_of(data).sha256)
    blob.write_bytes(b"t" + data[1:])

    with pytest.raises(CorruptError, match="not what it is named"):
        asset.to_zip(target, overwrite=True)
    blob.unlink()
    with pytest.raises(CorruptError, match="missing"):
        asset.to_zip(tmp_path / "y.zip")

    assert target.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "x.zip"}


@pytest.mark.parametrize(
    "names",
    [["../x"], ["/etc/x"], ["a/../../x"], ["a//b"], [""], ["same", "same"], ["a\0"]],
)
def test_names_that_cannot_be_are_refused(
    live: flightlog.Run, tmp_path: Path, names: list[str]
) -> None:
    asset = made_of(live.home, names)

    with pytest.raises(CorruptError):
        asset.to_zip(tmp_path / "x.zip")

    assert list(tmp_path.iterdir()) == []


def made_of(home: Home, names: list[str]) -> Asset:
    """Return an asset whose manifest somebody else wrote."""
    store = BlobStore(home.blobs)
    data = stage_bytes(b"data", home.staging)
    entries = [
        ManifestEntry(
            path=name,
            digest=data.digests.md5,
            size=data.digests.size,
            blob=data.digests.sha256,
        )
        for name in names
    ]
    manifest = stage_bytes(encode_manifest(entries), home.staging)
    for staged in (data, manifest):
        store.keep(staged)
    known = Known(
        token="t",
        kind="dataset",
        name="d",
        logged_at=1.0,
        manifest=manifest.digests.sha256,
    )
    return Asset(Client(home), known, lambda: known)


@pytest.mark.parametrize("path", ["", 3, None, b"", "a\0b", "\ud800"])
def test_what_is_no_path_is_refused(
    live: flightlog.Run, folder: Path, path: Any
) -> None:
    with pytest.raises(BadArgumentError, match="path must"):
        dataset(live, folder).to_zip(path)


def test_what_is_not_saved_or_cannot_be_written_is_told(
    live: flightlog.Run, folder: Path, tmp_path: Path
) -> None:
    asset = dataset(live, folder)
    with pytest.raises(CommError, match="cannot be written"):
        asset.to_zip(folder / "a.txt" / "x.zip")

    other = flightlog.init(project="zips", reinit="create_new")
    with pytest.raises(NotFoundError, match="not to be saved"):
        dataset(other, folder, save=False).to_zip(tmp_path / "x.zip")
