"""Compressed segments: the same bytes, whatever is cut short, damaged or in between."""

import errno
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.simulation.sample import (
    FOLDER,
    QUARANTINE,
    WRITERS,
    Stored,
    next_frame,
    read,
    start,
)
from tests.simulation.simfs import PowerLost, SimFS, fail_at, lose_power
from tests.storage.test_bad_sectors import BadDisk

from flightlog_storage import compression
from flightlog_storage.compressed import read_index
from flightlog_storage.compression import Compressed, compress, compressible
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.eventlog import EventLog, LogReader, StoredFrame
from flightlog_storage.files import FileOps, RealFiles
from flightlog_storage.frame import Frame
from flightlog_storage.segment import (
    SEGMENT_HEADER_SIZE,
    Damage,
    DamageKind,
    compressed_name,
    first_offset_of,
)
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.verification import verify

SEGMENT_SIZE = 6000
BLOCK_SIZE = 1024
END = 1 << 62
LAST = compressed_name(0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    monkeypatch.setattr(compression, "BLOCK_SIZE", BLOCK_SIZE)


def fill(log: EventLog, segments: int, files: FileOps, folder: Path = FOLDER) -> None:
    """Append frames until there are so many segments."""
    chance = random.Random(1)
    while len([n for n in files.listdir(folder) if n.endswith(".log")]) < segments:
        writer = chance.choice(WRITERS)
        payload = bytes([chance.randrange(256)]) * chance.choice([3, 90, 700])
        log.append([next_frame(log, writer, payload + chance.randbytes(9), count=2)])


def filled(segments: int = 3) -> tuple[SimFS, list[Stored]]:
    """Return a disk with some segments, the last of them open, and what they hold."""
    disk = SimFS()
    log = start(disk, segment_size_max=SEGMENT_SIZE)
    fill(log, segments, disk)
    disk.kill()
    return disk, frames(read(disk))


def frames(items: list[Stored | Damage]) -> list[Stored]:
    return [item for item in items if not isinstance(item, Damage)]


def compress_all(disk: FileOps, folder: Path = FOLDER) -> list[Compressed | None]:
    """Compress all segments but the last, as may be done when all is folded."""
    return [compress(folder, disk, each) for each in compressible(folder, disk, END)]


def names(disk: FileOps) -> list[str]:
    return disk.listdir(FOLDER)


def readable(disk: FileOps, folder: Path = FOLDER) -> list[Stored]:
    """Return the frames whose payloads can be read, too."""
    found = []
    for item in LogReader(folder, disk).read():
        if isinstance(item, StoredFrame):
            try:
                found.append((item.frame, item.payload()))
            except CorruptData:
                continue
    return found


def test_compressed_segment_has_the_same_bytes_at_the_same_positions() -> None:
    disk, _ = filled()
    plain = {first_offset_of(name): disk.get(FOLDER / name) for name in names(disk)}

    made = compress_all(disk)

    assert len(made) == 2
    chance = random.Random(2)
    for name in names(disk)[:2]:
        file = SegmentFile(disk, FOLDER / name)
        data = plain[first_offset_of(name)]
        assert file.is_compressed
        assert file.size == len(data)
        for _ in range(300):
            position = chance.randrange(len(data) + 10)
            size = chance.randrange(3000)
            assert file.read(position, size) == data[position : position + size]
        assert file.read(0, len(data) + 1) == data


def test_log_reads_the_same_before_and_after() -> None:
    disk, stored = filled()
    report = verify(FOLDER, disk)

    made = compress_all(disk)

    assert [name.rpartition(".")[2] for name in names(disk)] == ["logz", "logz", "log"]
    assert all(each and each.file_size < each.size * 0.9 for each in made)
    assert read(disk) == stored
    assert verify(FOLDER, disk) == report
    assert report.sound


def test_log_goes_on_behind_compressed_segments() -> None:
    disk, stored = filled()
    before = start(disk, segment_size_max=SEGMENT_SIZE)
    disk.kill()
    compress_all(disk)

    log = start(disk, segment_size_max=SEGMENT_SIZE)
    placed = log.append([next_frame(log, WRITERS[0], b"more")])

    assert log.recovery == ()
    assert log.last_sequence | {WRITERS[0]: 0} == before.last_sequence | {WRITERS[0]: 0}
    assert read(disk) == [*stored, (placed[0], b"more")]


def test_only_segments_before_a_place_are_compressed() -> None:
    disk, _ = filled(4)
    firsts = [first_offset_of(name) or 0 for name in names(disk)]

    assert [e.header.first_offset for e in compressible(FOLDER, disk, END)] == firsts[
        :3
    ]
    for count, first in enumerate(firsts):
        found = compressible(FOLDER, disk, first)
        assert [each.header.first_offset for each in found] == firsts[:count]


def test_what_is_small_or_would_stay_large_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, _ = filled()
    before = {name: disk.get(FOLDER / name) for name in names(disk)}
    monkeypatch.setattr(compression, "SHARE_MAX", 0.01)

    assert compress_all(disk) == [None, None]
    monkeypatch.setattr(compression, "SIZE_MIN", SEGMENT_SIZE * 2)
    monkeypatch.setattr(compression, "SHARE_MAX", 1.0)
    assert compress_all(disk) == [None, None]

    assert {name: disk.get(FOLDER / name) for name in names(disk)} == before


@pytest.mark.parametrize("place", ["header", "frame", "footer"])
def test_damaged_segment_is_left_as_it_is(place: str) -> None:
    disk, _ = filled()
    path = FOLDER / names(disk)[0]
    data = bytearray(disk.get(path))
    data[{"header": 50, "frame": 1000, "footer": len(data) - 30}[place]] ^= 1
    disk.put(path, bytes(data))

    made = compress_all(disk)

    assert made[0] is None
    assert made[1] is not None
    assert disk.get(path) == data


# What damage costs.


def one_compressed() -> tuple[SimFS, bytes, list[StoredFrame], dict[int, range]]:
    """Return a disk with a compressed segment, its file, and what its frames are.

    And, for each byte of the file, which bytes of the segment hang on it.
    """
    disk, _ = filled(2)
    compress_all(disk)
    path = FOLDER / LAST
    stored = [x for x in LogReader(FOLDER, disk).read() if isinstance(x, StoredFrame)]
    index = read_index(disk, disk.open(path), path)
    assert index is not None
    assert len(index.blocks) > 3
    data = disk.get(path)
    hanging = dict.fromkeys(range(len(data)), range(0))
    for number, block in enumerate(index.blocks):
        for at in range(index.places[number], index.places[number] + block.size):
            hanging[at] = range(*index.extent(number))
    return disk, data, stored, hanging


def spared(stored: list[StoredFrame], lost: range) -> list[Frame]:
    """Return the frames that do not lie in a part of the compressed segment."""
    return [
        each.frame
        for each in stored
        if each.file.name != LAST
        or not (each.position[1] < lost.stop and lost.start < each.end[1])
    ]


def test_wrong_bit_anywhere_is_found_and_costs_its_block_at_most() -> None:
    disk, data, stored, hanging = one_compressed()
    for at, lost in hanging.items():
        wrong = bytearray(data)
        wrong[at] ^= 1 << at % 8
        disk.put(FOLDER / LAST, bytes(wrong))

        report = verify(FOLDER, disk)

        assert report.damages, at
        kept = spared(stored, lost)
        assert [frame for frame, _ in readable(disk)] == kept, at
        told = sum(damage.count or 0 for damage in report.damages)
        assert told == 2 * (len(stored) - len(kept)), at


def test_what_is_cut_off_costs_its_blocks_at_most() -> None:
    disk, data, stored, hanging = one_compressed()
    for size in range(SEGMENT_HEADER_SIZE, len(data)):
        disk.put(FOLDER / LAST, data[:size])

        report = verify(FOLDER, disk)

        gone = [lost for at, lost in hanging.items() if at >= size and lost]
        first = gone[0].start if gone else 1 << 30
        if size < hanging_start(hanging):
            first = 0  # Neither index is whole.
        assert report.damages, size
        expected = spared(stored, range(first, 1 << 30))
        assert [frame for frame, _ in readable(disk)] == expected, size


def hanging_start(hanging: dict[int, range]) -> int:
    return next(at for at, lost in hanging.items() if lost)


@pytest.mark.fault(18)
@pytest.mark.parametrize("at", range(0, 4096, 512))
def test_bad_sector_costs_its_blocks_at_most(at: int) -> None:
    disk, data, stored, hanging = one_compressed()
    wrong = bytearray(data)
    wrong[at : at + 512] = bytes(len(wrong[at : at + 512]))
    disk.put(FOLDER / LAST, bytes(wrong))

    found = [frame for frame, _ in readable(disk)]
    log = start(disk, segment_size_max=SEGMENT_SIZE)
    log.append([next_frame(log, WRITERS[1], b"after")])

    lost = [hanging[n] for n in range(at, min(at + 512, len(data))) if hanging[n]]
    span = range(lost[0].start, lost[-1].stop) if lost else range(0)
    assert found == spared(stored, span)
    assert (verify(FOLDER, disk).damages == ()) == (wrong == data)
    assert names(disk)[0] == LAST, "nothing is set aside"


@pytest.mark.parametrize("is_damaged", [False, True])
def test_compressed_segment_is_never_written_to(is_damaged: bool) -> None:
    disk, data, stored, _ = one_compressed()
    data = data[:-100] + bytes(100) if is_damaged else data
    disk.put(FOLDER / LAST, data)
    disk.unlink(FOLDER / names(disk)[1])  # So it is the last.

    log = start(disk, segment_size_max=SEGMENT_SIZE)
    (placed,) = log.append([next_frame(log, WRITERS[1], b"after")])
    log.close()

    assert disk.get(FOLDER / LAST) == data
    kept = [each.frame for each in stored if each.file.name == LAST]
    assert [frame for frame, _ in readable(disk)] == [*kept, placed]
    assert placed.offset >= kept[-1].offset_end
    assert all(each.kind is DamageKind.ROTTEN for each in log.recovery)
    assert disk.listdir(QUARANTINE) == []


def test_newer_format_is_refused_and_left_alone() -> None:
    disk, data, _, _ = one_compressed()
    index = read_index(disk, disk.open(FOLDER / LAST), FOLDER / LAST)
    assert index is not None
    first, last = replace(index, version=2).pack()
    data = data[:SEGMENT_HEADER_SIZE] + first + data[64 + len(first) : -len(last)]
    disk.put(FOLDER / LAST, data + last)

    with pytest.raises(HomeUnusable, match="too new"):
        start(disk, segment_size_max=SEGMENT_SIZE)

    assert disk.get(FOLDER / LAST) == data + last


# Cut short, and refused.


@pytest.mark.fault(5, 19)
@pytest.mark.parametrize("ending", ["kill", "power"])
def test_end_at_any_call_leaves_one_that_is_whole(ending: str) -> None:
    calls = 0
    for call in range(1, 1000):
        for seed in range(3 if ending == "power" else 1):
            disk, stored = filled(2)
            disk.fail = lose_power(disk.calls + call)
            try:
                compress_all(disk)
                calls = call
            except PowerLost:
                pass
            disk.fail = lambda name, number: 0
            disk.kill() if ending == "kill" else disk.crash(seed)
            before = [name for name in names(disk) if not name.endswith(".tmp")]

            assert read(disk) == stored, (call, seed)
            assert verify(FOLDER, disk).sound
            log = start(disk, segment_size_max=SEGMENT_SIZE)
            assert names(disk) == before, "no more than both files"
            assert log.recovery == ()
            compress_all(disk)
            assert names(disk) == [LAST, before[-1]]
            assert read(disk) == stored
        if calls:
            break
    assert calls > 10


@pytest.mark.fault(11, 15)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_error_at_any_call_loses_nothing(number: int) -> None:
    for call in range(1, 1000):
        disk, stored = filled(2)
        disk.fail = fail_at(disk.calls + call, number)
        is_refused = False
        try:
            compress_all(disk)
        except OSError:
            is_refused = True
        disk.fail = lambda name, call: 0

        assert read(disk) == stored
        assert disk.open_count == 0
        disk.crash(call)
        assert read(disk) == stored
        assert verify(FOLDER, disk).sound
        compress_all(disk)
        assert LAST in names(disk)
        if not is_refused:
            break
    assert call > 10


def test_what_cannot_be_read_now_does_not_become_zeros_for_good() -> None:
    disk, _ = filled(2)
    bad = BadDisk()
    for name in names(disk):
        bad.put(FOLDER / name, disk.get(FOLDER / name))
    before = bad.get(FOLDER / names(bad)[0])
    for at in range(0, len(before), 512):
        bad.bad = (FOLDER / names(bad)[0], range(at, at + 512))

        with suppress(OSError):
            assert compress_all(bad) in ([], [None])

        bad.bad = None
        assert bad.get(FOLDER / names(bad)[0]) == before
        assert len(names(bad)) == 2


def test_bytes_that_changed_on_their_way_to_the_disk_are_noticed() -> None:
    """The old file stays as long as the new one does not read as it."""
    for at in range(1, 12):
        disk, stored = filled(2)
        writes = itertools.count(1)
        written = disk.pwrite

        def pwrite(
            fd: int,
            data: bytes | memoryview,
            position: int,
            at: int = at,
            writes: Iterator[int] = writes,
            written: Callable[..., int] = written,
        ) -> int:
            changed = bytearray(data)
            if next(writes) == at:
                changed[len(changed) // 2] ^= 4
            return written(fd, bytes(changed), position)

        disk.pwrite = pwrite  # type: ignore[method-assign]
        made = compress_all(disk)
        disk.pwrite = written  # type: ignore[method-assign]

        assert (made == [None]) == (next(writes) > at)
        assert verify(FOLDER, disk).sound
        assert read(disk) == stored
        assert [name for name in names(disk) if name.endswith(".tmp")] == []
    assert made != [None]


@pytest.mark.parametrize("content", [b"", b"no segment", None])
def test_file_of_that_name_that_is_none_does_not_count(content: bytes | None) -> None:
    disk, stored = filled(2)
    if content is None:
        content = disk.get(FOLDER / names(disk)[0])[:2000]
    disk.put(FOLDER / LAST, content)

    assert read(disk) == stored
    assert start(disk, segment_size_max=SEGMENT_SIZE).recovery == ()
    disk.kill()
    assert len(compress_all(disk)) == 1
    assert names(disk) == [LAST, names(disk)[-1]]
    assert read(disk) == stored


def test_damaged_one_beside_the_old_one_is_made_anew() -> None:
    disk, data, _, hanging = one_compressed()
    other, stored = filled(2)
    wrong = bytearray(data)
    wrong[hanging_start(hanging)] ^= 1
    other.put(FOLDER / LAST, bytes(wrong))

    assert len(compress_all(other)) == 1

    assert read(other) == stored
    assert verify(FOLDER, other).sound
    assert names(other) == names(disk)


# Beside readers.


def test_reader_that_is_at_it_reads_on() -> None:
    disk, stored = filled(3)
    reading = LogReader(FOLDER, disk).read()
    first = next(reading)
    assert isinstance(first, StoredFrame)
    compress_all(disk)

    rest = [each for each in reading if isinstance(each, StoredFrame)]

    assert [(x.frame, x.payload()) for x in (first, *rest)] == stored


class SwappedDisk(SimFS):
    """Segments are compressed right before the Nth call that opens or lists files."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def open(self, path: Path, *, write: bool = False) -> int:
        self._count()
        return super().open(path, write=write)

    def listdir(self, folder: Path) -> list[str]:
        self._count()
        return super().listdir(folder)

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            compress_all(self)


def test_swap_at_any_moment_of_a_read_is_not_seen() -> None:
    source, stored = filled(4)
    for at in range(1, 100):
        disk = SwappedDisk(at)
        for name in names(source):
            disk.put(FOLDER / name, source.get(FOLDER / name))
        reader = LogReader(FOLDER, disk)

        for _ in range(2):
            items = list(reader.read())
            assert not [item for item in items if isinstance(item, Damage)], at
            found = [x for x in items if isinstance(x, StoredFrame)]
            assert [(x.frame, x.payload()) for x in found] == stored, at
        assert verify(FOLDER, disk).sound

        if disk.left > 0:
            break
    assert at > 20


def test_readers_of_a_real_disk_miss_nothing(tmp_path: Path) -> None:
    folder, files = tmp_path / "log", RealFiles()
    log = start(files, folder, tmp_path / "quarantine", SEGMENT_SIZE)
    fill(log, 60, files, folder)
    log.close()
    stored = readable(files, folder)
    stopping = threading.Event()
    seen: list[bool] = []

    def follow() -> None:
        while not stopping.is_set():
            seen.append(read(files, folder) == stored)

    readers = [threading.Thread(target=follow) for _ in range(2)]
    for thread in readers:
        thread.start()
    made = compress_all(files, folder)
    stopping.set()
    for thread in readers:
        thread.join()

    assert len(made) == 59
    assert all(seen)
    assert len(seen) > 1
    assert sorted(path.suffix for path in folder.iterdir()).count(".logz") == 59
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


OPENS = """
import sys, time
from pathlib import Path
from flightlog_storage.eventlog import EventLog
folder, quarantine = map(Path, sys.argv[1:])
log = EventLog.open(folder, now_ns=time.time_ns, quarantine=quarantine)
print(log.end_offset, log.recovery, "pyarrow" in sys.modules)
"""


def test_log_is_opened_without_pyarrow(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log = start(RealFiles(), folder, tmp_path / "quarantine", SEGMENT_SIZE)
    fill(log, 4, RealFiles(), folder)
    log.close()
    compress_all(RealFiles(), folder)

    done = subprocess.run(
        [sys.executable, "-c", OPENS, str(folder), str(tmp_path / "quarantine")],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=60,
    )

    assert done.stdout.split() == [str(log.end_offset), "()", "False"]
