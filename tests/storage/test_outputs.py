"""Outputs: found, taken for being at rest, archived once a change; nothing is lost."""

import errno
import hashlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import tries
from tests.storage.looking import Looked

from flightlog_storage.blobs import BlobStore
from flightlog_storage.event import OutputArchived
from flightlog_storage.manifest import decode_manifest


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- at rest ---


def test_with_one_look_and_no_age_a_file_is_archived_at_once(looked: Looked) -> None:
    looked.write("a.pt", b"bytes", age_s=0)

    scan = looked.look()

    (event,) = scan.archived
    assert (scan.scanned, scan.failed, scan.error) == (1, [], None)
    assert (event.key, event.fingerprint, event.size) == (
        "out/a.pt",
        sha256(b"bytes"),
        5,
    )
    with BlobStore(looked.home.blobs).open_verified(event.blob or "") as file:
        assert file.read() == b"bytes"


def test_a_file_that_does_not_change_is_not_read_again(looked: Looked) -> None:
    looked.write("a.pt")

    assert looked.archived() == ["a.pt"]
    assert looked.archived() == looked.archived(is_last=True) == []
    assert looked.archive.read == ["a.pt"]


def test_it_is_not_read_again_by_another_process_either(looked: Looked) -> None:
    looked.write("a.pt")
    looked.write("d/x")
    looked.look("*.pt", "d/")

    looked.restart()

    assert looked.look("*.pt", "d/").scanned == 2
    assert looked.archive.read == []


def test_two_looks_have_to_see_the_same(looked: Looked) -> None:
    looked.write("a.pt", b"1")
    assert looked.archived(stable_required=2) == []
    looked.write("a.pt", b"22")
    assert looked.archived(stable_required=2) == [], "it has changed"

    assert looked.archived(stable_required=2) == ["a.pt"]


def test_what_was_just_written_to_is_left_alone(looked: Looked) -> None:
    looked.write("a.pt", age_s=3)

    assert looked.archived(min_age_s=5) == []
    looked.now += 2
    assert looked.archived(min_age_s=5) == ["a.pt"]


def test_a_time_in_the_future_is_now(looked: Looked) -> None:
    looked.write("a.pt", age_s=-60)

    assert looked.archived(min_age_s=5) == []
    assert looked.archived(min_age_s=0) == ["a.pt"]


def test_the_last_look_takes_all_for_being_at_rest(looked: Looked) -> None:
    rest: dict[str, Any] = {"stable_required": 9, "min_age_s": 9.0}
    looked.write("a.pt", age_s=-60)
    looked.write("b.log")
    assert looked.archived(**rest) == ["b.log"]
    looked.write("b.log", b"one and more")
    assert looked.archived(**rest) == []

    assert looked.archived(is_last=True, **rest) == ["a.pt", "b.log"]


@pytest.mark.parametrize(("name", "pattern"), [("a.pt", "*.pt"), ("d/x", "d/")])
def test_what_is_rewritten_with_the_same_bytes_is_nothing_new(
    looked: Looked, name: str, pattern: str
) -> None:
    looked.write(name)
    looked.look(pattern)
    looked.write(name, age_s=1)

    assert looked.archived(pattern, mode="overwrite_versions") == [], "in any mode"
    assert len(looked.archive.read) == 2, "one cannot know before"
    looked.look(pattern)
    assert len(looked.archive.read) == 2, "but after"


def test_other_bytes_of_the_same_size_and_time_are_noticed(looked: Looked) -> None:
    looked.write("a.pt", b"one")
    looked.write("b.csv", b"one")
    looked.look()
    looked.write("a.pt", b"two")
    looked.write("b.csv", b"two")

    assert looked.archived(log_interval_s=0) == ["a.pt", "b.csv"]


@pytest.mark.fault(43)
def test_a_file_that_is_replaced_while_it_is_read_is_read_again(looked: Looked) -> None:
    looked.write("a.pt", b"old")

    def replace() -> None:
        looked.archive.meanwhile = int
        other = looked.write("b.tmp", b"new one")
        os.replace(other, looked.out / "a.pt")

    looked.archive.meanwhile = replace
    assert looked.archived() == ["a.pt"]
    assert looked.archived() == ["a.pt"]
    assert [each.fingerprint for each in looked.outputs] == [sha256(b"new one")]


