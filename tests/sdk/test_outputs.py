"""Outputs: looked for on demand, watched by the daemon, kept at the end, read back."""

import hashlib
import inspect
import math
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab, state_of
from tests.system.harness import wait_until

import flightlog
from flightlog import _assets
from flightlog._output_arguments import GivenOutputs, make_looking
from flightlog._outputs import Outputs
from flightlog.apis.public import Api
from flightlog.apis.public.assets import Asset
from flightlog_storage.archive import Archive, Kept
from flightlog_storage.blobs import BlobStore
from flightlog_storage.event import Event, Looking, OutputArchived
from flightlog_storage.named_blobs import named_blobs
from flightlog_storage.reader import HomeReader

AT_ONCE: dict[str, Any] = {"stable_required": 1, "min_age_sec": 0}
SHARED = {
    "patterns": None,
    "stable_required": 2,
    "min_age_sec": 1.0,
    "mode": "rolling",
    "log_snapshot_interval_sec": 60.0,
    "state_gc_after_sec": 7 * 24 * 3600,
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The workspace of a run, with a folder for outputs."""
    (tmp_path / "work" / "out").mkdir(parents=True)
    return tmp_path / "work"


@pytest.fixture
def live(lab: Lab, home: Path, work: Path) -> flightlog.Run:
    return flightlog.init(project="outs", reinit="create_new", workspace_root=work)


def write(work: Path, name: str, data: bytes = b"one") -> Path:
    path = work / "out" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def outputs(live: flightlog.Run) -> list[Asset]:
    return Api(home=live.home.root).run(live.path).assets.outputs


def contents(live: flightlog.Run) -> dict[str, bytes]:
    """Return the files that are kept of a run's outputs, by their keys."""
    return {asset.key: content(asset) for asset in outputs(live)}


def content(asset: Asset) -> bytes:
    with asset.open() as file:
        return file.read()


# --- what is given ---


def test_the_signatures_are_as_people_know_them() -> None:
    def keywords(call: Callable[..., Any]) -> dict[str, Any]:
        parameters = list(inspect.signature(call).parameters.values())[1:]
        assert all(each.kind is each.KEYWORD_ONLY for each in parameters)
        return {each.name: each.default for each in parameters}

    once = keywords(flightlog.Run.scan_outputs_once)
    watch = keywords(flightlog.Run.watch_outputs)

    assert once == {"output_dirs": inspect.Parameter.empty} | SHARED
    assert list(watch)[:2] == ["output_dirs", "interval_sec"]
    assert watch == once | {"interval_sec": 10.0}
    assert keywords(flightlog.Run.stop_outputs_watch) == {}


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"output_dirs": []}, ValueError, "is empty"),
        ({"output_dirs": ""}, ValueError, "output_dirs must name a"),
        ({"output_dirs": ["a\0b"]}, ValueError, "output_dirs must name a"),
        ({"output_dirs": ["\ud800"]}, ValueError, "output_dirs must name a"),
        ({"output_dirs": ["\udcff"]}, ValueError, "not valid Unicode"),
        ({"output_dirs": None}, TypeError, "a folder or a list of folders"),
        ({"output_dirs": b"out"}, TypeError, "a folder or a list of folders"),
        ({"output_dirs": {"out": 1}}, TypeError, "a folder or a list of folders"),
        ({"output_dirs": [3]}, TypeError, "output_dirs must be a path"),
        ({"patterns": 3}, TypeError, "a list of str"),
        ({"patterns": [None]}, TypeError, "patterns must be a str"),
        ({"patterns": [""]}, ValueError, "matches nothing"),
        ({"patterns": ["./"]}, ValueError, "matches nothing"),
        ({"patterns": ["/a.pt"]}, ValueError, "matches nothing"),
        ({"patterns": ["../a.pt"]}, ValueError, "matches nothing"),
        ({"patterns": ["a/.."]}, ValueError, "matches nothing"),
        ({"patterns": ["a\0b"]}, ValueError, "matches nothing"),
        ({"patterns": ["\udcff"]}, ValueError, "not valid Unicode"),
        ({"patterns": ["*.pt"] * 1001}, ValueError, "at most 1,000"),
        ({"output_dirs": ["out"] * 1001}, ValueError, "at most 1,000"),
        ({"stable_required": -1}, ValueError, "from 0 to"),
        ({"stable_required": True}, TypeError, "an int"),
        ({"stable_required": 1.0}, TypeError, "an int"),
        ({"min_age_sec": -1}, ValueError, "not negative"),
        ({"min_age_sec": math.nan}, ValueError, "finite"),
        ({"min_age_sec": "1"}, TypeError, "a number of seconds"),
        ({"mode": "version"}, ValueError, "'rolling' or 'overwrite_versions'"),
        ({"mode": None}, TypeError, "a str"),
        ({"log_snapshot_interval_sec": math.inf}, ValueError, "finite"),
        ({"log_snapshot_interval_sec": None}, TypeError, "a number of seconds"),
        ({"state_gc_after_sec": -1}, ValueError, "not negative"),
        ({"interval_sec": 0}, ValueError, "from 0.01 to"),
        ({"interval_sec": 1e-9}, ValueError, "from 0.01 to"),
        ({"interval_sec": 1e300}, ValueError, "from 0.01 to"),
        ({"interval_sec": -1.5}, ValueError, "not negative"),
        ({"interval_sec": math.nan}, ValueError, "finite"),
        ({"interval_sec": True}, TypeError, "a number of seconds"),
        ({"interval_sec": None}, TypeError, "a number of seconds"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(
    live: flightlog.Run, wrong: dict[str, Any], error: type[Exception], match: str
) -> None:
    given: dict[str, Any] = {"output_dirs": "out"} | wrong

    with pytest.raises(error, match=match):
        live.watch_outputs(**given)
    if "interval_sec" not in wrong:
        with pytest.raises(error, match=match):
            live.scan_outputs_once(**given)
    live.finish()
    assert state_of(Api(home=live.home.root).run(live.path)).watches == {}


def test_a_str_is_one_folder_and_the_daemon_is_told_what_was_given(
    live: flightlog.Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(work, "a.pt")
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(work))
    absolute = work / "out"

    for given in ("out", "./out", "~/out", Path("out"), ["out"], (absolute,)):
        assert live.scan_outputs_once(output_dirs=given)["scanned"] == 1
        live.watch_outputs(
            output_dirs=given,
            interval_sec=3600,
            patterns=["*.pt"],
            stable_required=9,
            min_age_sec=8,
            mode="versions",
            log_snapshot_interval_sec=7,
            state_gc_after_sec=None,
        )
    assert live.flush(20)

    (watch,) = state_of(Api(home=live.home.root).run(live.path)).watches.values()
    assert watch.interval_s == 3600
    assert watch.looking == Looking(
        dirs=[str(absolute)],  # For the daemon works elsewhere.
        root=str(work),
        patterns=["*.pt"],
        stable_required=9,
        min_age_s=8.0,
        mode="overwrite_versions",
        log_interval_s=7.0,
        forget_after_s=0.0,
    )


# --- looked for on demand ---


def test_a_look_tells_exactly_what_came_of_it(live: flightlog.Run, work: Path) -> None:
    write(work, "a.pt", b"bytes")
    write(work, "ckpt/x", b"in it")

    found = live.scan_outputs_once(
        output_dirs=[work / "out"], patterns=["*.pt", "ckpt/"], **AT_ONCE
    )

    entries = {entry["key"]: entry for entry in found.pop("archived_entries")}
    assert found == {"run_id": live.id, "scanned": 2, "archived": 2, "changed": 2}
    blob = sha256(b"bytes")
    at = entries["out/a.pt"].pop("archived_at")
    assert entries["out/a.pt"] == {
        "key": "out/a.pt",
        "name": "a.pt",
        "kind": "file",
        "path": "./out/a.pt",
        "saved": True,
        "archive_path": f"blobs/{blob[:2]}/{blob}",
        "fingerprint_kind": "sha256",
        "fingerprint": blob,
        "mode": "rolling",
    }
    assert isinstance(at, int)
    folder = entries["out/ckpt"]
    assert (folder["kind"], folder["fingerprint_kind"]) == ("dir", "sha256_manifest")
    names = f"x\0{sha256(b'in it')}\0".encode()
    assert folder["fingerprint"] == sha256(names)
    for entry in entries.values():
        assert (live.home.root / entry["archive_path"]).is_file()


def test_it_returns_when_all_is_kept_and_needs_no_daemon(
    own_lab: Lab, work: Path
) -> None:
    live = flightlog.init(project="outs", home=own_lab.home, workspace_root=work)
    own_lab.stop()
    path = write(work, "a.pt", b"bytes")
    live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)
    path.unlink()

    assert contents(live) == {"out/a.pt": b"bytes"}
    live.finish()


