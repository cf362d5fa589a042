import errno
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.counts import count
from tests.simulation.sample import (
    FOLDER,
    QUARANTINE,
    WRITERS,
    Stored,
    frame,
    next_frame,
    read,
    start,
)
from tests.simulation.simfs import SimFS, fail_at

from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.eventlog import (
    AppendFailed,
    EventLog,
    LogReader,
    StoredFrame,
)
from flightlog_storage.frame import Frame
from flightlog_storage.recovery import recover
from flightlog_storage.scan import find_footer
from flightlog_storage.segment import (
    FLAG_GAP,
    Damage,
    DamageKind,
    parse_segment_header,
    segment_name,
)
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.verification import SequenceHole, VerifyReport, verify

SEGMENT = FOLDER / segment_name(0)


def small_log() -> tuple[bytes, list[Stored]]:
    """Return a log of one open segment, one frame a batch, and its frames."""
    disk = SimFS()
    log = start(disk)
    stored = []
    for writer, sequence in [(0, 1), (1, 1), (0, 3), (2, 1)]:
        payload = bytes([sequence]) * (13 + writer)
        sent = frame(WRITERS[writer], sequence, payload, count=2)
        stored.append((log.append([sent])[0], payload))
    return disk.get(SEGMENT), stored


DATA, STORED = small_log()


def rolled(disk: SimFS, segments: int = 4, seed: int = 0) -> list[Stored]:
    """Write a log of several segments and close it; return its frames."""
    log = start(disk, segment_size_max=700, seed=seed)
    stored: list[Stored] = []
    while len(disk.listdir(FOLDER)) < segments:
        writer = WRITERS[len(stored) % 3]
        batch = [next_frame(log, writer, b"x" * 90, count=3)]
        stored += zip(log.append(batch), [p for _, p in batch], strict=True)
    log.close()
    return stored


def frames_of(items: list[Stored | Damage]) -> list[Stored]:
    return [item for item in items if not isinstance(item, Damage)]


def check_usable(disk: SimFS) -> None:
    """Open, append, and open again: nothing more is lost, and no offset repeats."""
    log = start(disk, seed=7)
    before = frames_of(read(disk))
    placed = log.append([next_frame(log, WRITERS[1], b"after", count=5)])
    log.close()
    again = start(disk, seed=8)

    assert frames_of(read(disk)) == [*before, (placed[0], b"after")]
    assert all(placed[0].offset >= old.offset_end for old, _ in before)
    assert again.end_offset == placed[0].offset_end
    assert not [d for d in again.recovery if d.kind is DamageKind.TORN]


def same_losses(recovered: tuple[Damage, ...], report: VerifyReport) -> bool:
    return sorted(recovered, key=repr) == sorted(report.damages, key=repr)


def test_what_was_appended_is_read_back() -> None:
    disk = SimFS()
    disk.put(SEGMENT, DATA)

    assert read(disk) == STORED
    assert verify(FOLDER, disk).sound


def test_empty_log_has_an_id_that_stays(tmp_path: Path) -> None:
    first = start(None, tmp_path / "log", tmp_path / "quarantine", seed=1)
    first.close()
    second = start(None, tmp_path / "log", tmp_path / "quarantine", seed=2)
    second.close()

    assert first.log_id == second.log_id
    assert second.recovery == ()


def test_real_disk_rolls_and_reopens(tmp_path: Path) -> None:
    folder, quarantine = tmp_path / "log", tmp_path / "quarantine"
    for _ in range(3):
        log = start(None, folder, quarantine, segment_size_max=1000)
        for _ in range(5):
            log.append([next_frame(log, w, b"y" * 200) for w in WRITERS])
        log.close()

    assert len(read(None, folder)) == 45
    assert verify(folder).sound
    assert log.last_sequence == dict.fromkeys(WRITERS, 15)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_sealed_segments_are_not_scanned_at_start() -> None:
    disk = SimFS()
    stored = rolled(disk)
    for number in range(5):
        disk.put(SEGMENT, flip(disk.get(SEGMENT), 64 + number))

    log = start(disk)

    assert log.recovery == ()
    assert log.end_offset == stored[-1][0].offset_end
    assert not verify(FOLDER, disk).sound