# --- files that are written bit by bit ---


def test_logs_do_not_wait_for_rest_but_for_the_interval(looked: Looked) -> None:
    rest: dict[str, Any] = {
        "stable_required": 9,
        "min_age_s": 99.0,
        "mode": "overwrite_versions",
    }
    looked.write("a.log", "1", age_s=0)
    assert looked.archived(**rest) == ["a.log"]
    looked.write("a.log", "1 2", age_s=0)
    assert looked.look(**rest).scanned == 1
    looked.now += 59
    assert looked.archived(**rest) == []
    looked.now += 1

    assert looked.archived(**rest) == ["a.log"]
    assert [(o.size, o.output and o.output.mode) for o in looked.outputs] == [
        (3, "rolling")
    ]


def test_without_an_interval_logs_are_kept_at_each_look(looked: Looked) -> None:
    for text in ("1", "12", "123"):
        looked.write("a.log", text)
        assert looked.archived(log_interval_s=0.0) == ["a.log"]


def test_the_interval_begins_when_a_log_was_read_also_one_that_was_the_same(
    looked: Looked,
) -> None:
    for age_s in (60, 59):
        looked.write("a.log", "1", age_s=age_s)
        looked.look()
        looked.now += 60
    looked.now -= 1
    looked.write("a.log", "12")

    assert looked.archived() == []
    looked.now += 1
    assert looked.archived() == ["a.log"]


def test_a_log_that_could_not_be_kept_waits_for_no_interval(looked: Looked) -> None:
    path = looked.write("a.log", b"x" * (3 << 20))
    looked.tick = lambda: path.write_bytes(os.urandom(3 << 20))
    assert looked.look().failed == ["out/a.log"]
    looked.tick = int

    assert looked.archived() == ["a.log"]


def test_a_folder_is_no_log_whatever_it_is_called(looked: Looked) -> None:
    looked.write("tb.log/events.tfevents.1")
    rest: dict[str, Any] = {"stable_required": 2, "mode": "overwrite_versions"}

    assert looked.archived("*.log/", **rest) == []
    assert looked.archived("*.log/", **rest) == ["tb.log"]
    assert [o.output and o.output.mode for o in looked.outputs] == [rest["mode"]]


def test_the_interval_holds_for_another_process_too(looked: Looked) -> None:
    looked.write("a.log", "1")
    looked.look()
    looked.state.assets.clear()
    (asset,) = looked.state.last_outputs.values()
    looked.restart()
    looked.now = asset.logged_at + 10
    looked.write("a.log", "12")

    assert looked.archived() == []
    looked.now += 60
    assert looked.archived() == ["a.log"]


@pytest.mark.fault(25)
def test_a_clock_that_is_set_back_stops_no_log(looked: Looked) -> None:
    looked.write("a.log", "1")
    looked.look()
    looked.state.last_outputs.clear()
    looked.now -= 3600
    looked.write("a.log", "12")

    assert looked.archived() == ["a.log"]


@pytest.mark.fault(43)
def test_a_log_that_grows_while_it_is_read_is_kept_as_it_was(
    looked: Looked, tmp_path: Path
) -> None:
    path = looked.write("a.log", b"x" * (3 << 20))
    added = b""

    def grow() -> None:
        nonlocal added
        with path.open("ab") as file:
            file.write(b"more")
        added += b"more"

    looked.tick = grow
    looked.look()
    looked.tick = int

    (asset,) = looked.outputs
    assert added
    assert asset.fingerprint == sha256(path.read_bytes()[: asset.size])
    assert looked.archived(is_last=True) == ["a.log"]
    assert looked.outputs[0].fingerprint == sha256(path.read_bytes())


