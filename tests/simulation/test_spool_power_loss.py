"""Power lost under a spool that a writer maps and its sender frees.

Spools are not synced: what was not acknowledged may be gone. But what is there then is
whole and counts once, what is missing before it is told, and the run ends.
"""

import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.counts import count
from tests.effort import tries
from tests.simulation.mapped import Looks
from tests.simulation.wires import Wire, Wires

from flightlog_storage import buffers
from flightlog_storage import process as process_module
from flightlog_storage import protocol as protocol_module
from flightlog_storage.codec import RunKey, encode_event, packer
from flightlog_storage.event import RunStarted
from flightlog_storage.eventlog import EventLog
from flightlog_storage.history import Query
from flightlog_storage.home import DaemonInfo, Home
from flightlog_storage.process import this_process
from flightlog_storage.protocol import (
    TOKEN_SIZE,
    Delivery,
    Reply,
    decode_reply,
    encode,
    writer_of,
)
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import State
from flightlog_storage.spool import SpoolOwner, read_owner
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter
from flightlogd import adoption
from flightlogd.adoption import Adopter
from flightlogd.intake import Intake, Message

KEY = b"key of the home"
RUN = ("e", "p", "r")
SEEDS = range(tries(30))
CRASHES = 8  # Of each life.
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# So small that chunks are rolled and freed all the time.
LIMITS = (
    (buffers, "CHUNK_SIZE", 12_288),
    (protocol_module, "FRAME_SIZE", 1500),
    (protocol_module, "FRAME_SIZE_MIN", 500),
    (adoption, "EXEC_AFTER_S", 0.0),
)
pack = packer().pack


