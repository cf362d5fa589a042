"""The daemon as a process: alone on its home, stopped, killed, attacked, starved."""

import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import msgpack
import pytest
import zmq
from tests.effort import tries
from tests.system.harness import (
    KEY,
    Trainer,
    daemon,
    enlarge,
    flightlogd,
    folded_offset,
    frames_in_log,
    is_ended,
    is_folded,
    is_served_by,
    kill_daemon,
    make_home,
    read_rows,
    run_state,
    small_disk,
    start_daemon,
    status,
    stop_daemon,
    wait_recorded,
    wait_until,
)

from flightlog_storage.codec import RunKey, encode_definitions, encode_event, encode_run
from flightlog_storage.database import Database
from flightlog_storage.event import RunStarted, WriterId
from flightlog_storage.frame import FLAG_GAP, PAYLOAD_SIZE_MAX, pack_frame
from flightlog_storage.home import Home, HomeLock
from flightlog_storage.protocol import (
    TOKEN_SIZE,
    Ack,
    Hello,
    Refused,
    Reply,
    Rewind,
    Welcome,
    decode_reply,
    encode,
    writer_of,
)
from flightlog_storage.runstate import State

REPLY_TIMEOUT_S = 10.0
MEMORY_MAX = 400 << 20  # Of a recorder under attack.
BOMBED_MEMORY_MAX = 220 << 20  # What events may cost a materializer, at most.
WRITERS = 1000


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = make_home(tmp_path)
    yield home
    info = home.daemon()
    if info is not None and info.process.is_alive():
        os.killpg(os.getpgid(info.process.pid), signal.SIGKILL)


class Client:
    """A connection to the recorder that says whatever it is told to."""

    def __init__(
        self,
        home: Home,
        run: str = KEY[2],
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
    ) -> None:
        self.token = os.urandom(TOKEN_SIZE)
        self.writer = writer_of(self.token)
        self.run = RunKey(*KEY[:2], run)
        self.sequence = 1
        self._context = context or zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"ipc://{home.socket}")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(linger=0)

    def ask(self, *parts: bytes) -> Reply:
        self.socket.send_multipart(parts)
        return self.hear()

    def hear(self) -> Reply:
        assert self.socket.poll(int(REPLY_TIMEOUT_S * 1000)), "no answer"
        return decode_reply(self.socket.recv())

    def hello(self) -> Reply:
        return self.ask(encode(Hello(self.writer, self.token)))

    def start(self) -> Reply:
        entity, project, run, _ = self.run
        started = RunStarted(time=1.0, entity=entity, project=project, run=run)
        return self.send(encode_event(started))

    def frame(self, *events: bytes, flags: int = 0) -> list[bytes]:
        definitions = {-1: encode_run(self.run), 0: msgpack.packb((0, ("n",)))}
        payload = encode_definitions(definitions) + b"".join(events)
        return list(pack_frame(self.writer, self.sequence, len(events), payload, flags))

    def send(self, *events: bytes) -> Reply:
        reply = self.ask(*self.frame(*events))
        self.sequence += len(events)
        return reply

    def log(self, n: int) -> Reply:
        return self.send(msgpack.packb((0, n, 1.0, n)))


def assert_works(home: Home, run: str = "neighbour") -> None:
    """Check that another writer's rows go in and can be read."""
    with Client(home, run) as client:
        assert isinstance(client.hello(), Welcome)
        client.start()
        assert client.log(0) == Ack(2, client_window(client.log(1)))
    assert read_rows(home, run) == [(0, 0), (1, 1)]


def client_window(reply: Reply) -> int:
    assert isinstance(reply, Ack)
    return reply.window


def memory_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


# --- one daemon a home ---


@pytest.mark.fault(21)
@pytest.mark.parametrize("round_number", range(tries(3)))
def test_of_twenty_daemons_started_at_once_one_serves(
    home: Home, round_number: int
) -> None:
    processes = [start_daemon(home, wait=False) for _ in range(20)]
    try:
        winner = wait_until(lambda: status(home))["pid"]
        others = [process for process in processes if process.pid != winner]
        for process in others:
            assert process.wait(30) == 0, home.daemon_log.read_text()
        inode = os.stat(home.socket).st_ino

        assert_works(home)

        assert len(others) == 19
        assert status(home)["pid"] == winner
        assert os.stat(home.socket).st_ino == inode
    finally:
        for process in processes:
            kill_daemon(process)