@pytest.mark.fault(43)
def test_a_checkpoint_that_grows_while_it_is_read_is_tried_again(
    looked: Looked,
) -> None:
    path = looked.write("a.pt", b"the one before")
    looked.look()
    looked.write("a.pt", b"x" * (3 << 20))

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more")

    looked.tick = grow
    assert looked.look().failed == ["out/a.pt"]
    (before,) = looked.outputs
    with BlobStore(looked.home.blobs).open_verified(before.blob or "") as file:
        assert file.read() == b"the one before", "is kept until the next is whole"
    assert "changed each time" in looked.told[-1]
    looked.tick = int

    assert looked.archived() == ["a.pt"]


# --- folders ---


def test_patterns_are_for_paths_below_the_folder(looked: Looked) -> None:
    looked.write("best/a.pt")
    looked.write("deep/best/a.pt")

    assert looked.archived("best/*.pt", "*/out/*") == ["best/a.pt"]


def test_a_folder_is_archived_as_a_whole_and_once(looked: Looked) -> None:
    looked.write("ckpt-1/model.pt", b"one")
    looked.write("ckpt-1/deep/opt.pt", b"two")
    looked.write("other.pt", b"three")

    scan = looked.look("ckpt-*/", "*.pt")

    folder = next(event for event in scan.archived if event.manifest)
    assert sorted(event.key for event in scan.archived) == [
        "out/ckpt-1",
        "out/other.pt",
    ]
    assert (scan.scanned, folder.file_count, folder.size) == (2, 2, 6)
    with BlobStore(looked.home.blobs).open_verified(folder.manifest or "") as file:
        names = [entry.path for entry in decode_manifest(file.read())]
    assert names == ["deep/opt.pt", "model.pt"]


def test_a_folder_is_not_at_rest_while_something_deep_in_it_changes(
    looked: Looked,
) -> None:
    looked.write("ckpt/deep/model.pt", b"1")
    top = (looked.out / "ckpt").stat().st_mtime_ns
    assert looked.archived("ckpt/", stable_required=2) == []
    looked.write("ckpt/deep/model.pt", b"2")
    assert (looked.out / "ckpt").stat().st_mtime_ns == top
    assert looked.archived("ckpt/", stable_required=2) == []

    assert looked.archived("ckpt/", stable_required=2) == ["ckpt"]
    assert looked.archived("ckpt/", stable_required=2) == []


def test_a_folder_is_as_old_as_itself_and_its_newest_file(looked: Looked) -> None:
    looked.write("a/model.pt", age_s=3)
    os.utime(looked.out / "a", (1, 1))
    looked.write("b/model.pt")
    os.utime(looked.out / "b", (looked.now - 3, looked.now - 3))

    assert looked.archived("*/", min_age_s=5) == []
    looked.now += 2
    assert looked.archived("*/", min_age_s=5) == ["a", "b"]


def test_a_folder_that_changes_while_it_is_read_is_tried_again(looked: Looked) -> None:
    looked.write("ckpt/model.pt", b"1")
    looked.archive.meanwhile = lambda: looked.write("ckpt/more.pt", b"2")

    assert looked.look("ckpt/").failed == ["out/ckpt"]
    looked.archive.meanwhile = int

    assert looked.archived("ckpt/") == ["ckpt"]
    assert looked.outputs[0].file_count == 2


def test_folders_that_share_files_have_their_bytes_once(looked: Looked) -> None:
    for number in range(3):
        looked.write(f"ckpt-{number}/base.bin", b"shared")
        looked.write(f"ckpt-{number}/head.bin", f"{number}")

    looked.look("ckpt-*/")

    blobs = [path for path in looked.home.blobs.rglob("*") if path.is_file()]
    assert len(blobs) == 1 + 3 + 3, "the shared one, the heads, the manifests"


# --- links and other things ---


def test_a_link_is_an_output_of_its_own(looked: Looked) -> None:
    looked.write("epoch1.pt", b"1")
    (looked.out / "last.pt").symlink_to("epoch1.pt")

    assert looked.archived(stable_required=2) == [], "seen once, not twice"
    assert looked.archived(stable_required=2) == ["epoch1.pt", "last.pt"]
    looked.write("epoch2.pt", b"2")
    (looked.out / "last.pt").unlink()
    (looked.out / "last.pt").symlink_to("epoch2.pt")

    assert looked.archived() == ["epoch2.pt", "last.pt"]