@pytest.mark.parametrize(
    "wrong",
    [
        frame(WRITERS[0], 2, b"a"),
        frame(WRITERS[0], 0, b"a"),
        frame(WRITERS[0], 1, b"a", count=0),
        (frame(WRITERS[0], 1, b"a")[0], b"ab"),
        frame(WRITERS[0], 0, b"a", flags=FLAG_GAP),
    ],
)
def test_frame_that_does_not_follow_is_a_bug(wrong: Stored) -> None:
    log = start(SimFS())

    with pytest.raises(ValueError, match=r"sequence|payload|events"):
        log.append([wrong])
    assert log.append([frame(WRITERS[0], 1, b"a")])[0].offset == 0


def test_writer_may_say_that_events_are_gone() -> None:
    disk = SimFS()
    log = start(disk)

    log.append([frame(WRITERS[0], 1, b"a"), frame(WRITERS[0], 9, b"b", flags=FLAG_GAP)])

    assert log.last_sequence == {WRITERS[0]: 9}
    assert verify(FOLDER, disk).holes == ()


def test_reader_resumes_where_it_stopped() -> None:
    disk = SimFS()
    stored = rolled(disk)
    reader = LogReader(FOLDER, disk)
    everything = [item for item in reader.read() if isinstance(item, StoredFrame)]

    assert [item.frame for item in everything] == [f for f, _ in stored]
    for index, item in enumerate(everything):
        after = [x.frame for x in reader.read(item.end) if isinstance(x, StoredFrame)]
        before = [
            x.frame for x in reader.read(None, item.end) if not isinstance(x, Damage)
        ]
        assert after == [f for f, _ in stored[index + 1 :]]
        assert before == [f for f, _ in stored[: index + 1]]


def test_reader_steps_over_other_writers() -> None:
    disk = SimFS()
    stored = rolled(disk)

    items = list(LogReader(FOLDER, disk).read(writers={WRITERS[1]}))

    assert [item.frame for item in items if isinstance(item, StoredFrame)] == [
        f for f, _ in stored if f.writer == WRITERS[1]
    ]
    assert not [item for item in items if isinstance(item, Damage)]


def test_reader_sees_nothing_after_what_is_durable() -> None:
    disk = SimFS()
    log = start(disk)
    log.append([frame(WRITERS[0], 1, b"a")])
    end = log.durable
    log.append([frame(WRITERS[0], 2, b"b")])
    reader = LogReader(FOLDER, disk)

    assert len(list(reader.read(None, end))) == 1
    assert len(list(reader.read(end, log.durable))) == 1
    assert list(reader.read(log.durable)) == []
    assert reader.end_position() == log.durable


def test_reader_follows_when_an_empty_segment_is_replaced() -> None:
    disk = SimFS()
    log = start(disk)
    reader = LogReader(FOLDER, disk)
    assert list(reader.read()) == []
    disk.fail = lambda name, call: 5 if name == "fdatasync" else 0
    batch = [frame(WRITERS[0], 1, b"a")]
    with pytest.raises(AppendFailed):
        log.append(batch)
    disk.fail = lambda name, call: 0

    log.append(batch)

    (item,) = reader.read(None, log.durable)
    assert isinstance(item, StoredFrame)
    assert item.payload() == b"a"
    header = parse_segment_header(disk.get(SEGMENT))
    assert (header.number, header.previous_crc) == (0, 0)


def test_payload_stays_readable_after_the_walk() -> None:
    disk = SimFS()
    stored = rolled(disk)
    items = [x for x in LogReader(FOLDER, disk).read() if isinstance(x, StoredFrame)]

    assert [(x.frame, x.payload()) for x in reversed(items)] == stored[::-1]
    assert disk.open_count == 0


def test_damaged_payload_is_told_when_read() -> None:
    disk = SimFS()
    disk.put(SEGMENT, flip(DATA, 64 + 64))

    stored = next(LogReader(FOLDER, disk).read())

    assert isinstance(stored, StoredFrame)
    with pytest.raises(CorruptData):
        stored.payload()
    assert stored.damage() == verify(FOLDER, disk).damages[0]


