"""The compressor: which segments the worker compresses by itself, and when."""

import logging
from pathlib import Path

import pytest
from tests.daemon.test_collector import durable, working
from tests.storage.recording import Recorded, flip, rows_of
from tests.system.harness import wait_until

from flightlog_storage import compression
from flightlog_storage.home import Home
from flightlog_storage.verification import verify
from flightlogd.compressor import Compressor

# So that the worker does not wait, and takes small segments too.
LIMITS = """
worker.COMPRESS_INTERVAL_S = worker.COMPRESS_PAUSE_S = 0.01
compression.SIZE_MIN = 0
"""
ROWS = [(n, n / 2) for n in range(400)]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """A home with some segments, and nothing folded."""
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    recorded = Recorded(tmp_path, segment_size_max=2_000)
    write(recorded)
    return recorded


@pytest.fixture
def compressor(recorded: Recorded) -> Compressor:
    compressor = Compressor(recorded.home)
    compressor.durable = durable(recorded)
    return compressor


def write(recorded: Recorded) -> None:
    writer = recorded.start("run")
    for n in range(0, len(ROWS), 20):
        recorded.rows(writer, *ROWS[n : n + 20])


def plain(home: Home) -> list[str]:
    return sorted(path.name for path in home.log.glob("*.log"))


def compressed(home: Home) -> int:
    return len([*home.log.glob("*.logz")])


def compress_all(compressor: Compressor) -> int:
    count = 0
    while compressor.compress():
        count += 1
    return count


def test_folded_segments_are_compressed_one_after_the_other(
    recorded: Recorded, compressor: Compressor
) -> None:
    recorded.fold()
    names = plain(recorded.home)
    for count in range(1, len(names)):
        assert compressor.compress()
        assert compressed(recorded.home) == count

    assert not compressor.compress()
    assert plain(recorded.home) == names[-1:]
    assert rows_of(recorded.home, "run") == ROWS
    assert verify(recorded.home.log).sound


def test_what_is_not_folded_is_left(recorded: Recorded, compressor: Compressor) -> None:
    assert compress_all(compressor) == 0

    recorded.fold()
    assert compress_all(compressor) > 2


def test_it_looks_again_when_there_is_a_new_segment(
    recorded: Recorded, compressor: Compressor
) -> None:
    recorded.fold()
    first = compress_all(compressor)
    write(recorded)
    recorded.fold()
    assert compress_all(compressor) == 0

    compressor.durable = durable(recorded)

    assert compress_all(compressor) >= first


def test_without_room_for_a_second_file_it_waits(
    recorded: Recorded, compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded.fold()
    monkeypatch.setattr(compression, "FREE_MIN", 1 << 62)
    assert compress_all(compressor) == 0

    monkeypatch.setattr(compression, "FREE_MIN", 0)
    assert compress_all(compressor) > 2


def test_a_disk_that_refuses_is_told_and_tried_again(
    recorded: Recorded, compressor: Compressor, caplog: pytest.LogCaptureFixture
) -> None:
    recorded.fold()
    name = plain(recorded.home)[0]
    in_the_way = recorded.home.log / f"{name}z.tmp"
    in_the_way.mkdir()

    assert compress_all(compressor) == 0
    assert compress_all(compressor) == 0
    (record,) = caplog.records
    assert in_the_way.name in record.getMessage()
    assert record.levelno == logging.WARNING

    in_the_way.rmdir()
    assert compress_all(compressor) > 2


def test_a_damaged_segment_is_left_and_the_next_are_done(
    recorded: Recorded, compressor: Compressor
) -> None:
    recorded.fold()
    names = plain(recorded.home)
    path = recorded.home.log / names[1]
    flip(path, 200)
    data = path.read_bytes()

    assert compress_all(compressor) == len(names) - 1

    assert plain(recorded.home) == [names[1], names[-1]]
    assert path.read_bytes() == data


def test_it_ends_when_its_process_is_to_end(
    recorded: Recorded, compressor: Compressor
) -> None:
    recorded.fold()
    before = sorted(recorded.home.log.iterdir())
    compressor.stop()

    assert compress_all(compressor) == 0

    assert sorted(recorded.home.log.iterdir()) == before


def test_the_worker_compresses_by_itself(recorded: Recorded) -> None:
    recorded.fold()
    names = plain(recorded.home)

    with working(recorded, LIMITS):
        wait_until(lambda: plain(recorded.home) == names[-1:])

    assert compressed(recorded.home) == len(names) - 1
    assert rows_of(recorded.home, "run") == ROWS
