"""A log on a disk that does not give back some of it."""

import errno
from contextlib import suppress
from pathlib import Path

import pytest
from tests.simulation.sample import (
    FOLDER,
    QUARANTINE,
    WRITERS,
    next_frame,
    start,
)
from tests.simulation.simfs import SimFS

from flightlog_storage.errors import CorruptData
from flightlog_storage.eventlog import LogReader, StoredFrame
from flightlog_storage.frame import Frame
from flightlog_storage.verification import verify

SECTOR_SIZE = 4096
SEGMENT_SIZE = 20_000
SEGMENTS = 3
SECTORS = SEGMENT_SIZE // SECTOR_SIZE + 1


class BadDisk(SimFS):
    """Reading from a range of a file fails."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: tuple[Path, range] | None = None

    def pread(self, fd: int, size: int, position: int) -> bytes:
        if self.bad is not None:
            path, lost = self.bad
            is_hit = position < lost.stop and position + size > lost.start
            if self._open[fd] is self._names[path] and is_hit and size:
                raise OSError(errno.EIO, "Input/output error")
        return super().pread(fd, size, position)


def written(disk: SimFS) -> list[StoredFrame]:
    """Write some segments, the last of them open; return their frames."""
    log = start(disk, segment_size_max=SEGMENT_SIZE)
    count = 0
    while len(disk.listdir(FOLDER)) < SEGMENTS or log.durable.position < 10_000:
        payload = bytes([count]) * 900
        log.append([next_frame(log, WRITERS[count % 3], payload, count=3)])
        count += 1
    disk.kill()
    items = LogReader(FOLDER, disk).read()
    return [item for item in items if isinstance(item, StoredFrame)]


def readable(disk: SimFS) -> list[Frame]:
    """Return the frames whose payloads can be read, too."""
    found = []
    for item in LogReader(FOLDER, disk).read():
        if isinstance(item, StoredFrame):
            with suppress(CorruptData):
                item.payload()
                found.append(item.frame)
    return found


def is_hit(stored: StoredFrame, segment: str, lost: range) -> bool:
    first, end = stored.position.position, stored.end.position
    return stored.file.name == segment and first < lost.stop and lost.start < end


@pytest.mark.fault(18)
@pytest.mark.parametrize("sector", [*range(SECTORS), None], ids=str)
@pytest.mark.parametrize("segment", range(SEGMENTS))
def test_what_cannot_be_read_costs_what_lies_in_it(
    segment: int, sector: int | None
) -> None:
    disk = BadDisk()
    stored = written(disk)
    everything = [item.frame for item in stored]
    name = disk.listdir(FOLDER)[segment]
    first, last = (0, SECTORS) if sector is None else (sector, sector + 1)
    lost = range(first * SECTOR_SIZE, last * SECTOR_SIZE)
    spared = [item.frame for item in stored if not is_hit(item, name, lost)]
    disk.bad = (FOLDER / name, lost)

    log = start(disk, segment_size_max=SEGMENT_SIZE, seed=3)
    (placed,) = log.append([next_frame(log, WRITERS[1], b"after")])
    log.close()

    assert readable(disk) == [*spared, placed]
    assert log.recovery or verify(FOLDER, disk).damages or spared == everything
    disk.bad = None
    assert readable(disk) == [*everything, placed], (
        "it comes back, and none is mixed up"
    )
    assert disk.listdir(QUARANTINE) == []