@pytest.mark.fault(6)
@pytest.mark.parametrize("cut", range(len(DATA)))
def test_torn_end_is_cut_and_kept_aside(cut: int) -> None:
    disk = SimFS()
    disk.put(SEGMENT, DATA[:cut])
    count("cuts at a byte")
    whole = [s for s in STORED if end_of(s[0]) <= cut]
    found = verify(FOLDER, disk)

    log = start(disk, seed=1)

    assert same_losses(log.recovery, found)
    assert frames_of(read(disk)) == whole
    last = {old.writer: old.sequence_end - 1 for old, _ in whole}
    assert log.last_sequence == last
    torn = sum(damage.size for damage in log.recovery) if cut >= 64 else 0
    kept = [len(disk.get(QUARANTINE / name)) for name in disk.listdir(QUARANTINE)]
    assert sum(kept) == (torn if cut >= 64 else cut)
    assert start(disk, seed=2).recovery == ()
    assert verify(FOLDER, disk).sound
    check_usable(disk)


@pytest.mark.fault(7)
@pytest.mark.parametrize("size", range(64, len(DATA), 8))
def test_zeros_in_place_of_the_end_are_a_torn_end(size: int) -> None:
    disk = SimFS()
    disk.put(SEGMENT, DATA[:size] + bytes(len(DATA) - size))

    log = start(disk, seed=1)

    whole = [s for s in STORED if end_of(s[0]) <= size]
    assert frames_of(read(disk)) == whole
    assert bool(log.recovery) == (whole != STORED)
    assert start(disk, seed=2).recovery == ()
    check_usable(disk)


@pytest.mark.fault(9)
@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2), (1, 3), (2, 3)])
def test_frames_that_changed_places_are_not_taken_for_each_other(
    first: int, second: int
) -> None:
    ends = [end_of(s[0]) for s in STORED]
    frames = [
        DATA[end - size_of(s[1]) : end] for s, end in zip(STORED, ends, strict=True)
    ]
    frames[first], frames[second] = frames[second], frames[first]
    disk = SimFS()
    disk.put(SEGMENT, DATA[:64] + b"".join(frames))

    log = start(disk, seed=1)

    kept = frames_of(read(disk))
    assert kept == [s for s in STORED if s in kept], (
        "in their order, none of them twice"
    )
    assert log.recovery
    assert log.end_offset >= STORED[-1][0].offset_end
    check_appends(disk)


@pytest.mark.fault(25)
def test_a_clock_that_jumps_changes_no_order(tmp_path: Path) -> None:
    day_ns = 86_400 * 10**9
    times = iter([5000 * day_ns, 4999 * day_ns, 9000 * day_ns, 1])
    folder = tmp_path / "log"
    for sequence in range(1, 4):
        log = EventLog.open(
            folder, now_ns=lambda: next(times, 0), quarantine=tmp_path / "quarantine"
        )
        log.append([frame(WRITERS[0], sequence, bytes([sequence]))])
        log.close()

    found = frames_of(read(None, folder))

    assert [payload for _, payload in found] == [b"\1", b"\2", b"\3"]
    assert verify(folder).sound


def end_of(placed: Frame) -> int:
    """Where a frame of the small log ends."""
    position = 64
    for old, payload in STORED:
        position += 64 + len(payload) + -len(payload) % 8
        if old == placed:
            return position
    raise AssertionError(placed)


def flip(data: bytes, index: int, bit: int = 0) -> bytes:
    wrong = bytearray(data)
    wrong[index] ^= 1 << bit
    count("bits flipped")
    return bytes(wrong)


