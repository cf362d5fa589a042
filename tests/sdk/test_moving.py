"""Runs carried from home to home, by the command line and real daemons."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Lab
from tests.storage.recording import Recorded

import flightlog
from flightlog_storage.event import (
    AssetLogged,
    FileRequested,
    RunFinished,
)
from flightlog_storage.history import Query
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogReader
from flightlog_storage.points import Stream
from flightlog_storage.reader import HomeReader

pytestmark = pytest.mark.once

SOCKETS = shutil.ignore_patterns("*.sock")
COMMAND = [sys.executable, "-c", "from flightlog.cli import main; main()"]
RICH = """
import os, pathlib
import numpy as np
import flightlog

data = pathlib.Path(os.environ["DATA"])
run = flightlog.init(project="demo", id="rich", config={"lr": 0.1, "a": {"b": [1]}},
                     tags=["x"], name="a rich one", notes="n", group="g")
run.define_metric("loss", summary="min")
for step in range(500):
    run.log({"loss": 1 / (step + 1), "nan": float("nan"), "text": f"t{step}", "n": 1})
run.log_image("val/mask", np.eye(64, dtype=bool), caption="the diagonal")
run.log_dataset("samples", data, save=True)
run.log_pretrained("base", path_or_uri="hf/x", source_type="huggingface")
run.save(str(data / "0.bin"), base_path=str(data))
run.log_config(args={"x": 1}, config_files=[data / "c.yaml"])
run.scan_outputs_once(output_dirs=str(data), patterns=["*.bin"], stable_required=1,
                      min_age_sec=0)
run.alert("look", "here")
model = flightlog.Artifact("model", "model", metadata={"m": 1})
model.add_dir(str(data))
run.log_artifact(model, aliases=["best"], tags=["t"])
if os.fork() == 0:
    run.log({"child": 1})
    run.finish()
    os._exit(0)
os.wait()
run.summary["by hand"] = 7
run.finish()
"""
RANK = """
import flightlog
with flightlog.init(project="demo", id="rich", resume="allow") as run:
    for step in range(50):
        run.log({"loss": step, "rank1": step})
"""
RESUMED = """
import flightlog
with flightlog.init(project="demo", id="rich", resume="must") as run:
    run.use_artifact("model:v0")
    run.log({"loss": 5.0})
"""
KILLED = """
import os, signal
import flightlog
run = flightlog.init(project="demo", id="killed")
for n in range(20):
    run.log({"n": n})
run.flush(10)
os.kill(os.getpid(), signal.SIGKILL)
"""

Call = Callable[..., subprocess.CompletedProcess[str]]
RunKey = tuple[str, str, str]
RICH_KEY = ("someone", "demo", "rich")


def call(lab: Lab, *arguments: str | Path, code: int = 0) -> str:
    """Run a command on a home; return what it said, stdout or else stderr."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=lab.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def told(lab: Lab, key: RunKey) -> dict[str, Any]:
    """Return all that can be read of a run, but where it lies."""
    reader = HomeReader(Home(lab.home))
    state = reader.state(key)
    assert state is not None
    state.files = dict(sorted(state.files.items()))  # As those that are saved.
    run = flightlog.Api(home=lab.home).run("/".join(key))
    histories = {}
    for stream in Stream:
        found = reader.history(key, Query(stream=stream))
        assert found is not None
        histories[stream] = repr([*found.to_dicts()])
    return {
        **{
            field.name: repr(getattr(state, field.name))
            for field in fields(state)
            if field.repr and field.name not in ("number", "carried")
        },
        "histories": histories,
        "bytes": {f.name: (f.size, f.md5, read(f)) for f in run.files()},
        "logged": [version(a) for a in run.logged_artifacts()],
        "used": [version(a) for a in run.used_artifacts()],
        "images": [image(i) for i in run.images()],
        "outputs": [repr((a.key, a.fingerprint, a.size)) for a in run.assets.outputs],
        "datasets": [repr((a.name, a.fingerprint)) for a in run.assets.datasets],
        "told config": repr(run.assets.config),
    }


