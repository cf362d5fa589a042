"""What the recorder does with what arrives: check, de-duplicate, append, answer."""

import hmac
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from flightlog_storage.errors import CorruptData
from flightlog_storage.event import WriterId
from flightlog_storage.eventlog import AppendFailed, EventLog
from flightlog_storage.frame import FLAG_GAP, Frame, FrameType, parse_header
from flightlog_storage.protocol import (
    PROTOCOL_VERSION,
    WINDOW_SIZE_MAX,
    WINDOW_SIZE_MIN,
    Ack,
    Hello,
    Refused,
    Reply,
    Rewind,
    StatusRequest,
    Welcome,
    writer_of,
)
from flightlog_storage.spool_reader import FRAME_SIZE

__all__ = ("Counters", "Intake", "Message")

WINDOW_BUDGET = 8 << 20  # Bytes that all writers together may have on the way.
ACTIVE_S = 10.0  # A writer heard of within this time shares in the budget.
COUNT_INTERVAL_S = 1.0  # Between two counts of those who are active.
PEERS_MAX = 10_000  # Known at a time; of the quiet ones nothing needs to be known.
SEQUENCE_MAX = (1 << 63) - 1

_requests: msgspec.msgpack.Decoder[Hello | StatusRequest] = msgspec.msgpack.Decoder(
    Hello | StatusRequest
)


@dataclass(frozen=True, slots=True)
class Message:
    """What came from a connection: a request in one part or a frame in two."""

    peer: bytes
    parts: list[bytes]


@dataclass
class Counters:
    """What the recorder has done since its start."""

    frames: int = 0
    events: int = 0
    duplicates: int = 0
    rewinds: int = 0
    refused: int = 0
    batches: int = 0
    append_failures: int = 0
    last_sync_s: float = 0.0
    sync_s: float = 0.0  # Of all batches.
    sync_max_s: float = 0.0
    last_batch_frames: int = 0
    acks: int = 0


@dataclass
class _Peer:
    writer: WriterId
    heard_at: float


@dataclass
class _Batch:
    frames: list[tuple[Frame, bytes]] = field(default_factory=list)
    last: dict[WriterId, int] = field(default_factory=dict)
    acks: dict[bytes, WriterId] = field(default_factory=dict)
    replies: list[tuple[bytes, Reply | bytes]] = field(default_factory=list)