@pytest.mark.fault(8)
@pytest.mark.parametrize("bit", range(8))
def test_flipped_bit_costs_the_frame_hit(bit: int) -> None:
    for index in range(len(DATA)):
        disk = SimFS()
        disk.put(SEGMENT, flip(DATA, index, bit))
        hit = [
            s for s in STORED if end_of(s[0]) > index >= end_of(s[0]) - size_of(s[1])
        ]
        found = verify(FOLDER, disk)

        log = start(disk, seed=1)

        kept = frames_of(read_whole(disk))
        assert [s for s in STORED if s not in kept] in ([], hit), index
        assert [s for s in kept if s not in STORED] == []
        assert same_losses(log.recovery, found)
        lost = [s for s in STORED if s not in kept]
        told = {o for d in found.damages for o in offsets_of(d)}
        assert told >= {s[0].offset for s in lost if s != STORED[-1]}
        assert bool(found.damages) or not lost
        check_appends(disk)


def offsets_of(damage: Damage) -> range:
    return range(damage.first_offset, damage.first_offset + (damage.count or 0))


def size_of(payload: bytes) -> int:
    return 64 + len(payload) + -len(payload) % 8


def read_whole(disk: SimFS) -> list[Stored | Damage]:
    """Read the log; a frame whose payload is corrupt is its damage."""
    items: list[Stored | Damage] = []
    for item in LogReader(FOLDER, disk).read():
        if isinstance(item, Damage):
            items.append(item)
            continue
        try:
            items.append((item.frame, item.payload()))
        except CorruptData:
            items.append(item.damage())
    return items


def check_appends(disk: SimFS) -> None:
    """After damage: reopening loses nothing more, and appending works."""
    before = frames_of(read_whole(disk))
    log = start(disk, seed=3)
    placed = log.append([next_frame(log, WRITERS[0], b"after", count=5)])
    again = start(disk, seed=4)

    assert frames_of(read_whole(disk)) == [*before, (placed[0], b"after")]
    assert again.last_sequence[WRITERS[0]] == placed[0].sequence_end - 1
    assert again.end_offset == placed[0].offset_end > before[-1][0].offset_end


def broken_copies(data: bytes) -> Iterator[bytes]:
    chance = random.Random(1)
    for _ in range(150):
        yield flip(data, chance.randrange(len(data)), chance.randrange(8))
    for start_ in range(0, len(data), 512):
        yield (
            data[:start_]
            + bytes(len(data[start_ : start_ + 512]))
            + data[start_ + 512 :]
        )
    for _ in range(30):
        yield data[: chance.randrange(len(data))]
    yield b""


@pytest.mark.fault(7, 8)
@pytest.mark.parametrize("which", range(4))
def test_damage_in_a_sealed_log_stays_where_it_is(which: int) -> None:
    clean = SimFS()
    stored = rolled(clean)
    names = clean.listdir(FOLDER)
    for data in broken_copies(clean.get(FOLDER / names[which])):
        disk = SimFS()
        for name in names:
            disk.put(FOLDER / name, clean.get(FOLDER / name))
        disk.put(FOLDER / names[which], data)

        found = verify(FOLDER, disk)
        start(disk, segment_size_max=700, seed=1)
        kept = frames_of(read_whole(disk))

        assert [s for s in kept if s not in stored] == []
        lost = {
            o
            for s in stored
            if s not in kept
            for o in range(s[0].offset, s[0].offset_end)
        }
        told = {o for d in found.damages for o in offsets_of(d)}
        endless = [d.first_offset for d in found.damages if d.count is None]
        assert all(o in told or o >= min(endless, default=o + 1) for o in lost)
        assert told <= lost | ({o for o in told if data == b""})
        check_appends(disk)


@pytest.mark.fault(9)
def test_lost_first_sector_costs_the_frames_in_it() -> None:
    disk = SimFS()
    stored = rolled(disk, segments=3)
    first = disk.get(SEGMENT)
    disk.put(SEGMENT, bytes(128) + first[128:])

    report = verify(FOLDER, disk)
    log = start(disk)

    assert frames_of(read_whole(disk)) == stored[1:]
    assert sum(damage.count or 0 for damage in report.damages) == 3
    assert disk.listdir(QUARANTINE) == []
    assert log.end_offset == stored[-1][0].offset_end


def test_log_of_one_segment_outlives_its_header() -> None:
    disk = SimFS()
    disk.put(SEGMENT, bytes(64) + DATA[64:])

    first = start(disk, seed=1)
    second = start(disk, seed=2)

    assert read(disk) == STORED
    assert first.log_id == second.log_id
    assert len(first.log_id) == 16
    check_usable(disk)


