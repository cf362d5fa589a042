"""Homes, exports and conversations of older versions, with the code of today.

tests/golden has them as the code of each version made them: see its README.md.
"""

import json
import signal
import subprocess
import sys
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
import zmq
from tests.counts import count
from tests.effort import tries
from tests.golden.contents import contents
from tests.simulation.recorded import can_trace
from tests.system.harness import (
    daemon,
    environment,
    flightlogd,
    folded_offset,
    frames_in_log,
    is_folded,
    kill_all,
    read_rows,
    status,
    wait_until,
)
from tests.system.sweeps import at_call, fold_under, sweep

from flightlog_storage.codec import decode_event, encode_event
from flightlog_storage.database import Database
from flightlog_storage.event import Malformed, Unknown
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogReader
from flightlog_storage.protocol import Hello, Refused, Welcome, decode_reply
from flightlog_storage.rows import decode
from flightlogd.wakes import Durable

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = ("flight-path", "protocol-1", "protocol-2")
PROTOCOL_1 = ("flight-path", "protocol-1")
TODAY = "protocol-2"
REPLY_TIMEOUT_S = 10.0
# What a materializer does where state.db is of another version.
REBUILD_CALLS = {
    "pwrite64": 80,
    "fdatasync": 12,
    "fsync": 12,
    "rename": 6,
    "unlink": 6,
}

Said = list[tuple[str, list[bytes]]]
Runs = dict[str, dict[str, str]]

TRAINER = """
import sys, flightlog
run = flightlog.init(entity="someone", project="project", id="run")
for n in range(10):
    run.log({"n": n})
print("logged", flush=True)
sys.stdin.readline()
run.log({"n": 10})
run.finish()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home", None, tmp_path / "socket")
    yield home
    kill_all(home)


def unpack(version: str, home: Home) -> None:
    home.create()
    with tarfile.open(GOLDEN / f"{version}.tar.xz") as tar:
        tar.extractall(home.root, filter="data")


def found(home: Home) -> Runs:
    return in_words(contents(home.root))


def expected(version: str) -> Runs:
    return in_words(json.loads((GOLDEN / f"{version}.json").read_text()))


def in_words(runs: dict[str, Any]) -> Runs:
    """Return each run with its values as text, in which NaN is as NaN."""
    return {
        name: {key: json.dumps(value, sort_keys=True) for key, value in run.items()}
        for name, run in runs.items()
    }


def assert_as_told(version: str, runs: Runs) -> None:
    """Check that nothing is lost or changed of what the old version said."""
    told = expected(version)
    assert runs.keys() == told.keys()
    for name, run in told.items():
        assert run == {key: runs[name][key] for key in run}


def wire(version: str) -> Said:
    """Return what writers and a daemon of a version said."""
    said = json.loads((GOLDEN / f"{version}.wire.json").read_text())
    return [(who, [b64decode(part) for part in parts]) for who, parts in said]


# --- homes ---


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_home_is_read_as_it_was(version: str, home: Home) -> None:
    unpack(version, home)

    assert_as_told(version, found(home))


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_home_is_served_as_it_was(version: str, home: Home) -> None:
    unpack(version, home)
    before = expected(version)

    with daemon(home):
        wait_until(lambda: not list(home.spool.iterdir()), what="for the spool")
        wait_until(lambda: is_folded(home))
        assert_as_told(version, found(home))

    assert before
    assert_as_told(version, found(home))
    with Database.open_reader(home.state) as database:
        assert database.dead_letters() == []
        assert database.gaps() == []


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_event_is_written_today_as_it_was(version: str, home: Home) -> None:
    unpack(version, home)
    events = 0
    for stored in frames_in_log(home):
        stream = msgpack.Unpacker(strict_map_key=False)
        stream.feed(payload := stored.payload())
        stream.skip()
        for _ in range(stored.frame.count):
            start = stream.tell()
            item = stream.unpack()
            if type(item) is dict:
                event = decode_event(item)
                assert not isinstance(event, Unknown | Malformed)
                assert encode_event(event) == payload[start : stream.tell()]
                events += 1
        items = [item for _, item in decode(payload, stored.frame.count)]
        assert not any(isinstance(item, Unknown | Malformed) for item in items)

    assert events >= 5


# --- exports ---


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", ["protocol-1", "protocol-2"])
def test_an_old_export_is_imported(version: str, home: Home) -> None:
    home.create()
    command = "from flightlog.cli import main; main()"
    with daemon(home):
        done = subprocess.run(
            [sys.executable, "-c", command, "import", GOLDEN / f"{version}.export.zip"],
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 0, done.stderr
    assert found(home)["first"] == expected(version)["first"]


# --- an old client, the daemon of today ---


def say(home: Home, *messages: list[bytes]) -> list[bytes]:
    """Say something on one connection; return the answers."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{home.socket}")
        answers = []
        for parts in messages:
            socket.send_multipart(parts)
            assert socket.poll(int(REPLY_TIMEOUT_S * 1000)), "no answer"
            answers += socket.recv_multipart()
        return answers


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", PROTOCOL_1)
def test_an_old_writer_is_told_what_becomes_of_its_rows(
    version: str, home: Home
) -> None:
    home.create()
    hello, frame = [parts for who, parts in wire(version) if who == "writer"][:2]
    with daemon(home):
        (answer,) = say(home, hello)
        reply = decode_reply(answer)

    assert len(frame) == 2
    assert isinstance(reply, Refused)
    assert "speaks protocol 2, not 1: this process has loaded an older" in reply.reason
    assert "kept in its spool, which the daemon takes when" in reply.reason
    assert frames_in_log(home) == []


