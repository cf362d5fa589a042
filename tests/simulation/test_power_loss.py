import errno
import random

import pytest
from tests.counts import count
from tests.effort import tries
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

from flightlog_storage.errors import CorruptData
from flightlog_storage.eventlog import AppendFailed, EventLog
from flightlog_storage.segment import Damage, DamageKind
from flightlog_storage.verification import verify

SEEDS = range(tries(500))
SEGMENT_SIZE = 4000


def random_batch(log: EventLog, chance: random.Random) -> list[Stored]:
    batch = []
    for writer in chance.sample(WRITERS, chance.randint(1, 3)):
        payload = chance.randbytes(chance.choice([1, 40, 300, 1500]))
        batch.append(next_frame(log, writer, payload, chance.randint(1, 9)))
    return batch


def work(log: EventLog, chance: random.Random, acked: list[Stored]) -> None:
    """Append some batches, retrying none; note what was acknowledged."""
    for _ in range(chance.randint(1, 6)):
        batch = random_batch(log, chance)
        placed = log.append(batch)
        acked += [(f, payload) for f, (_, payload) in zip(placed, batch, strict=True)]


def live(disk: SimFS, seed: int) -> list[Stored]:
    """Start, work and lose power several times; return what was acknowledged."""
    chance = random.Random(seed)
    acked: list[Stored] = []
    for life in range(4):
        disk.fail = lose_power(disk.calls + chance.randint(1, 40))
        try:
            log = start(disk, segment_size_max=SEGMENT_SIZE, seed=seed * 10 + life)
            acked = adopt(disk, acked)
            work(log, chance, acked)
        except PowerLost:
            pass
        disk.fail = lambda name, number: 0
        if chance.random() < 0.3:
            disk.kill()
        else:
            disk.crash(seed * 10 + life)
    return acked


def adopt(disk: SimFS, acked: list[Stored]) -> list[Stored]:
    """Return what the log holds at a start: all that was acked, each frame whole."""
    items = read(disk)
    frames = [item for item in items if not isinstance(item, Damage)]
    assert [stored for stored in acked if stored not in frames] == []
    offsets = [f.offset for f, _ in frames]
    assert offsets == sorted(set(offsets))
    return frames


@pytest.mark.fault(5, 19)
@pytest.mark.parametrize("short_writes", [False, True])
def test_what_was_acked_survives_power_loss(short_writes: bool) -> None:
    for seed in SEEDS:
        disk = SimFS(short_writes=short_writes)
        acked = live(disk, seed)

        log = start(disk, segment_size_max=SEGMENT_SIZE, seed=9)

        kept = adopt(disk, acked)
        count("frames, each there once", len(kept))
        last = {f.writer: f.sequence_end - 1 for f, _ in kept}
        assert log.last_sequence == last, seed
        report = verify(FOLDER, disk)
        assert report.damages == (), seed
        assert report.holes == (), seed
        assert report.frames == len(kept)


@pytest.mark.fault(17)
def test_disk_that_lies_is_noticed() -> None:
    failures = 0
    for seed in range(40):
        disk = SimFS(lies=True)
        try:
            adopt(disk, live(disk, seed))
        except (AssertionError, CorruptData):
            failures += 1

    assert failures > 10


@pytest.mark.fault(11, 15)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("lasting", [1, 7])
def test_error_at_any_call_loses_nothing(number: int, lasting: int) -> None:
    for first in range(1, 60):
        disk = SimFS()
        log = start(disk, segment_size_max=SEGMENT_SIZE)
        disk.fail = fail_at(disk.calls + first, number, lasting)
        acked = append_stubbornly(log, random.Random(first))
        disk.fail = lambda name, call: 0
        disk.crash(first)
        again = start(disk, segment_size_max=SEGMENT_SIZE)

        assert adopt(disk, acked) == acked
        assert again.last_sequence == log.last_sequence
        assert verify(FOLDER, disk).sound


def append_stubbornly(log: EventLog, chance: random.Random) -> list[Stored]:
    """Append batches, giving each again until it is taken."""
    acked: list[Stored] = []
    for _ in range(12):
        batch = random_batch(log, chance)
        for _ in range(20):
            before = (dict(log.last_sequence), log.end_offset)
            try:
                placed = log.append(batch)
                break
            except AppendFailed:
                assert (log.last_sequence, log.end_offset) == before
        acked += [(f, payload) for f, (_, payload) in zip(placed, batch, strict=True)]
    return acked


@pytest.mark.fault(11)
def test_error_at_any_call_of_recovery_changes_nothing() -> None:
    for first in range(1, 20):
        disk = SimFS()
        log = start(disk, segment_size_max=SEGMENT_SIZE)
        acked: list[Stored] = []
        work(log, random.Random(first), acked)
        name = disk.listdir(FOLDER)[-1]
        disk.put(FOLDER / name, disk.get(FOLDER / name) + b"torn")
        disk.fail = fail_at(disk.calls + first, errno.EIO)
        try:
            start(disk, segment_size_max=SEGMENT_SIZE)
        except OSError:
            disk.kill()
        disk.fail = lambda _, call: 0
        again = start(disk, segment_size_max=SEGMENT_SIZE, seed=3)

        work(again, random.Random(first), acked)

        assert adopt(disk, acked) == acked
        assert b"torn" in [
            disk.get(QUARANTINE / name) for name in disk.listdir(QUARANTINE)
        ]


def test_killed_process_may_have_left_what_is_not_durable() -> None:
    disk = SimFS()
    log = start(disk)
    disk.lies = True
    log.append([next_frame(log, WRITERS[0], b"seen")])
    disk.kill()
    disk.lies = False

    again = start(disk)
    disk.crash(1)

    assert again.last_sequence == {WRITERS[0]: 1}
    assert len(read(disk)) == 1


@pytest.mark.parametrize("seed", range(40))
def test_the_footer_of_a_killed_process_is_made_durable(seed: int) -> None:
    disk = SimFS()
    log = start(disk, segment_size_max=2000)
    log.append([next_frame(log, WRITERS[0], bytes(1600))])
    disk.fail = lose_power(disk.calls + 2)  # At the sync of the footer.
    with pytest.raises(PowerLost):
        log.append([next_frame(log, WRITERS[0], bytes(1600))])
    disk.fail = lambda name, call: 0
    disk.kill()

    again = start(disk, segment_size_max=2000, seed=1)
    again.append([next_frame(again, WRITERS[0], bytes(1600))])
    disk.crash(seed)

    assert len(read(disk)) == 2
    assert verify(FOLDER, disk).damages == ()


def test_torn_is_never_said_of_what_was_acked() -> None:
    disk = SimFS()
    log = start(disk)
    log.append([next_frame(log, WRITERS[0], bytes(600))])
    log.append([next_frame(log, WRITERS[0], bytes(600))])
    name = FOLDER / disk.listdir(FOLDER)[0]
    data = bytearray(disk.get(name))
    data[300] ^= 1
    disk.put(name, bytes(data))

    (damage,) = start(disk).recovery

    assert damage.kind is DamageKind.ROTTEN
