"""Power lost, and calls that fail, amid all that makes and deletes a home's files.

Rows go into the log and into parts, which are merged; files become blobs; runs are
deleted, segments of the log replaced, and what nothing names is collected. What was
acknowledged is there afterwards, and nothing else, in a home that is sound.
"""

import copy
import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.counts import count
from tests.effort import tries
from tests.simulation.simfs import Fail, PowerLost, fail_at, lose_power
from tests.simulation.watched import WatchedDisk
from tests.storage.recording import Recorded, flip, rows_of, writer_id
from tests.system.recovered import problems_of

from flightlog_storage import compression, projector
from flightlog_storage.blobs import BlobStore
from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.codec import EDITOR_RANK
from flightlog_storage.compression import compress, compressible, replacing
from flightlog_storage.copies import stage_bytes
from flightlog_storage.database import Database
from flightlog_storage.emptying import empty
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import FileSaved, RunDeleted, WriterId
from flightlog_storage.eventlog import AppendFailed
from flightlog_storage.files import RealFiles
from flightlog_storage.frame import Frame
from flightlog_storage.garbage import collect, find_garbage
from flightlog_storage.home import Home
from flightlog_storage.projector import Projector, part_folder
from flightlog_storage.reader import HomeReader

SEEDS = range(tries(40))
LIVES = 4
SEGMENT_SIZE = 6000
RUNS = ("a", "b")
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
LIMITS = (
    (projector, "TAIL_FRAMES_MAX", 2),
    (projector, "MERGE_PARTS", 2),
    (compression, "SIZE_MIN", 0),
    (compression, "FREE_MIN", 0),
)

