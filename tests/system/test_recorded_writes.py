"""Power lost at any moment of a real daemon's life: what was acked is there, once.

Trainers and daemons run under strace. Each moment between their calls is then brought
about in a folder, where what was not synced is there, gone, torn or there in part, and
recovered by the daemon's own code. Spools are gone each time, for they are not synced.

A failure names the trace, the moment and the variant; with FLIGHTLOG_TRACE=path the
trace is tried again instead of a new one.
"""

import os
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.counts import count
from tests.effort import tries
from tests.simulation.acks import read_acks
from tests.simulation.power import Disk, Variant
from tests.simulation.recorded import can_trace, read_trace, trace
from tests.storage.recording import fold
from tests.system.harness import (
    environment,
    frames_in_log,
    history,
    kill_all,
    run_state,
)
from tests.system.recovered import problems_of

from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.errors import StorageError
from flightlog_storage.event import WriterId
from flightlog_storage.eventlog import EventLog
from flightlog_storage.home import Home
from flightlog_storage.segment import DamageKind

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not can_trace(), reason="strace is missing or may not trace"),
]

TIMEOUT_S = 240
STATES = tries(30)
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# A life of a run. The parts of several are merged.
LIFE = """
import pathlib, sys
import flightlog
folder, life = pathlib.Path(sys.argv[1]), int(sys.argv[2])
run = flightlog.init(entity="someone", project="project", id="run", resume="allow")
for n in range(10):
    run.log({"n": life * 10 + n, "text": "x" * (n * 77 % 500)})
    if n % 3 == 0:
        assert run.flush(60)
weights = folder / f"weights{life}"
weights.write_bytes(bytes([life]) * 3000)
artifact = flightlog.Artifact("weights", type="model")
artifact.add_file(str(weights))
run.log_artifact(artifact)
run.save(str(weights))
run.finish()
"""
# Of three lives, whose first daemon is killed and whose second one is stopped.
SCRIPT = """
{python} -c "$LIFE" {folder} 0 &&
kill -9 $(sed 's/.*"pid":\\([0-9]*\\).*/\\1/' {home}/daemon.lock) &&
{python} -c "$LIFE" {folder} 1 &&
{python} -m flightlogd stop --home {home} &&
{python} -c "$LIFE" {folder} 2 &&
{python} -m flightlogd stop --home {home}
"""
Frames = dict[bytes, list[tuple[int, bytes]]]
Lies = Callable[[str], bool]

KEPT = Variant(names=True, contents=True)
LOST = Variant(names=False, contents=False)
# As ext4 may leave it: all names, and files that are empty.
EMPTY = Variant(names=True, contents=False)


def truthful(path: str) -> bool:
    return False


class Recording:
    """Recorded calls: what was acked when, and what the log held in the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = Home(path.parent / "home")
        self.moments = read_trace(path)
        self._acks = read_acks(self.moments)
        assert self._acks, "nothing was acked"

    def disks(self, lies: Lies = truthful) -> Iterator[tuple[int, bool, Disk]]:
        """Yield the disk before each moment that changes it, and behind the last.

        With it comes the moment's number, and whether it makes something durable.
        """
        disk = Disk(self.home.root, lies=lies)
        for number, moment in enumerate(self.moments):
            if disk.changes(moment):
                yield number, disk.syncs(moment), disk
            disk.take(moment)
        yield len(self.moments), True, disk

    def acked(self, number: int) -> dict[bytes, int]:
        """Return up to where writers relied on the log before a moment."""
        return {ack.writer: ack.last for ack in self._acks if ack.moment < number}


class Trial:
    """A place where states of a recorded disk are brought about and judged."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self._recording = recording
        self._home = Home(folder / "home")
        *_, (_, _, disk) = recording.disks()
        self._bring_about(disk, KEPT)
        self._frames = frames_of(self._home)

    def judge(self, disk: Disk, number: int, variant: Variant) -> None:
        """Fail where something is lost, doubled or otherwise wrong after a recovery."""
        count("losses of power")
        self._bring_about(disk, variant)
        try:
            judge(self._home, self._recording.acked(number), self._frames)
        except BaseException as error:
            error.add_note(f"{self._recording.path}, moment {number}, {variant}")
            raise

    def _bring_about(self, disk: Disk, variant: Variant) -> None:
        shutil.rmtree(self._home.root, ignore_errors=True)
        self._home.root.mkdir(mode=0o700)
        disk.put_into(self._home.root, variant)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    if given := os.environ.get("FLIGHTLOG_TRACE"):
        return Recording(Path(given))
    folder = tmp_path_factory.mktemp("recorded")
    home = Home(folder / "home")
    script = SCRIPT.format(python=sys.executable, folder=folder, home=home.root)
    try:
        trace(
            ["sh", "-c", script],
            folder / "trace",
            environment(home) | {"LIFE": LIFE},
            TIMEOUT_S,
        )
    finally:
        kill_all(home)
    return Recording(folder / "trace")


