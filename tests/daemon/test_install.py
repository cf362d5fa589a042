import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flightlogd.cli import main
from flightlogd.install import MARK

pytestmark = pytest.mark.once

UNITS = Path(__file__).parents[2] / "systemd"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to install below, for a user whose folders are in it, too."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    monkeypatch.setenv("FLIGHTLOG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "root"


def call(root: Path, name: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [name, "--root", str(root), *arguments])


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_users_units_name_this_interpreter_and_home(root: Path) -> None:
    done = call(root, "install-service", "--user")

    assert done.exit_code == 0, done.output
    found = files(root)
    assert list(found) == [
        "config/systemd/user/flightlog.service",
        "config/systemd/user/flightlog.socket",
    ]
    service, socket = found.values()
    home = root.parent / "home"
    program = f"{sys.executable} -P -m flightlogd"
    assert f"ExecStart={program} run --home {home}\n" in service
    assert f"ExecStartPre=-{program} stop --home {home}\n" in service
    assert f"ReadWritePaths={home} -%t/flightlog\n" in service
    assert "%h" not in service
    assert home.is_dir(), "or systemd could not make it writable"
    # Where writers look: a home of its own has a socket of its own.
    assert "ListenStream=%t/flightlog/daemon.sock" not in socket
    assert "systemctl --user daemon-reload\n" in done.output
    assert "loginctl enable-linger" in done.output


def test_the_machines_units_come_with_a_user_and_folders(root: Path) -> None:
    done = call(root, "install-service", "--home", "/srv/flights")

    assert done.exit_code == 0, done.output
    found = files(root)
    assert sorted(found) == [
        "etc/systemd/system/flightlog.service",
        "etc/systemd/system/flightlog.socket",
        "etc/sysusers.d/flightlog.conf",
        "etc/tmpfiles.d/flightlog.conf",
    ]
    assert all(text.startswith(MARK) for text in found.values())
    assert "d /srv/flights 0700" in found["etc/tmpfiles.d/flightlog.conf"]
    assert not any("/var/lib/flightlog" in text for text in found.values())
    assert "systemd-sysusers" in done.output


def test_a_dry_run_shows_all_and_writes_nothing(root: Path) -> None:
    done = call(root, "install-service", "--user", "--dry-run")

    assert done.exit_code == 0, done.output
    assert f"ExecStart={sys.executable} -P -m flightlogd run" in done.output
    assert files(root) == {}
    assert not (root.parent / "home").exists()


def test_installed_again_it_is_replaced(root: Path) -> None:
    call(root, "install-service", "--user")
    call(root, "install-service", "--user", "--home", str(root.parent / "other"))

    assert f"run --home {root.parent / 'other'}\n" in next(iter(files(root).values()))


@pytest.mark.parametrize("is_link", [False, True])
def test_a_foreign_file_stays_and_nothing_is_written(root: Path, is_link: bool) -> None:
    foreign = root / "config/systemd/user/flightlog.socket"
    foreign.parent.mkdir(parents=True)
    if is_link:
        foreign.symlink_to(root / "elsewhere")
    else:
        foreign.write_text("[Socket]\n")
    before = files(root)

    for name in ("install-service", "uninstall-service"):
        done = call(root, name, "--user")

        assert done.exit_code == (0 if is_link and name[0] == "u" else 1)
        assert is_link or str(foreign) in done.output
    assert files(root) == before


def test_a_foreign_file_may_hold_anything(root: Path) -> None:
    foreign = root / "config/systemd/user/flightlog.socket"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"\xff")

    for name in ("install-service", "uninstall-service"):
        assert "was not written by this" in call(root, name, "--user").output


def test_uninstalled_nothing_is_left(root: Path) -> None:
    call(root, "install-service", "--user")

    told = call(root, "uninstall-service", "--user", "--dry-run")
    assert len(files(root)) == 2
    done = call(root, "uninstall-service", "--user")

    assert done.exit_code == 0, done.output
    assert files(root) == {}
    assert told.output == done.output.replace("deleted", "would delete")
    assert call(root, "uninstall-service", "--user").exit_code == 0


def test_what_is_enabled_is_not_taken_away(root: Path) -> None:
    call(root, "install-service", "--user")
    wants = root / "config/systemd/user/sockets.target.wants"
    wants.mkdir()
    (wants / "flightlog.socket").symlink_to("../flightlog.socket")

    done = call(root, "uninstall-service", "--user")

    assert done.exit_code == 1
    assert "systemctl --user disable --now" in done.output
    assert (root / "config/systemd/user/flightlog.service").exists()


@pytest.mark.parametrize(
    "home", ["/a b", "/a%n", '/a"b', "/a$b", "/a\\b", "/a\nb", "/a/../b", "//a"]
)
def test_a_path_that_a_unit_would_misread_is_refused(root: Path, home: str) -> None:
    done = call(root, "install-service", "--home", home)

    assert done.exit_code == 1
    assert "plainer path" in done.output
    assert files(root) == {}


@pytest.mark.parametrize("home", ["a", "~/a", "-a"])
def test_a_unit_has_absolute_paths(
    root: Path, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir()
    monkeypatch.setenv("HOME", str(root))
    monkeypatch.chdir(root)

    done = call(root, "install-service", f"--home={home}")

    assert done.exit_code == 0, done.output
    (unit,) = (text for path, text in files(root).items() if path.endswith(".service"))
    assert f"\nReadWritePaths={root}/{home[-1] if home != '-a' else '-a'} " in unit


@pytest.mark.once
@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
def test_what_is_written_systemd_takes(root: Path) -> None:
    call(root, "install-service", "--user")
    units = sorted((root / "config/systemd/user").iterdir())

    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", *units],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )

    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "flightlog" in line] == []


def test_what_is_replaced_is_in_what_is_shipped() -> None:
    for kind, program, home in (
        ("user", "%h/.local/bin/flightlogd", "%h/.local/share/flightlog"),
        ("system", "/opt/flightlog/bin/flightlogd", "/var/lib/flightlog"),
    ):
        service = (UNITS / kind / "flightlog.service").read_text()
        assert f"ExecStart={program} run --home {home}\n" in service
    socket = (UNITS / "user/flightlog.socket").read_text()
    assert "ListenStream=%t/flightlog/daemon.sock\n" in socket
