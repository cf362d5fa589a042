import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.effort import tries

from flightlog_storage.event import WriterId
from flightlog_storage.eventlog import AppendFailed, EventLog
from flightlog_storage.files import RealFiles
from flightlog_storage.frame import FLAG_GAP, Frame, FrameType, pack_frame, parse_header
from flightlog_storage.protocol import (
    WINDOW_SIZE_MAX,
    WINDOW_SIZE_MIN,
    Ack,
    Hello,
    Refused,
    Reply,
    Rewind,
    StatusRequest,
    Welcome,
    encode,
    writer_of,
)
from flightlogd.intake import ACTIVE_S, Intake, Message

KEY = b"key of the home"
TOKENS = (b"of a", b"of b")
A, B = map(writer_of, TOKENS)
PAYLOAD = b"\x90" + b"\xc0" * 9


class FullDisk(RealFiles):
    """A disk that refuses to write for as long as `is_full`."""

    is_full = False

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().pwrite(fd, data, position)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk() -> FullDisk:
    return FullDisk()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, disk: FullDisk) -> Iterator[EventLog]:
    log = EventLog.open(
        tmp_path / "log",
        disk,
        now_ns=time.time_ns,
        quarantine=tmp_path / "quarantine",
    )
    yield log
    log.close()


@pytest.fixture
def intake(log: EventLog, clock: Clock) -> Intake:
    """An intake to which connections 1 and 2 have said hello, as A and B."""
    intake = Intake(log, lambda: b"how I am", KEY, clock)
    for peer, token in zip((b"1", b"2"), TOKENS, strict=True):
        ask(intake, hello(token), peer=peer)
    return intake


def frame(
    writer: WriterId, sequence: int, count: int = 1, flags: int = 0
) -> list[bytes]:
    return list(pack_frame(writer, sequence, count, PAYLOAD, flags))


def hello(token: bytes) -> bytes:
    return encode(Hello(writer_of(token), token))


def ask(intake: Intake, *parts: bytes, peer: bytes = b"1") -> Reply | bytes:
    ((answered, reply),) = intake.take([Message(peer, list(parts))])
    assert answered == peer
    return reply


def last_of(reply: Reply | bytes) -> int:
    assert isinstance(reply, Ack | Welcome)
    return reply.last


def test_hello_is_answered_with_what_is_durable(intake: Intake, log: EventLog) -> None:
    ask(intake, *frame(A, 1, 5))

    reply = ask(intake, hello(TOKENS[0]), peer=b"2")

    assert reply == Welcome(5, WINDOW_SIZE_MAX, log.log_id)


def test_frames_in_sequence_are_appended(intake: Intake, log: EventLog) -> None:
    assert last_of(ask(intake, *frame(A, 1, 3))) == 3
    assert last_of(ask(intake, *frame(A, 4, 2))) == 5

    assert log.end_offset == 5
    assert log.last_sequence == {A: 5}


def test_frames_of_a_batch_follow_each_other(intake: Intake, log: EventLog) -> None:
    replies = intake.take(
        [
            Message(b"1", frame(A, 1, 3)),
            Message(b"2", frame(B, 1, 2)),
            Message(b"1", frame(A, 4, 2)),
            Message(b"1", frame(A, 4, 2)),
        ]
    )

    assert {peer: last_of(reply) for peer, reply in replies} == {b"1": 5, b"2": 2}
    assert log.end_offset == 7
    assert intake.counters.batches == 1
    assert intake.counters.duplicates == 1


@pytest.mark.fault(63)
def test_what_is_there_already_is_acknowledged_and_dropped(
    intake: Intake, log: EventLog
) -> None:
    ask(intake, *frame(A, 1, 5))

    for sequence, count in ((1, 5), (1, 2), (4, 2)):
        assert last_of(ask(intake, *frame(A, sequence, count))) == 5

    assert log.end_offset == 5
    assert intake.counters.duplicates == 3


@pytest.mark.parametrize(("sequence", "count"), [(3, 5), (7, 1), (2, 5)])
def test_what_does_not_follow_is_sent_back(
    intake: Intake, log: EventLog, sequence: int, count: int
) -> None:
    ask(intake, *frame(A, 1, 5))

    assert ask(intake, *frame(A, sequence, count)) == Rewind(5)

    assert log.end_offset == 5


