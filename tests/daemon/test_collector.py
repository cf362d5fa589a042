"""The collector: what the worker deletes by itself, and when it does not."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.storage.recording import Recorded, writer_id
from tests.system.harness import (
    Trainer,
    daemon,
    folded_offset,
    is_folded,
    run_state,
    wait_until,
)

from flightlog_storage.blobs import BlobStore
from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.compression import replacing
from flightlog_storage.copies import stage_bytes
from flightlog_storage.event import RunDeleted
from flightlog_storage.files import RealFiles
from flightlog_storage.garbage import GRACE_S
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader
from flightlog_storage.segment_file import SegmentFile
from flightlogd import collector as module
from flightlogd.collector import Collector
from flightlogd.wakes import Durable

# The worker's process, with other limits.
WORKER = """
import sys
from pathlib import Path
from flightlog_storage import compression
from flightlog_storage.home import Home
from flightlogd import worker
from flightlogd.config import DaemonConfig
exec(sys.argv[3])
worker.run(DaemonConfig(Home(Path(sys.argv[1]))), int(sys.argv[2]))
"""


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    recorded = Recorded(tmp_path)
    recorded.start("run")
    recorded.fold()
    return recorded


@pytest.fixture
def collector(recorded: Recorded) -> Collector:
    collector = Collector(recorded.home)
    collector.durable = durable(recorded)
    return collector


def durable(recorded: Recorded) -> Durable:
    return Durable(recorded.log.durable, recorded.log.end_offset)


@contextmanager
def working(recorded: Recorded, limits: str) -> Iterator[None]:
    """Have the worker's process work, told how far the log is; `limits` is code."""
    reading, writing = os.pipe()
    root = str(recorded.home.root)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, root, str(reading), limits],
        pass_fds=(reading,),
    )
    os.close(reading)
    try:
        os.write(writing, durable(recorded).pack())
        yield
    finally:
        os.close(writing)
        assert process.wait(60) == 0


def waste(home: Home, data: bytes) -> Path:
    """Store what nobody needs, and did not need yesterday."""
    staged = stage_bytes(data, home.staging)
    store = BlobStore(home.blobs)
    store.keep(staged)
    path = store.path(staged.digests.sha256)
    before = time.time() - GRACE_S - 60
    os.utime(path, (before, before))
    return path


def test_a_run_that_is_old_goes_at_the_second_look(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    home = recorded.home
    recorded.finish(writer_id("w"))  # In 1970.
    recorded.log.close()
    with daemon(home):
        assert Trainer(home, 1).wait() == 0
        wait_until(lambda: is_folded(home))
        collector = Collector(home, retain_s=86_400.0)
        collector.durable = Durable(recorded.log.durable, folded_offset(home))

        collector.collect()
        assert HomeReader(home).state(("e", "p", "run")), "the clock may be wrong"

        collector.collect()
        assert HomeReader(home).state(("e", "p", "run")) is None
        assert run_state(home), "of today"
    assert "deleted run e/p/run: it is too old" in caplog.text


def test_old_garbage_goes_and_that_is_told(
    recorded: Recorded, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = waste(recorded.home, b"1234")

    collector.collect()

    assert not path.exists()
    assert "deleted 1 files of 4 bytes" in caplog.text


def test_it_looks_again_only_when_the_log_has_grown(
    recorded: Recorded, collector: Collector
) -> None:
    collector.collect()
    path = waste(recorded.home, b"1234")

    collector.collect()
    assert path.exists()

    recorded.rows(writer_id("w"), (0, 1.0))
    collector.durable = durable(recorded)
    collector.collect()
    assert not path.exists()


def test_what_is_young_has_it_look_again(
    recorded: Recorded, collector: Collector
) -> None:
    path = waste(recorded.home, b"1234")
    old = path.stat().st_mtime
    os.utime(path)
    collector.collect()
    assert path.exists()

    os.utime(path, (old, old))
    collector.collect()

    assert not path.exists()


def test_it_lets_the_materializer_go_first(
    recorded: Recorded, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = waste(recorded.home, b"1234")
    monkeypatch.setattr(module, "BEHIND_EVENTS_MAX", 0)
    recorded.rows(writer_id("w"), (0, 1.0))
    collector.durable = durable(recorded)

    collector.collect()
    assert path.exists()

    recorded.fold()
    collector.collect()
    assert not path.exists()


def test_in_doubt_it_says_why_and_tries_again(
    recorded: Recorded, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    path = waste(recorded.home, b"1234")
    doubt = recorded.home.quarantine / "projections-1"
    doubt.mkdir()

    collector.collect()
    assert path.exists()
    assert "projections-1" in caplog.text

    doubt.rmdir()
    collector.collect()
    assert not path.exists()


def test_it_ends_when_its_process_is_to_end(
    recorded: Recorded, collector: Collector
) -> None:
    path = waste(recorded.home, b"1234")
    collector.stop()

    collector.collect()

    assert path.exists()


def test_rows_of_deleted_runs_leave_the_log(
    recorded: Recorded, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recorded.record(writer_id("w"), *({"text": "a secret"} for _ in range(100)))
    recorded.tell(recorded.join("run", "ed", EDITOR_RANK), RunDeleted(time=9.0))
    recorded.log.close()
    (segment,) = recorded.home.log.iterdir()
    assert b"a secret" in segment.read_bytes()
    recorded.log = recorded.open()
    recorded.rows(writer_id("w"), (0, 1.0))
    recorded.fold()
    collector.durable = durable(recorded)

    with replacing(recorded.home.log):
        collector.collect()  # Another one is at the log: it is looked at again.
    collector.collect()

    assert "emptied 1 frames of deleted runs" in caplog.text
    assert not segment.exists()
    file = SegmentFile(RealFiles(), segment)
    assert b"a secret" not in file.read(0, file.size)
    file.close()


def test_the_worker_collects_by_itself(recorded: Recorded) -> None:
    path = waste(recorded.home, b"1234")

    with working(recorded, "worker.FIRST_AFTER_S = 0.05"):
        wait_until(lambda: not path.exists())
