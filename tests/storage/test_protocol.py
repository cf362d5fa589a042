import os
from pathlib import Path

import pytest

from flightlog_storage.codec import RunKey, packer
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import WriterId
from flightlog_storage.frame import FLAG_GAP, Frame, parse_header
from flightlog_storage.process import this_process
from flightlog_storage.protocol import (
    RETRY_S,
    Ack,
    Delivery,
    Refused,
    Rewind,
    Welcome,
    decode_reply,
    encode,
)
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter

WINDOW = 1 << 20
LOG = b"l" * 16


class Pair:
    """A spool and its delivery; `sent` gives the frames that may go now."""

    def __init__(self, folder: Path) -> None:
        owner = SpoolOwner(os.urandom(16), this_process(), RunKey("e", "p", "r"))
        self.writer = SpoolWriter(folder, owner, lambda: None)
        self.delivery = Delivery(
            WriterId(owner.writer), SpoolReader(self.writer.folder)
        )

    def put(self, count: int, size: int = 1) -> None:
        for _ in range(count):
            self.writer.put(packer().pack({"event": "x", "text": "x" * size}))

    def welcome(self, last: int = 0, window: int = WINDOW) -> None:
        self.delivery.hello(0.0)
        self.delivery.receive(Welcome(last, window, LOG), 0.0)

    def sent(self) -> list[Frame]:
        frames = []
        while parts := self.delivery.next(0.0):
            frames.append(parse_header(parts[0]))
        return frames

    @property
    def is_durable(self) -> bool:
        place = (self.writer.chunk, self.writer.position)
        return self.delivery.durable >= place


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_nothing_is_sent_before_the_welcome(pair: Pair) -> None:
    pair.put(3)
    pair.delivery.hello(0.0)

    assert pair.sent() == []
    assert pair.delivery.is_waiting


def test_what_is_not_acknowledged_is_not_durable(pair: Pair) -> None:
    pair.put(2, size=200_000)
    pair.welcome()
    assert [frame.sequence for frame in pair.sent()] == [1, 2]

    pair.delivery.receive(Ack(1, WINDOW), 0.0)

    assert (pair.delivery.is_waiting, pair.is_durable) == (True, False)
    pair.delivery.receive(Ack(2, WINDOW), 0.0)
    assert (pair.delivery.is_waiting, pair.is_durable) == (False, True)


def test_events_are_durable_when_acknowledged(pair: Pair) -> None:
    pair.put(3)
    pair.welcome()

    (frame,) = pair.sent()
    assert (frame.sequence, frame.count, pair.is_durable) == (1, 3, False)
    pair.delivery.receive(Ack(3, WINDOW), 0.0)

    assert (pair.is_durable, pair.delivery.acked) == (True, 3)
    assert not pair.delivery.is_waiting


def test_window_holds_frames_back(pair: Pair) -> None:
    pair.put(100, size=10_000)
    pair.welcome(window=64 << 10)

    first = pair.sent()
    assert sum(frame.count for frame in first) < 20
    pair.delivery.receive(Ack(first[-1].sequence_end - 1, WINDOW), 0.0)

    assert sum(frame.count for frame in pair.sent()) > 60


def test_welcome_goes_on_where_the_log_ends(pair: Pair) -> None:
    pair.put(10)
    pair.welcome(last=4)

    (frame,) = pair.sent()

    assert (frame.sequence, frame.count, frame.flags) == (5, 6, 0)


def test_rewind_sends_again(pair: Pair) -> None:
    pair.put(10)
    pair.welcome()
    pair.sent()

    pair.delivery.receive(Rewind(6), 0.0)

    assert [(frame.sequence, frame.count) for frame in pair.sent()] == [(7, 4)]


def test_rewind_behind_what_is_freed_says_that_there_is_a_gap(pair: Pair) -> None:
    pair.put(100, size=100_000)
    pair.welcome(window=1 << 30)
    pair.sent()
    pair.delivery.receive(Ack(100, WINDOW), 0.0)

    pair.delivery.receive(Rewind(0), 0.0)

    frames = pair.sent()
    assert frames[0].sequence > 1
    assert [frame.flags for frame in frames][:2] == [FLAG_GAP, 0]


def test_silence_is_overdue(pair: Pair) -> None:
    pair.put(1)
    pair.welcome()
    pair.sent()

    assert not pair.delivery.is_overdue(RETRY_S)
    assert pair.delivery.is_overdue(RETRY_S + 0.1)


def test_refused_writer_sends_no_more(pair: Pair) -> None:
    pair.put(1)
    pair.welcome()

    pair.delivery.receive(Refused("no"), 0.0)

    assert (pair.sent(), pair.delivery.refused) == ([], "no")


def test_acks_out_of_turn_harm_nothing(pair: Pair) -> None:
    pair.put(3)
    pair.delivery.receive(Ack(2, WINDOW), 0.0)
    pair.delivery.receive(Rewind(9), 0.0)
    pair.welcome()
    pair.sent()
    pair.delivery.receive(Ack(3, WINDOW), 0.0)
    pair.delivery.receive(Ack(1, WINDOW), 0.0)

    assert (pair.delivery.acked, pair.is_durable) == (3, True)


@pytest.mark.parametrize(
    "reply", [Welcome(1, 2, LOG), Ack(1, 2), Rewind(1), Refused("x")]
)
def test_replies_are_read_back(reply: Welcome | Ack | Rewind | Refused) -> None:
    assert decode_reply(encode(reply)) == reply


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", encode(Ack(1, 2))[:-1]])
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvent, match="not a reply"):
        decode_reply(data)