def test_a_second_look_finds_nothing_new(live: flightlog.Run, work: Path) -> None:
    write(work, "a.pt")
    live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)

    again = live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)

    assert (again["scanned"], again["archived"], again["archived_entries"]) == (
        1,
        0,
        [],
    )


def test_logs_may_be_kept_at_each_look(live: flightlog.Run, work: Path) -> None:
    for data in (b"1", b"12"):
        write(work, "a.log", data)
        found = live.scan_outputs_once(
            output_dirs=work / "out", log_snapshot_interval_sec=0
        )
        assert found["archived"] == 1


def test_by_default_a_file_has_to_be_at_rest(live: flightlog.Run, work: Path) -> None:
    path = write(work, "a.pt")
    os.utime(path, (1, 1))

    looks = [live.scan_outputs_once(output_dirs=work / "out") for _ in range(3)]

    assert [look["archived"] for look in looks] == [0, 1, 0]


def test_folders_that_are_not_there_are_left_out_and_told(
    live: flightlog.Run, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(work, "a.pt")
    dirs = [work / "no", work / "out"]

    for archived in (1, 0):
        found = live.scan_outputs_once(output_dirs=dirs, **AT_ONCE)
        assert (found["scanned"], found["archived"]) == (1, archived)

    told = [line for line in capfd.readouterr().err.splitlines() if "/no:" in line]
    assert len(told) == 1


def test_rolling_keeps_the_last_and_versions_keep_all(
    live: flightlog.Run, work: Path
) -> None:
    for data in (b"A", b"B", b"A"):
        write(work, "roll.pt", data)
        write(work, "ver.pt", data)
        for mode, pattern in (("rolling", "roll*"), ("versions", "ver*")):
            live.scan_outputs_once(
                output_dirs=work / "out", patterns=[pattern], mode=mode, **AT_ONCE
            )

    found = outputs(live)
    rolling = [each for each in found if each.mode == "rolling"]
    versions = [each for each in found if each.mode == "overwrite_versions"]
    assert [each.fingerprint for each in rolling] == [sha256(b"A")]
    assert [each.fingerprint for each in versions] == [*map(sha256, (b"A", b"B", b"A"))]
    assert [content(each) for each in versions] == [b"A", b"B", b"A"]


def test_a_full_disk_is_told_and_counted_and_what_is_new_is_tried_again(
    live: flightlog.Run, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(work, "a.pt")
    blobs = live.home.blobs
    blobs.rename(live.home.root / "away")
    blobs.touch()  # So no folder can be made in it.
    for _ in range(2):
        found = live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)
        assert (found["scanned"], found["archived"]) == (1, 0)
    blobs.unlink()
    (live.home.root / "away").rename(blobs)

    assert capfd.readouterr().err.count("outputs cannot be archived") == 1
    found = live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)
    assert found["archived"] == 1
    live.finish()
    assert state_of(Api(home=live.home.root).run(live.path)).lost_count == 1


