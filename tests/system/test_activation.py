"""The daemon handed its socket by systemd, and what it tells systemd."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.system.harness import (
    Trainer,
    assert_whole,
    environment,
    is_served_by,
    make_home,
    read_rows,
    run_state,
    start_daemon,
    status,
    wait_recorded,
    wait_until,
)

from flightlog_storage.home import Home
from flightlog_storage.runstate import State

ACTIVATE = shutil.which("systemd-socket-activate")
ROWS = 5000

needs_systemd = pytest.mark.skipif(
    ACTIVATE is None, reason="systemd-socket-activate is not installed"
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = make_home(tmp_path)
    home.create_socket_folder()
    return home


@pytest.fixture
def activator(home: Home) -> "Iterator[subprocess.Popen[bytes]]":
    """Listen on the home's socket as systemd does; the daemon starts when needed."""
    assert ACTIVATE is not None
    names = [f"--setenv={name}" for name in environment(home)]
    process = subprocess.Popen(
        [
            *(ACTIVATE, f"--listen={home.socket}", *names, sys.executable),
            *("-m", "flightlogd", "run", "--home", str(home.root)),
        ],
        env=environment(home),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert b"Listening on" in process.stderr.readline()
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


@contextmanager
def serving(
    home: Home, listening: socket.socket
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the daemon on a socket that was there before, and will be after it."""
    fd = listening.fileno()
    hand_over = f'LISTEN_PID=$$ exec "$@" 3<&{fd}'
    process = subprocess.Popen(
        [
            *("bash", "-c", hand_over, "bash", sys.executable),
            *("-m", "flightlogd", "run", "--home", str(home.root)),
        ],
        env=environment(home) | {"LISTEN_FDS": "1"},
        stderr=subprocess.DEVNULL,
        pass_fds=(fd,),
        start_new_session=True,
    )
    try:
        wait_until(partial(is_served_by, home, process.pid))
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@needs_systemd
def test_rows_logged_before_the_daemon_runs_arrive(
    home: Home, activator: "subprocess.Popen[bytes]"
) -> None:
    assert status(home) == {}, "nobody has connected yet"
    inode = os.stat(home.socket).st_ino

    trainer = Trainer(home, ROWS)

    assert trainer.wait() == 0
    wait_recorded(home)
    assert read_rows(home) == [(n, n) for n in range(ROWS)]
    state = run_state(home)
    assert state is not None
    assert state.state is State.FINISHED
    assert status(home)["pid"] == activator.pid, "the process handed the socket"
    assert os.stat(home.socket).st_ino == inode


@needs_systemd
def test_the_socket_handed_over_outlives_the_daemon(
    home: Home, activator: "subprocess.Popen[bytes]"
) -> None:
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(home.socket))
        wait_until(lambda: status(home))

        activator.terminate()

        assert activator.wait(20) == 0
        assert home.socket.exists()


@needs_systemd
def test_a_socket_handed_over_and_deleted_is_bound_anew(
    home: Home, activator: "subprocess.Popen[bytes]"
) -> None:
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(home.socket))
        wait_until(lambda: status(home))

        home.socket.unlink()

        wait_until(home.socket.exists)
        assert status(home)["pid"] == activator.pid
        assert os.stat(home.socket).st_mode & 0o777 == 0o600


def test_restarts_of_the_service_lose_nothing(home: Home) -> None:
    ends = [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home.socket))
        home.socket.chmod(0o600)
        listening.listen()
        trainer = Trainer(home, ROWS, pause_s=1e-3)
        for number, end in enumerate(ends, 1):
            with serving(home, listening) as service:
                trainer.wait_for(number * ROWS // 5)
                assert trainer.process.poll() is None, "there is something to lose"
                service.send_signal(end)
                assert service.wait(20) == (0 if end == signal.SIGTERM else -end)

        with serving(home, listening):
            assert_whole(home, trainer, ROWS)


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(
    home: Home, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(home.socket.parent / "notify")
        manager.bind(address)
        manager.settimeout(20)
        daemon = start_daemon(home, wait=False, environ={"NOTIFY_SOCKET": address})
        assert manager.recv(1000) == b"READY=1"
        assert status(home), "ready means that it answers"

        daemon.terminate()

        assert manager.recv(1000) == b"STOPPING=1"
        assert daemon.wait(20) == 0


def test_an_abstract_notify_socket_is_understood(home: Home) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"flightlog-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        manager.settimeout(20)
        daemon = start_daemon(home, wait=False, environ={"NOTIFY_SOCKET": f"@{name}"})

        assert manager.recv(1000) == b"READY=1"

        daemon.terminate()
        assert daemon.wait(20) == 0


def test_descriptors_meant_for_another_process_are_not_taken(home: Home) -> None:
    daemon = start_daemon(home, environ={"LISTEN_PID": "1", "LISTEN_FDS": "1"})

    assert status(home)["socket"] == str(home.socket)

    daemon.terminate()
    assert daemon.wait(20) == 0
    assert not home.socket.exists(), "it was its own"