@pytest.mark.fault(61)
def test_a_writer_of_this_protocol_is_answered_as_it_was(home: Home) -> None:
    home.create()
    said = wire(TODAY)
    hello, frame, question, newer = [p for who, p in said if who == "writer"]
    answers = [parts[0] for who, parts in said if who == "daemon"]
    with daemon(home):
        welcome, ack, _, refused = say(home, hello, frame, question, newer)
        rows = found(home)["third"]["rows"]

    old, new = decode_reply(answers[0]), decode_reply(welcome)
    assert isinstance(old, Welcome)
    assert isinstance(new, Welcome)
    assert (new.last, new.window) == (old.last, old.window)
    assert ack == answers[1]
    assert isinstance(decode_reply(refused), Refused)
    assert rows == expected(TODAY)["third"]["rows"]


@pytest.mark.fault(61)
def test_a_greeting_is_written_today_as_it_was() -> None:
    hello = next(parts[0] for who, parts in wire(TODAY) if who == "writer")

    found = msgspec.msgpack.decode(hello, type=Hello)

    assert msgspec.msgpack.encode(found) == hello


# --- an old daemon, the client of today ---


@contextmanager
def old_daemon(version: str, home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """Have a home be served with the recorded words of a version."""
    home.create()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.golden.old_daemon"),
            *(GOLDEN / f"{version}.wire.json", home.root, home.socket),
        ],
        cwd=GOLDEN.parents[1],
        env=environment(home),
    )
    try:
        wait_until(lambda: home.daemon())
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def trainer(home: Home) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER],
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", PROTOCOL_1)
def test_a_writer_that_an_old_daemon_refused_goes_on_when_that_is_stopped(
    version: str, home: Home
) -> None:
    with old_daemon(version, home) as old, trainer(home) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "logged\n"
        told = process.stderr.readline()
        assert "this daemon speaks protocol 1, not 2" in told
        assert "`flightlogd stop` ends this one, and the next is started" in told

        assert flightlogd(home, "stop").stdout == "stopped\n"

        assert old.wait() == -signal.SIGTERM
        wait_until(lambda: read_rows(home) and status(home))
        wait_until(lambda: frames_in_log(home))
        process.communicate("\n", timeout=30)
        assert process.returncode == 0
    wait_until(lambda: not list(home.spool.iterdir()))
    assert [values for _, values in read_rows(home)] == [*range(11)]


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", PROTOCOL_1)
def test_what_a_writer_logged_beside_an_old_daemon_is_kept(
    version: str, home: Home
) -> None:
    with old_daemon(version, home), trainer(home) as process:
        _, told = process.communicate("\n", timeout=30)

        assert process.returncode == 0
        assert "refused this writer" in told
        assert "Traceback" not in told

    with daemon(home):
        wait_until(lambda: not list(home.spool.iterdir()))
        assert read_rows(home) == [(n, n) for n in range(11)]


@pytest.mark.fault(61)
@pytest.mark.parametrize("version", PROTOCOL_1)
def test_an_old_daemon_can_be_asked_how_it_is(version: str, home: Home) -> None:
    with old_daemon(version, home):
        asked = flightlogd(home, "status", "--json")

    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["data"]["version"] == "0.1.0"


# --- a kill while state.db is made again ---


@pytest.mark.once
@pytest.mark.fault(61, 62)
@pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace")
@pytest.mark.timeout(1200)
def test_a_kill_while_an_old_state_is_made_again_changes_nothing(
    tmp_path: Path,
) -> None:
    kills = 0
    for call, nth in sweep(REBUILD_CALLS, tries(4)):
        home = Home(tmp_path / f"{call}-{nth}", None, tmp_path / "socket")
        unpack("flight-path", home)
        log = LogReader(home.log)
        end = log.end_position()
        assert end is not None
        offset = frames_in_log(home)[-1].frame.offset_end
        wake = Durable(end, offset)

        killed, _ = fold_under(home, wake, at_call(call, nth, "signal=SIGKILL"))
        kills += killed == -signal.SIGKILL
        assert_as_told("flight-path", found(home))
        fold_under(home, wake, [])

        assert_as_told("flight-path", found(home))
        assert folded_offset(home) == offset
    assert kills
    count("kills", kills)
