"""How far spools may grow, on chunks that are really there."""

import errno
import math
import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgpack
import pytest
from tests.system.harness import small_disk

from flightlog_storage import buffers
from flightlog_storage.codec import RunKey, packer
from flightlog_storage.process import this_process
from flightlog_storage.spool import SpoolOwner, chunk_path, chunks
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_room import SpoolCaps, SpoolRoom
from flightlog_storage.spool_writer import SpoolWriter

MIB = 1 << 20
LAST = packer().pack({"event": "RunFinished"})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB, for spools."""
    with small_disk(tmp_path / "spool", "64m") as folder:
        yield folder


def put(writer: SpoolWriter) -> None:
    writer.put_row(("a",), lambda number: packer().pack((number, 0, 1.0, "x" * MIB)))


def is_taken(writer: SpoolWriter, refusal: int = errno.EDQUOT) -> bool:
    try:
        put(writer)
    except OSError as error:
        if error.errno != refusal:
            raise
        return False
    return True


def fill(writer: SpoolWriter, refusal: int = errno.EDQUOT) -> None:
    while is_taken(writer, refusal):
        pass


@pytest.fixture
def writers(disk: Path) -> Iterator[list[SpoolWriter]]:
    """What is put here is closed."""
    found: list[SpoolWriter] = []
    yield found
    for writer in found:
        writer.close()


def open_writer(disk: Path, caps: SpoolCaps) -> SpoolWriter:
    owner = SpoolOwner(os.urandom(16), this_process(), RunKey("e", "p", "r", 0))
    return SpoolWriter(disk, owner, lambda: None, caps)


def look_always(writer: SpoolWriter) -> None:
    times = count(0.0, 10.0)
    writer.room._now = lambda: next(times)


@pytest.mark.parametrize("buffer", ["mapped", "plain"])
def test_a_spool_has_as_many_chunks_as_it_may(
    disk: Path,
    writers: list[SpoolWriter],
    buffer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if buffer == "plain":
        monkeypatch.setattr(buffers, "_MAPPABLE", frozenset())
    writer = open_writer(disk, SpoolCaps(own=16 * MIB))
    writers.append(writer)

    fill(writer)

    assert chunks(writer.folder) == [1, 2, 3, 4]


def test_a_spool_goes_on_when_the_daemon_has_taken_some_of_it(
    disk: Path, writers: list[SpoolWriter]
) -> None:
    writer = open_writer(disk, SpoolCaps(own=12 * MIB))
    writers.append(writer)
    fill(writer)
    assert not is_taken(writer)

    chunk_path(writer.folder, 1).unlink()

    assert is_taken(writer)
    fill(writer)
    assert chunks(writer.folder) == [2, 3, 4]


def test_the_end_has_room_in_a_spool_that_may_not_grow(
    disk: Path, writers: list[SpoolWriter]
) -> None:
    writer = open_writer(disk, SpoolCaps(own=8 * MIB))
    writers.append(writer)
    fill(writer)
    writer.put(b"\xa0" * (writer._size - writer.position))  # To the last byte.
    writer.note(packer().pack({"event": "Gap", "count": 7}))

    writer.seal(LAST)

    reader = SpoolReader(writer.folder)
    found: list[object] = []
    while cut := reader.cut():
        stream = msgpack.Unpacker()
        stream.feed(cut.payload)
        found += stream
    reader.close()
    assert found[-2:] == [{"event": "Gap", "count": 7}, {"event": "RunFinished"}]


def test_all_spools_together_are_capped_and_each_has_its_first_chunk(
    disk: Path, writers: list[SpoolWriter]
) -> None:
    caps = SpoolCaps(all=32 * MIB)
    writers += [open_writer(disk, caps) for _ in range(3)]
    for writer in writers:
        look_always(writer)

    for _ in range(20):
        for writer in writers:
            is_taken(writer)
            writer.room.look()
    late = open_writer(disk, caps)
    writers.append(late)
    late.room.look()
    fill(late)

    # Each may begin one more before it hears of the others.
    assert 8 <= sum(len(chunks(writer.folder)) for writer in writers[:3]) <= 10
    assert chunks(late.folder) == [1]


def test_without_caps_the_disk_is_the_end(
    disk: Path, writers: list[SpoolWriter]
) -> None:
    writer = open_writer(disk, SpoolCaps(own=0, all=0))
    writers.append(writer)

    fill(writer, errno.ENOSPC)

    assert sum(path.stat().st_size for path in writer.folder.iterdir()) > 60 * MIB


def test_a_refusal_says_which_cap_it_is(disk: Path, writers: list[SpoolWriter]) -> None:
    writers.append(open_writer(disk, SpoolCaps(own=4 * MIB)))
    fill(writers[0])
    with pytest.raises(OSError, match="4,194,304 bytes; FLIGHTLOG_SPOOL_SIZE_MAX is"):
        put(writers[0])

    writers.append(open_writer(disk, SpoolCaps(all=8 * MIB)))
    writers[1].room.look()
    fill(writers[1])
    with pytest.raises(OSError, match="8,388,608 bytes; FLIGHTLOG_SPOOLS_SIZE_MAX is"):
        put(writers[1])


def test_all_are_looked_at_once_a_second_and_only_when_that_tells_something(
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    chunk = chunk_path(other, 1)
    now = 100.0
    room = SpoolRoom(tmp_path, SpoolCaps(all=8 * MIB), lambda: now)

    def is_full() -> bool:
        room.look()
        try:
            room.check(tmp_path / "own", 1)
        except OSError:
            return True
        return False

    seen = [is_full()]
    with chunk.open("wb") as file:
        file.truncate(8 * MIB)
    seen.append(is_full())  # Nobody asked for more.
    room.add(1, 1)
    seen.append(is_full())
    chunk.unlink()
    now += 0.9
    seen.append(is_full())
    now += 0.2
    seen.append(is_full())

    assert seen == [False, False, True, True, False]


def test_what_is_no_spool_or_vanishes_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "1.chunk").symlink_to(tmp_path / "nowhere")
    room = SpoolRoom(tmp_path, SpoolCaps())
    room.add(1, 1)

    room.look()
    room.check(tmp_path / "own", 1)
    shutil.rmtree(tmp_path)
    room.add(2, 1)
    room._now = lambda: math.inf
    room.look()