# By run: its rows, and its files' bytes by name.
Truth = dict[str, tuple[list[int], dict[str, bytes]]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in LIMITS:
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        yield Path(place)


class Stubborn(Recorded):
    """Says again what the log did not take, as a sender does."""

    def append(self, *what: Any, **more: Any) -> Frame:
        while True:
            with suppress(AppendFailed):
                return super().append(*what, **more)


class Life:
    """A home in use: what is true of it, and what will be if the next call returns."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.truth: Truth = {}
        self.next: Truth = {}
        self._names = 0
        self._place(folder)

    def _place(self, folder: Path) -> None:
        self.home = Home(folder / "home")
        self.home.create()
        self.store = BlobStore(self.home.blobs)
        self.disk = WatchedDisk(self.home.root)
        self._folder = folder
        self._opened = ExitStack()
        self._opened.callback(self._end_projector)
        self._projector: Projector | None = None
        self._writers: dict[str, WriterId] = {}

    def live(self, steps: int) -> None:
        """Recover, look at what is there, and use it for a while."""
        with self.disk.watching():
            self._begin()
            for _ in range(steps):
                self._step()

    def live_on(self, steps: int, fail: Fail) -> None:
        """Go on when the disk refuses; what it refused to the end is not true then."""
        with self.disk.watching():
            self._begin()
            begun = self.disk.calls
            self.disk.fail = lambda name, number: fail(name, number - begun)
            for _ in range(steps):
                try:
                    self._step()
                except (OSError, HomeUnusable):
                    self.next = self.truth
                    self._end_projector()

    def lose_power(self, folder: Path, seed: int) -> None:
        """Have what is left in another folder."""
        folder.mkdir()
        self.disk.crash(folder / "home", seed)
        self.end()
        self._place(folder)

    def end(self) -> None:
        self._opened.close()

    def _begin(self) -> None:
        self.recorded = Stubborn(self._folder, SEGMENT_SIZE)
        self._opened.callback(self.recorded.log.close)
        self.home.sync()
        self.truth = self.next = self._found(self.truth, self.next)
        self.fold()
        self._found(self.truth)
        self._end_projector()
        assert problems_of(self.home) == []
        assert list(self.home.histories.glob("*/.*")) == []
        self.fold()

    def _step(self) -> None:
        """Do something; when it returns, what it should have made true is true."""
        self.next = copy.deepcopy(self.truth)
        self.chance.choice(self._choices)()
        self.truth = self.next

    @property
    def _choices(self) -> list[Callable[[], None]]:
        return [
            *[self.log] * 4,
            *[self.save] * 3,
            *[self.fold] * 3,
            self.finish,
            self.delete,
            self.collect,
            self.compress,
            self.empty,
        ]

    def _end_projector(self) -> None:
        if self._projector is not None:
            self._projector.close()
            self._projector = None

    def _found(self, *allowed: Truth) -> Truth:
        """Return what a reader is told, which is one of these."""
        found = self._read()
        assert found in allowed
        count("rows, each there once", sum(len(rows) for rows, _ in found.values()))
        return found

    def _read(self) -> Truth:
        """Return what a reader is told."""
        reader = HomeReader(self.home)
        found: Truth = {}
        for run in RUNS:
            state = reader.state(("e", "p", run))
            if state is not None:
                rows = [step for step, _ in rows_of(self.home, run)]
                files = {
                    file.name: b"".join(self.store.read_verified(file.blob))
                    for file in state.files.values()
                }
                found[run] = rows, files
        return found

    # --- what is done ---

    def log(self) -> None:
        run = self.chance.choice(RUNS)
        if run not in self._writers:
            self._start(run)
            return
        rows, _ = self.next[run]
        new = range(len(rows), len(rows) + self.chance.randint(1, 30))
        rows += new
        self.recorded.rows(self._writers[run], *((n, n / 7) for n in new))

    def _start(self, run: str) -> None:
        self.next.setdefault(run, ([], {}))
        self._writers[run] = self.recorded.start(run, self._new_name())

    def _new_name(self) -> str:
        self._names += 1
        return f"{self._names}"

    def save(self) -> None:
        """Store a file as a run's; some have been there before."""
        if not self._writers:
            return
        run, name = self.chance.choice([*self._writers]), self.chance.choice("xyz")
        data = bytes([self.chance.randrange(4)]) * self.chance.choice([0, 1, 700, 5000])
        self.next[run][1][name] = data
        with self.store.holding():
            staged = stage_bytes(data, self.home.staging)
            self.store.keep(staged)
            blob, digest, size = staged.digests.sha256, staged.digests.md5, len(data)
            saved = FileSaved(time=1.0, name=name, blob=blob, digest=digest, size=size)
            self.recorded.tell(self._writers[run], saved)

    def finish(self) -> None:
        if self._writers:
            self.recorded.finish(
                self._writers.pop(self.chance.choice([*self._writers]))
            )

    def delete(self) -> None:
        if self.next and self.chance.random() < 0.5:
            run = self.chance.choice([*self.next])
            editor = self.recorded.join(run, self._new_name(), EDITOR_RANK)
            del self.next[run]
            self._writers.pop(run, None)
            self.recorded.tell(editor, RunDeleted(time=1.0))

    def fold(self) -> None:
        if self._projector is None:
            self._projector = Projector(self.home)
        while self._projector.project(self.recorded.log.durable):
            pass

    def collect(self) -> None:
        collect(find_garbage(self.home, grace_s=0))

    def compress(self) -> None:
        log, files = self.home.log, RealFiles()
        before = read_checkpoint(self.home.state).segment_first_offset
        with replacing(log):
            for sealed in compressible(log, files, before):
                compress(log, files, sealed)

    def empty(self) -> None:
        empty(self.home)


@pytest.mark.fault(5)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_acked_survives_power_loss(folder: Path, seed: int) -> None:
    life = Life(folder / "0", seed)
    for number in range(1, LIVES):
        life.disk.fail = lose_power(life.chance.randint(1, 400))
        with suppress(PowerLost):
            life.live(steps=100)
        life.lose_power(folder / f"{number}", seed * LIVES + number)
    life.live(steps=0)
    life.end()


@pytest.mark.fault(5)
@pytest.mark.parametrize("seed", range(8))
def test_a_part_that_was_mended_stays_so(folder: Path, seed: int) -> None:
    recorded = Recorded(folder)
    home = recorded.home
    recorded.rows(recorded.start("a"), *((n, n / 7) for n in range(9)))
    recorded.finish(writer_id("w"))
    recorded.log.close()
    with closing(Projector(home)) as projector:
        projector.project(recorded.log.durable)
        with Database.open_reader(home.state) as database:
            (part,) = database.parts()
        flip(part_folder(home, part.run) / part.name, 100)
        disk = WatchedDisk(home.root)
        with disk.watching():
            assert projector.mend(part)

    disk.crash(folder / "left", seed)

    assert problems_of(Home(folder / "left")) == []


@pytest.mark.fault(11, 15)
@pytest.mark.parametrize("lasting", [1, 7])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_error_at_any_call_loses_nothing(
    folder: Path, number: int, lasting: int
) -> None:
    for seed in SEEDS:
        life = Life(folder / f"{seed}", seed)
        first = life.chance.randint(1, 150)
        life.live_on(steps=60, fail=fail_at(first, number, lasting))
        life.lose_power(folder / f"{seed} after", seed)
        life.live(steps=0)
        life.end()