def test_log_keeps_its_id_when_a_bit_of_it_flips() -> None:
    disk = SimFS()
    disk.put(SEGMENT, flip(DATA, 10))

    assert start(disk, seed=9).log_id == parse_segment_header(DATA).log_id


@pytest.mark.fault(15)
def test_what_a_failed_sync_left_does_not_count_after_a_kill() -> None:
    disk = SimFS()
    log = start(disk)
    disk.fail = lambda name, call: 5 if name == "fdatasync" else 0
    with pytest.raises(AppendFailed):
        log.append([frame(WRITERS[0], 1, b"a")])
    disk.fail = lambda name, call: 0
    disk.kill()

    # It is in memory and counts as clean: no later sync would write it.
    assert start(disk).last_sequence == {}


def half_sealed() -> tuple[SimFS, list[Stored]]:
    """Return a log whose disk, for a moment, refuses the rest of a footer."""
    disk = SimFS()
    log = start(disk, segment_size_max=700)
    stored: list[Stored] = []
    while len(disk.listdir(FOLDER)) < 2:
        # Neither can the half of it be cut off.
        if log.durable.position > 500:
            disk.fail = fail_at(disk.calls + 1, errno.EIO, 2)
        batch = [next_frame(log, WRITERS[len(stored) % 3], b"x" * 90, count=3)]
        stored += zip(log.append(batch), [b"x" * 90], strict=True)
    return disk, stored


@pytest.mark.fault(11, 15)
def test_half_a_footer_costs_nothing() -> None:
    disk, stored = half_sealed()
    end = stored[-2][0].offset_end

    assert read(disk) == stored
    assert verify(FOLDER, disk).sound

    disk.kill()
    again = start(disk)

    (torn,) = again.recovery
    assert (torn.kind, torn.segment, torn.count) == (DamageKind.TORN, SEGMENT.name, 0)
    assert [name for name in disk.listdir(QUARANTINE) if name.endswith(".torn")]
    with closing(SegmentFile(disk, SEGMENT)) as file:
        header = parse_segment_header(disk.get(SEGMENT))
        footer = find_footer(file, header.salt)
    assert footer is not None
    assert footer.end_offset == end
    assert read(disk) == stored
    check_usable(disk)


@pytest.mark.fault(8)
def test_rot_in_a_footer_is_told_and_mended() -> None:
    disk = SimFS()
    stored = rolled(disk)
    data = bytearray(disk.get(SEGMENT))
    data[-20] ^= 1
    disk.put(SEGMENT, bytes(data))

    (damage,) = verify(FOLDER, disk).damages
    assert (damage.segment, damage.count) == (SEGMENT.name, 0)

    again = start(disk)

    assert [found.segment for found in again.recovery] == [SEGMENT.name]
    assert verify(FOLDER, disk).sound
    assert read(disk) == stored
    check_usable(disk)


@pytest.mark.fault(10)
def test_missing_segment_is_told() -> None:
    disk = SimFS()
    stored = rolled(disk)
    name = disk.listdir(FOLDER)[1]
    header = parse_segment_header(disk.get(FOLDER / name))
    disk.unlink(FOLDER / name)

    log = start(disk)

    (damage,) = log.recovery
    assert damage.first_offset == header.first_offset
    assert same_losses(log.recovery, verify(FOLDER, disk))
    lost = [s for s in stored if s[0].offset in offsets_of(damage)]
    assert frames_of(read(disk)) == [s for s in stored if s not in lost]


@pytest.mark.fault(10)
def test_copy_of_a_segment_is_set_aside() -> None:
    disk = SimFS()
    stored = rolled(disk)
    disk.put(FOLDER / segment_name(99_999), disk.get(SEGMENT))

    log = start(disk)

    assert disk.listdir(QUARANTINE) == [segment_name(99_999)]
    assert len(log.recovery) == 1
    assert read(disk) == stored
    assert start(disk).recovery == ()