def test_a_link_out_of_the_watched_folders_is_left_out_and_told_once(
    looked: Looked, tmp_path: Path
) -> None:
    (tmp_path / "secret.pt").write_bytes(b"secret")
    (looked.out / "a.pt").symlink_to(tmp_path / "secret.pt")
    (looked.out / "gone.pt").symlink_to("nowhere")
    (looked.out / "folder").symlink_to(tmp_path)

    assert looked.archived() == looked.archived() == []
    assert sorted(looked.told) == [
        f"{looked.out}/a.pt: is a link that leads out of the folders that are watched; "
        "it is left out",
        f"{looked.out}/gone.pt: is a link that leads nowhere; it is left out",
    ]


def test_a_link_into_another_watched_folder_is_kept(
    looked: Looked, tmp_path: Path
) -> None:
    other = tmp_path / "scratch"
    other.mkdir()
    (other / "big.pt").write_bytes(b"big")
    (looked.out / "last.pt").symlink_to(other / "big.pt")

    scan = looked.look(dirs=[looked.out, other])

    keys = sorted(event.key for event in scan.archived)
    assert keys == [str(other / "big.pt"), "out/last.pt"]


def test_a_link_to_a_folder_is_kept_if_it_is_asked_for(looked: Looked) -> None:
    looked.write("ckpt-1/model.pt", b"1")
    (looked.out / "latest").symlink_to("ckpt-1")

    assert looked.archived("*.pt") == ["ckpt-1/model.pt"]
    assert looked.archived("latest/") == ["latest"]
    assert looked.outputs[-1].file_count == 1


def test_links_that_lead_in_a_circle_end(looked: Looked) -> None:
    looked.write("a/x.pt")
    (looked.out / "a" / "up").symlink_to("..")
    (looked.out / "b.pt").symlink_to("b.pt")

    assert looked.archived("*.pt", "up/") == ["a/x.pt"]


def test_overlapping_folders_count_once(looked: Looked) -> None:
    looked.write("deep/a.pt")
    looked.write("b.pt")
    alias = looked.root / "alias"
    alias.symlink_to("out")
    dirs = [looked.out / "deep", looked.out, alias, looked.out / "deep"]

    scan = looked.look(dirs=dirs, stable_required=2)
    assert (scan.scanned, scan.archived) == (2, [])
    assert looked.archived(dirs=dirs, stable_required=2) == ["b.pt", "deep/a.pt"]


def test_a_folder_within_one_that_is_archived_whole_is_not_looked_into(
    looked: Looked,
) -> None:
    looked.write("ckpt/a.pt")

    keys = looked.archived("ckpt/", "*.pt", dirs=[looked.out / "ckpt", looked.out])

    assert keys == ["ckpt"]


@pytest.mark.fault(41)
def test_what_is_no_file_is_not_opened_and_told(looked: Looked) -> None:
    os.mkfifo(looked.out / "pipe.log")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(looked.out)  # The path of a socket has to be short.
        try:
            listening.bind("socket.pt")
        finally:
            os.chdir(here)
        assert looked.archived() == looked.archived(is_last=True) == []

    assert [text.partition(": ")[2] for text in looked.told] == [
        "is no regular file; it is left out"
    ] * 2


def test_a_name_that_is_no_text_is_left_out_and_told(looked: Looked) -> None:
    (looked.out / os.fsdecode(b"\xff.pt")).write_bytes(b"1")

    assert looked.archived() == []
    assert "\\xff.pt: has a name that is not valid Unicode" in looked.told[0]


