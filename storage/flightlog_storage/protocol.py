"""What a writer and the recorder say to each other, without any socket.

docs/protocol.md describes the messages. `Delivery` is the writer's side as a state
machine: it is told what arrived and says what to send.
"""

from collections import deque

import msgspec

from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import WriterId
from flightlog_storage.frame import FLAG_GAP, pack_frame
from flightlog_storage.spool_reader import FRAME_SIZE, Cut, SpoolReader

__all__ = (
    "PROTOCOL_VERSION",
    "RETRY_S",
    "TOKEN_SIZE",
    "WINDOW_SIZE_MAX",
    "WINDOW_SIZE_MIN",
    "Ack",
    "Delivery",
    "Frames",
    "Hello",
    "Refused",
    "Reply",
    "Rewind",
    "StatusRequest",
    "Welcome",
    "decode_reply",
    "encode",
    "writer_of",
)

PROTOCOL_VERSION = 2
TOKEN_SIZE = 32
WINDOW_SIZE_MAX = 1 << 20  # Bytes a writer may have on the way without an ack.
WINDOW_SIZE_MIN = 64 << 10
FRAME_SIZE_MIN = 16 << 10  # Less room than this is no reason for tiny frames.
RETRY_S = 5.0  # Without a word from the recorder for so long, start over with hello.


class Hello(msgspec.Struct, frozen=True, tag=True):
    """From a writer, first on every connection.

    `proof` is the writer's token, which its id is made from, or the key of the home.
    """

    writer: bytes
    proof: bytes = b""
    protocol: int = PROTOCOL_VERSION


class StatusRequest(msgspec.Struct, frozen=True, tag=True):
    """From anyone: how are you? Answered with a `Status` in JSON."""


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """To a writer: all up to `last` is durable; `window` bytes may be on the way."""

    last: int
    window: int
    log_id: bytes


class Ack(msgspec.Struct, frozen=True, tag=True):
    """To a writer: all up to `last` is durable."""

    last: int
    window: int


class Rewind(msgspec.Struct, frozen=True, tag=True):
    """To a writer: a frame was not taken; go on with the one after `last`."""

    last: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """To a writer: what it said cannot be accepted, now or ever."""

    reason: str


Reply = Welcome | Ack | Rewind | Refused
Frames = list[bytes]

_encode = msgspec.msgpack.Encoder().encode
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def writer_of(token: bytes) -> WriterId:
    """Return the id of the writer whose token this is: who knows the id lacks it."""
    import hashlib  # Late: `import flightlog` has to be light.

    return WriterId(hashlib.sha256(token).digest()[:16])


def encode(message: Hello | StatusRequest | Reply) -> bytes:
    return _encode(message)


def decode_reply(data: bytes) -> Reply:
    """Return what the recorder said.

    Raises:
        MalformedEvent: It is no reply of this protocol.
    """
    try:
        return _replies.decode(data)
    except msgspec.MsgspecError as error:
        raise MalformedEvent(f"not a reply: {error}") from error


class _OnTheWay(msgspec.Struct, frozen=True):
    cut: Cut
    size: int


class Delivery:
    """Brings a spool's events to the recorder: at least once, in order, windowed."""

    def __init__(
        self, writer: WriterId, reader: SpoolReader, proof: bytes = b""
    ) -> None:
        self._writer = writer
        self._proof = proof
        self._reader = reader
        self._window = 0
        self._size = 0
        self._on_the_way: deque[_OnTheWay] = deque()
        self._after_gap = False
        self._heard_at = 0.0
        self.welcomed = False
        self.refused: str | None = None
        self.acked = 0
        self.durable = (0, 0)  # (chunk, position) up to which all is durable.

    @property
    def is_waiting(self) -> bool:
        """Whether the recorder owes an answer."""
        return bool(self._on_the_way) or not self.welcomed

    @property
    def sequence(self) -> int:
        """The sequence of the next event to be sent."""
        return self._reader.sequence

    @property
    def damage(self) -> str | None:
        """What of the spool cannot be read, if anything."""
        return self._reader.damage

    def close(self) -> None:
        self._reader.close()

    def hello(self, now: float) -> Frames:
        """Return the greeting of a new connection."""
        self.welcomed = False
        self._forget_on_the_way()
        self._heard_at = now
        return [encode(Hello(self._writer, self._proof))]

    def is_overdue(self, now: float) -> bool:
        """Whether the recorder has kept an answer back for too long."""
        return self.is_waiting and now - self._heard_at > RETRY_S

    def receive(self, reply: Reply, now: float) -> None:
        self._heard_at = now
        match reply:
            case Welcome():
                self.welcomed = True
                self._window = reply.window
                self._go_on_after(reply.last)
            case Ack():
                self._window = reply.window
                self._acknowledge(reply.last)
            case Rewind():
                if self.welcomed:
                    self._go_on_after(reply.last)
            case Refused():
                self.refused = reply.reason

    def next(self, now: float) -> Frames | None:
        """Return the next frame to send, or None without an event or a window."""
        if not self.welcomed or self.refused or self._size >= self._window:
            return None
        room = self._window - self._size
        cut = self._reader.cut(min(FRAME_SIZE, max(room, FRAME_SIZE_MIN)))
        if cut is None:
            if not self._on_the_way:
                self.durable = max(self.durable, self._reader.place)
            return None
        if not self._on_the_way:
            self._heard_at = now
        self._on_the_way.append(_OnTheWay(cut, len(cut.payload)))
        self._size += len(cut.payload)
        flags = FLAG_GAP if self._after_gap else 0
        self._after_gap = False
        return list(
            pack_frame(self._writer, cut.sequence, cut.count, cut.payload, flags)
        )

    def _acknowledge(self, last: int) -> None:
        self.acked = max(self.acked, last)
        while self._on_the_way and self._on_the_way[0].cut.sequence_end <= last + 1:
            done = self._on_the_way.popleft()
            self._size -= done.size
            self.durable = (done.cut.chunk, done.cut.position)
        self._reader.free(last)

    def _go_on_after(self, last: int) -> None:
        self._forget_on_the_way()
        self._acknowledge(last)
        reached = self._reader.seek(last + 1)
        self.durable = max(self.durable, self._reader.place)
        self._after_gap = reached > last + 1

    def _forget_on_the_way(self) -> None:
        self._on_the_way.clear()
        self._size = 0
