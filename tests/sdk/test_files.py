"""Files of runs: saved by a live run, uploaded to one read back, downloaded."""

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog import Api, BadArgumentError, CommError, CorruptError, NotFoundError
from flightlog.apis.public import Run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with some files."""
    folder = tmp_path / "work"
    for name in ("a.txt", "b.bin", "sub/c.txt", "sub/deep/d.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(home: Path) -> Any:
    return flightlog.init(project="files")


@pytest.fixture
def ended(home: Path) -> Run:
    live = flightlog.init(project="files")
    live.finish()
    return Api().run(live.path)


def read(run: Any) -> Run:
    path = run.path if isinstance(run.path, str) else "/".join(run.path)
    return Api().run(path)


def names(run: Any) -> list[str]:
    return [file.name for file in read(run).files()]


# --- saved by a live run ---


def test_files_are_saved_under_their_paths(run: Any, folder: Path) -> None:
    assert run.save("a.txt") == [str(folder / "a.txt")]
    assert len(run.save("sub/*")) == 2
    assert run.save("none*") == []
    run.finish()

    assert names(run) == ["a.txt", "sub/c.txt", "sub/deep/d.txt"]


@pytest.mark.parametrize(
    ("pattern", "base", "expected"),
    [
        ("sub/**/*.txt", None, ["sub/c.txt", "sub/deep/d.txt"]),
        ("{folder}/sub/c.txt", None, ["sub/c.txt"]),
        ("{folder}/sub/deep/*", None, ["deep/d.txt"]),
        ("{folder}/sub/deep/*", "{folder}", ["sub/deep/d.txt"]),
        ("sub/deep/d.txt", "sub", ["deep/d.txt"]),
    ],
)
def test_what_files_are_called(
    run: Any, folder: Path, pattern: str, base: str | None, expected: list[str]
) -> None:
    given = None if base is None else base.format(folder=folder)
    run.save(pattern.format(folder=folder), base_path=given)
    run.finish()

    assert names(run) == expected


def test_wrong_arguments_of_save_raise(
    run: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="policy"):
        run.save("a.txt", policy="often")
    with pytest.raises(ValueError, match="below"):
        run.save("a.txt", base_path="sub")
    with pytest.raises(ValueError, match="below"):
        run.save(f"../{folder.name}/../{folder.name}/a.txt", base_path="/usr")
    with pytest.raises(TypeError, match="glob_str must be a path, not 3"):
        run.save(3)
    with pytest.raises(TypeError, match="base_path must be a path, not 3"):
        run.save("a.txt", base_path=3)
    assert run.save("s3://bucket/a*") == []
    assert "not on this machine" in capsys.readouterr().err
    run.finish()
    assert names(run) == []


def test_policies_say_which_state_of_a_file_is_kept(run: Any, folder: Path) -> None:
    for policy in ("now", "live", "end"):
        path = folder / policy
        path.write_text("first")
        run.save(policy, policy=policy)
    (folder / "marker").write_text("m")
    run.log_artifact("marker").wait()  # So all before it are stored.
    for policy in ("now", "live", "end"):
        (folder / policy).write_text("at the end")
    run.finish()

    found = {file.name: file.size for file in read(run).files()}
    assert found == {"now": 5, "live": 10, "end": 10}


def test_a_live_file_that_is_gone_at_the_end_is_kept(
    run: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.save("a.txt")
    run.save("b.bin", policy="end")
    run.log_artifact("sub/c.txt").wait()
    for name in ("a.txt", "b.bin"):
        (folder / name).unlink()

    run.finish()

    assert names(run) == ["a.txt"]
    assert read(run).lost_count == 1
    assert "file b.bin" in capsys.readouterr().err


def test_a_disk_that_refuses_breaks_no_training(own_lab: Lab, folder: Path) -> None:
    """The home's blobs cannot be made: a file lies in their place."""
    code = f"""
    import os, shutil, flightlog
    run = flightlog.init(project="files", id="refused")
    assert run.flush(30)
    blobs = str(run.home.blobs)
    shutil.rmtree(blobs)
    open(blobs, "w").close()
    run.save({str(folder / "a.txt")!r})
    a = run.log_artifact({str(folder / "b.bin")!r})
    try:
        a.wait()
    except flightlog.CommError as error:
        print(type(error.exc).__name__)
    run.log({{"loss": 1.0}})
    run.finish()
    """

    done = own_lab.execute(code)

    assert (done.returncode, done.stdout.strip()) == (0, "NotADirectoryError"), done
    assert done.stderr.count("lost and counted") == 1
    run = own_lab.find("refused", "files")
    assert (run.state, run.lost_count, run.summary["loss"]) == ("finished", 2, 1.0)
    assert len(run.files()) == 0