def test_runs_with_names_alike_have_outputs_of_their_own(
    lab: Lab, home: Path, work: Path
) -> None:
    ids = ["my run 1", "my_run_1", "x" * 90 + "1", "x" * 90 + "2"]
    for number, id in enumerate(ids):
        write(work, "a.pt", b"%d" % number)
        with flightlog.init(project="alike", id=id, workspace_root=work) as run:
            run.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)

    for number, id in enumerate(ids):
        (asset,) = lab.find(id, "alike").assets.outputs
        assert content(asset) == b"%d" % number


def test_each_revision_is_known_to_be_needed(live: flightlog.Run, work: Path) -> None:
    for data in (b"first", b"second"):
        write(work, "a.pt", data)
        live.scan_outputs_once(output_dirs=work / "out", mode="versions", **AT_ONCE)

    store = BlobStore(live.home.blobs)
    needed = HomeReader(live.home).look(
        lambda database, folding: {
            blob.sha256 for blob in named_blobs(database, folding, store)
        }
    )
    assert {sha256(b"first"), sha256(b"second")} <= needed


# --- watched ---


def test_a_watch_archives_in_the_background(live: flightlog.Run, work: Path) -> None:
    live.watch_outputs(output_dirs=work / "out", interval_sec=0.1, min_age_sec=0)
    write(work, "a.pt", b"1")
    wait_until(lambda: contents(live) == {"out/a.pt": b"1"})
    write(work, "a.pt", b"22")
    wait_until(lambda: contents(live) == {"out/a.pt": b"22"})

    live.finish()


