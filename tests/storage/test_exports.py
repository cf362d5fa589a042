"""Exports as files: what is written is read back, and nothing else is."""

import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import msgpack
import msgspec
import pytest
from tests.storage.recording import Recorded

from flightlog_storage.blobs import BlobStore
from flightlog_storage.carried import Picker
from flightlog_storage.copies import digests_of, stage_bytes
from flightlog_storage.errors import CorruptData, ExportUnusable
from flightlog_storage.event import RunFinished
from flightlog_storage.export_format import (
    BLOB_PREFIX,
    FRAMES,
    MANIFEST,
    SIZE_MAX,
    CarriedRun,
    Manifest,
    Member,
)
from flightlog_storage.export_reader import ExportReader, MemberStream
from flightlog_storage.export_writer import written_export
from flightlog_storage.frame import FLAG_GAP
from flightlog_storage.zips import written_zip

DATA = b"the bytes of a blob"
SHA256 = digests_of(DATA).sha256
RUN = ("e", "p", "r")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export of one of two runs, with a blob."""
    source = Recorded(tmp_path)
    writer, other = source.start("r"), source.start("s", "v")
    for step in range(3):
        source.say(writer, row(step))
        source.say(other, row(step))
    source.say(writer, row(9), missing=2)
    source.tell(writer, RunFinished(time=2.0, exit_code=0))
    source.log.close()
    store = BlobStore(source.home.blobs)
    store.keep(stage_bytes(DATA, source.home.staging))
    picker = Picker(source.home.log, {RUN})
    path = tmp_path / "x.zip"
    with written_export(path) as writing:
        found = list(picker.pick(picker.end()))
        writing.put_frames(carried for _, carried in found)
        writing.put_blob(store, SHA256, len(DATA), int)
        run = CarriedRun(*RUN, "finished", len(found), 6, 2)
        writing.put_manifest(
            Manifest(
                flightlog="0",
                log_id="",
                created_at="",
                runs=[run],
                frames=writing.frames,
                blobs=writing.blobs,
            )
        )
    return path


def row(step: int) -> bytes:
    return bytes(msgpack.packb((0, step, 2.0, 0.5)))


def read(path: Path, size_max: int = SIZE_MAX) -> int:
    """Read all of an export; return how many frames it has."""
    with ExportReader(path, size_max) as reader:
        count = sum(1 for _ in reader.frames())
        for sha256 in reader.manifest.blobs:
            with reader.blob(sha256) as stream:
                while stream.read(1000):
                    pass
    return count


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, *found: tuple[str, bytes], method: int = 0) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in found:
            archive.writestr(zipfile.ZipInfo(name), data, method)


def changed_manifest(data: bytes, **changes: object) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(data) | changes)


def test_what_is_written_is_read_back(export: Path) -> None:
    with ExportReader(export, SIZE_MAX) as reader:
        frames = [carried.frame for _, carried in reader.frames()]
        with reader.blob(SHA256) as stream:
            data = stream.read(1000)

    assert data == DATA
    assert [frame.sequence for frame in frames] == [1, 2, 3, 4, 7, 8]
    assert [frame.flags for frame in frames] == [0, 0, 0, 0, FLAG_GAP, 0]
    assert {frame.writer for frame in frames} == {frames[0].writer}


def test_a_file_that_is_there_is_not_replaced(export: Path) -> None:
    before = export.read_bytes()

    with pytest.raises(FileExistsError), written_export(export):
        pass

    assert export.read_bytes() == before
    assert sorted(each.name for each in export.parent.iterdir()) == ["home", "x.zip"]


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")

    with (
        pytest.raises(CorruptData, match="missing"),
        written_export(tmp_path / "x.zip") as writing,
    ):
        writing.put_blob(store, SHA256, len(DATA), int)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(45)
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "blobs/",
        "blobs/../../x",
        f"blobs/{SHA256.upper()}",
        f"blobs/{SHA256}/",
        f"blobs\\{SHA256}",
        "FRAMES",
        "state.db",
    ],
)
def test_a_member_of_another_name_is_refused(export: Path, name: str) -> None:
    write(export, *members(export).items(), (name, b""))

    with pytest.raises(ExportUnusable, match="has a member"):
        read(export)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", [MANIFEST, FRAMES, BLOB_PREFIX + SHA256])
def test_a_member_that_is_there_twice_is_refused(export: Path, name: str) -> None:
    write(export, *members(export).items(), (name, DATA))

    with pytest.raises(ExportUnusable, match="two members"):
        read(export)


@pytest.mark.parametrize("name", [MANIFEST, FRAMES, BLOB_PREFIX + SHA256])
def test_a_member_that_is_missing_is_refused(export: Path, name: str) -> None:
    found = members(export)
    del found[name]
    write(export, *found.items())

    with pytest.raises(ExportUnusable, match=r"has no|other blobs"):
        read(export)


@pytest.mark.parametrize("name", [FRAMES, BLOB_PREFIX + SHA256])
def test_a_member_with_other_bytes_is_refused(export: Path, name: str) -> None:
    found = members(export)
    for position in range(0, len(found[name]), 5):
        data = bytearray(found[name])
        data[position] ^= 1
        write(export, *(found | {name: bytes(data)}).items())

        with pytest.raises(ExportUnusable):
            read(export)


def test_a_frame_that_was_wrong_before_it_was_exported_is_refused(export: Path) -> None:
    found = members(export)
    frames = bytearray(found[FRAMES])
    frames[-1] ^= 1
    member = Member(len(frames), digests_of(bytes(frames)).sha256)
    found[FRAMES] = bytes(frames)
    found[MANIFEST] = changed_manifest(found[MANIFEST], frames=member)
    write(export, *found.items())

    with pytest.raises(ExportUnusable, match="checksum"):
        read(export)


@pytest.mark.parametrize("cut", [1, 64, 70])
def test_a_member_that_is_cut_is_refused(export: Path, cut: int) -> None:
    found = members(export)
    found[FRAMES] = found[FRAMES][:-cut]
    write(export, *found.items())

    with pytest.raises(ExportUnusable, match="sizes"):
        read(export)


def test_an_archive_that_is_cut_or_damaged_is_refused_or_whole(export: Path) -> None:
    data = export.read_bytes()
    for position in range(0, len(data), 7):
        export.write_bytes(data[:position])
        with pytest.raises(ExportUnusable):
            read(export)
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        export.write_bytes(damaged)
        with suppress(ExportUnusable):
            assert read(export) == 6  # Where nothing is that is looked at: a time.


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": "zip"}, "no export"),
        ({"version": 2}, "upgrade"),
        ({"runs": []}, "no runs"),
        ({"runs": 1}, "Expected"),
        ({"blobs": {SHA256: 1}}, "other sizes"),
        ({"blobs": {}}, "other blobs"),
        ({"frames": {"size": 1, "sha256": ""}}, "other sizes"),
    ],
)
def test_a_manifest_that_is_not_so_is_refused(
    export: Path, changes: dict[str, object], why: str
) -> None:
    found = members(export)
    found[MANIFEST] = changed_manifest(found[MANIFEST], **changes)
    write(export, *found.items())

    with pytest.raises(ExportUnusable, match=why):
        read(export)


@pytest.mark.parametrize("name", [("e", "p", ""), ("e", "p", "s"), ("x", "p", "r")])
def test_frames_of_another_run_than_the_manifests_are_refused(
    export: Path, name: tuple[str, str, str]
) -> None:
    found = members(export)
    (run,) = msgspec.json.decode(found[MANIFEST])["runs"]
    run |= dict(zip(("entity", "project", "id"), name, strict=True))
    found[MANIFEST] = changed_manifest(found[MANIFEST], runs=[run])
    write(export, *found.items())

    with pytest.raises(ExportUnusable, match=r"no run of this export|without an"):
        read(export)


def test_an_archive_is_durable_before_it_has_its_name_and_the_name_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync = os.fsync

    def synced(fd: int) -> None:
        fsync(fd)
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    def put(source: Path, target: Path) -> None:
        done.append("put")
        source.rename(target)

    monkeypatch.setattr(os, "fsync", synced)
    with written_zip(tmp_path / "x.zip", put=put):
        pass

    assert done == ["whole.zip", "put", tmp_path.name]


def test_more_than_is_allowed_is_refused(export: Path) -> None:
    with ExportReader(export, SIZE_MAX) as reader:
        size = reader.size

    assert read(export, size) == 6
    with pytest.raises(ExportUnusable, match="--max-size"):
        read(export, size - 1)


def test_no_more_is_read_of_a_member_than_it_may_have(tmp_path: Path) -> None:
    member = Member(len(DATA) - 1, SHA256)
    stream = MemberStream(tmp_path, FRAMES, BytesIO(DATA), member)

    with pytest.raises(ExportUnusable, match="more bytes"):
        stream.read(1 << 20)


def test_members_that_lie_in_one_another_are_refused(export: Path) -> None:
    data = bytearray(export.read_bytes())
    entry = data.index(b"PK\x01\x02")  # Where the list of members is.
    data[entry + 20 : entry + 24] = len(data).to_bytes(4, "little")
    export.write_bytes(data)

    with pytest.raises(ExportUnusable, match="lie in one another"):
        read(export)


def test_a_compressed_blob_is_refused(export: Path) -> None:
    write(export, *members(export).items(), method=zipfile.ZIP_DEFLATED)

    with pytest.raises(ExportUnusable, match="not allowed"):
        read(export)


@pytest.mark.parametrize("shift", [1, 3])
def test_frames_out_of_their_order_are_refused(export: Path, shift: int) -> None:
    def turned(data: bytes, found: list[bytes]) -> bytes:
        assert b"".join(found) == data
        return b"".join(found[shift:] + found[:shift])

    check_refused(export, turned, "order|flags|of no run")


def test_frames_that_are_there_twice_are_refused(export: Path) -> None:
    check_refused(export, lambda data, found: data + found[-1], "order")


def check_refused(
    export: Path, change: Callable[[bytes, list[bytes]], bytes], why: str
) -> None:
    """Check that an export is refused whose frames are other ones, and said to be."""
    with ExportReader(export, SIZE_MAX) as reader:
        packed = [carried.pack() for _, carried in reader.frames()]
    found = members(export)
    data = change(found[FRAMES], packed)
    said = {"size": len(data), "sha256": digests_of(data).sha256}
    found[FRAMES] = data
    found[MANIFEST] = changed_manifest(found[MANIFEST], frames=said)
    write(export, *found.items())

    with pytest.raises(ExportUnusable, match=why):
        read(export)
