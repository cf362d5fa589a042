"""Cutting a spool into frames, for its sender, its adopter and onlookers."""

import os
from pathlib import Path
from typing import Any

import msgpack
import msgspec

from flightlog_storage.budget import check_cost, is_cheap
from flightlog_storage.codec import (
    RUN_SHAPE,
    encode_definitions,
    encode_event,
    encode_run,
    packer,
    unpacker,
)
from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import Gap
from flightlog_storage.files import open_file
from flightlog_storage.frame import PAYLOAD_SIZE_MAX
from flightlog_storage.spool import (
    CHUNK_HEADER,
    CHUNK_HEADER_SIZE,
    CHUNK_MAGIC,
    chunk_path,
    chunks,
    read_owner,
)

__all__ = ("FRAME_SIZE", "Cut", "SpoolReader")

FRAME_SIZE = 256 << 10  # Bytes of events that a frame holds, but for one large event.
_FIRST_SEQUENCE_AT = 16
_SECTOR = bytes(512)  # As a loss of power leaves it that was not written yet.
_NOWHERE = 1 << 62
_TIME = b"\xa4time\xcb"


class Cut(msgspec.Struct, frozen=True):
    """Events cut from a spool for one frame, and where the cut ends."""

    sequence: int
    count: int
    payload: bytes
    chunk: int
    position: int

    @property
    def sequence_end(self) -> int:
        return self.sequence + self.count


class _Taken(msgspec.Struct):
    """Events taken from a stretch of a chunk, without the definitions between them."""

    pieces: list[bytes] = []
    used: set[int] = set()  # The shapes of their rows.
    count: int = 0
    size: int = 0  # Bytes of the stretch, definitions included.