def read(file: Any) -> bytes:
    with file.download(root=os.environ["DOWNLOADS"], replace=True) as found:
        return Path(found.name).read_bytes()


def image(found: Any) -> tuple[Any, ...]:
    with found.open() as file:
        return found.key, found.step, found.caption, file.read()


def version(artifact: Any) -> tuple[Any, ...]:
    entries = {path: e.digest for path, e in artifact.manifest.entries.items()}
    said = (artifact.metadata, artifact.aliases, artifact.tags, artifact.description)
    return (artifact.name, artifact.digest, entries, *said)


def frames(lab: Lab) -> int:
    return sum(1 for _ in LogReader(lab.home / "log").read())


@pytest.fixture(autouse=True)
def _downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOWNLOADS", str(tmp_path / "downloads"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A home with rich runs, of which all is done."""
    folder = tmp_path_factory.mktemp("original")
    data = folder / "data"
    data.mkdir()
    for index in range(4):
        (data / f"{index}.bin").write_bytes(os.urandom(1000 + index))
    (data / "c.yaml").write_text("a: 1")
    lab = Lab(folder / "home")
    try:
        lab.run_script(RICH, DATA=str(data))
        lab.run_script(RANK, RANK="1")
        lab.run_script(RESUMED)
        lab.execute(KILLED)
        lab.serve()
        lab.ended("killed", project="demo")
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="module")
def export(original: Lab) -> Path:
    """An export of both runs of the original."""
    path = original.home.parent / "both.zip"
    call(original, "export", "demo/rich", "killed", "--to", path)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "target" / "home")
    made.home.parent.mkdir()
    yield made
    made.close()


def test_an_imported_run_is_as_the_original(
    original: Lab, export: Path, target: Lab
) -> None:
    call(target, "import", export)

    for key in (RICH_KEY, ("someone", "demo", "killed")):
        assert told(target, key) == told(original, key)
    target.stop()
    assert "sound" in call(target, "verify", "--full")


def test_it_still_is_after_a_replay(original: Lab, export: Path, target: Lab) -> None:
    call(target, "import", export)
    target.stop()

    call(target, "replay")

    assert told(target, RICH_KEY) == told(original, RICH_KEY)


def test_an_import_that_is_repeated_changes_nothing(export: Path, target: Lab) -> None:
    call(target, "import", export)
    before = frames(target)

    said = json.loads(call(target, "import", export, "--json"))

    assert frames(target) == before
    assert [run["is_new"] for run in said["data"]["runs"]] == [False, False]


def test_an_imported_run_can_be_exported_and_go_on(
    original: Lab, export: Path, target: Lab, tmp_path: Path
) -> None:
    call(target, "import", export)
    again = tmp_path / "again.zip"
    call(target, "export", "demo/rich", "--to", again)
    target.run_script(RESUMED)

    third = Lab(tmp_path / "third")
    try:
        call(third, "import", again)
        assert told(third, RICH_KEY) == told(original, RICH_KEY)
    finally:
        third.close()
    state = HomeReader(Home(target.home)).state(RICH_KEY)
    assert state is not None
    assert (state.row_count, state.carried) == (554, False)