def test_a_home_among_the_outputs_is_left_out(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    looked.write("a.pt")
    (looked.home.root / "b.pt").write_bytes(b"1")
    own = looked.home.root / "files" / "e" / "p" / "r"
    own.mkdir(parents=True)
    (own / "c.pt").write_bytes(b"1")

    scan = looked.look("*", dirs=[tmp_path])
    assert [event.key for event in scan.archived] == ["out/a.pt"]
    assert looked.look("*", dirs=[looked.home.root, looked.home.blobs]).scanned == 0
    assert looked.look("*", dirs=[own]).scanned == 1, "a run's own folder is fine"


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(looked: Looked) -> None:
    path = looked.write("a.pt")
    looked.write("b.pt")

    def refuse() -> None:  # As a disk does; root may read what others may not.
        if looked.archive.read[-1] == "a.pt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    looked.archive.meanwhile = refuse
    looks = [looked.look() for _ in range(3)]
    assert [look.failed for look in looks] == [["out/a.pt"]] * 3
    assert [look.scanned for look in looks] == [2] * 3, "what failed counts, too"
    assert [event.key for event in looks[0].archived] == ["out/b.pt"]
    assert not any(look.is_settled for look in looks)
    assert len(looked.told) == 1
    assert "Permission denied" in looked.told[0]
    looked.archive.meanwhile = int

    assert looked.archived() == ["a.pt"]


# --- whether another look is of any use ---


def test_a_look_that_leaves_nothing_is_settled(looked: Looked) -> None:
    looked.write("a.pt")
    looked.write("d/x")
    looked.write("train.log")
    missing = looked.root / "none"

    for _ in range(2):
        assert looked.look("*.pt", "*.log", "d/", dirs=[looked.out, missing]).is_settled


def test_what_is_not_at_rest_is_unsettled(looked: Looked) -> None:
    looked.write("a.pt", age_s=5)

    settled = [looked.look(stable_required=2).is_settled for _ in range(3)]
    assert settled == [False, True, True]
    looked.write("b.pt", age_s=5)
    assert not looked.look(min_age_s=10).is_settled
    looked.now += 5
    assert looked.look(min_age_s=10).is_settled


def test_a_log_that_waits_for_its_interval_is_unsettled(looked: Looked) -> None:
    looked.write("train.log", "one")
    assert looked.look(log_interval_s=60.0).is_settled
    looked.write("train.log", "one two")

    assert not looked.look(log_interval_s=60.0).is_settled
    looked.now += 60
    assert looked.look(log_interval_s=60.0).is_settled


def test_what_cannot_be_archived_or_looked_at_is_unsettled(looked: Looked) -> None:
    path = looked.write("a.pt")

    def refuse(event: OutputArchived) -> None:
        raise ConnectionRefusedError(event.key)

    assert not looked.look(put=refuse).is_settled
    assert looked.look("*.none").is_settled
    assert not looked.look("*.none", dirs=[path]).is_settled


# --- folders that come and go ---


@pytest.mark.fault(44)
def test_a_folder_that_is_not_there_is_told_once_and_looked_at_again(
    looked: Looked,
) -> None:
    there = looked.write("a.pt")
    looked.look()
    looked.out.rename(looked.root / "away")

    for _ in range(2):
        assert looked.look().scanned == 0
    assert len(looked.told) == 1
    assert "No such file" in looked.told[0]
    (looked.root / "away").rename(looked.out)
    there.write_bytes(b"other")

    assert looked.archived() == ["a.pt"]


def test_a_file_instead_of_a_folder_is_told(looked: Looked) -> None:
    path = looked.write("a.pt")

    assert looked.look(dirs=[path]).scanned == 0
    assert "Not a directory" in looked.told[0]


def test_what_vanishes_while_it_is_looked_at_is_no_failure(looked: Looked) -> None:
    path = looked.write("a.pt")

    def vanish() -> None:
        path.unlink(missing_ok=True)

    looked.tick = vanish
    scan = looked.look()

    assert (scan.failed, scan.archived, looked.told) == ([], [], [])


def test_what_was_not_there_for_long_is_forgotten_but_stays_archived(
    looked: Looked,
) -> None:
    path = looked.write("a.pt")
    looked.write("b.pt")
    looked.look()
    path.unlink()
    looked.now += 99
    looked.look(forget_after_s=100)
    assert len(looked.memory.items) == 2
    looked.now += 2
    looked.look(forget_after_s=0)
    assert len(looked.memory.items) == 2, "0 is never"
    looked.look(forget_after_s=100)

    assert list(looked.memory.items) == ["out/b.pt"]
    assert len(looked.outputs) == 2


# --- when something fails ---


def test_what_could_not_be_put_is_archived_again(looked: Looked) -> None:
    looked.write("a.pt")

    def refuse(_: OutputArchived) -> None:
        raise ConnectionRefusedError("the recorder is full")

    scan = looked.look(put=refuse)
    assert str(scan.error) == "the recorder is full"
    assert not scan.is_whole

    assert looked.archived() == ["a.pt"]


def test_a_home_that_refuses_ends_the_look_and_is_tried_again(looked: Looked) -> None:
    looked.write("a.pt")
    looked.write("b.pt")
    looked.home.blobs.rename(looked.home.root / "away")
    looked.home.blobs.touch()  # So no folder can be made in it.

    scan = looked.look()
    assert isinstance(scan.error, OSError)
    assert (scan.scanned, scan.archived, looked.told) == (1, [], [])
    looked.home.blobs.unlink()
    (looked.home.root / "away").rename(looked.home.blobs)

    assert looked.archived() == ["a.pt", "b.pt"]


def test_a_full_disk_ends_the_look(looked: Looked) -> None:
    for data in (b"1", b"22"):
        looked.write("a.pt", data)
        looked.write("b.pt", data)
        if data == b"1":
            looked.look()

    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    looked.archive.meanwhile = fill

    looked.now += 200
    assert looked.look(forget_after_s=100).error is not None
    assert len(looked.memory.items) == 2, "what was not looked at is not forgotten"
    looked.archive.meanwhile = int
    assert looked.archived() == ["a.pt", "b.pt"]


class Enough(Exception):
    """The process is to end."""


def test_a_look_can_be_left_and_leaves_nothing_half(looked: Looked) -> None:
    looked.write("a.pt", b"x" * (3 << 20))
    ticks = 0

    def stop() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            raise Enough

    looked.tick = stop
    with pytest.raises(Enough):
        looked.look()
    looked.tick = int

    assert not any(path.is_file() for path in looked.home.staging.rglob("*"))
    assert looked.archived() == ["a.pt"]


# --- anything at all ---

_NAMES = st.sampled_from(["a.pt", "b.log", "d/c.pt", "ck/x", "ck/y/z", "last.pt"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _NAMES, st.binary(max_size=3)),
        st.tuples(st.just("delete"), _NAMES, st.just(b"")),
        st.tuples(st.just("look"), st.just(""), st.just(b"")),
        st.tuples(st.just("restart"), st.just(""), st.just(b"")),
    ),
    max_size=25,
)