def test_a_hole_that_the_writer_knows_of_is_taken(
    intake: Intake, log: EventLog
) -> None:
    ask(intake, *frame(A, 1, 5))

    assert last_of(ask(intake, *frame(A, 9, 1, FLAG_GAP))) == 9

    assert log.last_sequence == {A: 9}


def test_a_hole_behind_what_is_there_already_is_none(
    intake: Intake, log: EventLog
) -> None:
    ask(intake, *frame(A, 1, 5))

    assert ask(intake, *frame(A, 4, 4, FLAG_GAP)) == Rewind(5)

    assert log.last_sequence == {A: 5}


def test_a_frame_refused_in_a_batch_costs_its_followers_a_rewind_alone(
    intake: Intake, log: EventLog
) -> None:
    damaged = [frame(A, 2)[0], PAYLOAD[:-1] + b"\xc2"]
    messages = [frame(A, 1), damaged, frame(A, 3), frame(B, 1)]

    peers = {A: b"1", B: b"2"}
    replies = intake.take(
        [Message(peers[parse_header(m[0]).writer], m) for m in messages]
    )

    kinds = [type(reply) for _, reply in replies]
    assert sorted(kind.__name__ for kind in kinds) == [
        "Ack",
        "Ack",
        "Refused",
        "Rewind",
    ]
    assert log.last_sequence == {A: 1, B: 1}


def header(**changes: int) -> list[bytes]:
    fields: dict[str, Any] = {
        "payload_size": len(PAYLOAD),
        "payload_crc": zlib.crc32(PAYLOAD),
        "count": 1,
        "writer": A,
        "sequence": 1,
    }
    return [Frame(**(fields | changes)).pack(), PAYLOAD]


@pytest.mark.parametrize(
    "parts",
    [
        header(payload_crc=1),
        header(payload_size=5),
        header(type=FrameType.FOOTER),
        header(count=0),
        header(count=len(PAYLOAD) + 1),
        header(count=2**32 - 1),
        header(sequence=0),
        header(sequence=2**63),
        header(sequence=2**64 - 1, flags=FLAG_GAP),
        [b"", b""],
        [b""],
        [],
        [b"x" * 64, PAYLOAD],
        [bytes(3), bytes(3), bytes(3)],
        [encode(Hello(b"short"))],
        [encode(Hello(A, TOKENS[0], protocol=1))],
        [encode(Ack(1, 1))],
        [b"\xc1"],
        [b"\xdd\xff\xff\xff\xff"],
    ],
)
def test_what_is_not_understood_is_refused(
    intake: Intake, log: EventLog, parts: list[bytes]
) -> None:
    assert isinstance(ask(intake, *parts), Refused)

    assert log.end_offset == 0
    assert intake.counters.refused == 1
    assert last_of(ask(intake, *frame(A, 1))) == 1, "and the connection goes on"


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("count", "answer"), [(1 << 18, Ack), ((1 << 18) + 1, Refused)]
)
def test_more_events_than_a_writer_cuts_into_a_frame_are_refused(
    intake: Intake, count: int, answer: type[Reply]
) -> None:
    payload = bytes(1 << 20)
    many = Frame(len(payload), zlib.crc32(payload), count, A, 1)
    ask(intake, hello(TOKENS[0]))

    assert isinstance(ask(intake, many.pack(), payload), answer)


@pytest.mark.fault(28)
@pytest.mark.parametrize("seed", range(tries(20)))
def test_random_bytes_change_nothing(intake: Intake, log: EventLog, seed: int) -> None:
    noise = [os.urandom(seed * 7 % 100) for _ in range(seed % 4)]

    assert isinstance(ask(intake, *noise), Refused)

    assert log.end_offset == 0


@pytest.mark.fault(64)
def test_a_connection_speaks_for_one_writer(intake: Intake, log: EventLog) -> None:
    ask(intake, hello(TOKENS[0]))

    assert isinstance(ask(intake, *frame(B, 1)), Refused)

    assert log.last_sequence == {}


