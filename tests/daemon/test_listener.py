import os
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from flightlog_storage.errors import HomeUnusable
from flightlogd.listener import Listener


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def listener(path: Path) -> Iterator[Listener]:
    listener = Listener(path)
    yield listener
    listener.close()


@pytest.fixture
def connect(path: Path) -> "Iterator[Callable[[], zmq.Socket[bytes]]]":
    with zmq.Context() as context:
        sockets = []

        def make() -> "zmq.Socket[bytes]":
            made: zmq.Socket[bytes] = context.socket(zmq.DEALER)
            made.setsockopt(zmq.LINGER, 0)
            made.connect(f"ipc://{path}")
            sockets.append(made)
            return made

        yield make
        for made in sockets:
            made.close()


def answers(listener: Listener, client: "zmq.Socket[bytes]") -> bool:
    client.send(b"ping")
    if not listener.socket.poll(2000):
        return False
    peer, _ = listener.socket.recv_multipart()
    listener.socket.send_multipart([peer, b"pong"])
    return bool(client.poll(2000)) and client.recv() == b"pong"


@pytest.mark.fault(46)
def test_only_its_owner_may_connect(listener: Listener, path: Path) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_client_is_heard_and_answered(
    listener: Listener, connect: "Callable[[], zmq.Socket[bytes]]"
) -> None:
    assert answers(listener, connect())


@pytest.mark.fault(22)
def test_a_dead_socket_file_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    Listener(path).close()

    assert not path.exists()


@pytest.mark.fault(60)
def test_a_lost_socket_file_is_made_anew(
    listener: Listener, path: Path, connect: "Callable[[], zmq.Socket[bytes]]"
) -> None:
    early = connect()
    assert answers(listener, early)
    assert listener.guard() is None
    path.unlink()

    assert listener.guard() == "the socket file was gone: bound anew"

    assert answers(listener, early)
    assert answers(listener, connect())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.fault(23)
def test_a_socket_file_of_somebody_else_is_not_deleted(path: Path) -> None:
    listener = Listener(path)
    path.unlink()
    path.write_text("another's")

    listener.close()

    assert path.read_text() == "another's"


@pytest.mark.fault(37)
def test_accepting_stops_before_descriptors_run_out(
    listener: Listener,
    connect: "Callable[[], zmq.Socket[bytes]]",
) -> None:
    client = connect()
    assert answers(listener, client)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(used / 0.7) - 2, hard))
        assert "no new connections" in (listener.guard() or "")
        assert not listener.is_accepting
        assert answers(listener, client), "who is connected is served"
        assert listener.guard() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert listener.guard() == "connections are accepted again"
    assert answers(listener, connect())


def test_a_path_lost_again_and_again_costs_no_descriptors(
    listener: Listener,
    path: Path,
    connect: "Callable[[], zmq.Socket[bytes]]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flightlogd.listener.ENDPOINTS_MAX", 3)
    counts = []
    for _ in range(12):
        path.unlink()
        assert listener.guard()
        assert answers(listener, connect())
        counts.append(len(os.listdir("/proc/self/fd")))

    connections = 2 * len(counts)
    assert max(counts) - min(counts) <= connections + 3


def test_a_socket_handed_over_is_listened_on_and_left(
    path: Path, connect: "Callable[[], zmq.Socket[bytes]]"
) -> None:
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        handed.listen()
        client = connect()
        client.send(b"early")  # Before anybody serves it.

        listener = Listener(Path("/nowhere"), os.dup(handed.fileno()))

        assert listener.path == path
        assert listener.socket.poll(2000)
        assert listener.socket.recv_multipart()[1:] == [b"early"]
        listener.close()
        assert path.exists()


@pytest.mark.fault(23, 46)
def test_a_socket_handed_over_that_others_may_open_is_refused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        handed.listen()
        path.chmod(0o666)

        with pytest.raises(HomeUnusable, match="others can write in it"):
            Listener(Path("/nowhere"), os.dup(handed.fileno()))


def test_it_is_known_who_speaks(
    listener: Listener, connect: "Callable[[], zmq.Socket[bytes]]"
) -> None:
    connect().send_multipart([b"header", b"payload"])
    assert listener.socket.poll(2000)

    _, uid, parts = listener.receive_nowait()

    assert (uid, parts) == (os.getuid(), [b"header", b"payload"])
    with pytest.raises(zmq.Again):
        listener.receive_nowait()