class Intake:
    """The only one that appends to the event log. Never looks into a payload."""

    def __init__(
        self,
        log: EventLog,
        status: Callable[[], bytes],
        key: bytes,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key` proves that who says it may speak for any writer."""
        self._log = log
        self._status = status
        self._key = key
        self._now = now
        self._peers: dict[bytes, _Peer] = {}
        self._sharing = 0  # Writers that the budget is for, as they were counted last.
        self._counted_at = -COUNT_INTERVAL_S
        self.counters = Counters()

    @property
    def active_writers(self) -> int:
        since = self._now() - ACTIVE_S
        return sum(peer.heard_at >= since for peer in self._peers.values())

    def take(self, messages: Iterable[Message]) -> list[tuple[bytes, Reply | bytes]]:
        """Append what the messages hold, durably, and return what to answer whom.

        Raises:
            AppendFailed: The disk refused; nobody is to be told that anything is safe.
        """
        batch = _Batch()
        for message in messages:
            if len(message.parts) == 2:
                self._take_frame(batch, message.peer, *message.parts)
            else:
                self._take_request(batch, message)
        self._append(batch.frames)
        window = self._window()
        for peer, writer in batch.acks.items():
            last = self._log.last_sequence.get(writer, 0)
            batch.replies.append((peer, Ack(last, window)))
        self.counters.acks += len(batch.acks)
        return batch.replies

    def _append(self, frames: list[tuple[Frame, bytes]]) -> None:
        if not frames:
            return
        started = self._now()
        try:
            self._log.append(frames)
        except AppendFailed:
            self.counters.append_failures += 1
            raise
        sync_s = self._now() - started
        self.counters.last_sync_s = sync_s
        self.counters.sync_s += sync_s
        self.counters.sync_max_s = max(self.counters.sync_max_s, sync_s)
        self.counters.last_batch_frames = len(frames)
        self.counters.batches += 1
        self.counters.frames += len(frames)
        self.counters.events += sum(frame.count for frame, _ in frames)

    def _take_request(self, batch: _Batch, message: Message) -> None:
        try:
            (data,) = message.parts
            request = _requests.decode(data)
        except (ValueError, msgspec.MsgspecError) as error:
            self._refuse(batch, message.peer, f"not a request: {error}")
            return
        if isinstance(request, StatusRequest):
            batch.replies.append((message.peer, self._status()))
        elif request.protocol != PROTOCOL_VERSION:
            self._refuse(batch, message.peer, _other_protocol(request.protocol))
        elif len(request.writer) != 16:
            self._refuse(batch, message.peer, "a writer's id has 16 bytes")
        elif not self._is_proven(request):
            self._refuse(batch, message.peer, "that writer is somebody else")
        else:
            self._welcome(batch, message.peer, WriterId(request.writer))

    def _is_proven(self, hello: Hello) -> bool:
        """Whether it is the writer who speaks, or one who may read the home."""
        return hmac.compare_digest(hello.proof, self._key) or hmac.compare_digest(
            writer_of(hello.proof), hello.writer
        )

    def _welcome(self, batch: _Batch, peer: bytes, writer: WriterId) -> None:
        self._forget_quiet_peers()
        self._peers[peer] = _Peer(writer, self._now())
        self._sharing += 1
        # Answers go out when the batch is durable, so its frames count as well.
        last = self._last(batch, writer)
        batch.replies.append((peer, Welcome(last, self._window(), self._log.log_id)))

    def _last(self, batch: _Batch, writer: WriterId) -> int:
        return batch.last.get(writer, self._log.last_sequence.get(writer, 0))

    def _take_frame(
        self, batch: _Batch, peer: bytes, header: bytes, payload: bytes
    ) -> None:
        try:
            frame = parse_header(header)
            _check(frame, payload)
        except CorruptData as error:
            self._refuse(batch, peer, str(error))
            return
        known = self._peers.get(peer)
        if known is None:
            # Sent by ZeroMQ to a new daemon, or by one that was long quiet: without
            # an answer its writer says hello, which a refusal would be the end of.
            self.counters.refused += 1
            return
        if known.writer != frame.writer:
            self._refuse(batch, peer, "a frame of another writer than the connection's")
            return
        known.heard_at = self._now()
        last = self._last(batch, frame.writer)
        if frame.sequence_end <= last + 1:
            self.counters.duplicates += 1
            batch.acks[peer] = frame.writer
        elif frame.sequence == last + 1 or (
            frame.sequence > last and frame.flags & FLAG_GAP
        ):
            batch.frames.append((frame, payload))
            batch.last[frame.writer] = frame.sequence_end - 1
            batch.acks[peer] = frame.writer
        else:
            self.counters.rewinds += 1
            batch.replies.append((peer, Rewind(last)))

    def _refuse(self, batch: _Batch, peer: bytes, reason: str) -> None:
        self.counters.refused += 1
        batch.replies.append((peer, Refused(reason)))

    def _window(self) -> int:
        now = self._now()
        if now >= self._counted_at + COUNT_INTERVAL_S:
            self._counted_at, self._sharing = now, self.active_writers
        share = WINDOW_BUDGET // max(1, self._sharing)
        return max(WINDOW_SIZE_MIN, min(WINDOW_SIZE_MAX, share))

    def _forget_quiet_peers(self) -> None:
        if len(self._peers) < PEERS_MAX:
            return
        since = self._now() - ACTIVE_S
        self._peers = {
            peer: known
            for peer, known in self._peers.items()
            if known.heard_at >= since
        }


def _check(frame: Frame, payload: bytes) -> None:
    if len(payload) != frame.payload_size or zlib.crc32(payload) != frame.payload_crc:
        raise CorruptData("frame", 0, "the payload does not match its checksum")
    if frame.type != FrameType.EVENTS or frame.count < 1 or frame.sequence < 1:
        raise CorruptData("frame", 0, "it is no frame of events")
    if frame.sequence_end > SEQUENCE_MAX or frame.count > _events_max(frame):
        raise CorruptData("frame", 0, "it cannot hold so many events")


def _events_max(frame: Frame) -> int:
    """Return how many events a frame may hold: of a byte each, as writers cut frames.

    More of nothing would keep the materializer busy for a minute.
    """
    return min(frame.payload_size, FRAME_SIZE)


def _other_protocol(theirs: int) -> str:
    """Return what to do where versions of a writer and of this daemon do not fit."""
    reason = f"this daemon speaks protocol {PROTOCOL_VERSION}, not {theirs}: "
    if theirs < PROTOCOL_VERSION:
        return reason + (
            "this process has loaded an older flightlog; what it logs is kept in its "
            "spool, which the daemon takes when the process has ended"
        )
    return reason + "this process has loaded a newer flightlog"