@pytest.mark.fault(21)
def test_a_second_daemon_leaves_the_first_one_its_socket(home: Home) -> None:
    with daemon(home) as first:
        second = flightlogd(home, "run")

        assert second.returncode == 0
        assert "steps aside" in second.stderr
        assert status(home)["pid"] == first.pid


@pytest.mark.fault(21)
@pytest.mark.fault(21)
def test_a_lost_lock_file_lets_no_second_daemon_in(home: Home) -> None:
    with daemon(home) as first:
        trainer = Trainer(home, 2000, how="wait")
        trainer.expect("ready")
        home.lock.unlink()

        wait_until(lambda: is_served_by(home, first.pid))

        second = start_daemon(home, wait=False)
        assert second.wait(60) == 0, "it steps aside"
        trainer.go_on()
        assert trainer.wait() == 0
        wait_recorded(home)
        assert [n for n, _ in read_rows(home)] == list(range(2000))
        assert flightlogd(home, "stop").stdout == "stopped\n"
        assert first.wait(60) == 0


@pytest.mark.fault(21)
def test_a_daemon_whose_lock_another_has_writes_no_more(home: Home) -> None:
    with daemon(home) as first:
        os.kill(first.pid, signal.SIGSTOP)
        home.lock.unlink()
        with closing(HomeLock(home)):
            os.kill(first.pid, signal.SIGCONT)

            assert first.wait(60) == 1


def test_daemons_that_take_turns_never_write_at_once(home: Home) -> None:
    for turn in range(4):
        process = start_daemon(home)
        with Client(home, f"run-{turn}") as client:
            client.hello()
            client.start()
            client.log(0)
        end = kill_daemon if turn % 2 else stop_daemon
        end(process)

    frames = [stored.frame for stored in frames_in_log(home)]
    assert [frame.offset for frame in frames] == list(range(8))


# --- its end ---


def test_sigterm_leaves_everything_accepted_on_disk(home: Home) -> None:
    process = start_daemon(home)
    trainer = Trainer(home, 100_000)
    trainer.expect("ready")
    wait_until(lambda: status(home)["counters"]["events"] > 1000)
    with Client(home, "watched") as client:
        client.hello()
        client.start()
        acked = 1
        while isinstance(client.log(acked), Ack) and acked < 50:
            acked += 1

        assert stop_daemon(process) == 0

    assert not home.socket.exists()
    assert len(read_rows(home, "watched")) >= acked - 1
    with daemon(home):
        assert trainer.wait() == 0
        assert len(read_rows(home)) == 100_000


def test_a_flood_does_not_keep_it_from_stopping(home: Home) -> None:
    with flood(home), daemon(home) as process:
        wait_until(lambda: status(home)["counters"]["refused"] > 100)

        assert stop_daemon(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order_on(home: Home, number: signal.Signals) -> None:
    process = start_daemon(home)
    materializer = wait_until(lambda: status(home)["materializer_pid"])

    process.send_signal(number)

    assert process.wait(20) == 0
    assert is_ended(materializer)
    assert not home.socket.exists()


def test_it_stops_though_who_started_it_blocks_signals(home: Home) -> None:
    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])

    process = start_daemon(home, preexec=block)

    assert stop_daemon(process) == 0


@pytest.mark.fault(22)
def test_stale_socket_and_lock_files_are_no_obstacle(home: Home) -> None:
    kill_daemon(start_daemon(home))
    assert home.socket.exists()
    assert home.lock.exists()

    with daemon(home):
        assert_works(home)


@pytest.mark.fault(22)
def test_the_lock_file_of_a_process_whose_pid_lives_again_is_no_obstacle(
    home: Home,
) -> None:
    kill_daemon(start_daemon(home))
    info = home.daemon()
    assert info is not None
    stale = home.lock.read_bytes().replace(
        str(info.process.pid).encode(), str(os.getpid()).encode()
    )
    home.lock.write_bytes(stale)
    assert "not running" in flightlogd(home, "stop").stdout

    with daemon(home):
        assert_works(home)


# --- its commands ---


