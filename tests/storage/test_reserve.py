"""Last events on a disk that is full: a real one, where this may mount it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from tests.system.harness import small_disk

from flightlog_storage import buffers
from flightlog_storage import spool_writer as spool_module
from flightlog_storage.buffers import allocate
from flightlog_storage.codec import RunKey, packer
from flightlog_storage.process import this_process
from flightlog_storage.reserve import adopt_reserve
from flightlog_storage.spool import (
    CHUNK_HEADER_SIZE,
    SpoolOwner,
    chunks,
    remove_spool,
    reserve_path,
)
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter

pack = packer().pack
LAST = pack({"event": "RunFinished"})


def writer_in(folder: Path) -> SpoolWriter:
    run = RunKey("someone", "project", "run", 0)
    owner = SpoolOwner(os.urandom(16), this_process(), run)
    return SpoolWriter(folder, owner, lambda: None)


def put_row(writer: SpoolWriter, size: int) -> None:
    writer.put_row(("a",), lambda number: pack((number, 0, 1.0, "x" * size)))


def note(writer: SpoolWriter, count: int) -> None:
    writer.note(pack({"event": "Gap", "count": count}))


def items_in(folder: Path) -> list[object]:
    """Return the events of a spool, for each row a "row"."""
    found: list[object] = []
    reader = SpoolReader(folder)
    while cut := reader.cut():
        stream = msgpack.Unpacker()
        stream.feed(cut.payload)
        stream.skip()  # The definitions.
        found += [item if type(item) is dict else "row" for item in stream]
    reader.close()
    assert reader.damage is None
    return found


def fill(disk: Path) -> None:
    with open(disk / "filler", "ab", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


def interrupt_rolls(
    monkeypatch: pytest.MonkeyPatch, handle: Callable[[], None]
) -> None:
    """Call a signal handler inside each roll, where a real one may come."""

    def interrupted(fd: int, size: int) -> None:
        if size == buffers.CHUNK_SIZE:  # What it tries first.
            handle()
        allocate(fd, size)

    monkeypatch.setattr(buffers, "allocate", interrupted)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    with small_disk(tmp_path, "6m") as disk:
        yield disk


@pytest.fixture
def almost_full(disk: Path) -> Iterator[SpoolWriter]:
    """A writer that has room for a small event, on a disk that takes nothing more."""
    writer = writer_in(disk)
    put_row(writer, buffers.CHUNK_SIZE - 200)
    fill(disk)
    yield writer
    writer.close()


@pytest.fixture(params=["mapped", "plain"])
def full(
    disk: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[SpoolWriter, int]]:
    """A writer on a disk that takes nothing more, and how many rows it has taken."""
    if request.param == "plain":
        monkeypatch.setattr(buffers, "_MAPPABLE", frozenset())
    writer = writer_in(disk)
    put_row(writer, 1000)
    fill(disk)
    count = 1
    for size in (1000, 0):
        try:
            while True:
                put_row(writer, size)
                count += 1
        except OSError:
            pass
    yield writer, count
    writer.close()


@pytest.mark.fault(12)
def test_the_last_event_is_told_on_a_full_disk(full: tuple[SpoolWriter, int]) -> None:
    writer, count = full

    writer.seal(LAST)

    assert items_in(writer.folder) == ["row"] * count + [{"event": "RunFinished"}]


def test_what_was_noted_last_comes_before_the_last_event(
    full: tuple[SpoolWriter, int],
) -> None:
    writer, count = full
    for lost in (1, 70_000, 2):
        note(writer, lost)

    writer.seal(LAST)

    gap = {"event": "Gap", "count": 2}
    last = {"event": "RunFinished"}
    assert items_in(writer.folder) == ["row"] * count + [gap, last]


def test_what_was_noted_is_the_end_of_a_dead_writers_spool(
    full: tuple[SpoolWriter, int],
) -> None:
    writer, count = full
    note(writer, 7)
    writer.close()

    for _ in range(2):  # Who adopts it may be killed, and starts over.
        adopt_reserve(writer.folder)

    gap = {"event": "Gap", "count": 7}
    assert items_in(writer.folder) == ["row"] * count + [gap]


def test_what_is_noted_is_there_at_once(full: tuple[SpoolWriter, int]) -> None:
    writer, _ = full

    for count in (*range(1, 300), *range(65_500, 65_600), 2**32 - 1, 2**32, 5):
        event = pack({"event": "Gap", "time": 1.5, "count": count, "reason": "full"})
        writer.note(event)

        noted = reserve_path(writer.folder).read_bytes()
        size = int.from_bytes(noted[:8], "little")
        assert noted[CHUNK_HEADER_SIZE:size] == event, count


def test_what_is_noted_no_more_is_not_told(full: tuple[SpoolWriter, int]) -> None:
    writer, count = full
    note(writer, 7)
    writer.note(b"")
    writer.close()

    adopt_reserve(writer.folder)

    assert items_in(writer.folder) == ["row"] * count


def test_a_forked_child_leaves_what_is_noted_to_its_parent(
    full: tuple[SpoolWriter, int],
) -> None:
    writer, count = full
    note(writer, 7)
    writer.acquire()
    child = os.fork()
    if not child:
        try:
            writer.orphan()
            writer.roll(0)  # As a handler's fork inside a roll goes on.
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    writer.release()

    writer.seal(LAST)

    assert len(items_in(writer.folder)) == count + 2


def test_a_handler_that_ends_the_run_inside_a_roll_on_a_full_disk_is_heard(
    almost_full: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = almost_full
    note(writer, 7)

    interrupt_rolls(
        monkeypatch,
        lambda: writer.seal(pack({"event": "RunFinished", "text": "x" * 200})),
    )
    writer.roll(0)

    found = items_in(writer.folder)
    assert found[:2] == ["row", {"event": "Gap", "count": 7}]
    assert len(found) == 3


def test_rows_of_handlers_that_no_roll_had_room_for_are_counted(
    almost_full: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = almost_full

    def handle() -> None:
        for _ in range(2):
            put_row(writer, 1000)

    interrupt_rolls(monkeypatch, handle)
    with pytest.raises(OSError, match="No space left"):
        writer.roll(0)
    monkeypatch.undo()

    assert writer.give_up_deferred() == 2
    assert writer.give_up_deferred() == 0
    assert items_in(writer.folder) == ["row"]


def test_rows_of_handlers_are_kept_until_there_is_room(
    disk: Path, almost_full: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = almost_full

    interrupt_rolls(monkeypatch, lambda: put_row(writer, 1000))
    with pytest.raises(OSError, match="No space left"):
        writer.roll(0)
    monkeypatch.undo()
    (disk / "filler").unlink()

    assert writer.give_up_deferred() == 0
    assert items_in(writer.folder) == ["row"] * 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which sizes the disk is asked for from now on."""
    sizes: list[int] = []

    def ask(fd: int, size: int) -> None:
        sizes.append(size)
        allocate(fd, size)

    monkeypatch.setattr(buffers, "allocate", ask)
    monkeypatch.setattr(spool_module, "ASK_INTERVAL_S", 0.0)
    return sizes