@settings(max_examples=tries(60))
@given(steps=_STEPS, mode=st.sampled_from(["rolling", "overwrite_versions"]))
def test_after_the_last_look_the_last_bytes_of_all_are_kept(
    steps: list[tuple[str, str, bytes]], mode: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        looked = Looked(Path(folder))
        rest: dict[str, Any] = {"mode": mode, "stable_required": 2}
        for what, name, data in steps:
            if what == "write":
                looked.write(name, data)
            elif what == "delete":
                (looked.out / name).unlink(missing_ok=True)
            elif what == "restart":
                looked.restart()
            else:
                looked.now += 30
                looked.look("*.pt", "*.log", "ck/", **rest)
        scan = looked.look("*.pt", "*.log", "ck/", is_last=True, **rest)

        assert scan.is_whole
        last = looked.state.last_outputs
        for path in looked.out.rglob("*"):
            name = path.relative_to(looked.out).as_posix()
            if path.is_file() and not name.startswith("ck/"):
                assert last[f"out/{name}"].fingerprint == sha256(path.read_bytes())
        in_turn: dict[str, str] = {}
        for asset in looked.outputs:
            assert in_turn.get(asset.path or "") != asset.fingerprint
            in_turn[asset.path or ""] = asset.fingerprint
        looked.restart()
        assert looked.archived("*.pt", "*.log", "ck/", is_last=True, **rest) == []