def test_start_status_and_stop(home: Home) -> None:
    assert flightlogd(home, "status").returncode == 4
    assert flightlogd(home, "status", "--json").stdout == ""
    assert flightlogd(home, "stop").stdout == "not running\n"

    assert flightlogd(home, "start").stdout == "started\n"
    assert flightlogd(home, "start").stdout == "already running\n"
    told = flightlogd(home, "status", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["schema"] == "flightlogd.status/1"
    assert (
        status(home).items() >= {"home": str(home.root), "is_accepting": True}.items()
    )
    assert "materializer_pid" in flightlogd(home, "status").stdout

    stopped = flightlogd(home, "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert flightlogd(home, "status").returncode == 4


def test_a_home_that_is_a_file_is_refused_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.write_text("")

    done = flightlogd(Home(path, None, tmp_path / "s"), "run")

    assert done.returncode == 1
    assert "cannot be made" in done.stderr


# --- the materializer ---


def has_restarted(home: Home, count: int) -> bool:
    return bool(status(home)["materializer_restarts"] > count)


def test_materializer_killed_five_times_comes_back_and_catches_up(home: Home) -> None:
    with daemon(home):
        trainer = Trainer(home, 2000, 0.002)
        trainer.expect("ready")
        for count in range(5):
            pid = wait_until(lambda: status(home)["materializer_pid"])
            os.kill(pid, signal.SIGKILL)
            wait_until(partial(has_restarted, home, count))

        assert trainer.wait() == 0

        wait_until(lambda: is_folded(home))
        assert len(read_rows(home)) == 2000


@pytest.mark.fault(28, 29, 31, 34)
def test_poison_becomes_dead_letters_and_its_neighbours_are_fine(home: Home) -> None:
    deep: object = 1
    for _ in range(400):
        deep = {"d": deep}
    started = {"event": "RunStarted", "time": 1.0, "entity": "e", "project": "p"}
    poison = [
        b"\xc1",
        b"\x93\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
        *map(
            msgpack.packb,
            (
                7,
                "text",
                [],
                [0],
                [0, "step", 1.0, 2],
                [0, 2**63, 1.0, 2],
                [0, 1, float("nan"), 2],
                [0, 1, -5.0, 2],
                [99, 1, 1.0, 2],
                [0, 1, 1.0, 2, 3, 4],
                {},
                {"event": 5},
                {"event": "NoSuchThing", "time": 1.0},
                {"event": "RunFinished", "time": "now", "exit_code": 0},
                {"event": "RunFinished", "time": 1.0, "exit_code": 2**63},
                {
                    "event": "ConfigUpdated",
                    "time": float("inf"),
                    "changes": {"k": deep},
                },
                {"event": "SummaryUpdated", "time": 1.0, "changes": [[["a"], deep]]},
                {"event": "SummaryUpdated", "time": 1.0, "changes": [[[], 1]]},
                {"event": "MetricDefined", "time": 1.0, "name": ""},
                {"event": "Gap", "time": 1.0, "count": 2**64 - 1, "reason": ""},
                started | {"run": "r", "rank": 2**40},
                started | {"run": "r", "rank": -(2**40), "metadata": {"deep": deep}},
                started | {"run": "\0", "tags": ["\0", "x" * 100_000]},
                {
                    "event": "AlertRaised",
                    "time": -1e308,
                    "title": "",
                    "text": "",
                    "level": "x",
                },
                {"event": "WriterLost", "time": 1.0, "reason": "", "signal": 2**62},
            ),
        ),
    ]
    with daemon(home):
        for number, event in enumerate(poison):
            with Client(home, f"poisoned-{number}") as client:
                client.hello()
                assert isinstance(client.send(event), Ack), (
                    "the recorder looks into none"
                )
                assert isinstance(client.log(1), Ack)
            with Client(home, f"late-{number}") as client:
                client.hello()
                client.start()
                client.log(0)
                assert isinstance(
                    client.send(event, msgpack.packb((0, 1, 1.0, 1))), Ack
                )
        assert_works(home)
        end = status(home)["end_offset"]
        wait_until(lambda: folded_offset(home) == end)

        assert status(home)["materializer_restarts"] == 0, home.daemon_log.read_text()
        with Database.open_reader(home.state) as database:
            assert len(database.dead_letters()) >= 30
        for number in range(len(poison)):
            assert read_rows(home, f"late-{number}")[0] == (0, 0)


EVENTS_MAX = 1 << 18  # In a frame.


def bombs() -> Iterator[tuple[str, list[bytes]]]:
    """Yield small events that would be large objects, each with a name."""
    maps = b"\xdd" + (12 << 20).to_bytes(4) + b"\x80" * (12 << 20)
    fewer = b"\xdd" + (9 << 17).to_bytes(4) + b"\x80" * (9 << 17)
    config = msgpack.packb({"event": "ConfigUpdated", "time": 1.0})
    yield "value", [b"\x83" + config[1:] + b"\xa7changes\x81\xa1k" + maps]
    yield "row", [b"\x94\x00\x01\x01" + maps]
    names = {f"{number:x}": 0 for number in range(1_500_000)}
    yield "names", [b"\x94\x00\x01\x01" + msgpack.packb(names)]
    yield "events", [b"\x80"] * EVENTS_MAX
    yield "just under", [b"\x94\x00\x01\x01" + fewer]
    yield "rows", [b"\x93\x00\x01\x01", *[b"\x94\x00\x01\x01\x00"] * (EVENTS_MAX - 1)]


def peak_of(pid: int) -> int:
    """Return the most memory that a process has had so far."""
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(peak) << 10


@pytest.mark.fault(30)
def test_a_materializer_makes_no_large_objects_of_small_events(home: Home) -> None:
    with daemon(home):
        assert_works(home)
        pid = wait_until(lambda: status(home)["materializer_pid"])
        wait_until(lambda: is_folded(home))
        before = peak_of(pid)
        for name, events in bombs():
            with Client(home, name) as client:
                client.hello()
                client.start()
                assert isinstance(client.send(*events), Ack)
                assert isinstance(client.log(5), Ack)
            wait_until(lambda: is_folded(home), timeout_s=300)

        assert status(home)["materializer_pid"] == pid, home.daemon_log.read_text()
        assert peak_of(pid) - before < BOMBED_MEMORY_MAX
        for name, events in bombs():
            state = run_state(home, name)
            assert (5, 5) in read_rows(home, name)
            assert state is not None
            assert (state.lost_count == 0) is (name == "just under")
            assert state.lost_count <= len(events)


# --- hostile clients ---


@contextmanager
def running(code: str) -> Iterator[None]:
    """Have a program run as long as this lasts."""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def flood(home: Home) -> AbstractContextManager[None]:
    """Send frames of the largest size as fast as they go, and read no answer."""
    code = f"""
import zmq, os
from flightlog_storage.frame import pack_frame, PAYLOAD_SIZE_MAX
socket = zmq.Context().socket(zmq.DEALER)
socket.connect("ipc://{home.socket}")
payload = bytes(PAYLOAD_SIZE_MAX)
writer = os.urandom(16)
header, payload = pack_frame(writer, 1, 1, payload)
header = b"x" + header[1:]
while True:
    socket.send_multipart([header, payload], copy=False)
"""
    return running(code)


def greedy(home: Home) -> AbstractContextManager[None]:
    """Have a valid writer log the largest frames without waiting for acks."""
    code = f"""
import zmq, os
from flightlog_storage.frame import pack_frame
from flightlog_storage.protocol import Hello, encode, writer_of
socket = zmq.Context().socket(zmq.DEALER)
socket.connect("ipc://{home.socket}")
token = os.urandom(32)
writer = writer_of(token)
socket.send_multipart([encode(Hello(writer, token))])
payload = b"\\x90" + b"\\x80" * (4 << 20)
sequence = 1
while sequence < 60:
    socket.send_multipart(pack_frame(writer, sequence, 1, payload), copy=False)
    sequence += 1
import time; time.sleep(1000)
"""
    return running(code)


def has_taken(home: Home, count: int) -> bool:
    counters = status(home)["counters"]
    return bool(counters["refused"] + counters["frames"] > count)


@pytest.mark.fault(36, 39)
@pytest.mark.parametrize("attack", [flood, greedy], ids=["invalid", "valid"])
def test_a_greedy_client_neither_starves_others_nor_fills_memory(
    home: Home, attack: Callable[[Home], AbstractContextManager[None]]
) -> None:
    with daemon(home) as process, attack(home):
        wait_until(lambda: has_taken(home, 5))
        peak = 0
        trainers = [Trainer(home, 300, 0.002, run=f"slow-{n}") for n in range(4)]
        while any(trainer.process.poll() is None for trainer in trainers):
            peak = max(peak, memory_of(process.pid))
            select.select([], [], [], 0.02)

        for number, trainer in enumerate(trainers):
            assert trainer.wait() == 0
            assert len(read_rows(home, f"slow-{number}")) == 300
        assert peak < MEMORY_MAX


def all_ask(clients: list[Client], say: Callable[[Client], list[bytes]]) -> list[Reply]:
    for client in clients:
        client.socket.send_multipart(say(client))
    return [client.hear() for client in clients]


def greeting(client: Client) -> list[bytes]:
    return [encode(Hello(client.writer, client.token))]


def next_row(client: Client) -> list[bytes]:
    frame = client.frame(msgpack.packb((0, client.sequence, 1.0, 1)))
    client.sequence += 1
    return frame


@pytest.mark.once
@pytest.mark.fault(35)
def test_a_thousand_writers_are_served_and_all_of_them_again(home: Home) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 5 * WRITERS:
        pytest.skip(f"needs {5 * WRITERS} descriptors, of which there are {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 2 * WRITERS)
    try:
        first = start_daemon(home)
        clients = [Client(home, f"run-{n}", context) for n in range(WRITERS)]
        for expected in (0, 2):
            welcomes = all_ask(clients, greeting)
            assert {reply.last for reply in welcomes if isinstance(reply, Welcome)} == {
                expected
            }
            assert len(welcomes) == WRITERS
            for _ in range(2):
                replies = all_ask(clients, next_row)
                assert all(isinstance(reply, Ack) for reply in replies)
            if not expected:
                kill_daemon(first)
                second = start_daemon(home)
        assert status(home)["active_writers"] == WRITERS
        assert memory_of(second.pid) < MEMORY_MAX
        stop_daemon(second)
        assert sum(stored.frame.count for stored in frames_in_log(home)) == 4 * WRITERS
    finally:
        context.destroy(linger=0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def bad_crc(client: Client) -> list[bytes]:
    header, payload = client.frame(b"\xc0")
    return [header, payload[:-1] + b"\xc2"]


def bad_header(client: Client) -> list[bytes]:
    header, payload = client.frame(b"\xc0")
    return [header[:20] + b"\xff" + header[21:], payload]


def lying_size(client: Client) -> list[bytes]:
    header, payload = client.frame(b"\xc0")
    return [header, payload + b"more"]


def too_many_events(client: Client) -> list[bytes]:
    return list(pack_frame(client.writer, 1, 2**32 - 1, b"\x90"))


def sequence_beyond_all(client: Client) -> list[bytes]:
    return list(
        pack_frame(client.writer, 2**64 - 1, 5, b"\x90" + b"\xc0" * 9, FLAG_GAP)
    )


def no_events(client: Client) -> list[bytes]:
    return list(pack_frame(client.writer, 1, 0, b"\x90"))


def sequence_zero(client: Client) -> list[bytes]:
    return list(pack_frame(client.writer, 0, 1, b"\x90\xc0"))


def forged_writer(client: Client) -> list[bytes]:
    return list(pack_frame(WriterId(b"victim" + bytes(10)), 1, 1, b"\x90\xc0"))


def many_parts(client: Client) -> list[bytes]:
    return [b"part"] * 1000


def short_writer(client: Client) -> list[bytes]:
    return [encode(Hello(b"short"))]


def old_protocol(client: Client) -> list[bytes]:
    return [encode(Hello(client.writer, client.token, protocol=99))]


ATTACKS: list[Callable[[Client], list[bytes]]] = [
    *(bad_crc, bad_header, lying_size, too_many_events, sequence_beyond_all),
    *(no_events, sequence_zero, forged_writer, many_parts, short_writer),
    *(old_protocol, lambda client: [b""], lambda client: [os.urandom(5000)]),
    *(lambda client: [b"", b""], lambda client: [os.urandom(64), os.urandom(64)]),
]


@pytest.mark.fault(28, 61, 64)
def test_what_cannot_be_accepted_is_refused_and_nothing_else(home: Home) -> None:
    with daemon(home) as process:
        for number, attack in enumerate(ATTACKS):
            with Client(home, f"attack-{number}") as client:
                client.hello()

                assert isinstance(client.ask(*attack(client)), Refused), attack

                assert isinstance(client.start(), Ack), "the connection is still good"
        assert_works(home)
        assert stop_daemon(process) == 0
    with daemon(home):  # Nothing of it keeps the log from being opened again.
        assert_works(home, "after a restart")
    assert status(home) == {}


def test_a_hole_in_the_sequence_is_answered_with_the_way_back(home: Home) -> None:
    with daemon(home), Client(home) as client:
        client.hello()
        client.start()
        client.sequence = 7

        assert client.log(1) == Rewind(1)

        client.sequence = 2
        assert isinstance(client.log(1), Ack)
    assert read_rows(home) == [(1, 1)]


@pytest.mark.fault(27)
def test_an_oversized_frame_costs_its_sender_the_connection_alone(home: Home) -> None:
    with daemon(home), Client(home) as client:
        client.hello()
        client.socket.send_multipart([b"header", bytes(PAYLOAD_SIZE_MAX + 100)])

        assert_works(home)
        wait_until(lambda: isinstance(client.hello(), Welcome))


@pytest.mark.fault(28)
def test_bytes_that_are_not_zeromq_hurt_nobody(home: Home) -> None:
    with daemon(home), ExitStack() as stack:
        for seed in range(30):
            raw = stack.enter_context(socket.socket(socket.AF_UNIX))
            raw.connect(str(home.socket))
            raw.send(
                os.urandom(seed * 40) if seed % 3 else b"\xff" + bytes(8) + b"\x7f"
            )

        assert_works(home)


# --- short of descriptors, disk, a socket file ---


def limit_descriptors(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@pytest.mark.fault(37)
def test_two_hundred_connections_do_not_exhaust_sixty_four_descriptors(
    home: Home,
) -> None:
    """At a pace: more than are free within one look of the guard abort libzmq."""
    with (
        daemon(home, preexec=limit_descriptors(64)) as process,
        Client(home) as client,
        ExitStack() as stack,
    ):
        client.hello()
        client.start()
        for _ in range(200):
            raw = stack.enter_context(socket.socket(socket.AF_UNIX))
            raw.setblocking(False)
            try:
                raw.connect(str(home.socket))
            except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
                continue  # The queue is full, or the path is changing hands.
            select.select([], [], [], 0.01)
        wait_until(lambda: "no new connections" in home.daemon_log.read_text())

        assert isinstance(client.log(0), Ack)
        stack.close()

        wait_until(lambda: "accepted again" in home.daemon_log.read_text())
        assert_works(home)
        assert process.poll() is None


@pytest.mark.fault(60)
def test_a_lost_socket_file_is_made_anew(home: Home) -> None:
    with daemon(home), Client(home) as client:
        client.hello()
        client.start()
        home.socket.unlink()

        wait_until(home.socket.exists, timeout_s=5.0)

        assert isinstance(client.log(0), Ack)
        assert_works(home)


@pytest.mark.fault(11)
def test_training_outlives_a_full_disk_under_the_log(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    filler = home.log / "filler"
    with small_disk(home.log, "2m"), daemon(home):
        trainer = Trainer(home, 60_000, how="wait")
        trainer.expect("ready")
        filler.write_bytes(bytes(1 << 20))

        trainer.expect("logged")
        wait_until(lambda: "keep their spools" in home.daemon_log.read_text())
        filler.unlink()
        enlarge(home.log)
        wait_until(lambda: "written again" in home.daemon_log.read_text())
        trainer.go_on()

        assert trainer.wait() == 0
        wait_recorded(home)
        assert len(read_rows(home)) == 60_000
        state = run_state(home)
        assert state is not None
        assert (state.state, state.lost_count) == (State.FINISHED, 0)
        frames_in_log(home)


@pytest.mark.fault(11)
def test_a_full_disk_under_the_histories_is_told_and_tried_again(
    tmp_path: Path,
) -> None:
    home = make_home(tmp_path)
    with small_disk(home.histories, "64k"), daemon(home):
        Trainer(home, 140_000).wait()  # So many that a part is due.
        wait_until(lambda: "cannot be kept" in home.daemon_log.read_text())
        enlarge(home.histories)
        wait_until(lambda: is_folded(home))

        assert len(read_rows(home)) == 140_000
        assert "Traceback" not in home.daemon_log.read_text()


# --- spools of the dead ---


def leave_spool(home: Home, rows: int = 1000) -> Path:
    """Have a trainer log and die with no daemon to hear of it; return its spool."""
    with open(home.lock, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trainer = Trainer(home, rows, how="kill")
        assert trainer.wait() == -signal.SIGKILL
    (folder,) = home.spool.iterdir()
    return folder


def test_the_spool_of_a_dead_writer_is_adopted(home: Home) -> None:
    leave_spool(home)

    with daemon(home):
        wait_recorded(home)

        assert [n for n, _ in read_rows(home)] == list(range(1000))
        wait_until(lambda: run_state(home).state is State.CRASHED)  # type: ignore[union-attr]


@pytest.mark.fault(5)
def test_a_run_whose_writer_is_gone_with_all_of_its_spool_has_crashed(
    home: Home,
) -> None:
    process = start_daemon(home)
    trainer = Trainer(home, 100, how="wait")
    trainer.expect("ready")
    trainer.expect("logged")
    wait_until(lambda: status(home)["end_offset"] == 101)
    kill_daemon(process)
    with closing(HomeLock(home)):  # So that no daemon can be started.
        trainer.kill()
        trainer.wait()
        shutil.rmtree(next(home.spool.iterdir()))

    with daemon(home):
        wait_until(lambda: run_state(home).state is State.CRASHED)  # type: ignore[union-attr]

        assert run_state(home).lost_count == 1  # type: ignore[union-attr]
        assert [n for n, _ in read_rows(home)] == list(range(100))


def test_the_spool_of_a_dead_writer_that_lost_its_lock_is_adopted(home: Home) -> None:
    (leave_spool(home) / "lock").unlink()

    with daemon(home):
        wait_recorded(home)

        assert [n for n, _ in read_rows(home)] == list(range(1000))


def test_the_spool_of_a_living_writer_that_lost_its_lock_is_left_alone(
    home: Home,
) -> None:
    with daemon(home):
        trainer = Trainer(home, 1000, how="wait")
        trainer.expect("ready")
        (folder,) = home.spool.iterdir()
        (folder / "lock").unlink()
        trainer.go_on()

        assert trainer.wait() == 0
        wait_recorded(home)
        assert [n for n, _ in read_rows(home)] == list(range(1000))
        assert run_state(home).state is State.FINISHED  # type: ignore[union-attr]


@pytest.mark.fault(63)
def test_a_spool_replayed_three_times_has_no_effect(home: Home, tmp_path: Path) -> None:
    folder = leave_spool(home)
    copy = shutil.copytree(folder, tmp_path / "copy")
    with daemon(home):
        wait_recorded(home)
        before = read_rows(home), run_state(home), status(home)["end_offset"]
        for _ in range(3):
            shutil.copytree(copy, tmp_path / "again").rename(folder)
            wait_until(lambda: not folder.exists())

        assert (read_rows(home), run_state(home), status(home)["end_offset"]) == before


def test_a_bad_spool_does_not_keep_the_others_waiting(home: Home) -> None:
    folder = leave_spool(home)
    bad = home.spool / ("0" * 32)
    shutil.copytree(folder, bad)
    (bad / "0000000001.chunk").unlink()
    (bad / "0000000001.chunk").mkdir()
    (bad / "not-a-number.chunk").write_text("")
    (home.spool / "a file").write_text("")
    (home.spool / ("1" * 32)).mkdir()

    with daemon(home):
        wait_until(lambda: not folder.exists())

        assert len(read_rows(home)) == 1000
        assert status(home)["materializer_restarts"] == 0


@pytest.mark.fault(1)
def test_the_end_of_a_writer_shows_within_five_seconds(home: Home) -> None:
    with daemon(home):
        trainer = Trainer(home, 100_000, 0.002)
        trainer.expect("ready")
        wait_until(lambda: trainer.returned > 300)

        trainer.kill()

        wait_until(
            lambda: run_state(home).state is State.CRASHED,  # type: ignore[union-attr]
            timeout_s=5.0,
        )
        trainer.wait()
        state = run_state(home)
        assert state is not None
        assert state.signal == signal.SIGKILL


@pytest.mark.fault(3)
def test_a_recorder_killed_amid_adoptions_is_back_at_once(home: Home) -> None:
    folder = leave_spool(home, 200_000)
    process = start_daemon(home)
    wait_until(lambda: status(home)["end_offset"] > 1000)
    process.kill()
    process.wait()

    with daemon(home):
        wait_until(lambda: not folder.exists(), timeout_s=10.0)

        assert len(read_rows(home)) == 200_000


# --- at rest ---