class SpoolReader:
    """Cuts a spool into frames, from any sequence on; frees what is durable.

    Reads the files, so it serves the living writer's sender and, after its death,
    whoever adopts the spool.
    """

    def __init__(self, folder: Path, *, is_onlooker: bool = False) -> None:
        """Read the spool in `folder`; an onlooker leaves it as it is."""
        self._folder = folder
        self._is_onlooker = is_onlooker
        self._fd = -1
        owner = read_owner(folder)
        self._run = b"" if owner is None else encode_run(owner.run)
        # Nothing of it was synced: what a kill leaves is whole, but not what this does.
        self._lost_power = owner is None or not owner.process.is_of_this_boot()
        self._ends: dict[int, int] = {}  # chunk → the sequence after its last event
        self._sequence = 1
        self._position = CHUNK_HEADER_SIZE
        self.damage: str | None = None  # The first that was met.
        self._is_broken = False
        self._rewind()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def sequence(self) -> int:
        """The sequence of the next event to be cut."""
        return self._sequence

    @property
    def place(self) -> tuple[int, int]:
        """The chunk, and the position in it, of the next event to be cut."""
        return self._chunk, self._position

    @property
    def is_overtaken(self) -> bool:
        """Whether what an onlooker reads was recorded and freed meanwhile."""
        return not chunk_path(self._folder, self._chunk).exists()

    def seek(self, sequence: int) -> int:
        """Go to the event with this sequence, or to the first one still held.

        Returns the sequence reached: larger than asked for where events are gone,
        smaller where the spool ends before.
        """
        self._rewind()
        while self._sequence < sequence:
            cut = self.cut(limit=sequence - self._sequence)
            if cut is None:
                break
        return self._sequence

    def cut(self, size: int = FRAME_SIZE, limit: int = 1 << 62) -> Cut | None:
        """Return the next events, or None at the end.

        Args:
            size: How many bytes of events to return at most; one event may be larger.
            limit: How many events to return at most.
        """
        while True:
            if self._fd < 0 and not self._open(self._chunk):
                return None
            committed = self._committed()
            if self._position >= committed or self._is_broken:
                if not self._next_chunk():
                    return None
                continue
            cut = self._cut(committed, size, limit)
            if cut is not None:
                return cut

    def free(self, acked: int) -> None:
        """Delete the chunks whose events all have a sequence of `acked` or less."""
        for chunk, end in list(self._ends.items()):
            if end <= acked + 1 and chunk < self._chunk:
                chunk_path(self._folder, chunk).unlink(missing_ok=True)
                del self._ends[chunk]

    def _cut(self, committed: int, size: int, limit: int) -> Cut | None:
        while True:
            start = self._position
            data = os.pread(self._fd, min(size, committed - start), start)
            taken = self._take(data, limit)
            if taken.size or self._is_broken:
                break
            if size > PAYLOAD_SIZE_MAX or len(data) == committed - start:
                self._break(f"no event at byte {start}")
                break
            size *= 4  # One event is larger than a frame usually is.
        self._position = start + taken.size
        if not taken.count:
            return None
        definitions = {RUN_SHAPE: self._run} if self._run else {}
        definitions |= {shape: self._definitions[shape] for shape in sorted(taken.used)}
        sequence = self._sequence
        self._sequence += taken.count
        payload = encode_definitions(definitions) + b"".join(taken.pieces)
        return Cut(sequence, taken.count, payload, self._chunk, self._position)

    # Once for every row, in a thread of the trainer: no calls in between.
    def _take(self, data: bytes, limit: int) -> _Taken:  # noqa: C901
        """Return the events in `data`, up to a shape defined anew or half an event."""
        if not is_cheap(data):
            return self._take_slowly(data, limit)
        used: set[int] = set()
        pieces: list[bytes] = []
        count = start = size = 0
        stream = unpacker(data)
        try:
            for item in stream:
                if type(item) is list:
                    if len(item) == 2:
                        if item[0] in used:
                            break
                        pieces.append(data[start:size])
                        start = stream.tell()
                        self._definitions[item[0]] = data[size:start]
                        size = start
                        continue
                    used.add(item[0])
                elif type(item) is not dict:
                    return self._take_slowly(data, limit)
                count += 1
                size = stream.tell()  # At the end it would count half an event.
                if count == limit:
                    break
        except (ValueError, TypeError, IndexError, msgpack.UnpackException):
            return self._take_slowly(data, limit)
        if not used <= self._definitions.keys():
            return self._take_slowly(data, limit)
        pieces.append(data[start:size])
        return _Taken(pieces, used, count, size)

    def _take_slowly(self, data: bytes, limit: int) -> _Taken:
        """Do it one by one: what comes before damage is taken, and then the damage."""
        taken = _Taken()
        stream = unpacker(data)
        try:
            while taken.count < limit:
                check_cost(data, taken.size)
                item = stream.unpack()
                if not self._add(taken, item, data[taken.size : stream.tell()]):
                    break
        except msgpack.OutOfData:
            pass
        except MalformedEvent as error:
            return taken if taken.size else self._step_over(data, error)
        except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
            if taken.size:
                return taken
            mended = self._mend(data)
            if mended is not None:
                return mended
            self._break(repr(error))
        return taken

    def _add(self, taken: _Taken, item: Any, raw: bytes) -> bool:
        """Add one more item; False if it defines a shape that others stand for."""
        if type(item) is list:
            if len(item) == 2:
                if item[0] in taken.used:
                    return False
                self._definitions[item[0]] = raw
                taken.size += len(raw)
                return True
            if item[0] not in self._definitions:
                raise ValueError("a row of an unknown shape")
            taken.used.add(item[0])
        elif type(item) is not dict:  # Zeros, after a loss of power.
            raise ValueError("neither a row nor an event")
        taken.count += 1
        taken.size += len(raw)
        taken.pieces.append(raw)
        return True

    def _mend(self, data: bytes) -> _Taken | None:
        """Return the row at the start of `data` as readers of the log can read it.

        Python packs more than they accept: a dict with a tuple among its keys. So what
        was logged so is put into other words here, the same whenever it is read.
        """
        stream = msgpack.Unpacker(
            max_buffer_size=2 * PAYLOAD_SIZE_MAX,
            max_ext_len=PAYLOAD_SIZE_MAX,
            object_pairs_hook=_with_plain_keys,
            strict_map_key=False,
        )
        stream.feed(data)
        try:
            row = stream.unpack()
            if type(row) is not list or len(row) < 3 or row[0] not in self._definitions:
                return None
            mended = packer().pack([_plain(value) for value in row])
        except msgpack.OutOfData:
            return _Taken()
        except (ValueError, TypeError, OverflowError, msgpack.UnpackException):
            return None
        try:
            unpacker(mended).unpack()
        except (ValueError, msgpack.UnpackException) as error:
            gap = Gap(
                time=float(row[2]), count=1, reason=f"a row cannot be read: {error}"
            )
            return _Taken([encode_event(gap)], set(), 1, stream.tell())
        return _Taken([mended], {row[0]}, 1, stream.tell())

    def _step_over(self, data: bytes, why: MalformedEvent) -> _Taken:
        """Return the loss of the event at the start of `data`, of which it tells."""
        stream = unpacker(data)
        try:
            stream.skip()
            gap = Gap(time=_time_in(data), count=1, reason=f"an event is lost: {why}")
        except msgpack.OutOfData:
            return _Taken()
        except (ValueError, msgpack.UnpackException) as error:
            self._break(repr(error))
            return _Taken()
        return _Taken([encode_event(gap)], set(), 1, stream.tell())

    def _break(self, why: str) -> None:
        """Give up the rest of this chunk."""
        self._is_broken = True
        self._note(why)

    def _note(self, why: str) -> None:
        self.damage = self.damage or f"chunk {self._chunk}: {why}"

    def _rewind(self) -> None:
        self.close()
        held = chunks(self._folder)
        self._chunk = held[0] if held else 1
        self._sequence = 1
        self._open(self._chunk)
        if self._lost_power and self._chunk > 1 and self._sequence == 1:
            self._note("its first sequence is lost")  # Or the chunks before it are.

    def _open(self, chunk: int) -> bool:
        try:
            mode = os.O_RDONLY if self._is_onlooker else os.O_RDWR
            fd = open_file(chunk_path(self._folder, chunk), mode)
        except FileNotFoundError:
            return False
        self.close()
        self._fd = fd
        self._chunk = chunk
        self._position = CHUNK_HEADER_SIZE
        self._end_before = 0  # At least there ends the chunk before.
        self._is_broken = False
        header = os.pread(fd, CHUNK_HEADER.size, 0)
        if len(header) < CHUNK_HEADER.size or header[8:12] != CHUNK_MAGIC:
            self._break("it has no header")
        else:
            _, _, _, first, _, self._end_before = CHUNK_HEADER.unpack(header)
            self._sequence = max(self._sequence, first)
        self._definitions: dict[int, bytes] = {}
        self._end = self._first_zeros() if self._lost_power else _NOWHERE
        return True

    def _committed(self) -> int:
        return min(int.from_bytes(os.pread(self._fd, 8, 0), "little"), self._end)

    def _first_zeros(self) -> int:
        """Return where the disk has nothing of what was committed.

        A row that reaches there may look whole: a number may end with zeros.
        """
        size = os.fstat(self._fd).st_size
        committed = int.from_bytes(os.pread(self._fd, 8, 0), "little")
        data = os.pread(self._fd, min(committed, size), 0)
        for start in range(len(_SECTOR), len(data), len(_SECTOR)):
            if _SECTOR.startswith(data[start : start + len(_SECTOR)]):
                self._note(f"zeros at byte {start}")
                return start
        return _NOWHERE

    def _next_chunk(self) -> bool:
        """Go to the next chunk, if the writer has, and note there where it starts."""
        following = self._following()
        if following is None:
            return False
        if self._position < self._committed() and not self._is_broken:
            return True  # Written between the look at `committed` and at the folder.
        self._ends[self._chunk] = self._sequence
        position = self._position
        if not self._open(following):
            return False
        if position < self._end_before:
            self._note("the end of the chunk before is lost")
        if not self._is_onlooker and not self._is_broken:
            sequence = self._sequence.to_bytes(8, "little")
            os.pwrite(self._fd, sequence, _FIRST_SEQUENCE_AT)
        return True

    def _following(self) -> int | None:
        """Return the number of the next chunk, if there is one."""
        if chunk_path(self._folder, self._chunk + 1).exists():
            return self._chunk + 1
        if self._lost_power:
            for chunk in chunks(self._folder):
                if chunk > self._chunk:
                    self._note("the next one is missing")
                    return chunk
        return None


def _time_in(data: bytes) -> float:
    """Return the time of the row or event that `data` starts with; 0 if it has none.

    Raises:
        ValueError: It is neither.
    """
    stream = unpacker(data)
    if data[0] >> 4 == 8 or data[0] >= 0xDE:
        for _ in range(stream.read_map_header()):
            if data.startswith(_TIME, stream.tell()):
                stream.skip()
                return float(stream.unpack())
            stream.skip()
            stream.skip()
        return 0.0
    if stream.read_array_header() <= 2:
        raise ValueError("a definition that is too large")
    stream.skip()
    stream.skip()
    return float(stream.unpack()) if data[stream.tell()] == _TIME[-1] else 0.0


def _with_plain_keys(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    return {str(key): value for key, value in pairs}


def _plain(value: Any) -> Any:
    """Return a value without msgpack's extension types."""
    match value:
        case msgpack.ExtType() | msgpack.Timestamp():
            return repr(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value
