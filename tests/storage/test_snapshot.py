"""Archives: what is in them, when files change meanwhile, and when all ends early."""

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from tests.system.harness import wait_until

from flightlog_storage import snapshot as module
from flightlog_storage.copies import Staged
from flightlog_storage.snapshot import READ_SIZE_MAX, write_snapshot
from flightlog_storage.workspace import Limits, Request, Workspace, survey

NO_LIMITS = Limits(None, None)
LARGE = READ_SIZE_MAX + 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_text("a")
    (root / "sub/b.py").write_text("b")
    (root / "large").write_bytes(os.urandom(LARGE))
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out/x.zip"


def request_of(root: Path, limits: Limits = NO_LIMITS) -> Request:
    return Request(os.path.realpath(root), ".rnignore", limits)


def snapshot(root: Path, target: Path) -> Workspace:
    request = request_of(root)
    return write_snapshot(request, survey(request), target)


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_archive_has_the_bytes_of_the_files(root: Path, target: Path) -> None:
    stored = snapshot(root, target)

    expected = {"a.py": b"a", "large": (root / "large").read_bytes(), "sub/b.py": b"b"}
    assert content(target) == expected
    assert [entry.path for entry in stored.entries] == list(expected)
    assert stored.size == LARGE + 2
    assert os.listdir(target.parent) == ["x.zip"]


def test_files_are_compressed_and_folders_are_no_entries(
    root: Path, target: Path
) -> None:
    (root / "empty").mkdir()
    (root / "zeros").write_bytes(bytes(100_000))

    snapshot(root, target)

    with zipfile.ZipFile(target) as archive:
        assert {each.compress_type for each in archive.filelist} == {8}, "DEFLATE"
        assert archive.namelist() == ["a.py", "large", "sub/b.py", "zeros"]
        assert archive.getinfo("zeros").compress_size < 1000


def test_equal_content_makes_equal_archives(
    root: Path, target: Path, tmp_path: Path
) -> None:
    (root / "run.sh").write_text("true")
    (root / "run.sh").chmod(0o700)
    (root / "link").symlink_to("a.py")
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, symlinks=True)
    for number, path in enumerate(sorted(copy.rglob("*"), reverse=True)):
        os.utime(path, (number, number), follow_symlinks=False)
    (copy / "a.py").chmod(0o600)
    (copy / "run.sh").chmod(0o755)

    snapshot(root, target)
    snapshot(copy, tmp_path / "copy.zip")

    assert target.read_bytes() == (tmp_path / "copy.zip").read_bytes()
    with zipfile.ZipFile(target) as archive:
        assert {each.date_time[0] for each in archive.filelist} == {1980}, "not now"


def test_what_is_executable_stays_so(root: Path, target: Path) -> None:
    (root / "run.sh").write_text("true")
    (root / "run.sh").chmod(0o711)

    snapshot(root, target)

    with zipfile.ZipFile(target) as archive:
        modes = {each.filename: each.external_attr >> 16 for each in archive.filelist}
    assert modes["run.sh"] == stat.S_IFREG | 0o755
    assert modes["a.py"] == stat.S_IFREG | 0o644