def test_what_a_writer_lost_with_a_segment_is_a_hole() -> None:
    disk = SimFS()
    log = start(disk, segment_size_max=100)
    for _ in range(3):
        log.append([next_frame(log, WRITERS[0], b"x" * 90, count=3)])
    log.close()

    disk.unlink(FOLDER / segment_name(3))

    assert verify(FOLDER, disk).holes == (SequenceHole(WRITERS[0], 4, 3),)


@pytest.mark.fault(10)
def test_foreign_segment_is_set_aside() -> None:
    disk, other = SimFS(), SimFS()
    stored = rolled(disk)
    rolled(other, segments=6, seed=5)
    foreign = other.listdir(FOLDER)[-2]
    disk.put(FOLDER / segment_name(77_777), rename_header(other.get(FOLDER / foreign)))

    start(disk)

    assert disk.listdir(QUARANTINE) == [segment_name(77_777)]
    assert read(disk) == stored


@pytest.mark.parametrize("seed", range(8))
def test_a_segment_that_is_set_aside_outlives_a_loss_of_power(seed: int) -> None:
    disk = SimFS()
    rolled(disk)
    disk.put(FOLDER / segment_name(99_999), disk.get(SEGMENT))

    start(disk)
    disk.crash(seed)

    assert disk.get(QUARANTINE / segment_name(99_999)) == disk.get(SEGMENT)


@pytest.mark.parametrize("seed", range(8))
def test_a_torn_end_that_was_cut_outlives_a_loss_of_power(seed: int) -> None:
    disk = SimFS()
    disk.put(SEGMENT, DATA + b"torn" * 400)

    start(disk)
    disk.crash(seed)

    (name,) = disk.listdir(QUARANTINE)
    assert disk.get(QUARANTINE / name) == b"torn" * 400


def test_segment_that_did_not_follow_is_told() -> None:
    disk = SimFS()
    rolled(disk)
    path = FOLDER / disk.listdir(FOLDER)[-1]
    data = disk.get(path)
    header = parse_segment_header(data)
    other = replace(header, previous_crc=header.previous_crc ^ 1)

    disk.put(path, other.pack() + data[64:])

    (damage,) = verify(FOLDER, disk).damages
    assert damage.segment == path.name
    assert "followed the segment before it" in damage.why


def rename_header(data: bytes) -> bytes:
    header = replace(parse_segment_header(data), first_offset=77_777)
    return header.pack() + data[64:]


def test_unreadable_last_segment_does_not_free_its_offsets() -> None:
    disk = SimFS()
    log = start(disk, segment_size_max=300)
    for number in range(4):
        log.append([frame(WRITERS[0], 1 + number, bytes(90))])
    name = disk.listdir(FOLDER)[-1]
    end_offset = log.end_offset
    disk.put(FOLDER / name, bytes(len(disk.get(FOLDER / name))))

    again = start(disk)

    assert again.end_offset >= end_offset
    assert name in disk.listdir(QUARANTINE)
    check_usable(disk)


@pytest.mark.parametrize("from_end", [8, size_of(STORED[-1][1])])
def test_offsets_of_a_torn_end_are_not_given_again(from_end: int) -> None:
    disk = SimFS()
    disk.put(SEGMENT, flip(DATA, len(DATA) - from_end))

    log = start(disk, seed=1)
    placed = log.append([next_frame(log, WRITERS[2], b"new")])

    # It may have been acknowledged, and then rotted: readers may be past it.
    assert placed[0].offset >= STORED[-1][0].offset_end
    assert verify(FOLDER, disk).damages == ()


@pytest.mark.fault(61)
def test_newer_format_is_refused_and_left_alone() -> None:
    disk = SimFS()
    header = replace(parse_segment_header(DATA), version=2)
    disk.put(SEGMENT, header.pack())

    with pytest.raises(HomeUnusable, match="too new"):
        start(disk)
    assert disk.get(SEGMENT) == header.pack()


def test_batch_cut_in_the_middle_is_not_taken_for_rot() -> None:
    disk = SimFS()
    log = start(disk)
    log.append([frame(WRITERS[0], 1, b"old")])
    log.append([frame(WRITERS[0], 2, b"lost"), frame(WRITERS[0], 3, b"kept")])
    data = disk.get(SEGMENT)
    disk.put(SEGMENT, flip(data, data.index(b"lost")))

    again = start(disk)

    # The writer still has both: had the third counted, the second would be lost.
    assert again.last_sequence == {WRITERS[0]: 1}
    assert [d.sequence for d in again.recovery] == [2, 3]


