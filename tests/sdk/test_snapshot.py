"""`flightlog.snapshot_workspace`, as its users know it, without the flaws they know."""

import inspect
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sdk.conftest import Lab

import flightlog
from flightlog import snapshot_workspace


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLIGHTLOG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    (root / "sub").mkdir(parents=True)
    (root / "train.py").write_text("print()")
    (root / "sub/model.py").write_text("x = 1")
    return root


def names(path: Path | str) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_signature_is_the_one_users_know() -> None:
    parameters = inspect.signature(snapshot_workspace).parameters

    assert list(parameters)[:2] == ["root", "out_zip"]
    assert {name: each.default for name, each in list(parameters.items())[2:]} == {
        "ignore_file": ".rnignore",
        "extra_excludes": None,
        "max_total_bytes": 500 * 1024 * 1024,
        "max_files": 200_000,
        "force_snapshot": False,
    }
    kinds = [each.kind for each in parameters.values()]
    assert (
        kinds
        == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2
        + [inspect.Parameter.KEYWORD_ONLY] * 5
    )


def test_the_result_says_what_is_in_the_archive(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "new/deep/x.zip"

    result = snapshot_workspace(root, target)

    assert result == {
        "workspace_root": str(root),
        "archive_path": str(target),
        "format": "zip",
        "file_count": 2,
        "total_bytes": 12,
        "skipped": [],
    }
    assert names(target) == ["sub/model.py", "train.py"]


def test_paths_may_be_str_relative_and_links(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("work")
    monkeypatch.chdir(tmp_path)

    result = snapshot_workspace("link", "x.zip")

    assert result["workspace_root"] == str(root)
    assert result["archive_path"] == str(tmp_path / "x.zip")


def test_rules_of_all_three_kinds_are_heard_and_no_file_is_made(
    root: Path, tmp_path: Path
) -> None:
    for name in ("a.log", "b.log", "c.tmp", "d.tmp"):
        (root / name).write_text(name)
    (root / ".gitignore").write_text("*.log\n")
    (root / ".rnignore").write_text("!b.log\n*.tmp\n")

    snapshot_workspace(root, tmp_path / "x.zip", extra_excludes=["sub/", "!d.tmp"])

    expected = [".gitignore", ".rnignore", "b.log", "d.tmp", "train.py"]
    assert names(tmp_path / "x.zip") == expected
    snapshot_workspace(root / "sub", tmp_path / "y.zip")
    assert os.listdir(root / "sub") == ["model.py"]


def test_another_ignore_file_is_heard_in_place_of_the_usual_one(
    root: Path, tmp_path: Path
) -> None:
    (root / "sub/.rnignore").write_text("model.py\n")
    (root / ".other").write_text("train.py\n")

    snapshot_workspace(root, tmp_path / "x.zip", ignore_file=".other")

    assert names(tmp_path / "x.zip") == [".other", "sub/.rnignore", "sub/model.py"]


def test_an_exclude_that_is_a_str_is_one_rule(root: Path, tmp_path: Path) -> None:
    snapshot_workspace(root, tmp_path / "x.zip", extra_excludes="sub")  # type: ignore[arg-type]  # As users do.

    assert names(tmp_path / "x.zip") == ["train.py"]


def test_what_is_skipped_is_reported_in_the_result_and_in_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        os.mkfifo(root / f"pipe{number}")

    result = snapshot_workspace(root, tmp_path / "x.zip")

    assert result["file_count"] == 2
    assert len(result["skipped"]) == 5
    assert {"path": "pipe0", "why": "is a FIFO"} in result["skipped"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "is without 5 of its files: pipe" in lines[0]


# --- limits ---


def test_as_much_as_the_limits_allow_is_allowed(root: Path, tmp_path: Path) -> None:
    result = snapshot_workspace(
        root, tmp_path / "x.zip", max_files=2, max_total_bytes=12
    )

    assert result["file_count"] == 2


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_files": 1}, "code snapshot too large: too many files"),
        ({"max_total_bytes": 11}, "code snapshot too large: total bytes exceeded"),
        ({"max_files": 0, "max_total_bytes": 0}, "too many files"),
    ],
)
def test_more_is_refused_and_nothing_written(
    root: Path, tmp_path: Path, limits: dict[str, int], words: str
) -> None:
    (tmp_path / "x.zip").write_text("before")

    with pytest.raises(ValueError, match=words):
        snapshot_workspace(root, tmp_path / "x.zip", **limits)  # type: ignore[arg-type]  # mypy takes it for all.
    with pytest.raises(ValueError, match=words):
        snapshot_workspace(root, tmp_path / "new/x.zip", **limits)  # type: ignore[arg-type]  # As above.

    assert (tmp_path / "x.zip").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["work", "x.zip"]
    forced = snapshot_workspace(
        root,
        tmp_path / "x.zip",
        force_snapshot=True,
        **limits,  # type: ignore[arg-type]  # As above.
    )
    assert forced["file_count"] == 2


# --- wrong arguments ---


def test_a_root_that_is_not_there_or_no_folder_is_an_error(
    root: Path, tmp_path: Path
) -> None:
    (root / "nowhere").symlink_to("none")

    for missing in (root / "none", root / "nowhere"):
        with pytest.raises(FileNotFoundError, match=f"root does not exist.*{missing}"):
            snapshot_workspace(missing, tmp_path / "x.zip")
    with pytest.raises(NotADirectoryError, match=r"root is no folder.*train\.py"):
        snapshot_workspace(root / "train.py", tmp_path / "x.zip")
    with pytest.raises(IsADirectoryError, match="out_zip is a folder"):
        snapshot_workspace(root, tmp_path)
    with pytest.raises((NotADirectoryError, FileExistsError)):
        snapshot_workspace(root, root / "train.py/x.zip")

    assert os.listdir(tmp_path) == ["work"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"root": 3}, TypeError, "root must be a path, not 3"),
        ({"root": None}, TypeError, "root must be a path, not None"),
        ({"root": ""}, ValueError, "root must name a file or folder, not ''"),
        ({"root": "a\0b"}, ValueError, "root must name"),
        ({"out_zip": None}, TypeError, "out_zip must be a path, not None"),
        ({"out_zip": ""}, ValueError, "out_zip must name a file or folder, not ''"),
        ({"root": "\ud800"}, ValueError, "root must name a file or folder"),
        ({"out_zip": "\ud800"}, ValueError, "out_zip must name a file or folder"),
        ({"ignore_file": None}, TypeError, "ignore_file must be a str, not None"),
        ({"ignore_file": ""}, ValueError, "ignore_file must be the name of a file"),
        ({"ignore_file": "a/b"}, ValueError, "ignore_file .* not 'a/b'"),
        ({"ignore_file": ".."}, ValueError, r"ignore_file .* not '\.\.'"),
        ({"extra_excludes": 3}, TypeError, "extra_excludes must be a list of str"),
        ({"extra_excludes": ["a", 3]}, TypeError, "list of str; 3 is none"),
        ({"extra_excludes": b""}, TypeError, "extra_excludes must be a list of str"),
        ({"extra_excludes": ["\ud800"]}, ValueError, "extra_excludes: .* Unicode"),
        ({"max_files": "3"}, TypeError, "max_files must be an int, not '3'"),
        ({"max_files": 1.5}, TypeError, "max_files must be an int, not 1.5"),
        ({"max_files": True}, TypeError, "max_files must be an int, not True"),
        ({"max_files": np.arange(2)}, TypeError, "max_files must be an int"),
        ({"max_files": 2**70}, ValueError, "max_files must be from 0 to"),
        ({"max_files": None}, TypeError, "max_files must be an int, not None"),
        ({"max_files": -1}, ValueError, "max_files must be from 0 to .*, not -1"),
        ({"max_total_bytes": -5}, ValueError, "max_total_bytes must be from 0 to"),
        ({"max_total_bytes": 1e9}, TypeError, "max_total_bytes must be an int"),
        ({"force_snapshot": "yes"}, TypeError, "force_snapshot must be a bool"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(
    root: Path,
    tmp_path: Path,
    given: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    arguments = {"root": root, "out_zip": tmp_path / "x.zip", **given}

    with pytest.raises(error, match=words):
        snapshot_workspace(**arguments)

    assert os.listdir(tmp_path) == ["work"]


# --- what others do wrong ---


def test_an_archive_in_its_own_root_does_not_grow(root: Path) -> None:
    results = [snapshot_workspace(root, root / "x.zip") for _ in range(3)]

    assert [each["file_count"] for each in results] == [2, 2, 2]
    assert names(root / "x.zip") == ["sub/model.py", "train.py"]


def test_an_archive_in_its_own_root_by_another_way_does_not_grow(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("work")
    snapshot_workspace(root, tmp_path / "link/sub/x.zip")

    snapshot_workspace(tmp_path / "link", root / "sub/../sub/x.zip")

    assert names(root / "sub/x.zip") == ["sub/model.py", "train.py"]


def test_the_home_is_out_also_one_that_is_not_made_yet(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIGHTLOG_HOME", str(root / "runs"))
    (root / "runs").mkdir()
    (root / "runs/half").write_text("made")

    snapshot_workspace(root, tmp_path / "x.zip", extra_excludes=["!runs"])

    assert names(tmp_path / "x.zip") == ["sub/model.py", "train.py"]


def test_a_home_with_runs_is_out(tmp_path: Path, own_lab: Lab) -> None:
    own_lab.run_script("""
        import flightlog
        run = flightlog.init(project="p")
        run.log({"loss": 1})
        run.finish()
    """)
    (tmp_path / "a.py").write_text("a")

    result = snapshot_workspace(tmp_path, tmp_path / "x.zip")

    assert names(result["archive_path"]) == ["a.py"]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder for all users; pytest's own are closed again by the next pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_file_that_may_not_be_read_is_skipped(
    root: Path, shared_folder: Path
) -> None:
    target = shared_folder / "x.zip"
    root = root.rename(shared_folder / "work")
    (root / "secret").write_text("x")
    (root / "secret").chmod(0)
    (root / "closed").mkdir(mode=0)
    code = """
import json, os, sys
import flightlog
if os.getuid() == 0:
    flightlog.snapshot_workspace  # Loaded while the modules can be read.
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps(flightlog.snapshot_workspace(sys.argv[1], sys.argv[2])))
"""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FLIGHTLOG_HOME": str(shared_folder / "home"),
    }

    done = subprocess.run(
        [sys.executable, "-c", code, root, target],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )

    result = json.loads(done.stdout)
    assert (result["file_count"], result["total_bytes"]) == (2, 12)
    assert sorted(each["path"] for each in result["skipped"]) == ["closed", "secret"]
    assert "Permission denied" in done.stderr
    assert names(target) == ["sub/model.py", "train.py"]


def test_it_needs_no_run_and_leaves_no_home(
    root: Path, tmp_path: Path, own_home: Path
) -> None:
    flightlog.snapshot_workspace(root, tmp_path / "x.zip")

    assert flightlog.run is None
    assert not own_home.exists()