@pytest.fixture
def trial(recording: Recording) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield Trial(recording, Path(folder))


def test_disk_of_the_recorded_calls_is_the_real_one(
    recording: Recording, tmp_path: Path
) -> None:
    *_, (_, _, disk) = recording.disks()

    disk.put_into(tmp_path, KEPT)

    assert files_in(tmp_path) == files_in(recording.home.root)


@pytest.mark.fault(5, 7)
def test_what_was_acked_survives_the_loss_of_all_that_was_not_synced(
    recording: Recording, trial: Trial
) -> None:
    # Between two syncs no more can be lost than before the second.
    chance = random.Random(STATES)
    share = STATES / sum(syncs for _, syncs, _ in recording.disks())

    for number, syncs, disk in recording.disks():
        if syncs and chance.random() < share:
            trial.judge(disk, number, LOST)
            trial.judge(disk, number, EMPTY)


@pytest.mark.fault(5, 6, 54)
def test_what_was_acked_survives_the_loss_of_anything_that_was_not_synced(
    recording: Recording, trial: Trial
) -> None:
    chance = random.Random(STATES)
    share = STATES / sum(not syncs for _, syncs, _ in recording.disks())

    for number, syncs, disk in recording.disks():
        for _ in range(0 if syncs else int(share + chance.random())):
            trial.judge(disk, number, Variant(None, None, chance.getrandbits(32)))


@pytest.mark.fault(17)
@pytest.mark.parametrize("folder", ["log/", "histories", "blobs", ""])
def test_disk_that_lies_is_noticed(
    recording: Recording, trial: Trial, folder: str
) -> None:
    def lies(path: str) -> bool:
        return path.startswith(folder) if folder else path == ""

    with pytest.raises((AssertionError, OSError, StorageError)):
        lose_all(recording, trial, lies)


def lose_all(recording: Recording, trial: Trial, lies: Lies) -> None:
    for number, syncs, disk in recording.disks(lies):
        if syncs:
            trial.judge(disk, number, LOST)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and (name := str(path.relative_to(folder))) != "state.db-shm"
        and not name.startswith("spool/")
    }


def judge(home: Home, acked: dict[bytes, int], frames: Frames) -> None:
    """Recover a home, and check what is in it against what was acked."""
    home.create()
    before = seen(home)
    log = recover(home)
    for writer, last in acked.items():
        assert log.last_sequence.get(WriterId(writer), 0) >= last, "lost what was acked"
    for writer, its in frames_of(home).items():
        assert its == frames[writer][: len(its)], "not what was written, in its order"
    assert all(each.kind is DamageKind.TORN for each in log.recovery), log.recovery
    assert seen(home) == before, "readers saw something else before the recovery"
    assert seen(with_its_log_alone(home)) == before, "not what the log says"
    assert problems_of(home) == []
    log.close()
    assert recover(home).recovery == (), "recovered only in part"


def recover(home: Home) -> EventLog:
    """Do what a daemon does at its start, and fold the log to its end."""
    folded = read_checkpoint(home.state)
    log = EventLog.open(
        home.log,
        now_ns=lambda: 0,
        quarantine=home.quarantine,
        durable=(folded.log_id, folded.offset),
    )
    fold(home, log.durable)
    return log


def frames_of(home: Home) -> Frames:
    """Return what the log holds of each writer, and up to which sequence."""
    found: Frames = defaultdict(list)
    for stored in frames_in_log(home):
        frame = stored.frame
        found[frame.writer].append((frame.sequence_end - 1, stored.payload()))
    return found


def seen(home: Home) -> tuple[Any, ...]:
    """Return what readers see of the run."""
    found = history(home, "run")
    return run_state(home, "run"), [*(found.to_dicts() if found else ())]


def with_its_log_alone(home: Home) -> Home:
    """Return a home with the same log, where nothing is folded."""
    bare = Home(home.root.with_name("bare"))
    shutil.rmtree(bare.root, ignore_errors=True)
    bare.create()
    shutil.copytree(home.log, bare.log, dirs_exist_ok=True)
    return bare
