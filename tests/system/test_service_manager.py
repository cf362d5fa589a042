"""The user's units under a real systemd, from install-service to uninstall-service.

It is a user's manager, which is no process 1: a machine without systemd has it, too.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.system.harness import (
    Trainer,
    assert_whole,
    environment,
    is_served_by,
    status,
    wait_until,
)

from flightlog_storage.home import Home

pytestmark = pytest.mark.once

SYSTEMD = Path("/lib/systemd/systemd")
ROWS = 12_000
UNITS = ("flightlog.socket", "flightlog.service")
# What a machine that systemd has booted has; the rest of /run is out of its sight.
PREPARED = """
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/systemd/system /run/systemd/unit-root /run/systemd/inaccessible/dir
touch /run/systemd/inaccessible/reg /run/systemd/inaccessible/sock
for group in "$@"; do echo $$ > "$group/cgroup.procs"; done
exec {systemd} --user
"""
CGROUPS = [Path("/sys/fs/cgroup", name) for name in ("", "systemd", "unified")]
# Without which none of the units runs.
SANDBOX = ("-pPrivateUsers=yes", "-pPrivateMounts=yes", "-pProtectSystem=strict")
# As an operator would with `systemctl --user edit`: sooner than after 30 s and 90 s.
IMPATIENT = "[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\nRestartSec=100ms\n"


class Manager:
    """A user's systemd, with a home that its service is to serve."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "home", runtime=folder)
        self.environ = environment(self.home) | {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def answers(self, *command: str) -> bool:
        """Whether a command that asks systemd succeeds."""
        done = subprocess.run(
            command, env=self.environ, capture_output=True, check=False, timeout=60
        )
        return done.returncode == 0

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", "--user", *arguments)

    def flightlogd(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "flightlogd", *arguments)

    @property
    def pid(self) -> int:
        return int(self.systemctl("show", "--value", "-p", "MainPID", UNITS[1]))

    def wait_for_another(self, pid: int) -> int:
        """Wait until another process serves the home, and return its id."""
        wait_until(
            lambda: self.pid not in (0, pid) and is_served_by(self.home, self.pid)
        )
        return self.pid


@contextmanager
def groups() -> Iterator[list[Path]]:
    """Give a cgroup to a manager, in each hierarchy that it would look for."""
    name = f"flightlog-test-{os.getpid()}"
    made: list[Path] = []
    try:
        for hierarchy in CGROUPS:
            if (hierarchy / "cgroup.procs").exists():
                make(hierarchy / name)
                made.append(hierarchy / name)
        yield made
    finally:
        for group in made:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)


def make(group: Path) -> None:
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")


@pytest.fixture
def manager() -> Iterator[Manager]:
    if not SYSTEMD.exists() or os.getuid() != 0:
        pytest.skip("systemd is not installed, or we are not root")
    with tempfile.TemporaryDirectory(prefix="fl") as name, groups() as made:
        manager = Manager(Path(name))
        process = subprocess.Popen(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-ec"),
                *(PREPARED.format(systemd=SYSTEMD), "sh", *map(str, made)),
            ],
            env=manager.environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: (
                    process.poll() is not None
                    or manager.answers("systemctl", "--user", "show")
                )
            )
            if process.poll() is not None:
                pytest.skip("systemd does not start here")
            if not manager.answers("systemd-run", "--user", "--wait", *SANDBOX, "true"):
                pytest.skip("a service can have no sandbox here")
            yield manager
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def test_a_service_is_installed_restarted_and_taken_away(manager: Manager) -> None:
    home = manager.home
    manager.flightlogd("install-service", "--user", "--home", str(home.root))
    edits = manager.folder / ".config/systemd/user/flightlog.service.d"
    edits.mkdir()
    (edits / "override.conf").write_text(IMPATIENT)
    manager.systemctl("daemon-reload")

    manager.systemctl("enable", "--now", *UNITS)

    first = manager.pid
    assert status(home)["pid"] == first
    trainer = Trainer(home, ROWS, pause_s=1e-3)
    trainer.wait_for(ROWS // 10)
    os.kill(first, signal.SIGKILL)
    second = manager.wait_for_another(first)
    os.kill(second, signal.SIGSTOP)  # The watchdog is to notice.
    third = manager.wait_for_another(second)
    manager.systemctl("restart", UNITS[1])
    fourth = manager.wait_for_another(third)
    manager.systemctl("stop", UNITS[1])
    assert trainer.process.poll() is None, "who logs has the socket start it"
    manager.wait_for_another(fourth)
    assert_whole(home, trainer, ROWS)

    manager.systemctl("disable", "--now", *UNITS)
    manager.flightlogd("uninstall-service", "--user")
    assert not [unit for unit in UNITS if (edits.parent / unit).exists()]


def test_a_service_runs_in_its_sandbox(manager: Manager) -> None:
    manager.flightlogd("install-service", "--user", "--home", str(manager.home.root))
    manager.systemctl("daemon-reload")

    manager.systemctl("start", UNITS[1])

    said = Path(f"/proc/{manager.pid}/status").read_text()
    found = dict(line.split(":\t", 1) for line in said.splitlines())
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert int(found["CapBnd"], 16) == 0
    for folder, is_writable in (
        (manager.home.root, True),
        (manager.home.socket.parent, True),
        (manager.folder, False),
        (Path(sys.prefix), False),
    ):
        seen = os.statvfs(f"/proc/{manager.pid}/root{folder}")
        assert bool(seen.f_flag & os.ST_RDONLY) is not is_writable