def test_a_watch_that_is_stopped_archives_no_more_but_looks_may_follow(
    live: flightlog.Run, work: Path
) -> None:
    live.watch_outputs(output_dirs=work / "out", interval_sec=0.1, min_age_sec=0)
    write(work, "a.pt", b"1")
    wait_until(lambda: len(outputs(live)) == 1)
    live.stop_outputs_watch()
    write(work, "b.pt", b"2")
    assert live.flush(20)
    found = live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)
    live.finish()

    assert [entry["key"] for entry in found["archived_entries"]] == ["out/b.pt"]
    assert state_of(Api(home=live.home.root).run(live.path)).watches == {}


def test_stopping_makes_no_last_look(live: flightlog.Run, work: Path) -> None:
    live.watch_outputs(output_dirs=work / "out", interval_sec=3600, min_age_sec=3600)
    write(work, "a.pt")
    live.stop_outputs_watch()
    live.stop_outputs_watch()
    live.finish()

    assert outputs(live) == []


def test_finish_keeps_what_was_written_just_before(
    live: flightlog.Run, work: Path
) -> None:
    live.watch_outputs(output_dirs=work / "out", patterns=["*.pt", "*.csv", "ck/"])
    write(work, "old.pt", b"x")
    write(work, "last.pt", b"the last one")
    write(work, "report.csv", b"epoch,loss\n1,0.5\n")
    write(work, "ck/model.bin", b"m")
    live.finish()
    shutil.rmtree(work)

    state = state_of(Api(home=live.home.root).run(live.path))
    assert (state.watches, state.lost_count) == ({}, 0)
    found = {asset.key: asset for asset in outputs(live)}
    assert sorted(found) == ["out/ck", "out/last.pt", "out/old.pt", "out/report.csv"]
    assert content(found["out/last.pt"]) == b"the last one"
    assert content(found["out/report.csv"]).endswith(b"0.5\n")


