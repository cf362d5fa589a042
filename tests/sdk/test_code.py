"""The code of a run: `init(snapshot_code=True)` and `run.workspace_root`."""

import hashlib
import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog import Api, _code
from flightlog._code import find_code
from flightlog.apis.public import Run
from flightlog_storage.names import CODE_FILE
from flightlog_storage.workspace import Limits, Request, Workspace, survey

TOO_LARGE = 500 * 1024 * 1024 + 1


@pytest.fixture
def root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with code."""
    root = tmp_path / "work"
    (root / "sub").mkdir(parents=True)
    (root / "train.py").write_text("print()")
    (root / "sub/model.py").write_text("x = 1")
    (root / ".env").write_text("secret")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def count(home: Path) -> int:
    """How many runs there were before."""
    return len(Api().runs())


def names(path: str, folder: Path) -> list[str]:
    """Return the names in the archive of a run."""
    read: Run = Api().run(path)
    with read.file(CODE_FILE).download(str(folder), replace=True):
        pass
    with zipfile.ZipFile(folder / CODE_FILE) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_the_code_is_a_file_of_the_run(root: Path, tmp_path: Path) -> None:
    with flightlog.init(project="code", snapshot_code=True) as run:
        run.log({"loss": 1})

    assert names(run.path, tmp_path) == ["sub/model.py", "train.py"]


def test_save_code_of_wandb_is_another_word_for_it(root: Path, tmp_path: Path) -> None:
    with flightlog.init(save_code=True) as run:
        pass
    with flightlog.init(save_code=False) as without:
        pass

    assert names(run.path, tmp_path) == ["sub/model.py", "train.py"]
    assert Api().run(without.path).assets.code is None


def test_the_code_is_an_asset_like_others(root: Path, tmp_path: Path) -> None:
    with flightlog.init(snapshot_code=True) as run:
        pass
    read = Api().run(run.path)
    code = read.assets.code

    assert code is not None
    data = code.restore(tmp_path / "code.zip").read_bytes()
    assert (code.kind, code.saved, code.error) == ("code", True, None)
    assert code.fingerprint == hashlib.sha256(data).hexdigest()
    assert code.size == len(data)
    with pytest.raises(FileExistsError):
        code.restore(tmp_path / "code.zip")


def test_code_beyond_the_limits_harms_no_earlier_run(root: Path) -> None:
    with flightlog.init(id="earlier", snapshot_code=True) as run:
        run.log({"loss": 1})
    with (root / "huge").open("wb") as file:
        file.truncate(TOO_LARGE)

    with pytest.raises(ValueError, match="set force_snapshot=True"):
        flightlog.init(id="earlier", resume="allow", snapshot_code=True)

    read = Api().run(run.path)
    assert (read.state, read.summary["loss"]) == ("finished", 1)
    assert read.assets.code is not None


def test_the_workspace_may_be_named(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("sub")

    with flightlog.init(snapshot_code=True, workspace_root="link") as run:
        assert run.workspace_root == root / "sub", "where it really is"

    assert names(run.path, tmp_path) == ["model.py"]


@pytest.mark.parametrize("is_worktree", [False, True])
def test_the_workspace_is_what_git_has_around_the_working_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_worktree: bool
) -> None:
    (tmp_path / ".git").mkdir()  # Further away, so it does not count.
    if is_worktree:
        (root / ".git").write_text("gitdir: elsewhere")
    else:
        (root / ".git").mkdir()
    monkeypatch.chdir(root / "sub")

    with flightlog.init(snapshot_code=True) as run:
        assert run.workspace_root == root

    assert names(run.path, tmp_path) == ["sub/model.py", "train.py"]


def test_the_workspace_is_known_without_a_snapshot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with flightlog.init() as run:
        assert run.workspace_root == root
    monkeypatch.setenv("HOME", str(root))
    with flightlog.init(workspace_root="~/later") as run:
        assert run.workspace_root == root / "later"
    disabled = flightlog.init(
        mode="disabled", snapshot_code=True, workspace_root="none"
    )
    assert disabled.workspace_root == root / "none", "and nothing is looked for"

    assert [file.name for file in Api().run(run.path).files()] == []


def test_the_home_of_the_run_is_not_in_its_code(root: Path, tmp_path: Path) -> None:
    request, found = find_code(
        {"workspace_root": None, "home": root / "runs", "force_snapshot": False}
    )

    limits = Limits(count_max=200_000, size_max=500 * 1024 * 1024)
    never = (str(root / "runs"),)
    assert request == Request(str(root), ".rnignore", limits, never=never)
    assert [entry.path for entry in found.entries] == ["sub/model.py", "train.py"]


def test_a_look_through_the_code_keeps_no_other_thread_waiting(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_looking, go_on = threading.Event(), threading.Event()

    def slow(request: Request) -> Workspace:
        is_looking.set()
        assert go_on.wait(60)
        return survey(request)

    monkeypatch.setattr(_code, "survey", slow)

    def log_elsewhere() -> None:
        flightlog.init(reinit="create_new", snapshot_code=True).finish()

    thread = threading.Thread(target=log_elsewhere)
    thread.start()
    try:
        assert is_looking.wait(60)
        with flightlog.init(reinit="create_new") as run:
            run.log({"loss": 1})
    finally:
        go_on.set()
        thread.join()

    assert Api().run(run.path).summary["loss"] == 1


def test_equal_code_is_stored_once(root: Path) -> None:
    digests = set()
    for _ in range(2):
        with flightlog.init(snapshot_code=True) as run:
            pass
        os.utime(root / "train.py", (0, 0))
        digests.add(Api().run(run.path).file(CODE_FILE).md5)

    assert len(digests) == 1


def test_one_rank_takes_it_for_all(root: Path) -> None:
    run = flightlog.init(id="ranks", rank=1, snapshot_code=True)
    run.finish()

    assert [file.name for file in Api().run(run.path).files()] == []


def test_code_beyond_the_limits_is_refused_and_there_is_no_run(
    root: Path, count: int
) -> None:
    with (root / "huge").open("wb") as file:
        file.truncate(TOO_LARGE)

    with pytest.raises(ValueError, match="code snapshot too large: total bytes"):
        flightlog.init(snapshot_code=True)

    assert flightlog.run is None
    assert len(Api().runs()) == count
    forced = {"workspace_root": None, "home": None, "force_snapshot": True}
    assert find_code(forced)[1].size > TOO_LARGE


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            {"snapshot_format": "tar"},
            ValueError,
            "format currently only supports 'zip'",
        ),
        ({"workspace_root": "none"}, FileNotFoundError, "root does not exist"),
        ({"workspace_root": "train.py"}, NotADirectoryError, "root is no folder"),
        ({"workspace_root": 3}, TypeError, "workspace_root must be a path, not 3"),
        ({"workspace_root": ""}, ValueError, "workspace_root must name a f"),
        ({"workspace_root": "\ud800"}, ValueError, "workspace_root must name a f"),
        ({"snapshot_format": np.arange(2)}, ValueError, "only supports 'zip'"),
        ({"snapshot_code": 1}, TypeError, "snapshot_code must be a bool, not 1"),
        ({"force_snapshot": 1}, TypeError, "force_snapshot must be a bool, not 1"),
    ],
)
def test_a_wrong_argument_is_named_and_there_is_no_run(
    root: Path, count: int, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        flightlog.init(**{"snapshot_code": True, **given})

    assert flightlog.run is None
    assert len(Api().runs()) == count


def test_code_that_cannot_be_stored_harms_no_run(
    root: Path, own_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    home = own_lab.home
    (home / "blobs").mkdir(parents=True, mode=0o700)
    for number in range(256):
        (home / "blobs" / f"{number:02x}").touch()  # Where there must be folders.

    with flightlog.init(home=home, snapshot_code=True) as run:
        run.log({"loss": 1})

    read = Api(home=home).run(run.path)
    assert (read.state, read.summary["loss"], read.lost_count) == ("finished", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "the code snapshot" in line]) == 1
