"""The shipped systemd units, checked by systemd itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.simulation.recorded import can_trace
from tests.system.harness import (
    Trainer,
    folded_offset,
    kill_all,
    make_home,
    start_daemon,
    status,
    wait_until,
)

pytestmark = pytest.mark.once

UNITS = Path(__file__).parents[2] / "systemd"
SCOPES = ("user", "system")
EXPOSURE_MAX = 15  # Tenths, of 100.
VERIFY_TIMEOUT_S = 60

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


needs_root = pytest.mark.skipif(
    shutil.which("systemd-tmpfiles") is None or os.getuid() != 0,
    reason="systemd-tmpfiles is not installed, or we are not root",
)


@pytest.fixture(params=SCOPES)
def scope(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """One of both, its units in `tmp_path` with a program that exists."""
    scope: str = request.param
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = tmp_path / "flightlogd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for source in (UNITS / scope).iterdir():
        text = re.sub(r"(?m)^(Exec\w+=-?)\S+", rf"\g<1>{program}", source.read_text())
        (tmp_path / source.name).write_text(text)
    return scope


def analyze(scope: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", f"--{scope}", "--man=no", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=VERIFY_TIMEOUT_S,
    )


@needs_systemd
def test_units_are_clean(scope: str, tmp_path: Path) -> None:
    done = analyze(scope, "verify", *sorted(tmp_path.glob("flightlog.*")))

    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@needs_systemd
def test_little_is_exposed(scope: str, tmp_path: Path) -> None:
    unit = tmp_path / "flightlog.service"

    done = analyze(
        scope, "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit
    )

    assert done.returncode == 0, done.stdout


def _system_calls(group: str) -> set[str]:
    """Return the system calls of one of systemd's groups."""
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", group],
        check=True,
        capture_output=True,
        text=True,
        timeout=VERIFY_TIMEOUT_S,
    ).stdout
    found: set[str] = set()
    for line in map(str.strip, listed.splitlines()[1:]):
        if line.startswith("@"):
            found |= _system_calls(line)
        elif line and not line.startswith("#"):
            found.add(line)
    return found


@needs_systemd
@pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace")
@pytest.mark.parametrize("scope", SCOPES)
def test_the_daemon_does_without_what_it_is_refused(scope: str, tmp_path: Path) -> None:
    service = (UNITS / scope / "flightlog.service").read_text()
    refused: set[str] = set()
    for line in re.findall(r"(?m)^SystemCallFilter=(.*)$", service):
        if line.startswith("~"):
            for group in line[1:].split():
                refused |= _system_calls(group)
        elif not line.startswith("@"):
            refused -= set(line.split())
    home = make_home(tmp_path)
    names = ",".join(f"?{name}" for name in sorted(refused))
    daemon = start_daemon(
        home,
        wait=False,
        prefix=(
            *("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={names}"),
            *("-e", f"inject={names}:error=EPERM"),
        ),
    )
    try:
        wait_until(lambda: status(home))
        assert Trainer(home, 10).wait() == 0
        wait_until(lambda: folded_offset(home) > 10)
        answer = status(home)
        assert answer["materializer_restarts"] == answer["worker_restarts"] == 0
    finally:
        kill_all(home)
        daemon.wait()


@needs_root
def test_the_user_and_the_folders_are_made(tmp_path: Path) -> None:
    for kind in ("sysusers", "tmpfiles"):
        folder = tmp_path / f"etc/{kind}.d"
        folder.mkdir(parents=True)
        shutil.copy(UNITS / f"{kind}.d/flightlog.conf", folder)

    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        subprocess.run(
            [*command, f"--root={tmp_path}", "flightlog.conf"],
            check=True,
            timeout=VERIFY_TIMEOUT_S,
        )

    name, _, uid, *_ = (tmp_path / "etc/passwd").read_text().split(":")
    assert name == "flightlog"
    for path in ("run/flightlog", "var/lib/flightlog"):
        made = os.stat(tmp_path / path)
        assert (made.st_mode & 0o777, made.st_uid) == (0o700, int(uid))


@pytest.mark.parametrize("name", SCOPES)
def test_what_trainers_have_is_left_to_them(name: str) -> None:
    """The score would rather have both."""
    service = (UNITS / name / "flightlog.service").read_text()

    assert "PrivateTmp=" not in service, "inputs lie in /tmp, too"
    assert "RemoveIPC=" not in service, "trainers have shared memory"


@pytest.mark.parametrize("scope", SCOPES)
def test_program_is_an_absolute_path(scope: str) -> None:
    service = (UNITS / scope / "flightlog.service").read_text()

    assert re.search(r"(?m)^ExecStart=(/|%h/)\S*flightlogd run( |$)", service)
    assert re.search(r"(?m)^Type=notify$", service)
