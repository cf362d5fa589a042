"""Appending to a spool: what `log()` does, and all that a loop waits for."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flightlog_storage.buffers import (
    Chunk,
    PlainBuffer,
    chunk_size,
    is_mappable,
    make_chunk,
)
from flightlog_storage.codec import packer
from flightlog_storage.event import WriterId
from flightlog_storage.frame import EVENT_SIZE_MAX
from flightlog_storage.reserve import RESERVE_SIZE, Reserve
from flightlog_storage.spool import (
    CHUNK_HEADER,
    CHUNK_HEADER_SIZE,
    CHUNK_MAGIC,
    CHUNK_VERSION,
    SpoolOwner,
    chunk_path,
    hold_spool,
    remove_spool,
    reserve_path,
    write_owner,
)
from flightlog_storage.spool_room import SpoolCaps, SpoolRoom

__all__ = ("REFUSAL_S", "Shape", "SpoolWriter")

ASK_INTERVAL_S = 0.2  # A disk that refuses is asked again by the sender's thread,
REFUSAL_S = 5.0  # or, where there is none, by `log()` after so long.


class Shape:
    """A tuple of keys that rows of this chunk have, and the last such row."""

    __slots__ = ("last", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.last: bytes = b""


class SpoolWriter:
    """Appends events to a spool. The attributes are open for `Run.log`'s fast path.

    Appending is: with the lock held, take `position` and set `pending` to the bytes,
    store the bytes there, then store the new end in `committed`. A kill at any moment
    leaves `committed` behind the last whole event. A signal handler that logs may
    interrupt the thread that holds the lock; it finds `pending` set and completes
    that append first (`help`), after which the interrupted one finds `pending`
    changed and leaves everything as it is. A handler runs only where Python calls
    something or loops: the lines between a look at the state and its change do not.
    """

    __slots__ = (
        "_asked_s",
        "_deferred",
        "_folder",
        "_is_noted",
        "_is_rolling",
        "_lock_fd",
        "_mappable",
        "_refusal",
        "_reserve",
        "_shape_count",
        "_size",
        "_spare",
        "acquire",
        "chunk",
        "committed",
        "data",
        "idle",
        "is_open",
        "lock",
        "pack",
        "pending",
        "position",
        "release",
        "room",
        "shapes",
        "wake",
        "writer",
    )
    _size: int

    def __init__(
        self,
        spool: Path,
        owner: SpoolOwner,
        wake: Callable[[], None],
        caps: SpoolCaps | None = None,
    ) -> None:
        """Open a new spool in the folder `spool`; its first chunk has no cap.

        Raises:
            OSError: The disk refuses.
        """
        self.writer = WriterId(owner.writer)
        self.shapes: dict[tuple[str, ...], Shape] = {}
        self.is_open = True
        self.pack: Callable[[object], bytes] = packer().pack
        self.pending: bytes | None = None
        self._shape_count = 0
        self._is_rolling = self._is_noted = False
        self._deferred: list[Callable[[], object]] = []
        self._spare: Chunk | None = None
        self._refusal: OSError | None = None
        self._asked_s = -REFUSAL_S  # When the disk refused for the last time.
        self.idle = False
        self.wake = wake
        self.position = 0
        self.new_lock()
        self.room = SpoolRoom(spool, caps or SpoolCaps())
        self._mappable = is_mappable(spool)
        self._folder = spool / f".new-{owner.writer.hex()}"
        self._lock_fd = -1
        self.chunk = 0
        self.data: Any = None
        self._folder.mkdir(mode=0o700)
        try:
            self._begin(owner)
        except OSError:
            with suppress(OSError):
                remove_spool(self._folder)
            self.close()
            raise

    def _begin(self, owner: SpoolOwner) -> None:
        self._lock_fd = hold_spool(self._folder)
        write_owner(self._folder, owner)
        self._open_chunk(first_sequence=1, need=0)
        self._reserve: Reserve | None = Reserve(
            self._folder, self.writer, is_mappable=self._mappable
        )
        final = self._folder.with_name(owner.writer.hex())
        self._folder.rename(final)
        self._folder = final
        self._reserve.move(final)

    @property
    def folder(self) -> Path:
        return self._folder

    def new_lock(self) -> None:
        self.lock = threading.RLock()
        self.acquire = self.lock.acquire
        self.release = self.lock.release

    def orphan(self) -> None:
        """Let go of it in a forked child, where it is not ours; the file stays.

        The child was forked with the lock held by `acquire`. If it is held once more,
        the fork is a signal handler's, inside an append that then ends in the child.
        """
        self.release()
        if not self.lock._is_owned():  # type: ignore[attr-defined]  # As Condition asks.
            self.new_lock()
        self.pending = None
        self.idle = False
        self._is_noted = False
        self._spare = None
        self._reserve = None
        self.close()
        self.seal()

    def put(self, event: bytes) -> None:
        """Append one event; when this returns no kill can lose it.

        Raises:
            OSError: The disk is full or fails; nothing was appended.
        """
        with self.lock:
            if not self._append(event, None):
                self._deferred.append(lambda: self.put(event))
        if self.idle:
            self.wake()

    def put_row(self, keys: tuple[str, ...], row: Callable[[int], bytes]) -> Shape:
        """Append a row with these keys, with their definition where it is missing.

        A chunk can be read without those before it: each defines its shapes anew.

        Args:
            keys: What the shape is found by.
            row: Makes the row's bytes from the number of the shape.

        Raises:
            OSError: The disk is full or fails; nothing was appended.
            ValueError: The keys are too long together.
        """
        with self.lock:
            while True:
                shapes = self.shapes
                shape = shapes.get(keys)
                definition = b""
                if shape is None:
                    number = self._shape_count
                    self._shape_count = number + 1
                    shape = Shape(number)
                    definition = self.pack((number, keys))
                    if len(definition) > EVENT_SIZE_MAX:
                        raise ValueError(
                            f"the names of the {len(keys):,} keys have "
                            f"{len(definition):,} bytes; at most {EVENT_SIZE_MAX:,} "
                            "can be stored in one row"
                        )
                event = row(shape.number)
                # In one piece, and only if the chunk is still the one looked at.
                if self._append(definition + event, shapes):
                    shapes[keys] = shape
                    break
                if self._is_rolling:
                    self._deferred.append(lambda: self.put_row(keys, row))
                    break
            shape.last = event
        if self.idle:
            self.wake()
        return shape

    def help(self) -> bool:
        """Complete the append that this thread was interrupted in, if any.

        Returns:
            False if it cannot be: it has no room, and will see that when it goes on.

        Raises:
            OSError: The disk is full or fails.
        """
        event = self.pending
        if event is None:
            return True
        size = len(event)
        position = self.position
        end = position + size
        if end > self._size:
            return False
        if self.pending is event:
            self.data[position:end] = event
            if self.pending is event:
                self.committed[0] = end
                self.position = end
                self.pending = None
        return True

    def roll(self, need: int) -> None:
        """Go on in a new chunk that has room for `need` bytes.

        What a signal handler logs meanwhile, and has no room here, waits for the end
        of it: handlers that come faster than chunks are made would never let it end.
        """
        with self.lock:
            self._is_rolling = True
            try:
                self.room.check(self._folder, chunk_size(need))
                self._go_on(need)
            except OSError:
                if self.idle:  # The sender's thread is to ask the disk.
                    self.wake()
                if self.is_open or self._lock_fd < 0:  # Or it is a child's no more.
                    raise
                self._open_reserve()
            finally:
                self._is_rolling = False
            if self._is_noted and not self.is_open:  # Sealed by a handler meanwhile.
                self._open_reserve()
            while self._deferred:
                append = self._deferred.pop(0)
                try:
                    append()
                except OSError:
                    self._deferred.insert(0, append)
                    raise

    def make_room(self) -> bool:
        """Make the next chunk ahead, or see whether a disk that refused takes it now.

        For a thread other than those that log: either may take milliseconds.

        Returns:
            Whether the disk refuses.
        """
        is_refused = self._refusal is not None
        is_due = is_refused or self.position > self._size // 2
        now_s = time.monotonic()
        if self._spare or not is_due or now_s < self._asked_s + ASK_INTERVAL_S:
            return is_refused
        try:
            with self.lock:
                self.room.check(self._folder, chunk_size(0))
        except OSError:
            return is_refused  # A cap, which `log()` asks itself.
        try:
            spare = self._make_chunk(".spare-chunk", 0, 0)
        except OSError as error:
            self._asked_s = time.monotonic()
            self._refusal = error
            return True
        with self.lock:
            self._spare = spare
            self._refusal = None
        return False

    def ask_again(self) -> None:
        """Have the next event ask a disk that has refused, whatever time that takes."""
        self._refusal = None

    def _go_on(self, need: int) -> None:
        """Open the next chunk: the one that was made ahead, or one made now.

        A disk that refuses is not asked again and again: to refuse takes it longer
        than a loop may wait.
        """
        spare = self._spare
        if spare is not None and need <= spare.size - CHUNK_HEADER_SIZE:
            self._spare = None
            spare.data[0:CHUNK_HEADER_SIZE] = self._header(0)
            self._enter(spare)
            return
        if self._refusal and time.monotonic() < self._asked_s + REFUSAL_S:
            raise OSError(*self._refusal.args)
        try:
            self._open_chunk(first_sequence=0, need=need)
        except OSError as error:
            self._refusal = error
            self._asked_s = time.monotonic()
            raise
        self._refusal = None

    def _append(
        self, event: bytes, shapes: dict[tuple[str, ...], Shape] | None
    ) -> bool:
        """Append an event.

        Returns:
            False if the shapes are not `shapes` any more, or a chunk is being made by
            what this thread was interrupted in.
        """
        size = len(event)
        interrupted = None if self.help() else self.pending
        self.pending = None
        while self.position + size > self._size:
            if self._is_rolling:
                self.pending = interrupted
                return False
            self.roll(size)
        if shapes is not None and self.shapes is not shapes:
            self.pending = interrupted
            return False
        position = self.position  # From here to `pending` no handler can run.
        end = position + size
        self.pending = event
        try:
            self.data[position:end] = event
        except OSError:
            if self.pending is event:  # Else a handler has appended it.
                self.pending = interrupted
                if position > CHUNK_HEADER_SIZE:  # Or it would leave empty ones behind.
                    self._size = position
                    self.data.end()
                raise
        if self.pending is event:
            self.committed[0] = end
            self.position = end
        self.pending = interrupted
        return True

    def note(self, event: bytes) -> None:
        """Keep an event for the end, in place of the last one noted; b"" for none.

        It takes no room. `seal` appends it, and whoever adopts the spool of a writer
        that was killed.
        """
        with self.lock:
            if self._reserve and (event or self._is_noted):
                with suppress(OSError):  # It is deleted, or the disk fails.
                    self._reserve.note(event)
                    self._is_noted = bool(event)

    def give_up_deferred(self) -> int:
        """Forget what signal handlers logged and no roll had room for; count it."""
        with self.lock:
            if self._is_rolling or not self._deferred:
                return 0
            self.ask_again()
            with suppress(OSError):
                self.roll(0)
            count = len(self._deferred)
            self._deferred.clear()
            return count

    def seal(self, last: bytes = b"") -> None:
        """Append what is noted and the last event, if any, and take no more rows.

        Raises:
            OSError: The disk refuses the event; sealed it is all the same.
        """
        with self.lock:
            self.is_open = False
            self.shapes = {}
            self.ask_again()
            if self._is_noted and not self._is_rolling:
                self._open_reserve()
            if last:
                self._put_last(last)

    def _put_last(self, event: bytes) -> None:
        try:
            self.put(event)
        except OSError:
            if self._is_rolling:  # It ends in a new chunk or in the reserve.
                self._deferred.append(lambda: self.put(event))
            else:
                self._open_reserve()
                self.put(event)

    def close(self) -> None:
        """Give the spool up: whoever finds it may take it over."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _open_chunk(self, first_sequence: int, need: int) -> None:
        self._enter(self._make_chunk(".new-chunk", first_sequence, need))

    def _make_chunk(self, name: str, first_sequence: int, need: int) -> Chunk:
        header = self._header(first_sequence)
        return make_chunk(self._folder / name, header, need, mapped=self._mappable)

    def _header(self, first_sequence: int) -> bytes:
        header = CHUNK_HEADER.pack(
            *(CHUNK_HEADER_SIZE, CHUNK_MAGIC, CHUNK_VERSION, first_sequence),
            *(self.writer, self.position),
        )
        return header.ljust(CHUNK_HEADER_SIZE, b"\0")

    def _enter(self, chunk: Chunk) -> None:
        number = self.chunk + 1
        chunk.path.rename(chunk_path(self._folder, number))
        self.room.add(number, chunk.size)
        self._go_on_in(number, chunk.size, chunk.data, chunk.committed)

    def _open_reserve(self) -> None:
        """Go on behind what is noted, in the room that is set aside for the end."""
        reserve = reserve_path(self._folder)
        number = self.chunk + 1
        fd = os.open(reserve, os.O_RDWR | os.O_CLOEXEC)
        data = PlainBuffer(fd, RESERVE_SIZE)
        position = int.from_bytes(os.pread(fd, 8, 0), "little")
        reserve.rename(chunk_path(self._folder, number))
        self._reserve = None
        self._is_noted = False
        self._go_on_in(number, RESERVE_SIZE, data, [0], position)

    def _go_on_in(
        self,
        number: int,
        size: int,
        data: Any,
        committed: Any,
        position: int = CHUNK_HEADER_SIZE,
    ) -> None:
        shapes: dict[tuple[str, ...], Shape] = {}
        # Kept until all is set: its end may run Python, and so a signal handler.
        old = self.data
        self.data = data
        self.committed = committed
        self._size = size
        self.position = position
        self.shapes = shapes
        self._shape_count = 0
        self.chunk = number
        del old