@pytest.mark.parametrize(
    ("within", "call", "saved", "exit_code"),
    [
        ("start", "run.save('sub/*')", ["a.txt", "sub/c.txt", "sub/deep/d.txt"], 0),
        ("join", "run.finish(3)", ["a.txt"], 3),
    ],
)
def test_a_signal_handler_may_come_in_anywhere(
    lab: Lab, folder: Path, within: str, call: str, saved: list[str], exit_code: int
) -> None:
    """Here as the thread that stores is begun, and as it is waited for."""
    code = f"""
    import signal, sys, flightlog
    run = flightlog.init(project="files", id="within-{within}")
    signal.signal(signal.SIGUSR1, lambda *_: {call})
    def look(frame, event, argument):
        where = frame.f_globals["__name__"], frame.f_code.co_name
        if event == "call" and where == ("threading", {within!r}):
            sys.setprofile(None)
            signal.raise_signal(signal.SIGUSR1)
    sys.setprofile(look)
    run.save("a.txt")
    run.finish()
    print(sys.getprofile())
    """

    done = lab.execute(code)

    assert (done.stdout, done.stderr) == ("None\n", "")
    found = lab.find(f"within-{within}", "files")
    assert [file.name for file in found.files()] == saved
    assert (found.exit_code, found.lost_count) == (exit_code, 0)


# --- read back ---


def test_files_say_what_they_are(run: Any, folder: Path) -> None:
    (folder / "big.json").write_text(json.dumps("x" * 1534))
    run.save("big.json")
    run.finish()

    file = read(run).file("big.json")

    data = (folder / "big.json").read_bytes()
    assert (file.name, file.size, file.mimetype) == (
        "big.json",
        1536,
        "application/json",
    )
    assert file.md5 == base64.b64encode(hashlib.md5(data).digest()).decode()
    assert file.url.startswith("file://")
    assert Path(file.direct_url.removeprefix("file://")).read_bytes() == data
    assert file.updated_at.endswith("Z")
    assert repr(file) == "<File big.json (application/json) 1.5KiB>"
    assert file.id != read(run).files()[0].name


def test_files_are_found_by_name_and_pattern(ended: Run, folder: Path) -> None:
    for name in ("a.txt", "b.bin", "sub/c.txt", "sub/deep/d.txt"):
        ended.upload_file(name)

    files = ended.files(per_page=3)

    assert (len(files), files.more, len(files.objects)) == (4, True, 3)
    assert repr(files) == f"<Files {'/'.join(ended.path)} (4)>"
    assert files[-1].name == "sub/deep/d.txt"
    assert [f.name for f in ended.files(["b.bin", "none", "a.txt"])] == [
        "a.txt",
        "b.bin",
    ]
    assert len(ended.files([])) == 4
    for pattern, expected in (("%.txt", 3), ("sub/%", 2), ("_.bin", 1), ("*.txt", 0)):
        assert len(ended.files(pattern=pattern)) == expected
    with pytest.raises(NotFoundError, match="File none not found"):
        ended.file("none")
    wrong: Any
    for wrong in ({"names": ["a"], "pattern": "%"}, {"names": "a"}, {"per_page": 0}):
        with pytest.raises(BadArgumentError):
            ended.files(**wrong)


def test_a_file_is_downloaded_and_opened(
    ended: Run, folder: Path, tmp_path: Path
) -> None:
    file = ended.upload_file("sub/c.txt")
    root = str(tmp_path / "out")

    with file.download(root) as text:
        assert text.read() == "sub/c.txt"
    (tmp_path / "out/sub/c.txt").write_text("mine")
    with pytest.raises(ValueError, match="replace=True"):
        file.download(root)
    with file.download(root, exist_ok=True) as text:
        assert text.read() == "mine"
    with file.download(root, replace=True) as text:
        assert text.read() == "sub/c.txt"