def test_what_finish_has_no_time_for_the_daemon_keeps(
    live: flightlog.Run, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(work, "a.pt")
    go_on = threading.Event()
    keep = Archive.keep_file

    def slow(self: Archive, source: str, *, may_grow: bool = False) -> Kept:
        assert go_on.wait(60)
        return keep(self, source, may_grow=may_grow)

    monkeypatch.setattr(_assets, "STORE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(Archive, "keep_file", slow)
    live.watch_outputs(output_dirs=work / "out", interval_sec=3600)
    try:
        live.finish()
        wait_until(lambda: contents(live) == {"out/a.pt": b"one"})
    finally:
        go_on.set()

    run = Api(home=live.home.root).run(live.path)
    wait_until(lambda: not state_of(run).watches)
    assert (run.state, state_of(run).lost_count) == ("finished", 0)


def test_the_last_lines_of_a_log_are_not_lost_to_the_throttle(
    live: flightlog.Run, work: Path
) -> None:
    path = write(work, "train.log", b"first\n")
    live.watch_outputs(output_dirs=work / "out", interval_sec=0.1)
    wait_until(lambda: contents(live) == {"out/train.log": b"first\n"})
    with path.open("ab") as file:
        file.write(b"last\n")
    live.finish()

    assert contents(live) == {"out/train.log": b"first\nlast\n"}


def test_a_look_keeps_no_watch_waiting(live: flightlog.Run, work: Path) -> None:
    is_looking, go_on = threading.Event(), threading.Event()

    def record(event: Event) -> None:
        if isinstance(event, OutputArchived):
            is_looking.set()
            assert go_on.wait(30)

    write(work, "a.pt")
    given = GivenOutputs(work / "out", None, 1, 0, "rolling", 60, None)
    looking = make_looking("test", given, str(work))
    found = Outputs(live.life.spec, record)
    look = threading.Thread(target=found.scan, args=(looking,))
    look.start()
    assert is_looking.wait(30)

    found.watch(looking, 1.0)
    assert found.is_watched
    found.stop()

    assert look.is_alive()
    go_on.set()
    look.join()


def test_several_watches_are_open_at_once_and_equal_ones_are_one(
    live: flightlog.Run, work: Path
) -> None:
    for _ in range(2):
        live.watch_outputs(output_dirs=work / "out", patterns=["*.a"], interval_sec=0.1)
        live.watch_outputs(
            output_dirs=[work / "out"],
            patterns=["*.b"],
            interval_sec=0.1,
            min_age_sec=0,
            mode="versions",
        )
    assert live.flush(20)
    assert len(state_of(Api(home=live.home.root).run(live.path)).watches) == 2
    write(work, "x.a")
    write(work, "x.b")
    wait_until(lambda: sorted(contents(live)) == ["out/x.a", "out/x.b"])
    live.stop_outputs_watch()

    live.watch_outputs(output_dirs=work / "out", patterns=["*.c"], interval_sec=0.1)
    write(work, "x.c")
    wait_until(lambda: len(outputs(live)) == 3)
    live.finish()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(3)", "1 / 0"])
def test_what_a_process_wrote_before_its_death_is_kept(
    own_lab: Lab, work: Path, end: str
) -> None:
    done = own_lab.execute(
        f"""
        import os, flightlog
        run = flightlog.init(project="outs", id="dies", workspace_root={str(work)!r})
        run.watch_outputs(output_dirs={str(work / "out")!r}, interval_sec=3600)
        with open({str(work / "out" / "last.pt")!r}, "wb") as file:
            file.write(b"last")
        run.flush(30)
        {end}
        """
    )
    assert done.returncode != 0
    own_lab.serve()
    own_lab.ended("dies", project="outs")

    wait_until(lambda: not state_of(own_lab.find("dies", "outs")).watches)

    (asset,) = own_lab.find("dies", "outs").assets.outputs
    assert content(asset) == b"last"


def test_a_watch_goes_on_when_the_daemon_is_started_again(
    own_lab: Lab, work: Path
) -> None:
    live = flightlog.init(project="outs", home=own_lab.home, workspace_root=work)
    live.watch_outputs(output_dirs=work / "out", interval_sec=0.1, min_age_sec=0)
    write(work, "a.pt", b"1")
    wait_until(lambda: len(outputs(live)) == 1)
    own_lab.stop()
    write(work, "b.pt", b"2")
    own_lab.serve()

    wait_until(lambda: contents(live) == {"out/a.pt": b"1", "out/b.pt": b"2"})
    live.finish()


def test_a_forked_child_may_look_and_ends_no_watch(own_lab: Lab, work: Path) -> None:
    out = work / "out"
    own_lab.run_script(
        f"""
        import os, pathlib, flightlog
        out = pathlib.Path({str(out)!r})
        run = flightlog.init(project="outs", id="forks", workspace_root={str(work)!r})
        run.watch_outputs(output_dirs=out, interval_sec=3600)
        if (pid := os.fork()) == 0:
            out.joinpath("child.pt").write_bytes(b"child")
            found = run.scan_outputs_once(
                output_dirs=out, stable_required=1, min_age_sec=0
            )
            run.stop_outputs_watch()
            run.finish()
            os._exit(0 if found["archived"] == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        out.joinpath("last.pt").write_bytes(b"last")
        run.finish()
        """
    )

    kept = own_lab.ended("forks", project="outs").assets.outputs
    assert sorted(asset.name for asset in kept) == ["child.pt", "last.pt"]


# --- after the end, and without a run ---


def test_after_the_end_calls_are_harmless_and_told(
    live: flightlog.Run, work: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(work, "a.pt")
    live.finish()
    capfd.readouterr()

    live.watch_outputs(output_dirs=work / "out")
    assert live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE) == {}
    live.stop_outputs_watch()

    told = capfd.readouterr().err
    assert told.count("too late") == told.count("watch_outputs() comes") == 1
    state = state_of(Api(home=live.home.root).run(live.path))
    assert (state.watches, state.assets) == ({}, {})


def test_a_disabled_run_finds_nothing(work: Path) -> None:
    write(work, "a.pt")
    run = flightlog.init(mode="disabled")

    found = run.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)
    run.watch_outputs(output_dirs=work / "out", interval_sec=0.1)
    run.stop_outputs_watch()

    assert found == {"scanned": 0, "archived": 0, "changed": 0}


# --- read back ---


def test_an_output_is_read_back(
    live: flightlog.Run, work: Path, tmp_path: Path
) -> None:
    write(work, "deep/a.pt", b"bytes")
    live.scan_outputs_once(output_dirs=work / "out", **AT_ONCE)
    live.finish()

    (asset,) = outputs(live)

    assert (asset.kind, asset.name, asset.key) == ("output", "a.pt", "out/deep/a.pt")
    assert (asset.path, asset.mode, asset.saved) == (
        "./out/deep/a.pt",
        "rolling",
        True,
    )
    assert (asset.fingerprint, asset.size) == (sha256(b"bytes"), 5)
    assert asset.created_at.endswith("Z")
    assert asset.download(tmp_path).read_bytes() == b"bytes"
    assert asset.restore(tmp_path / "again.pt").read_bytes() == b"bytes"
    with pytest.raises(FileExistsError):
        asset.restore(tmp_path / "again.pt")


def test_a_folder_is_restored_whole(
    live: flightlog.Run, work: Path, tmp_path: Path
) -> None:
    write(work, "ck/a", b"1")
    write(work, "ck/b/c", b"2")
    live.scan_outputs_once(output_dirs=work / "out", patterns="ck/", **AT_ONCE)

    (asset,) = outputs(live)
    restored = asset.restore(tmp_path / "again")

    assert (restored / "a").read_bytes() + (restored / "b/c").read_bytes() == b"12"


def test_what_lies_elsewhere_has_an_absolute_key(
    live: flightlog.Run, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "work too" / "a.pt"  # No part of `work`.
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"1")
    live.scan_outputs_once(output_dirs=elsewhere.parent, **AT_ONCE)

    (asset,) = outputs(live)

    assert asset.key == asset.path == str(elsewhere)


def test_a_script_without_finish_looks_a_last_time_itself(
    own_lab: Lab, tmp_path: Path
) -> None:
    done = own_lab.execute(
        f"""
        import flightlog, pathlib
        run = flightlog.init(id="r", project="p")
        folder = pathlib.Path({str(tmp_path / "out")!r})
        folder.mkdir()
        run.watch_outputs(output_dirs=folder, interval_sec=60)
        (folder / "last.pt").write_bytes(b"last")
        """
    )

    assert (done.returncode, "last look" in done.stderr) == (0, False), done.stderr
    (output,) = own_lab.find("r", "p").assets.outputs
    with output.open() as file:
        assert file.read() == b"last"