@pytest.mark.parametrize("after_s", [0.3, 0.45, 0.6, 0.75, 0.9])
def test_an_import_killed_at_any_point_can_be_repeated(
    original: Lab, export: Path, target: Lab, after_s: float
) -> None:
    importer = subprocess.Popen(
        [*COMMAND, "import", str(export)],
        env=target.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        importer.wait(after_s)
    except subprocess.TimeoutExpired:
        importer.kill()
        importer.wait()

    call(target, "import", export)

    assert told(target, RICH_KEY) == told(original, RICH_KEY)


def test_a_running_run_ends_where_it_is_imported(own_lab: Lab, target: Lab) -> None:
    trainer = own_lab.start(
        """
        import threading, flightlog
        run = flightlog.init(project="demo", id="live")
        for n in range(10):
            run.log({"n": n})
        run.flush(10)
        print("ready", flush=True)
        threading.Event().wait(60)
        """
    )
    try:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "ready\n"
        path = own_lab.home.parent / "live.zip"
        call(own_lab, "export", "live", "--to", path)

        call(target, "import", path)
        call(target, "import", path)
    finally:
        trainer.kill()
        trainer.communicate()

    run = target.find("live", "demo")
    assert (run.state, run.history(pandas=False)[-1]["n"]) == ("crashed", 9)
    own_lab.ended("live", project="demo")
    grown = own_lab.home.parent / "grown.zip"
    call(own_lab, "export", "live", "--to", grown)
    assert "another way" in call(target, "import", grown, code=1)


def test_another_run_of_that_name_is_refused_and_left_alone(
    original: Lab, export: Path, target: Lab
) -> None:
    target.run_script(KILLED.replace("os.kill", "run.finish() or print"))
    before = frames(target)

    assert "another run" in call(target, "import", export, code=1)

    assert frames(target) == before
    with pytest.raises(flightlog.NotFoundError):
        target.find("rich", "demo")


def test_a_run_that_was_deleted_here_is_not_said_to_be_back(
    export: Path, target: Lab
) -> None:
    call(target, "import", export)
    target.find("killed", "demo").delete()

    assert "deleted" in call(target, "import", export, code=1)


def test_what_a_run_used_has_to_be_there(own_lab: Lab, target: Lab) -> None:
    own_lab.run_script(
        """
        import flightlog
        with flightlog.init(project="demo", id="maker") as run:
            made = flightlog.Artifact("set", "data")
            with made.new_file("a.txt") as file:
                file.write("a")
            run.log_artifact(made).wait()
        with flightlog.init(project="demo", id="user") as run:
            run.use_artifact("set:v0")
        """
    )
    alone, both = own_lab.home.parent / "alone.zip", own_lab.home.parent / "both.zip"
    call(own_lab, "export", "user", "--to", alone)
    call(own_lab, "export", "user", "maker", "--to", both)

    assert "no such version" in call(target, "import", alone, code=1)
    call(target, "import", both)

    assert [a.name for a in target.find("user", "demo").used_artifacts()] == ["set:v0"]
    third = Lab(target.home.parent / "third")
    try:
        call(third, "import", alone, "--lossy")
        assert third.find("user", "demo").lost_count == 1
    finally:
        third.close()


def test_a_run_that_was_deleted_and_made_anew_is_the_new_one(
    own_lab: Lab, target: Lab
) -> None:
    own_lab.run_script(KILLED.replace("os.kill", "run.finish() or print"))
    own_lab.find("killed", "demo").delete()
    own_lab.execute(KILLED.replace("range(20)", "range(3)"))
    own_lab.ended("killed", project="demo")
    path = own_lab.home.parent / "x.zip"

    call(own_lab, "export", "killed", "--to", path)
    call(target, "import", path)

    key = ("someone", "demo", "killed")
    assert told(target, key) == told(own_lab, key)
    assert target.find("killed", "demo").history(pandas=False)[-1]["n"] == 2


def test_nothing_that_an_import_says_is_owed_is_done_here(
    tmp_path: Path, target: Lab
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of this machine")
    source = Recorded(tmp_path)
    writer = source.start("r")
    source.tell(
        writer,
        AssetLogged(
            time=2.0,
            kind="dataset",
            name="d",
            token="t",
            path=str(secret),
            job="archive",
        ),
    )
    source.tell(
        writer, FileRequested(time=2.0, name="f", token="0" * 32 + "-1", size=1)
    )
    source.tell(writer, RunFinished(time=3.0, exit_code=0))
    source.log.close()
    sender = Lab(source.home.root)
    path = tmp_path / "x.zip"
    export_unsettled(sender, path)

    call(target, "import", path)

    run = flightlog.Api(home=target.home).run("e/p/r")
    (asset,) = run.assets.datasets
    assert (asset.saved, run.lost_count) == (False, 2)
    assert "exported before" in (asset.error or "")
    assert list((target.home / "blobs").rglob("*")) == []
    target.stop()
    assert "sound" in call(target, "verify", "--full")


def export_unsettled(lab: Lab, path: Path) -> None:
    """Export from a home that nobody may serve, so that what is owed stays so."""
    lab.home.joinpath("daemon.log").mkdir()  # A daemon cannot be started.
    call(lab, "export", "e/p/r", "--to", path)


def test_a_home_that_is_moved_or_copied_whole_goes_on(
    original: Lab, tmp_path: Path
) -> None:
    original.stop()
    copied = shutil.copytree(original.home, tmp_path / "copied")
    moved = Lab(copied.rename(tmp_path / "moved"))
    original.serve()
    try:
        assert told(moved, RICH_KEY) == told(original, RICH_KEY)
        moved.run_script(RESUMED)

        assert moved.find("rich", "demo").history(pandas=False)[-1]["loss"] == 5.0
        assert "sound" in call(moved, "verify", "--full")
    finally:
        moved.close()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("export", "demo/nope", "--to", "{}/x.zip"), 3, "nope"),
        (("export", "demo/rich"), 2, "--to"),
        (("export", "--to", "{}/x.zip"), 2, "RUN"),
        (("export", "demo/rich", "--to", "{}"), 2, "must name a file"),
        (("export", "demo/rich", "--to", ""), 2, "must name a file"),
        (("export", "demo/rich", "--to", "{}/no/x.zip"), 2, "no folder"),
        (("export", "demo/rich", "--to", "{}/there"), 1, "is not replaced"),
        (("import", "{}/nothing.zip"), 1, "Error: {}/nothing.zip: No such file"),
        (("import", "{}"), 1, "irectory"),
        (("import", "{}/there"), 1, "is no export"),
        (("import", "{}/there", "--max-size", "-1"), 2, "max-size"),
        (("import",), 2, "FILE"),
    ],
)
def test_bad_arguments_are_told(
    original: Lab, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "there").write_text("something")

    told = call(original, *(a.format(tmp_path) for a in arguments), code=code)

    assert said.format(tmp_path) in told
    assert os.listdir(tmp_path) == ["there"]