@pytest.mark.fault(64)
def test_a_writer_is_who_has_its_token(intake: Intake, log: EventLog) -> None:
    ask(intake, *frame(A, 1, 5))

    for proof in (b"", A, TOKENS[1], KEY[:-1], KEY + b"!", bytes(32)):
        forged = ask(intake, encode(Hello(A, proof)), peer=b"forger")
        assert forged == Refused("that writer is somebody else")
        unsaid = [Message(b"forger", frame(A, 6))]
        assert intake.take(unsaid) == []

    assert log.last_sequence == {A: 5}
    assert last_of(ask(intake, *frame(A, 6))) == 6


@pytest.mark.fault(64)
def test_a_forger_takes_no_writer_over_from_a_connection_of_its_own(
    intake: Intake, log: EventLog
) -> None:
    ask(intake, *frame(A, 1, 5))

    assert isinstance(ask(intake, encode(Hello(A)), peer=b"2"), Refused)
    assert isinstance(ask(intake, *frame(A, 6), peer=b"2"), Refused)

    assert log.last_sequence == {A: 5}


def test_who_has_the_key_of_the_home_speaks_for_any_writer(intake: Intake) -> None:
    ask(intake, *frame(A, 1, 5))

    assert last_of(ask(intake, encode(Hello(A, KEY)), peer=b"adopter")) == 5
    assert last_of(ask(intake, *frame(A, 6), peer=b"adopter")) == 6


def test_a_frame_before_any_hello_is_not_answered(
    intake: Intake, log: EventLog
) -> None:
    assert intake.take([Message(b"new", frame(A, 1))]) == []

    assert log.last_sequence == {}
    assert intake.counters.refused == 1
    ask(intake, hello(TOKENS[0]), peer=b"new")
    assert last_of(ask(intake, *frame(A, 1), peer=b"new")) == 1


def test_a_connection_may_say_hello_again_for_another_writer(intake: Intake) -> None:
    ask(intake, hello(TOKENS[0]))
    ask(intake, hello(TOKENS[1]))

    assert last_of(ask(intake, *frame(B, 1))) == 1


def test_how_it_is_can_be_asked(intake: Intake) -> None:
    assert ask(intake, encode(StatusRequest())) == b"how I am"


@pytest.mark.fault(11)
def test_nobody_is_told_that_anything_is_safe_when_the_disk_refuses(
    intake: Intake, log: EventLog, disk: FullDisk
) -> None:
    ask(intake, *frame(A, 1, 2))
    disk.is_full = True

    with pytest.raises(AppendFailed):
        intake.take([Message(b"1", frame(A, 3)), Message(b"2", [hello(TOKENS[1])])])

    assert intake.counters.append_failures == 1
    assert last_of(ask(intake, hello(TOKENS[0]))) == 2
    disk.is_full = False
    assert last_of(ask(intake, *frame(A, 3))) == 3
    assert log.last_sequence == {A: 3}


@pytest.mark.fault(36)
def test_the_window_is_shared_by_those_who_are_active(
    intake: Intake, clock: Clock
) -> None:
    def window_of(number: int) -> int:
        writer = WriterId(number.to_bytes(16, "little"))
        reply = ask(
            intake, encode(Hello(writer, KEY)), peer=number.to_bytes(5, "little")
        )
        assert isinstance(reply, Welcome)
        return reply.window

    clock.now += ACTIVE_S + 1  # Nobody is active that the intake knows of.
    windows = [window_of(number) for number in range(300)]
    assert windows[0] == WINDOW_SIZE_MAX
    assert windows[31] == WINDOW_SIZE_MAX // 4
    assert windows[-1] == WINDOW_SIZE_MIN
    assert intake.active_writers == 300

    clock.now += ACTIVE_S + 1

    assert window_of(1000) == WINDOW_SIZE_MAX


def test_quiet_connections_are_forgotten_when_they_are_many(
    intake: Intake, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flightlogd.intake.PEERS_MAX", 10)
    for number in range(10):
        ask(intake, hello(TOKENS[0]), peer=bytes([number]))
    clock.now += ACTIVE_S + 1

    ask(intake, hello(TOKENS[1]), peer=b"new")

    assert intake.active_writers == 1
    assert intake.take([Message(bytes([3]), frame(A, 1))]) == []
    ask(intake, hello(TOKENS[0]), peer=bytes([3]))
    assert last_of(ask(intake, *frame(A, 1), peer=bytes([3]))) == 1, "may come back"