class Life:
    """A writer, its sender, and the log: what the former logged, and what was acked."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.home = Home(folder / "home")
        self.home.create()
        info = DaemonInfo(this_process(), str(self.home.socket), "1.0", KEY)
        self.home.lock.write_bytes(msgspec.json.encode(info))
        self.log = open_log(self.home)
        self.intake = Intake(self.log, lambda: b"", KEY)
        token = os.urandom(TOKEN_SIZE)
        owner = SpoolOwner(writer_of(token), this_process(), RunKey(*RUN, 0))
        self.spool = SpoolWriter(self.home.spool, owner, lambda: None)
        self.looks = Looks(self.spool.folder)
        self.spool.put(
            encode_event(RunStarted(time=1.0, entity="e", project="p", run="r"))
        )
        self.rows: list[dict[str, Any]] = []
        self.delivery = Delivery(
            self.spool.writer, SpoolReader(self.spool.folder), token
        )
        self.exchange(self.delivery.hello(0.0))

    def live(self) -> None:
        """Log and deliver for a while; look at the spool between any two steps."""
        for _ in range(self.chance.randint(1, 25)):
            for _ in range(self.chance.randint(1, 12)):
                self.log_row()
                if self.chance.random() < 0.3:
                    self.looks.look()
            for _ in range(self.chance.choice((0, 0, 1, 2, 9))):
                if frames := self.delivery.next(0.0):
                    self.exchange(frames)
                self.looks.look()
        self.looks.look()

    def log_row(self) -> None:
        number = len(self.rows)
        row = row_of(number)
        if self.chance.random() < 0.2:
            del row["text"]
        self.spool.put_row(
            tuple(row), lambda shape: pack((shape, number, 2.0, *row.values()))
        )
        self.rows.append(row)

    def exchange(self, parts: list[bytes]) -> None:
        for reply in self.take(b"peer", parts):
            self.delivery.receive(decode_reply(encode(reply)), 0.0)

    def take(self, peer: bytes, parts: list[bytes]) -> list[Reply]:
        answers = self.intake.take([Message(peer, parts)])
        return [reply for _, reply in answers if not isinstance(reply, bytes)]

    def close(self) -> None:
        self.delivery.close()
        self.spool.close()
        self.log.close()


def row_of(number: int) -> dict[str, Any]:
    """Return what the row of this number is: all of it tells of a wrong byte."""
    text = f"<{number}>" * (number * 7919 % 200)
    return {"n": number, "text": text, "third": number / 3}


def open_log(home: Home) -> EventLog:
    return EventLog.open(home.log, now_ns=time.time_ns, quarantine=home.quarantine)


class AfterPower:
    """The home with the same log, and with what is left of the spool."""

    def __init__(self, life: Life, folder: Path, chance: random.Random) -> None:
        shutil.copytree(life.home.root, folder)
        self.home = Home(folder)
        self.spool = self.home.spool / life.spool.folder.name
        shutil.rmtree(self.spool)
        life.looks.put_into(self.spool, chance)
        self.log = open_log(self.home)
        self.intake = Intake(self.log, lambda: b"", KEY)

    def adopt(self) -> None:
        adopter = Adopter(self.home)
        context = adopter._context
        adopter._context = Wires(lambda: Wire(self.take, 1 << 30))  # type: ignore[assignment]
        for _ in range(2):
            adopter.scan()
        adopter._context = context
        adopter.close()

    def take(self, peer: bytes, parts: list[bytes]) -> list[Reply]:
        answers = self.intake.take([Message(peer, parts)])
        return [reply for _, reply in answers if not isinstance(reply, bytes)]

    def read(self, rows: list[dict[str, Any]]) -> list[int]:
        """Return the numbers of the rows that are there, each as it was logged."""
        history = HomeReader(self.home).history(RUN, Query())
        found = [] if history is None else list(history.to_dicts())
        for row in found:
            assert {**rows[row["n"]], "_step": row["n"]}.items() <= row.items()
        return [row["n"] for row in found]


@pytest.fixture
def place() -> Iterator[Path]:
    patches = pytest.MonkeyPatch()
    for module, name, value in LIMITS:
        patches.setattr(module, name, value)
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        yield Path(folder)
    patches.undo()


@pytest.mark.fault(5)
def test_what_is_left_of_a_spool_is_whole_and_what_is_lost_is_told(
    place: Path,
) -> None:
    for seed in SEEDS:
        life = Life(place / str(seed), seed)
        life.live()
        life.close()
        for crash in range(CRASHES):
            chance = random.Random(seed * CRASHES + crash)
            after = AfterPower(life, place / "after", chance)
            with pytest.MonkeyPatch.context() as patches:
                patches.setattr(process_module, "_boot_id", lambda: "the next one")
                try:
                    judge(after, life)
                except BaseException as error:
                    error.add_note(f"seed {seed}, crash {crash}")
                    raise
            after.log.close()
            shutil.rmtree(after.home.root)
        shutil.rmtree(life.home.root)


def judge(after: AfterPower, life: Life) -> None:
    """Fail where a row is wrong or twice, or where what is lost is not told."""
    acked = max(1, life.log.last_sequence.get(life.spool.writer, 0)) - 1  # Rows.
    there = numbers_in(after.spool)
    knows_its_run = read_owner(after.spool) is not None
    before = after.read(life.rows)

    after.adopt()

    found = after.read(life.rows)
    state = HomeReader(after.home).state(RUN)
    assert before == found or not knows_its_run, "readers saw something else before"
    assert found == sorted(set(found))
    count("rows, each there once", acked)
    assert found[:acked] == list(range(acked))
    assert [*after.home.spool.iterdir()] == [], "it is tried again and again"
    if state is not None:
        assert state.state is State.CRASHED
        assert state.lost_count or found == list(range(len(found))), "lost untold"
        assert state.lost_count or there <= {*found}, "what was there is lost untold"


def numbers_in(spool: Path) -> set[int]:
    """Return of which rows there is something before what was committed."""
    chunks = [path.read_bytes() for path in spool.glob("*.chunk")]
    committed = [data[: int.from_bytes(data[:8], "little")] for data in chunks]
    return {int(n) for data in committed for n in re.findall(rb"<(\d+)>", data)}
