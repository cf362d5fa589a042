"""What systemd is told while the daemon works, hangs, and stops."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.harness import (
    Trainer,
    kill_daemon,
    make_home,
    start_daemon,
    status,
    wait_recorded,
    wait_until,
)

from flightlog_storage.home import Home

pytestmark = pytest.mark.once

WATCHDOG_S = 3.0
STRACE = shutil.which("strace")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(60)

    def hear(self) -> dict[str, str]:
        """Return the next message."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def hear_until(self, name: str, word: str = "") -> dict[str, str]:
        """Return the next message that has a variable with a word in it."""
        while True:
            message = self.hear()
            if word in message.get(name, "") and name in message:
                return message

    def forget(self) -> None:
        """Drop what was said until now."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(4096):
                pass
        except BlockingIOError:
            self.socket.settimeout(60)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = make_home(tmp_path)
    home.create_socket_folder()
    return home


@pytest.fixture
def manager(home: Home) -> Iterator[Manager]:
    manager = Manager(home.socket.parent / "notify")
    yield manager
    manager.socket.close()


@pytest.fixture
def daemon(home: Home, manager: Manager) -> "Iterator[subprocess.Popen[bytes]]":
    environ = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
    }
    process = start_daemon(home, wait=False, environ=environ)
    assert manager.hear() == {"READY": "1"}
    yield process
    kill_daemon(process)


def test_the_watchdog_is_fed_and_told_how_it_goes(
    home: Home, manager: Manager, daemon: "subprocess.Popen[bytes]"
) -> None:
    manager.hear_until("WATCHDOG")
    assert Trainer(home, 10).wait() == 0
    wait_recorded(home)
    told = status(home)["counters"]["events"]

    manager.hear_until("STATUS", f" {told} events")

    daemon.terminate()
    assert manager.hear_until("STOPPING") == {"STOPPING": "1"}
    assert daemon.wait(60) == 0


def test_one_that_is_stopped_is_silent_until_it_goes_on(
    manager: Manager, daemon: "subprocess.Popen[bytes]"
) -> None:
    manager.hear_until("WATCHDOG")
    os.kill(daemon.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, daemon.pid, os.WSTOPPED)
    manager.forget()

    manager.socket.settimeout(WATCHDOG_S)
    with pytest.raises(TimeoutError):
        manager.hear()

    os.kill(daemon.pid, signal.SIGCONT)
    manager.socket.settimeout(60)
    manager.hear_until("WATCHDOG")


def test_a_process_that_is_started_again_keeps_no_ping_back(
    home: Home, manager: Manager, daemon: "subprocess.Popen[bytes]"
) -> None:
    os.kill(wait_until(lambda: status(home)["materializer_pid"]), signal.SIGKILL)
    wait_until(lambda: status(home)["materializer_restarts"])
    manager.forget()

    manager.hear_until("WATCHDOG")


@needs_strace
def test_a_disk_that_does_not_answer_starves_the_watchdog(
    home: Home, manager: Manager, daemon: "subprocess.Popen[bytes]"
) -> None:
    assert STRACE is not None
    slow = f"fdatasync:delay_enter={int(4 * WATCHDOG_S * 1e6)}:when=1"
    tracer = subprocess.Popen(
        [
            *(STRACE, "-f", "-q", "-o", os.devnull, "-p", str(daemon.pid)),
            *("-e", "trace=fdatasync", "-e", f"inject={slow}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _is_traced(daemon.pid, tracer))
        trainer = Trainer(home, 10)

        message = manager.hear_until("STATUS", "no batch was done for")

        assert "WATCHDOG" not in message
        manager.hear_until("WATCHDOG")
        assert trainer.wait() == 0, "nothing was lost of it"
    finally:
        tracer.terminate()
        tracer.wait()


def _is_traced(pid: int, tracer: "subprocess.Popen[bytes]") -> bool:
    if tracer.poll() is not None:
        pytest.skip("ptrace is not allowed here")
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all("TracerPid:\t0" not in (t / "status").read_text() for t in tasks)
