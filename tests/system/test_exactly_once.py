"""Exactly once: a home whose writers, daemon, disk and clock misbehave, and a model.

The parts are the real ones, in one process: spool, delivery, intake, event log,
projector, adoption, reader. Only the sockets between them are played, so that
messages can be lost, repeated and cut off.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    precondition,
    rule,
)
from tests.counts import count
from tests.effort import tries
from tests.simulation.wires import Wire, Wires

from flightlog._rows import RowLog
from flightlog_storage import buffers
from flightlog_storage import projector as projector_module
from flightlog_storage import protocol as protocol_module
from flightlog_storage.codec import (
    EDITOR_RANK,
    RUN_SHAPE,
    RunKey,
    encode_definitions,
    encode_event,
    encode_run,
)
from flightlog_storage.database import Database
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import RunDeleted, RunFinished, RunStarted, WriterId
from flightlog_storage.eventlog import AppendFailed, EventLog
from flightlog_storage.files import RealFiles
from flightlog_storage.frame import pack_frame
from flightlog_storage.history import Query
from flightlog_storage.home import DaemonInfo, Home
from flightlog_storage.process import Ending, this_process
from flightlog_storage.projector import Projector, reset_projections
from flightlog_storage.protocol import (
    TOKEN_SIZE,
    Delivery,
    Hello,
    Reply,
    decode_reply,
    encode,
    writer_of,
)
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import State
from flightlog_storage.segment import SEGMENT_HEADER_SIZE
from flightlog_storage.spool import SpoolOwner, remove_spool
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter
from flightlogd.adoption import Adopter
from flightlogd.intake import Intake, Message

KEY = b"key of the home"
STEPS_A_HISTORY = 50
WRITERS_MAX = 10
SEGMENT_SIZE = 6000
# So small that parts are cut, merged and chunks rolled all the time.
LIMITS = (
    (projector_module, "TAIL_FRAMES_MAX", 3),
    (projector_module, "TAIL_POINTS_MAX", 25),
    (projector_module, "TAIL_EVENTS_MAX", 40),
    (projector_module, "ALL_POINTS_MAX", 60),
    (projector_module, "MERGE_PARTS", 3),
    (projector_module, "BATCH_SIZE", 900),
    (buffers, "CHUNK_SIZE", 1024),
    (protocol_module, "FRAME_SIZE", 250),
    (protocol_module, "FRAME_SIZE_MIN", 100),
)
RUNS = ("a", "b", "c")
DELETED = "c"
KEYS = ("loss", "acc", "deep.er")
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class SickDisk(RealFiles):
    """A disk that refuses what is written, as long as `error` says how."""

    error = 0

    def __init__(self) -> None:
        self._opened: set[int] = set()

    def kill(self) -> None:
        """End the process that used the disk: its files are closed, nothing more."""
        for fd in list(self._opened):
            self.close(fd)

    def open(self, path: Path, *, write: bool = False) -> int:
        fd = super().open(path, write=write)
        self._opened.add(fd)
        return fd

    def create(self, path: Path) -> int:
        self._check()
        fd = super().create(path)
        self._opened.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self._opened.discard(fd)
        super().close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, position: int) -> int:
        if self.error:
            super().pwrite(fd, data[: len(data) // 2], position)
        self._check()
        return super().pwrite(fd, data, position)

    def fdatasync(self, fd: int) -> None:
        self._check()
        super().fdatasync(fd)

    def _check(self) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))


class Killed(Exception):
    """The process that runs this was killed here."""


@dataclass(eq=False)
class Writer:
    """A writer as a trainer has it, and its connection."""

    run: str
    rank: int
    spool: SpoolWriter
    rows: RowLog
    delivery: Delivery
    reader: SpoolReader
    peer: bytes = b""
    sent: list[list[bytes]] = field(default_factory=list)
    is_alive: bool = True
    is_over: bool = False  # Its last event is said, by itself or for it.
    is_lost: bool = False
    is_forked: bool = False
    is_gone: bool = False  # Its run was deleted: what it says counts no more.


@pytest.mark.fault(54, 63)
class ExactlyOnce(RuleBasedStateMachine):
    """A home under fire, and what should be in it."""

    writers = Bundle("writers")
    dead = Bundle("dead")

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        for module, name, value in LIMITS:
            self.patches.setattr(module, name, value)
        self.folder = Path(tempfile.mkdtemp(dir=PLACE))
        self.home = Home(self.folder / "home")
        self.home.create()
        info = DaemonInfo(this_process(), str(self.home.socket), "1.0", KEY)
        self.home.lock.write_bytes(msgspec.json.encode(info))
        self.cells: dict[tuple[str, int, int, str], Any] = {}
        self.row_counts: dict[str, int] = {}
        self.everyone: list[Writer] = []
        self.value = 0
        self.connections = 0
        self.disk = SickDisk()
        self.clock_s = 0
        self.log = self.open_log()
        self.intake = Intake(self.log, lambda: b"", KEY)
        self.projector = Projector(self.home)

    def open_log(self) -> EventLog:
        return EventLog.open(
            self.home.log,
            self.disk,
            now_ns=lambda: time.time_ns() + self.clock_s * 10**9,
            quarantine=self.home.quarantine,
            segment_size_max=SEGMENT_SIZE,
        )

    # --- writers ---

    @initialize(target=writers, runs=st.lists(st.sampled_from(RUNS), min_size=3))
    def start_some(self, runs: list[str]) -> Any:
        return multiple(*map(self.start_writer, runs[:5]))

    @precondition(lambda self: len(self.everyone) < WRITERS_MAX)
    @rule(target=writers, run=st.sampled_from(RUNS))
    def start_another(self, run: str) -> Writer:
        return self.start_writer(run)

    @precondition(lambda self: len(self.everyone) < WRITERS_MAX)
    @rule(target=writers, parent=writers)
    def fork(self, parent: Writer) -> Any:
        """Have a process forked that logs into the run, too."""
        if parent.is_gone or parent.spool.writer not in self.log.last_sequence:
            return multiple()
        return self.start_writer(parent.run, parent.rank)

    def start_writer(self, run: str, parent: int | None = None) -> Writer:
        """Start one of a new rank, or a child of the one of that rank."""
        of_run = self.writers_of(run)
        rank = sum(not each.is_forked for each in of_run) if parent is None else parent
        forked = parent is not None
        key = RunKey("e", "p", run, rank)
        token = os.urandom(TOKEN_SIZE)
        owner = SpoolOwner(writer_of(token), this_process(), key, forked)
        spool = SpoolWriter(self.home.spool, owner, lambda: None)
        started = RunStarted(
            time=1.0, entity="e", project="p", run=run, rank=rank, forked=forked
        )
        spool.put(encode_event(started))
        reader = SpoolReader(spool.folder)
        writer = Writer(
            run,
            rank,
            spool,
            # A child's steps are its own: else the later of two rows would count.
            RowLog(spool, 1000 * len(self.everyone) * forked, _fail, _fail, _fail),
            Delivery(spool.writer, reader, token),
            reader,
            is_forked=forked,
        )
        self.connect(writer)
        self.everyone.append(writer)
        self.row_counts.setdefault(run, 0)
        return writer

    @rule(
        writer=writers,
        step=st.none() | st.integers(0, 12),
        keys=st.sets(st.sampled_from(KEYS), min_size=1),
        count=st.sampled_from([1, 1, 3, 20]),
    )
    def log_rows(
        self, writer: Writer, step: int | None, keys: set[str], count: int
    ) -> None:
        self.log_rows_of(writer, step, sorted(keys), count)

    def log_rows_of(
        self, writer: Writer, step: int | None, keys: Iterable[str], count: int
    ) -> None:
        for _ in range(count):
            self.value += 1
            step = None if writer.is_forked else step
            at = writer.rows.step if step is None else step
            row = dict.fromkeys(keys, self.value)
            writer.rows.log(row, step)
            if writer.is_gone:
                continue
            for key, value in row.items():
                self.cells[writer.run, writer.rank, at, key] = value
            self.row_counts[writer.run] += 1

    @rule(writer=consumes(writers))
    def finish(self, writer: Writer) -> None:
        self.disk.error = 0
        writer.spool.seal(encode_event(RunFinished(time=2.0, exit_code=0)))
        writer.is_alive = False
        writer.is_over = True
        self.deliver_all(writer)
        writer.reader.close()
        writer.spool.close()
        remove_spool(writer.spool.folder)

    @rule(target=dead, writer=consumes(writers))
    def kill(self, writer: Writer) -> Writer:
        writer.is_alive = False
        writer.reader.close()
        writer.spool.close()
        return writer

    @rule(target=dead, writer=consumes(dead), limit=st.integers(0, 6) | st.none())
    def adopt(self, writer: Writer, limit: int | None) -> Writer:
        adopter = Adopter(self.home)
        adopter.close()
        messages = 1 << 30 if limit is None else limit
        adopter._context = Wires(lambda: Wire(self.take, messages))  # type: ignore[assignment]
        folder = writer.spool.folder
        if not folder.exists():
            return writer
        copy = shutil.copytree(folder, self.folder / "copy", dirs_exist_ok=True)
        try:
            done = adopter._adopt(folder, Ending(signal=9))
        except TimeoutError:
            done = False
        if done:
            shutil.move(copy, folder)  # A second adoption of it has no effect.
        else:
            shutil.rmtree(copy)
        if not writer.is_over:
            sequence = SpoolReader(folder, is_onlooker=True).seek(1 << 40)
            writer.is_lost = self.log.last_sequence.get(writer.spool.writer, 0) >= (
                sequence
            )
            writer.is_over = writer.is_lost
        return writer

    # --- the way ---

    def take(self, peer: bytes, parts: list[bytes]) -> list[Reply]:
        try:
            answers = self.intake.take([Message(peer, parts)])
        except AppendFailed:
            return []  # Nobody is told anything.
        return [reply for _, reply in answers if not isinstance(reply, bytes)]

    def connect(self, writer: Writer) -> None:
        self.connections += 1
        writer.peer = self.connections.to_bytes(5, "little")
        self.exchange(writer, writer.delivery.hello(0.0))

    def exchange(self, writer: Writer, parts: list[bytes]) -> None:
        for reply in self.take(writer.peer, parts):
            writer.delivery.receive(decode_reply(encode(reply)), 0.0)

    def deliver_all(self, writer: Writer) -> None:
        self.connect(writer)
        while frames := writer.delivery.next(0.0):
            self.exchange(writer, frames)
        assert not writer.delivery.is_waiting

    @rule(
        steps=st.lists(st.none() | st.integers(0, 12), min_size=1, max_size=9),
        fates=st.lists(st.sampled_from("okfrd"), max_size=9),
    )
    def work(self, steps: list[int | None], fates: list[str]) -> None:
        """Have each living writer log and deliver a little."""
        alive = [writer for writer in self.everyone if writer.is_alive]
        for number, writer in enumerate(alive):
            for at, step in enumerate(steps):
                keys = KEYS[: 1 + (at + number) % 3]
                self.log_rows_of(writer, step, keys, 1 + at % 2)
            self.deliver_by(writer, fates[number:] + fates[:number])

    @rule(writer=writers, fates=st.lists(st.sampled_from("okfrd"), max_size=6))
    def deliver(self, writer: Writer, fates: list[str]) -> None:
        self.deliver_by(writer, fates)

    def deliver_by(self, writer: Writer, fates: list[str]) -> None:
        """Send frames that arrive, or not (f), unanswered (r), or twice (d)."""
        for fate in fates:
            frames = writer.delivery.next(0.0)
            if frames is None:
                self.connect(writer)
                continue
            writer.sent.append(frames)
            if fate == "r":
                self.take(writer.peer, frames)
            elif fate != "f":
                self.exchange(writer, frames)
            if fate == "d":
                self.exchange(writer, frames)

    @precondition(lambda self: any(writer.sent for writer in self.everyone))
    @rule(data=st.data())
    def repeat_an_old_frame(self, data: st.DataObject) -> None:
        senders = [writer for writer in self.everyone if writer.sent]
        writer = data.draw(st.sampled_from(senders))
        index = data.draw(st.integers(0, len(writer.sent) - 1))
        self.take(os.urandom(5), writer.sent[index])

    # --- what happens to the disk, the clock and the runs ---

    @rule(number=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS]))
    def refuse(self, number: int) -> None:
        self.disk.error = number

    @rule()
    def have_room_again(self) -> None:
        self.disk.error = 0

    @rule(years=st.sampled_from([-30, -1, 0, 1, 200]))
    def set_clock(self, years: int) -> None:
        self.clock_s = years * 365 * 86_400

    @rule(which=st.integers(0, 99), bit=st.integers(0, 1 << 20))
    def flip_a_bit(self, which: int, bit: int) -> None:
        """Have a bit wrong where it can be mended: in a header, or in a part."""
        segments = sorted(self.home.log.glob("*.log"))
        parts = sorted(self.home.histories.glob("*/*.parquet"))
        path = [*segments, *parts][which % (len(segments) + len(parts))]
        is_part = path.suffix == ".parquet"
        bit %= 8 * (path.stat().st_size if is_part else SEGMENT_HEADER_SIZE)
        flip(path, bit)
        if is_part:
            with suppress(CorruptData):
                self.check()
            self.replay()
        else:
            wrong = header_of(path)
            self.check()
            self.restart_recorder()
            self.check()
            if header_of(path) == wrong:  # Else an empty one was made anew.
                flip(path, bit)

    @precondition(lambda self: self.row_counts.get(DELETED))
    @rule()
    def delete(self, run: str = DELETED) -> None:
        """Delete a run, of which there is something, if the log knows its writers."""
        of_run = [writer for writer in self.everyone if writer.run == run]
        known = self.log.last_sequence
        if not of_run or not all(each.spool.writer in known for each in of_run):
            return
        self.disk.error = 0
        peer, editor = os.urandom(5), WriterId(os.urandom(16))
        self.take(peer, [encode(Hello(editor, KEY))])
        shape = {RUN_SHAPE: encode_run(RunKey("e", "p", run, EDITOR_RANK))}
        event = encode_event(RunDeleted(time=1.0))
        payload = encode_definitions(shape) + event
        self.take(peer, [*pack_frame(editor, 1, 1, payload, 0)])
        assert self.log.last_sequence[editor] == 1
        for writer in of_run:
            writer.is_gone = True
        self.row_counts[run] = 0
        self.cells = {key: v for key, v in self.cells.items() if key[0] != run}

    # --- what happens to the daemon ---

    @rule(torn=st.binary(max_size=200))
    def kill_recorder(self, torn: bytes) -> None:
        """Drop it as it is; a frame that was being written may be there in part."""
        segment = self.home.log / f"{self.log.durable.segment_first_offset:020d}"
        found = list(self.home.log.glob(segment.name + "*"))
        if found:
            with open(max(found), "ab") as file:
                file.write(torn)
        self.restart_recorder()

    @rule()
    def stop_recorder(self) -> None:
        self.log.close()
        self.restart_recorder()

    def restart_recorder(self) -> None:
        self.disk.error = 0
        self.disk.kill()
        self.log = self.open_log()
        self.intake = Intake(self.log, lambda: b"", KEY)
        for writer in self.everyone:
            if not writer.is_over and writer.spool.folder.exists():
                writer.delivery.hello(0.0)

    @rule(batches=st.integers(1, 30))
    def project(self, batches: int) -> None:
        while batches and self.projector.project(self.log.durable):
            batches -= 1

    @rule()
    def kill_materializer(self) -> None:
        self.projector.close()
        self.projector = Projector(self.home)

    @rule(
        place=st.sampled_from(
            ["write_part", "merge_parts", "save_run", "set_checkpoint", "add_part"]
        ),
        after=st.booleans(),
        number=st.integers(1, 3),
    )
    def kill_materializer_at(self, place: str, after: bool, number: int) -> None:
        target: Any = projector_module
        if not hasattr(target, place):
            target = Database
        real = getattr(target, place)
        calls = 0

        def dying(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                raise Killed
            result = real(*arguments)
            if calls == number:
                raise Killed
            return result

        with pytest.MonkeyPatch.context() as patches:
            patches.setattr(target, place, dying)
            with suppress(Killed):
                self.project(30)
        self.kill_materializer()

    @rule()
    def replay(self) -> None:
        self.projector.close()
        reset_projections(self.home)
        self.projector = Projector(self.home)

    # --- what is to be seen ---

    @rule()
    def check(self) -> None:
        reader = HomeReader(self.home)
        for run in self.row_counts:
            self.check_run(reader, run)

    def check_run(self, reader: HomeReader, run: str) -> None:
        history = reader.history(("e", "p", run), Query())
        state = reader.state(("e", "p", run))
        if self.is_deleted(run):
            assert history is None
            assert state is None
            return
        assert history is not None
        rows = list(history.to_dicts())
        identities = [(row.get("_rank", 0), row["_step"]) for row in rows]
        assert len(set(identities)) == len(identities), "a row twice"
        cells = {
            (run, rank, step, key): value
            for row, (rank, step) in zip(rows, identities, strict=True)
            for key, value in row.items()
            if key in KEYS and value is not None
        }
        assert cells == {key: v for key, v in self.cells.items() if key[0] == run}
        assert state is not None
        assert state.row_count == self.row_counts[run]
        assert state.lost_count == 0
        assert state.state is self.expected_state(run)

    def writers_of(self, run: str) -> list[Writer]:
        return [each for each in self.everyone if each.run == run and not each.is_gone]

    def is_deleted(self, run: str) -> bool:
        return not self.writers_of(run)

    def expected_state(self, run: str) -> State:
        of_run = self.writers_of(run)
        if not all(writer.is_over for writer in of_run):
            return State.RUNNING
        lost = any(writer.is_lost for writer in of_run)
        return State.CRASHED if lost else State.FINISHED

    def teardown(self) -> None:
        count("histories of the model")
        count("rows, each there once", sum(self.row_counts.values()))
        self.disk.error = 0
        try:
            self.check()
            self.project(1 << 30)
            self.check()
            self.check_replay()
        finally:
            self.projector.close()
            self.log.close()
            for writer in self.everyone:
                writer.reader.close()
                writer.spool.close()
            self.patches.undo()
            shutil.rmtree(self.folder)

    def check_replay(self) -> None:
        """The home replayed gives the answers of the one that lived through it."""
        reader = HomeReader(self.home)
        lived = [reader.state(("e", "p", run)) for run in self.row_counts]
        self.replay()
        self.project(1 << 30)
        assert [reader.state(("e", "p", run)) for run in self.row_counts] == lived
        self.check()


def header_of(path: Path) -> bytes:
    return path.read_bytes()[:SEGMENT_HEADER_SIZE] if path.exists() else b""


def flip(path: Path, bit: int) -> None:
    count("bits flipped")
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def _fail(*arguments: object) -> Any:
    raise AssertionError(arguments)


TestExactlyOnce = ExactlyOnce.TestCase
TestExactlyOnce.settings = settings(
    max_examples=tries(60),
    stateful_step_count=STEPS_A_HISTORY,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
    database=None,
)