def test_recovery_reads_alone() -> None:
    disk = SimFS()
    disk.put(SEGMENT, DATA[:-3])
    before = disk.get(SEGMENT)

    recover(FOLDER, disk)

    assert disk.get(SEGMENT) == before
    assert disk.listdir(FOLDER) == [SEGMENT.name]


def test_open_log_is_an_event_log() -> None:
    assert isinstance(start(SimFS()), EventLog)


# --- what is known to have been durable ---


class Killed(BaseException):
    """The process ends here."""


def durable_in(data: bytes, stored: list[Stored]) -> tuple[str, int]:
    return parse_segment_header(data).log_id.hex(), stored[-1][0].offset_end


@pytest.mark.fault(17)
@pytest.mark.parametrize("size", range(64, len(DATA)))
def test_lost_end_that_was_durable_stays_told(size: int) -> None:
    durable = durable_in(DATA, STORED)
    disk = SimFS()
    disk.put(SEGMENT, DATA[:size])
    before = [found for found in STORED if found in frames_of(read(disk))]
    kept = before[-1][0].offset_end if before else 0

    log = start(disk, seed=3, durable=durable)
    log.close()

    lost = STORED[-1][0].offset_end - kept
    assert log.end_offset == durable[1]
    assert sum(damage.count or 0 for damage in log.recovery[-1:]) == lost
    for seed in (4, 5):  # At each start again, and to whoever verifies.
        report = verify(FOLDER, disk)
        assert sum(damage.count or 0 for damage in report.damages) == lost
        assert frames_of(read(disk)) == before
        again = start(disk, seed=seed, durable=durable)
        assert sum(damage.count or 0 for damage in again.recovery) == lost
        again.close()


@pytest.mark.parametrize("place", range(1, 70, 3))
def test_rotten_last_frame_that_was_durable_stays_told(place: int) -> None:
    disk = SimFS()
    disk.put(SEGMENT, flip(DATA, DATA.rindex(STORED[-1][1]) + 15 - place))

    log = start(disk, durable=durable_in(DATA, STORED))
    log.append([next_frame(log, WRITERS[0], b"after", count=1)])
    log.close()

    found = frames_of(read(disk))
    assert [payload for _, payload in found[:3]] == [p for _, p in STORED[:3]]
    assert found[-1][1] == b"after"
    assert found[-1][0].offset == STORED[-1][0].offset_end
    assert sum(damage.count or 0 for damage in verify(FOLDER, disk).damages) == 2


@pytest.mark.fault(10)
def test_lost_segments_that_were_durable_are_told() -> None:
    disk = SimFS()
    stored = rolled(disk)
    durable = durable_in(disk.get(SEGMENT), stored)
    names = sorted(disk.listdir(FOLDER))
    disk.unlink(FOLDER / names[-1])

    log = start(disk, durable=durable)
    log.close()

    assert log.end_offset == durable[1]
    assert not verify(FOLDER, disk).sound


def test_crash_while_the_loss_is_settled_changes_nothing() -> None:
    durable = durable_in(DATA, STORED)
    whole = SimFS()
    whole.put(SEGMENT, DATA[:-50])
    start(whole, seed=3, durable=durable)
    for last in range(1, whole.calls + 1):
        disk = SimFS()
        disk.put(SEGMENT, DATA[:-50])

        def die(call: str, number: int, last: int = last) -> int:
            if number >= last:
                raise Killed
            return 0

        disk.fail = die
        with pytest.raises(Killed):
            start(disk, seed=3, durable=durable)
        disk.fail = lambda call, number: 0
        if last % 2:
            disk.crash(last)
        else:
            disk.kill()
        log = start(disk, seed=4, durable=durable)
        assert log.end_offset == durable[1]
        log.close()
        assert sum(d.count or 0 for d in verify(FOLDER, disk).damages) == 2
