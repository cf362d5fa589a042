"""Garbage: what nothing names goes, what anything names stays, in doubt all stays."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from tests.storage.recording import Recorded, settled, writer_id

from flightlog_storage import garbage as module
from flightlog_storage.blob_lock import alone
from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.codec import EDITOR_RANK, RunKey, encode_event
from flightlog_storage.copies import Digests, stage_bytes
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.event import (
    ArtifactDeleted,
    ArtifactLogged,
    AssetCompleted,
    AssetLogged,
    FileRequested,
    FileSaved,
    ManifestEntry,
    OutputArchived,
    RunDeleted,
    RunStarted,
)
from flightlog_storage.garbage import GRACE_S, collect, find_garbage
from flightlog_storage.home import Home
from flightlog_storage.inbox import make_token
from flightlog_storage.manifest import encode_manifest
from flightlog_storage.process import ProcessIdentity, this_process
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_writer import SpoolWriter
from flightlog_storage.staging import staging_folder


@pytest.fixture
def home(recorded: Recorded) -> Home:
    """A home in which something is folded."""
    recorded.start("run")
    recorded.fold()
    return recorded.home


def kept(home: Home, data: bytes) -> Digests:
    staged = stage_bytes(data, home.staging)
    BlobStore(home.blobs).keep(staged)
    return staged.digests


def saved(name: str, found: Digests) -> FileSaved:
    return FileSaved(
        time=1.0, name=name, blob=found.sha256, digest=found.md5, size=found.size
    )


def entry(path: str, found: Digests) -> ManifestEntry:
    return ManifestEntry(
        path=path, digest=found.md5, size=found.size, blob=found.sha256
    )


def spool(home: Home, process: ProcessIdentity | None = None) -> SpoolWriter:
    """Return a new writer in the home, that has said that it starts."""
    key = RunKey("e", "p", "new", 0)
    owner = SpoolOwner(os.urandom(16), process or this_process(), key)
    writer = SpoolWriter(home.spool, owner, lambda: None)
    started = RunStarted(time=1.0, entity="e", project="p", run="new", rank=0)
    writer.put(encode_event(started))
    return writer


def blobs(home: Home) -> set[str]:
    return {path.name for path in home.blobs.glob("*/*")}


def sweep(home: Home, grace_s: float = 0.0) -> set[str]:
    """Collect, and return the blobs that stay."""
    collected = collect(find_garbage(home, grace_s))
    assert collected.failed == []
    return blobs(home)


def test_what_nothing_names_goes_when_it_is_old(home: Home) -> None:
    old, young = kept(home, b"old"), kept(home, b"young")
    path = BlobStore(home.blobs).path(old.sha256)
    before = time.time() - GRACE_S - 1
    os.utime(path, (before, before))

    found = find_garbage(home)
    collected = collect(found)

    assert blobs(home) == {young.sha256}
    assert (collected.count, collected.size) == (1, 3)
    assert (found.young_count, found.young_size) == (1, 5)
    assert sweep(home) == set()


def everything(recorded: Recorded, name: str = "w", run: str = "all") -> set[str]:
    """Name blobs in each way there is; return them."""
    home = recorded.home
    datas = {n: kept(home, f"{run} {n}".encode()) for n in range(6)}
    entries = [entry("a", datas[0]), entry("b", datas[1])]
    manifest = kept(home, encode_manifest(entries))
    large = kept(home, encode_manifest([entry(run, datas[4])]))
    writer = recorded.start(run, name)
    recorded.tell(writer, saved("file", datas[2]))
    for token in ("file", "folder"):
        asset = AssetLogged(
            time=1.0, kind="dataset", name=token, token=token, job="archive"
        )
        recorded.tell(writer, asset)
    done = AssetCompleted(
        time=1.0, token="file", fingerprint="x", size=1, blob=datas[3].sha256
    )
    recorded.tell(writer, done)
    done = AssetCompleted(
        time=1.0, token="folder", fingerprint="x", size=1, manifest=manifest.sha256
    )
    recorded.tell(writer, done)
    for artifact in (
        {"entries": [entry("c", datas[5])]},
        {"manifest": large.sha256, "manifest_size": large.size},
    ):
        token = f"{run}{len(artifact)}"
        recorded.tell(
            writer,
            ArtifactLogged(
                time=1.0,
                name=token,
                token=token,
                type="model",
                digest=token,
                **artifact,
            ),
        )
    return {found.sha256 for found in (*datas.values(), manifest, large)}


def test_what_is_named_in_any_way_stays_folded_or_not(recorded: Recorded) -> None:
    recorded.start("other", "x")
    recorded.fold()
    named = everything(recorded)
    kept(recorded.home, b"nobody's")

    assert sweep(recorded.home) == named
    for _ in settled(recorded):
        assert sweep(recorded.home) == named


def editor(recorded: Recorded, run: str) -> "Callable[[object], object]":
    """Return what an editor of the run says things with."""
    name = recorded.join(run, f"editor of {run}"[:16], EDITOR_RANK)
    return lambda event: recorded.tell(name, event)  # type: ignore[arg-type]


def test_deleting_one_run_takes_no_blob_that_another_needs(recorded: Recorded) -> None:
    home = recorded.home
    first, second = everything(recorded), everything(recorded, "x", "more")
    shared = kept(home, b"shared")
    for name in ("w", "x"):
        recorded.tell(writer_id(name), saved("shared", shared))
    recorded.fold()
    recorded.log.close()
    recorded.log = recorded.open()

    editor(recorded, "all")(RunDeleted(time=2.0))
    recorded.fold()

    stays = sweep(home)
    assert shared.sha256 in stays
    assert second <= stays
    # Artifacts are no run's, and stay: two versions, and the manifest of one.
    assert len(first & stays) == 3
    editor(recorded, "more")(RunDeleted(time=3.0))
    recorded.fold()
    assert shared.sha256 not in sweep(home)


def test_an_artifact_that_is_deleted_lets_go_of_its_blobs(recorded: Recorded) -> None:
    everything(recorded)
    recorded.fold()
    before = sweep(recorded.home)

    for name in ("all1", "all2"):
        editor(recorded, "")(ArtifactDeleted(time=2.0, name=name, number=0))

    assert len(before) - len(sweep(recorded.home)) == 3


def test_an_output_lets_go_of_what_it_replaces_and_its_versions_stay(
    recorded: Recorded, home: Home
) -> None:
    datas = [kept(home, b"%d" % n) for n in range(5)]
    modes = ["rolling", "rolling", "overwrite_versions", "overwrite_versions"]
    for number, (mode, found) in enumerate(zip(modes, datas, strict=False)):
        event = OutputArchived(
            time=1.0,
            key=mode,
            mode=mode,
            fingerprint=found.sha256,
            size=1,
            seen="",
            boot="",
            looked_ns=number,
            blob=found.sha256,
        )
        recorded.tell(writer_id("w"), event)

    for _ in settled(recorded):
        assert sweep(home) == {found.sha256 for found in datas[1:4]}


def test_a_file_that_is_replaced_lets_go_of_its_blob(
    recorded: Recorded, home: Home
) -> None:
    old, new = kept(home, b"old"), kept(home, b"new")
    recorded.tell(writer_id("w"), saved("file", old))
    recorded.tell(writer_id("w"), saved("file", new))

    assert sweep(home) == {new.sha256}


@pytest.mark.parametrize(
    "process", [this_process(), ProcessIdentity(1 << 22, 1, "", 0)]
)
def test_what_only_a_spool_names_stays(home: Home, process: ProcessIdentity) -> None:
    found = kept(home, b"in a spool")
    writer = spool(home, process)
    writer.put(encode_event(saved("file", found)))

    assert sweep(home) == {found.sha256}


def test_what_a_refused_event_names_stays_folded_or_not(
    recorded: Recorded, home: Home
) -> None:
    found = kept(home, b"in a dead letter")
    event = encode_event(saved("file", found)).replace(b"size", b"sizf")
    recorded.say(writer_id("w"), event)

    assert sweep(home) == {found.sha256}
    for _ in settled(recorded):
        assert sweep(home) == {found.sha256}


def test_what_a_long_refused_event_names_stays(recorded: Recorded, home: Home) -> None:
    found, last = kept(home, b"in a dead letter"), kept(home, b"at its end")
    entries = [entry(f"{n:0>200}", found) for n in range(400)]
    event = ArtifactLogged(
        time=1.0, name="a", token="t", entries=[*entries, entry("z", last)]
    )
    recorded.fold()
    recorded.tell(writer_id("w"), event)  # Without a type it is refused.
    recorded.fold()

    assert sweep(home) == {found.sha256, last.sha256}


def test_what_a_refused_event_in_a_spool_names_stays(home: Home) -> None:
    found = kept(home, b"in a spool")
    event = encode_event(saved("file", found)).replace(b"size", b"sizf")
    spool(home).put(event)

    assert sweep(home) == {found.sha256}


# --- what makes it refuse ---


def spoil(path: Path, position: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def no_state(recorded: Recorded) -> None:
    recorded.home.state.unlink()


def damaged_state(recorded: Recorded) -> None:
    spoil(recorded.home.state)


def damaged_page(recorded: Recorded) -> None:
    size = recorded.home.state.stat().st_size
    with recorded.home.state.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def another_log(recorded: Recorded) -> None:
    recorded.log.close()
    for path in recorded.home.log.iterdir():
        path.unlink()
    recorded.log = recorded.open()
    recorded.start("other", "x")


def damaged_log(recorded: Recorded) -> None:
    frames = [recorded.rows(writer_id("w"), (step, 1.0)) for step in range(3)]
    path = max(recorded.home.log.iterdir())
    data = path.read_bytes()
    spoil(path, data.index(frames[0].writer, len(data) // 2))


NEWER = msgpack.packb({"event": "Newer", "time": 1.0, "blobs": ["ab" * 32]})


def event_of_a_newer_version(recorded: Recorded) -> None:
    recorded.say(writer_id("w"), NEWER)
    recorded.fold()


def event_of_a_newer_version_not_folded(recorded: Recorded) -> None:
    recorded.say(writer_id("w"), NEWER)


def event_of_a_newer_version_in_a_spool(recorded: Recorded) -> None:
    spool(recorded.home).put(NEWER)


def missing_manifest(recorded: Recorded) -> None:
    done = AssetLogged(time=1.0, kind="dataset", name="d", token="t", job="archive")
    recorded.tell(writer_id("w"), done)
    recorded.tell(
        writer_id("w"),
        AssetCompleted(
            time=1.0, token="t", fingerprint="x", size=1, manifest="ab" * 32
        ),
    )


def damaged_manifest(recorded: Recorded) -> None:
    everything(recorded, "x")
    store = BlobStore(recorded.home.blobs)
    for name in blobs(recorded.home):
        if b"blob" in store.path(name).read_bytes():
            spoil(store.path(name))


def nameless_spool(recorded: Recorded) -> None:
    (spool(recorded.home).folder / "owner").write_bytes(b"?")


def damaged_spool(recorded: Recorded) -> None:
    (path,) = spool(recorded.home).folder.glob("*.chunk")
    with path.open("r+b") as file:
        file.seek(64)
        file.write(b"\xc1" * 8)


def projections_set_aside(recorded: Recorded) -> None:
    (recorded.home.quarantine / "projections-1").mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        no_state,
        damaged_state,
        damaged_page,
        another_log,
        damaged_log,
        event_of_a_newer_version,
        event_of_a_newer_version_not_folded,
        event_of_a_newer_version_in_a_spool,
        missing_manifest,
        damaged_manifest,
        nameless_spool,
        damaged_spool,
        projections_set_aside,
    ],
    ids=lambda harm: harm.__name__,
)
def test_in_doubt_nothing_is_deleted(
    recorded: Recorded, home: Home, harm: Callable[[Recorded], None]
) -> None:
    kept(home, b"nobody's")
    harm(recorded)
    before = blobs(home)

    with pytest.raises((HomeUnusable, CorruptData)):
        find_garbage(home, 0.0)

    assert blobs(home) == before != set()


def test_an_event_of_a_newer_version_that_names_nothing_is_no_doubt(
    recorded: Recorded, home: Home
) -> None:
    kept(home, b"nobody's")
    event = msgpack.packb({"event": "Newer", "time": 1.0, "words": "and no blobs"})
    recorded.say(writer_id("w"), event)
    recorded.fold()

    assert sweep(home) == set()


# --- who stores meanwhile ---


def test_what_is_stored_again_before_it_is_deleted_stays(home: Home) -> None:
    data, other = kept(home, b"data"), kept(home, b"other")
    found = find_garbage(home, 0.0)
    assert len(found.blobs) == 2

    kept(home, b"data")
    collected = collect(found)

    assert blobs(home) == {data.sha256}
    assert collected.count == 1
    assert other.sha256 not in blobs(home)


def test_what_is_renewed_while_it_is_looked_for_stays(home: Home) -> None:
    store, data = BlobStore(home.blobs), kept(home, b"data")

    def renew() -> None:
        with store.holding():
            store.renew(data.sha256, data.size)

    recorder = iter([renew])
    found = find_garbage(home, 0.0, tick=lambda: next(recorder, lambda: None)())

    assert found.blobs == []
    assert found.young_count == 1


def test_it_waits_for_those_who_store_and_gives_way(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = kept(home, b"data"), BlobStore(home.blobs)
    found = find_garbage(home, 0.0)
    monkeypatch.setattr(module, "alone", lambda path: alone(path, timeout_s=0.05))

    with store.holding():
        with pytest.raises(TimeoutError, match="being stored"):
            find_garbage(home, 0.0)
        collected = collect(found)

    assert [why for _, why in collected.failed] == [
        "something is being stored all the time"
    ]
    assert blobs(home) == {data.sha256}


def test_a_child_that_was_forked_while_storing_holds_nothing(home: Home) -> None:
    store = BlobStore(home.blobs)
    reading, writing = os.pipe()
    with store.holding():
        child = os.fork()
        if not child:  # pragma: no cover
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with alone(store.lock, timeout_s=0.0):
            pass
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


# --- what is not ours, and what else there is ---


def test_what_is_no_blob_is_left_alone_and_told(home: Home, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / ("cd" * 32)).parent.mkdir()
    (outside / ("cd" * 32)).write_bytes(b"precious")
    (home.blobs / "ab").mkdir()
    (home.blobs / "cd").symlink_to(outside)
    (home.blobs / "notes").write_bytes(b"mine")
    strangers = [
        home.blobs / "ab" / ("cd" * 32),  # In the wrong folder.
        home.blobs / "ab" / ("AB" * 32),
        home.blobs / "ab" / "readme",
    ]
    for path in strangers:
        path.write_bytes(b"mine")
    link = home.blobs / "ab" / ("ab" * 32)
    link.symlink_to(outside / ("cd" * 32))
    (home.blobs / "ab" / ("abab" * 16 + "")[:64].replace("abab", "abcd")).mkdir()

    found = find_garbage(home, 0.0)
    collect(found)

    assert found.blobs == []
    assert len(found.strangers) == 7
    assert all(path.exists() for path in (*strangers, link, home.blobs / "notes"))
    assert (outside / ("cd" * 32)).read_bytes() == b"precious"


def test_what_cannot_be_deleted_is_told_and_the_rest_goes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = kept(home, b"stuck"), kept(home, b"other")
    unlink = os.unlink

    def refuse(path: Path) -> None:
        if stuck.sha256 in str(path):
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)

    collected = collect(find_garbage(home, 0.0))

    ((path, why),) = collected.failed
    assert stuck.sha256 in path
    assert why == "Operation not permitted"
    assert blobs(home) == {stuck.sha256}
    assert other.sha256 not in blobs(home)


def test_what_dead_processes_left_goes_and_what_is_owed_stays(
    recorded: Recorded, home: Home
) -> None:
    mine = staging_folder(home.staging) / "copy"
    mine.write_bytes(b"at work")
    dead = home.staging / mine.parent.name.replace(str(os.getpid()), "4194304", 1)
    (dead / "half").mkdir(parents=True)
    (dead / "half" / "copy").write_bytes(b"12345")
    owed, orphan = (make_token(writer_id("w").hex(), n) for n in (1, 2))
    for name in (owed, orphan, "a-stranger"):
        (home.inbox / name).write_bytes(b"123")
    request = FileRequested(time=1.0, name="x", token=owed, size=3)
    recorded.tell(writer_id("w"), request)

    found = find_garbage(home)
    collected = collect(found)

    assert (collected.count, collected.size) == (2, 8)
    assert mine.exists()
    assert not dead.exists()
    assert {path.name for path in home.inbox.iterdir()} == {owed, "a-stranger"}


def test_what_is_in_quarantine_is_listed_and_stays(home: Home) -> None:
    (home.quarantine / "spool-1").mkdir()
    (home.quarantine / "spool-1" / "chunk").write_bytes(b"1234")
    (home.quarantine / "0.seg.64.torn").write_bytes(b"12")

    found = find_garbage(home)
    collect(found)

    assert [(item.path.name, item.size) for item in found.quarantine] == [
        ("0.seg.64.torn", 2),
        ("spool-1", 4),
    ]
    assert len(list(home.quarantine.iterdir())) == 2


def test_a_kept_blob_is_whole_after_a_sweep(recorded: Recorded, home: Home) -> None:
    named = everything(recorded, "x")

    sweep(home)

    store = BlobStore(home.blobs)
    for name in named:
        size = store.path(name).stat().st_size
        assert check_blob(store, name, size, full=True) is None