def test_uploads_replace_and_are_deleted(ended: Run, folder: Path) -> None:
    assert ended.upload_file("a.txt").size == 5
    (folder / "a.txt").write_text("longer now")

    file = ended.upload_file(str(folder / "a.txt"), root=str(folder))
    assert (file.name, file.size) == ("a.txt", 10)
    assert (ended.state, read(ended).state) == ("finished", "finished")
    file.delete()

    assert names(ended) == []


def test_names_of_uploads_stay_inside(ended: Run, folder: Path) -> None:
    outside = folder.parent / "test.txt"
    outside.write_text("x")

    assert ended.upload_file("../test.txt").name == "__/test.txt"
    assert ended.upload_file("sub/deep/../c.txt", root="sub").name == "c.txt"
    assert ended.upload_file(str(outside), root="/").name == str(outside)[1:]


def test_what_is_no_file_is_not_uploaded(ended: Run, folder: Path) -> None:
    os.mkfifo("pipe")
    for wrong, error in (("none", FileNotFoundError), ("sub", None), ("pipe", None)):
        with pytest.raises(CommError, match=wrong) as caught:
            ended.upload_file(wrong)
        assert error is None or isinstance(caught.value.exc, error)
    with pytest.raises(BadArgumentError):
        ended.upload_file(3)  # type: ignore[arg-type]  # That is what is tested.
    assert names(ended) == []


def test_a_damaged_file_is_told(ended: Run, folder: Path, tmp_path: Path) -> None:
    file = ended.upload_file("a.txt")
    path = Path(file.url.removeprefix("file://"))
    path.write_text("a.tx_")

    with pytest.raises(CorruptError, match=r"a\.txt"):
        file.download(str(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []

    path.unlink()
    with ended.upload_file("a.txt").download(str(tmp_path / "out")) as text:
        assert text.read() == "a.txt"


def test_equal_files_are_kept_once(ended: Run, folder: Path, home: Path) -> None:
    shutil.copy("a.txt", "copy")
    one, two = ended.upload_file("a.txt"), ended.upload_file("copy")

    assert (one.url, one.md5) == (two.url, two.md5)


def test_bucket_paths_are_told_to_be_none(
    ended: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended.upload_file("a.txt").path_uri == ""
    assert "bucket" in capsys.readouterr().err


KEPT_UNTIL_KILLED = """
import os, signal, flightlog
open("now.txt", "w").write("x"); open("end.txt", "w").write("x")
run = flightlog.init(project="files", id="killed")
run.save("now.txt", policy="now")
while not run.flush() or not any(flightlog.Api().run(run.path).files()): pass
run.save("now.txt", policy="live")
while flightlog.Api().run(run.path).client.reader.state(
    tuple(run.path.split("/"))
).writers.popitem()[1].storing: pass
run.save("end.txt", policy="end")
run.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_that_a_killed_process_was_to_store_is_counted(
    own_lab: Lab, folder: Path
) -> None:
    own_lab.execute(KEPT_UNTIL_KILLED)

    run = own_lab.ended("killed", project="files")

    assert [file.name for file in run.files()] == ["now.txt"]
    assert run.lost_count == 1


@pytest.mark.parametrize("how", ['run.save("a.txt", policy="end")', ""])
@pytest.mark.parametrize(
    "hook", ["", 'atexit.register(run.save, "b.bin", policy="now")']
)
def test_a_process_that_ends_without_finish_stores_or_counts_what_it_saved(
    own_lab: Lab, folder: Path, how: str, hook: str
) -> None:
    done = own_lab.execute(
        f"""
        import atexit, flightlog
        run = flightlog.init(project="files", id="r")
        {how}
        {hook}
        """
    )

    run = own_lab.ended("r", project="files")

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    stored = {file.name for file in run.files()}
    assert ("a.txt" in stored) == bool(how)
    assert ("b.bin" in stored) + run.lost_count == bool(hook)


def test_a_run_that_ends_well_has_lost_nothing_that_it_saved(
    own_lab: Lab, folder: Path
) -> None:
    own_lab.run_script(
        """
        import flightlog, os
        with flightlog.init(project="files", id="well") as run:
            for policy in ("now", "live", "end", "end", "live"):
                run.save("*.txt", policy=policy)
            run.save("b.bin", policy="live")
            run.log_artifact("a.txt").wait()
            os.unlink("b.bin")
        """
    )

    run = own_lab.find("well", "files")

    assert sorted(file.name for file in run.files()) == ["a.txt", "b.bin"]
    assert run.lost_count == 0