def test_a_damaged_blob_makes_no_export(original: Lab, tmp_path: Path) -> None:
    copied = Lab(shutil.copytree(original.home, tmp_path / "copied", ignore=SOCKETS))
    blobs = (path for path in (copied.home / "blobs").rglob("*") if path.is_file())
    blob = max(blobs, key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x" * blob.stat().st_size)

    said = call(copied, "export", "demo/rich", "--to", tmp_path / "x.zip", code=1)

    assert "not what it is named" in said
    assert os.listdir(tmp_path) == ["copied"]


def test_ctrl_c_leaves_no_file(original: Lab, tmp_path: Path) -> None:
    copied = Lab(shutil.copytree(original.home, tmp_path / "copied", ignore=SOCKETS))
    blob = next(path for path in (copied.home / "blobs").rglob("*") if path.is_file())
    blob.unlink()
    os.mkfifo(blob)
    exporter = subprocess.Popen(
        [*COMMAND, "export", "demo/rich", "--to", str(tmp_path / "x.zip")],
        env=copied.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with blob.open("wb"):  # It has begun to read, and waits for more.
        assert len(os.listdir(tmp_path)) == 2
        exporter.send_signal(signal.SIGINT)
        _, said = exporter.communicate(timeout=60)

    assert exporter.returncode == 130, said
    assert os.listdir(tmp_path) == ["copied"]


@pytest.mark.parametrize("name", ["pipe", "/dev/full"])
def test_only_a_regular_file_is_imported(
    own_lab: Lab, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "pipe")

    said = call(own_lab, "import", tmp_path / name, code=1)

    assert "is no regular file" in said
