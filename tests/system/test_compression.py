"""A process that compresses a log is ended anywhere, with the power or without it."""

import sys
import tempfile
from pathlib import Path

import pytest
from tests.effort import tries
from tests.simulation.power import Disk, Variant
from tests.simulation.recorded import can_trace, read_trace, trace
from tests.simulation.sample import Stored, read, start

from flightlog_storage import compression
from flightlog_storage.compression import compress, compressible
from flightlog_storage.files import RealFiles
from flightlog_storage.segment import Damage
from flightlog_storage.verification import verify

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace"),
]

SEGMENT_SIZE = 6000
COMPRESSES = """
import sys
from pathlib import Path
from tests.storage import test_compression
from tests.simulation.sample import start
from flightlog_storage import compression
from flightlog_storage.files import RealFiles
compression.SIZE_MIN, compression.BLOCK_SIZE = 0, 1024
files, home = RealFiles(), Path(sys.argv[1])
home.mkdir()
files.fsync_dir(home)
(home / "log").mkdir()
(home / "quarantine").mkdir()
files.fsync_dir(home)
log = start(files, home / "log", home / "quarantine", int(sys.argv[2]))
test_compression.fill(log, 3, files, home / "log")
log.close()
test_compression.compress_all(files, home / "log")
"""
KEPT = Variant(names=True, contents=True)
LOST = Variant(names=False, contents=False)
EMPTY = Variant(names=True, contents=False)


@pytest.mark.fault(5, 19)
def test_end_at_any_call_leaves_all_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    home = tmp_path / "home"
    trace(
        [sys.executable, "-c", COMPRESSES, str(home), str(SEGMENT_SIZE)],
        tmp_path / "trace",
        {"PYTHONPATH": ":".join([*sys.path, str(Path(__file__).parent.parent.parent)])},
        timeout_s=120,
    )
    stored = read(RealFiles(), home / "log")
    disk = Disk(home, left_out="nothing")
    has_begun, count = False, 0

    for number, moment in enumerate(read_trace(tmp_path / "trace")):
        has_begun = has_begun or ".logz.tmp" in moment.call.opened
        if has_begun and disk.changes(moment):
            count += 1
            chance = [Variant(None, None, number * 8 + n) for n in range(tries(4))]
            for variant in (KEPT, LOST, EMPTY, *chance):
                with tempfile.TemporaryDirectory() as folder:
                    disk.put_into(Path(folder), variant)
                    judge(Path(folder), stored, f"moment {number}, {variant}")
        disk.take(moment)

    assert count > 20


def judge(home: Path, stored: list[Stored | Damage], where: str) -> None:
    """Read a log as it was left, and then end what was begun."""
    log, files = home / "log", RealFiles()
    assert read(files, log) == stored, where
    assert verify(log).sound, where
    opened = start(files, log, home / "quarantine", SEGMENT_SIZE)
    opened.close()
    assert opened.recovery == (), where
    for sealed in compressible(log, files, 1 << 62):
        assert compress(log, files, sealed) is not None, where
    assert read(files, log) == stored, where
    assert len([*log.glob("*.logz")]) == 2, where