def test_a_spool_that_is_refused_leaves_nothing(disk: Path) -> None:
    fill(disk)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="No space left"):
        writer_in(disk)

    assert os.listdir("/proc/self/fd") == before
    assert os.listdir(disk) == ["filler"]


@pytest.mark.fault(12)
def test_a_disk_that_refused_is_asked_by_another_thread_than_logs(
    disk: Path, almost_full: SpoolWriter, asked: list[int]
) -> None:
    writer = almost_full
    with pytest.raises(OSError, match="No space left"):
        put_row(writer, 1000)
    asked.clear()

    for _ in range(100):
        with pytest.raises(OSError, match="No space left"):
            put_row(writer, 1000)
    assert asked == []
    assert writer.make_room()
    assert asked == [buffers.CHUNK_SIZE, buffers.SMALL_CHUNK_SIZE]
    (disk / "filler").unlink()
    assert not writer.make_room()
    put_row(writer, 1000)

    assert items_in(writer.folder) == ["row"] * 2


@pytest.mark.fault(12)
def test_without_such_a_thread_it_is_asked_now_and_then(
    disk: Path, almost_full: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = almost_full
    with pytest.raises(OSError, match="No space left"):
        put_row(writer, 1000)
    (disk / "filler").unlink()
    with pytest.raises(OSError, match="No space left"):
        put_row(writer, 1000)

    monkeypatch.setattr(spool_module, "REFUSAL_S", 0.0)
    put_row(writer, 1000)

    assert items_in(writer.folder) == ["row"] * 2


def test_a_disk_with_little_room_has_small_chunks(
    disk: Path, almost_full: SpoolWriter
) -> None:
    writer = almost_full
    os.truncate(disk / "filler", os.stat(disk / "filler").st_size - (300 << 10))

    for _ in range(150):
        put_row(writer, 1000)
    with pytest.raises(OSError, match="No space left"):
        put_row(writer, 200 << 10)

    assert items_in(writer.folder) == ["row"] * 151


def test_the_next_chunk_is_made_ahead(tmp_path: Path, asked: list[int]) -> None:
    writer = writer_in(tmp_path)
    put_row(writer, 1000)
    writer.make_room()
    assert asked == [buffers.CHUNK_SIZE]  # The first one alone.

    put_row(writer, buffers.CHUNK_SIZE // 2)
    writer.make_room()
    writer.make_room()
    assert len(asked) == 2
    put_row(writer, buffers.CHUNK_SIZE // 2)
    assert len(asked) == 2
    put_row(writer, buffers.CHUNK_SIZE)  # Larger than what is made ahead.

    assert len(asked) > 2
    assert items_in(writer.folder) == ["row"] * 4
    writer.seal(LAST)
    writer.close()
    remove_spool(writer.folder)


def test_a_chunk_made_ahead_is_not_a_forked_childs(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    put_row(writer, buffers.CHUNK_SIZE // 2)
    writer.make_room()
    writer.acquire()
    child = os.fork()
    if not child:
        try:
            writer.orphan()
            writer.roll(0)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    writer.release()

    put_row(writer, buffers.CHUNK_SIZE // 2)

    assert items_in(writer.folder) == ["row"] * 2
    writer.close()


def test_a_spool_goes_with_its_reserve(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    note(writer, 7)
    writer.close()

    remove_spool(writer.folder)

    assert not writer.folder.exists()


def test_a_reserve_that_is_not_needed_is_no_chunk(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    put_row(writer, 1)

    writer.seal(LAST)

    assert chunks(writer.folder) == [1]
    writer.close()
