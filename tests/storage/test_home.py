import os
import stat
from pathlib import Path

import pytest

from flightlog_storage.errors import HomeLocked, HomeUnusable
from flightlog_storage.home import (
    SOCKET_PATH_MAX,
    DaemonInfo,
    Home,
    HomeLock,
    choose_home,
    file_system_type,
)
from flightlog_storage.process import this_process


def test_home_is_chosen_by_argument_then_variable_then_default(tmp_path: Path) -> None:
    environ = {"FLIGHTLOG_HOME": str(tmp_path / "variable")}

    assert choose_home(tmp_path / "argument", environ).root == tmp_path / "argument"
    assert choose_home(None, environ).root == tmp_path / "variable"
    assert choose_home(None, {}).root.name == "flightlog"
    with pytest.raises(HomeUnusable, match="names no folder"):
        choose_home("", environ)  # As of a variable that is not set.


def test_a_home_whose_name_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeUnusable, match="no UTF-8"):
        choose_home(os.fsdecode(bytes(tmp_path) + b"/\xff"), {})
    assert choose_home(tmp_path / "é %\n", {}).root.name == "é %\n"


@pytest.mark.fault(5)
def test_names_of_folders_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def sync(fd: int) -> None:
        fsync(fd)
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))

    home = Home(tmp_path / "a" / "home")
    home.create()
    monkeypatch.setattr(os, "fsync", sync)

    home.sync()

    assert {home.root, tmp_path / "a", tmp_path} <= {*synced}


@pytest.mark.fault(46)
def test_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "home")
    home.root.mkdir(parents=True, mode=0o755)

    home.create()
    home.create()

    for folder in (home.root, home.log, home.histories, home.spool, home.quarantine):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_no_folder_that_is_made_above_is_open_to_others(tmp_path: Path) -> None:
    home = Home(tmp_path / "a/b/home", socket_override=tmp_path / "c/d/socket")
    before = os.umask(0)
    try:
        home.create()
        home.create_socket_folder()
    finally:
        os.umask(before)

    for name in ("a", "a/b", "a/b/home", "c", "c/d"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700, name


def test_folder_with_other_things_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    (folder / "thesis.tex").touch()

    with pytest.raises(HomeUnusable, match="holds other files"):
        Home(folder).create()

    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["worker.lock", "worker.job", "materializer.lock"])
def test_a_home_whose_empty_folders_a_copy_left_out_is_one(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "log").mkdir(mode=0o700)
    (tmp_path / name).touch()
    tmp_path.chmod(0o700)

    Home(tmp_path).create()

    assert (tmp_path / "histories").is_dir()


def test_what_a_user_adds_to_a_home_is_no_harm(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    (tmp_path / "notes.txt").touch()

    home.create()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_is_empty_is_closed(tmp_path: Path, mode: int) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(mode)

    Home(tmp_path / "home").create()

    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_a_home_that_others_could_write_is_left_as_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    home.root.chmod(0o770)

    with pytest.raises(HomeUnusable, match="others can write in it"):
        home.create()

    assert stat.S_IMODE(home.root.stat().st_mode) == 0o770


def test_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")

    with pytest.raises(HomeUnusable, match="cannot be made"):
        Home(tmp_path / "home").create()


def test_socket_lies_in_the_runtime_folder_that_is_ours(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}

    home = choose_home(tmp_path / "home", environ)

    assert home.socket.parent == tmp_path / "flightlog"
    assert choose_home(tmp_path / "other", environ).socket != home.socket


@pytest.mark.fault(23)
def test_runtime_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a folder away")
    os.chown(tmp_path, 65534, 65534)

    home = choose_home(tmp_path / "home", {"XDG_RUNTIME_DIR": str(tmp_path)})

    assert home.socket == tmp_path / "home" / "daemon.sock"


@pytest.mark.fault(23)
def test_link_of_somebody_else_is_no_socket_folder(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a link away")
    (tmp_path / "ours").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    os.lchown(tmp_path / "link", 65534, 65534)
    home = Home(tmp_path / "home", socket_override=tmp_path / "link" / "s.sock")

    with pytest.raises(HomeUnusable, match="belongs to uid 65534"):
        home.create_socket_folder()


def test_socket_of_a_long_home_has_a_short_path(tmp_path: Path) -> None:
    home = Home(tmp_path / ("x" * SOCKET_PATH_MAX))

    assert len(os.fsencode(home.socket)) <= SOCKET_PATH_MAX
    assert home.socket != Home(tmp_path / ("y" * SOCKET_PATH_MAX)).socket


def test_socket_named_with_too_long_a_path_is_refused(tmp_path: Path) -> None:
    home = choose_home(tmp_path, {"FLIGHTLOG_SOCKET": "/tmp/" + "x" * 110})

    with pytest.raises(HomeUnusable, match="at most 107 bytes"):
        home.create_socket_folder()


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lock = HomeLock(home)
    info = DaemonInfo(this_process(), "/some/socket", "1.0")

    with pytest.raises(HomeLocked):
        HomeLock(home)
    lock.write(info)

    assert home.daemon() == info
    lock.close()
    HomeLock(home).close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"process": 5}', b"\xff"])
def test_lock_file_that_says_nothing_names_no_daemon(
    tmp_path: Path, content: bytes
) -> None:
    home = Home(tmp_path)
    home.lock.write_bytes(content)

    assert home.daemon() is None


@pytest.mark.fault(59)
def test_file_systems_are_told_by_type() -> None:
    assert file_system_type(Path("/proc/self")) == "proc"
    assert file_system_type(Path("/proc/no/such/file")) == "proc"
