"""What the recorder said was durable, and when, read from its sockets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
from tests.simulation.recorded import Moment

from flightlog_storage.protocol import Ack, Hello, Welcome

__all__ = ("Acked", "read_acks")

_GREETING_SIZE = 64
_LONG, _COMMAND = 2, 4

_messages: msgspec.msgpack.Decoder[Hello | Ack | Welcome] = msgspec.msgpack.Decoder(
    Hello | Ack | Welcome
)


@dataclass(frozen=True)
class Acked:
    """From the moment of this number on, a writer may rely on all up to `last`."""

    moment: int
    writer: bytes
    last: int


@dataclass
class _Stream:
    """Bytes of one direction of a connection, taken apart as ZMTP 3 says."""

    data: bytearray = field(default_factory=bytearray)
    position: int = _GREETING_SIZE

    def add(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that these bytes complete."""
        self.data += data
        while self.position < len(self.data):
            flags = self.data[self.position]
            start = self.position + (9 if flags & _LONG else 2)
            end = start + int.from_bytes(self.data[self.position + 1 : start])
            if len(self.data) < max(start, end):
                return
            self.position = end
            if not flags & _COMMAND:
                yield bytes(self.data[start:end])


def read_acks(moments: Sequence[Moment]) -> list[Acked]:
    """Return what each writer was told, from when its first byte was sent."""
    found: list[Acked] = []
    streams: dict[tuple[str, str], _Stream] = {}
    writers: dict[str, bytes] = {}
    begun: dict[int, int] = {}
    for number, moment in enumerate(moments):
        call = moment.call
        if call.name not in ("sendto", "recvfrom"):
            continue
        if not moment.is_end:
            begun[id(call)] = number
            continue
        stream = streams.setdefault((call.name, call.target), _Stream())
        for data in stream.add(b"".join(call.strings[:1])[: call.result]):
            message = _decoded(data)
            if isinstance(message, Hello) and call.name == "recvfrom":
                writers[call.target] = message.writer
            elif isinstance(message, Ack | Welcome) and call.name == "sendto":
                writer = writers[call.target]
                found.append(Acked(begun[id(call)], writer, message.last))
    return found


def _decoded(data: bytes) -> Hello | Ack | Welcome | None:
    try:
        return _messages.decode(data)
    except msgspec.MsgspecError:
        return None