def test_links_are_stored_as_links(root: Path, target: Path) -> None:
    for name, to in (("file", "a.py"), ("away", "/etc"), ("up", "../.."), ("no", "x")):
        (root / name).symlink_to(to)
    os.symlink(b"\xff", os.fsencode(root / "bytes"))

    snapshot(root, target)

    with zipfile.ZipFile(target) as archive:
        links = {
            each.filename: archive.read(each)
            for each in archive.filelist
            if stat.S_ISLNK(each.external_attr >> 16)
        }
    assert links == {
        "away": b"/etc",
        "bytes": b"\xff",
        "file": b"a.py",
        "no": b"x",
        "up": b"../..",
    }


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip_makes_the_same_tree(root: Path, target: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to("sub/b.py")
    (root / "é.py").write_text("é")
    snapshot(root, target)

    subprocess.run(["unzip", "-q", target, "-d", tmp_path / "restored"], check=True)

    subprocess.run(
        ["diff", "-r", "--no-dereference", root, tmp_path / "restored"], check=True
    )
    assert (tmp_path / "restored/link").is_symlink()


def test_times_before_zip_archives_are_fine(root: Path, target: Path) -> None:
    os.utime(root / "a.py", (0, 0))

    assert snapshot(root, target).skipped == []


# --- files that change ---


def test_what_is_no_longer_as_it_was_found_is_skipped(root: Path, target: Path) -> None:
    for name in ("gone", "pipe", "link", "was_link", "folder"):
        (root / name).write_text("x")
    (root / "was_link").unlink()
    (root / "was_link").symlink_to("a.py")
    request = request_of(root)
    found = survey(request)
    for name in ("gone", "pipe", "link", "was_link", "folder"):
        (root / name).unlink()
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("a.py")
    (root / "was_link").write_text("x")
    (root / "folder").mkdir()

    stored = write_snapshot(request, found, target)

    assert list(content(target)) == ["a.py", "large", "sub/b.py"]
    why = dict(stored.skipped)
    assert why.keys() == {"gone", "pipe", "link", "was_link", "folder"}
    assert why["gone"] == "No such file or directory"
    assert why["pipe"] == "is not a regular file"


@pytest.mark.fault(42)
def test_what_is_behind_a_link_in_a_folders_place_stays_out(
    root: Path, target: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret/deep"
    secret.mkdir(parents=True)
    (secret / "b.py").write_text("secret")
    (secret / "c").symlink_to("secret")
    (root / "sub/deep").mkdir()
    (root / "sub/deep/b.py").write_text("b")
    (root / "sub/deep/c").symlink_to("b.py")
    request = request_of(root)
    found = survey(request)
    shutil.rmtree(root / "sub")
    (root / "sub").symlink_to(tmp_path / "secret")

    stored = write_snapshot(request, found, target)

    assert list(content(target)) == ["a.py", "large"]
    assert {path for path, _ in stored.skipped} == {
        "sub/b.py",
        "sub/deep/b.py",
        "sub/deep/c",
    }


def test_a_file_that_changed_since_is_in_as_it_is_now(root: Path, target: Path) -> None:
    request = request_of(root)
    found = survey(request)
    (root / "a.py").write_text("longer")

    stored = write_snapshot(request, found, target)

    assert content(target)["a.py"] == b"longer"
    assert stored.size == LARGE + 1 + 6


@pytest.mark.fault(43)
@pytest.mark.parametrize("size", [1000, 16 << 20])
def test_a_file_that_never_holds_still_is_in_whole_or_not_at_all(
    root: Path, target: Path, size: int
) -> None:
    path = root / "busy"
    path.write_bytes(b"a" * size)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for letter in (b"a", b"b"):
                with path.open("r+b", buffering=0) as file:
                    file.write(letter * size)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        stored = snapshot(root, target)
    finally:
        stop.set()
        writer.join()

    found = content(target)
    assert list(found) == [entry.path for entry in stored.entries]
    if "busy" in found:
        assert len(found["busy"]) == size
    else:
        assert dict(stored.skipped)["busy"] == "changed each time while it was read"


@pytest.mark.parametrize("name", ["a.py", "large"])
def test_what_grows_beyond_the_limits_meanwhile_is_refused(
    root: Path, target: Path, name: str
) -> None:
    target.write_text("before")
    request = request_of(root, Limits(3, LARGE + 2))
    found = survey(request)
    with (root / name).open("ab") as file:
        file.write(b"!")

    with pytest.raises(ValueError, match="total bytes exceeded"):
        write_snapshot(request, found, target)

    assert target.read_text() == "before"
    assert os.listdir(target.parent) == ["x.zip"]


# --- ends ---

SNAPSHOT = """
import sys
from pathlib import Path
from flightlog_storage.snapshot import write_snapshot
from flightlog_storage.workspace import Limits, Request, survey
request = Request(sys.argv[1], ".rnignore", Limits(None, None))
write_snapshot(request, survey(request), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("is_there", [False, True])
def test_a_kill_leaves_what_was_there(root: Path, target: Path, is_there: bool) -> None:
    for number in range(4):
        (root / f"huge{number}").write_bytes(os.urandom(16 << 20))
    if is_there:
        target.write_text("before")
    program = [sys.executable, "-c", SNAPSHOT, os.path.realpath(root), str(target)]
    process = subprocess.Popen(program)
    wait_until(lambda: [*target.parent.glob(".flightlog-scratch-*/whole.zip")])
    process.kill()
    assert process.wait() == -signal.SIGKILL
    left = os.listdir(target.parent)

    if is_there:
        assert target.read_text() == "before"
    assert len(left) == 1 + is_there
    for number in range(4):
        (root / f"huge{number}").unlink()
    snapshot(root, target)
    assert os.listdir(target.parent) == ["x.zip"]


def test_ctrl_c_leaves_what_was_there(
    root: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.write_text("before")

    def interrupted(*_: object, **__: object) -> Staged:
        assert list(target.parent.glob(".flightlog-scratch-*/*"))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "stage_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        snapshot(root, target)

    assert target.read_text() == "before"
    assert os.listdir(target.parent) == ["x.zip"]


@pytest.mark.parametrize(
    ("room", "more"),
    [(READ_SIZE_MAX // 2, 0), (LARGE + 4096, READ_SIZE_MAX)],
    ids=["for the copy of a large file", "for the archive"],
)
def test_a_disk_that_has_no_room_is_an_error_and_nothing_is_left(
    root: Path, target: Path, room: int, more: int
) -> None:
    (root / "more").write_bytes(os.urandom(more))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            snapshot(root, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert caught.value.errno == errno.EFBIG
    assert os.listdir(target.parent) == []
