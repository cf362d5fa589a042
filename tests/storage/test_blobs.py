"""Blobs: what is stored is what was read, and what is read is what was stored."""

import base64
import errno
import hashlib
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from flightlog_storage.blob_lock import alone
from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.copies import (
    CHUNK_SIZE,
    digests_of,
    hash_file,
    stage_bytes,
    stage_file,
)
from flightlog_storage.errors import CorruptData

DATA = bytes(range(256)) * 8
MISSING = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("blobs", "staging"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def store(root: Path) -> BlobStore:
    return BlobStore(root / "blobs")


def source(root: Path, data: bytes = DATA) -> Path:
    path = root / "source"
    path.write_bytes(data)
    return path


def kept(root: Path, store: BlobStore, data: bytes = DATA) -> str:
    staged = stage_bytes(data, root / "staging")
    store.keep(staged)
    return staged.digests.sha256


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1])
def test_a_file_becomes_a_blob_of_its_name(
    root: Path, store: BlobStore, size: int
) -> None:
    data = os.urandom(size)

    staged = stage_file(source(root, data), root / "staging")
    store.keep(staged)

    sha256 = hashlib.sha256(data).hexdigest()
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    assert (staged.digests.sha256, staged.digests.md5) == (sha256, md5)
    assert files(root / "blobs") == [root / "blobs" / sha256[:2] / sha256]
    assert store.path(sha256).read_bytes() == data
    assert files(root / "staging") == []
    assert staged.digests == digests_of(data) == hash_file(root / "source")


def test_blobs_are_for_their_owner_alone(root: Path, store: BlobStore) -> None:
    path = store.path(kept(root, store))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.fault(5)
def test_a_blob_is_durable_before_it_has_its_name_and_the_name_before_it_is_told(
    root: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(fd: int) -> None:
        fsync(fd)
        done.append(os.readlink(f"/proc/self/fd/{fd}"))

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        done.append(f"rename {target}")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    staged = stage_bytes(DATA, root / "staging")
    store.keep(staged)

    path = store.path(staged.digests.sha256)
    assert done == [
        str(staged.path),
        f"rename {path}",
        str(path.parent),
        str(root / "blobs"),
    ]


def test_nobody_waits_for_the_sync_of_a_blob_that_is_new(
    root: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who deletes does not: while the bytes are synced the blobs are not held."""
    fsync = os.fsync

    def synced_alone(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(root / "staging")):
            with alone(store.lock, timeout_s=0):
                synced.append(fd)
        fsync(fd)

    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced_alone)

    kept(root, store)

    assert len(synced) == 1


def test_a_blob_that_is_deleted_while_it_is_stored_again_is_durable_too(
    root: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.path(kept(root, store))
    staged = stage_bytes(DATA, root / "staging")
    synced: list[str] = []
    fsync, holding = os.fsync, store.holding

    def hold() -> AbstractContextManager[None]:
        path.unlink()  # Just before.
        return holding()

    def sync(fd: int) -> None:
        fsync(fd)
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(store, "holding", hold)
    monkeypatch.setattr(os, "fsync", sync)
    store.keep(staged)

    assert synced == [str(staged.path), str(path.parent)]
    assert path.read_bytes() == DATA


def test_a_folder_that_another_process_has_made_is_durable_too(
    root: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That process may have been killed behind the mkdir."""
    store.path(digests_of(DATA).sha256).parent.mkdir(parents=True)
    synced: list[str] = []
    fsync = os.fsync

    def sync(fd: int) -> None:
        fsync(fd)
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", sync)
    kept(root, store)
    kept(root, store)

    assert synced.count(str(root / "blobs")) == 1


def test_what_cannot_be_kept_leaves_no_copy(
    root: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        kept(root, store)

    assert files(root / "staging") == []


def test_a_blob_that_is_there_is_not_written_again(
    root: Path, store: BlobStore
) -> None:
    path = store.path(kept(root, store))
    before = path.stat()

    kept(root, store)

    after = path.stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns, "it counts as young"
    assert files(root / "staging") == []


def test_a_blob_of_the_wrong_size_is_replaced(root: Path, store: BlobStore) -> None:
    path = store.path(kept(root, store))
    path.write_bytes(DATA[:-1])

    kept(root, store)

    assert path.read_bytes() == DATA


@pytest.mark.fault(43)
def test_what_changes_after_it_was_staged_is_stored_as_it_was(
    root: Path, store: BlobStore
) -> None:
    path = source(root)
    staged = stage_file(path, root / "staging")

    path.write_bytes(b"other")
    store.keep(staged)

    with store.open_verified(staged.digests.sha256) as file:
        assert file.read() == DATA


@pytest.mark.fault(8)
@pytest.mark.parametrize("position", [0, len(DATA) // 2, len(DATA) - 1])
def test_damage_is_found_when_it_is_read(
    root: Path, store: BlobStore, position: int
) -> None:
    sha256 = kept(root, store)
    damaged = bytearray(DATA)
    damaged[position] ^= 1
    store.path(sha256).write_bytes(damaged)

    with pytest.raises(CorruptData, match=sha256), store.open_verified(sha256):
        pass
    with (
        (root / "copy").open("wb+") as copy,
        pytest.raises(CorruptData, match=sha256),
    ):
        store.copy_verified(sha256, copy.fileno())
    with pytest.raises(CorruptData, match=sha256):
        [*store.read_verified(sha256)]
    assert check_blob(store, sha256, len(DATA), full=False) is None
    assert check_blob(store, sha256, len(DATA), full=True) is not None


def test_a_sound_blob_is_copied(root: Path, store: BlobStore) -> None:
    sha256 = kept(root, store)

    with (root / "copy").open("wb+") as copy:
        store.copy_verified(sha256, copy.fileno())

    assert (root / "copy").read_bytes() == DATA
    assert check_blob(store, sha256, len(DATA), full=True) is None


def test_a_blob_that_is_missing_or_cut_is_told(root: Path, store: BlobStore) -> None:
    sha256 = kept(root, store)
    store.path(sha256).write_bytes(DATA[1:])

    assert "bytes" in (check_blob(store, sha256, len(DATA), full=False) or "")
    assert "missing" in (check_blob(store, MISSING, 0, full=False) or "")
    assert not store.renew(sha256, len(DATA))
    assert not store.renew(MISSING, 0)
    with pytest.raises(CorruptData, match="missing"), store.open_verified(MISSING):
        pass
    with pytest.raises(CorruptData, match="missing"):
        store.copy_verified(MISSING, -1)


def test_a_blob_that_the_disk_does_not_give_back_is_told(
    root: Path, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = kept(root, store)

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", refuse)
        said = check_blob(store, sha256, len(DATA), full=True)

    assert said == "it cannot be read: Input/output error"
    path = store.path(sha256)
    path.unlink()
    os.mkfifo(path)
    assert check_blob(store, sha256, 0, full=True) == "is not a regular file"
    path.unlink()
    path.symlink_to(path.name)
    assert "cannot be read" in (check_blob(store, sha256, 0, full=False) or "")


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "A" * 64, "g" * 64, f"{MISSING}\n"]
)
def test_what_names_no_blob_touches_no_disk(
    root: Path, store: BlobStore, name: str
) -> None:
    with pytest.raises(CorruptData, match="names no blob"):
        store.path(name)
    assert "names no blob" in (check_blob(store, name, 0, full=True) or "")
