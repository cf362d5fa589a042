import os
import time
import uuid
from pathlib import Path

import pytest

from flightlog_storage.codec import RunKey, encode_event
from flightlog_storage.event import RunStarted
from flightlog_storage.frame import FLAG_GAP, parse_header
from flightlog_storage.home import Home
from flightlog_storage.process import Ending, ProcessIdentity, this_process
from flightlog_storage.protocol import Ack, Delivery, Welcome
from flightlog_storage.spool import SpoolOwner
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter
from flightlogd.adoption import (
    EXEC_AFTER_S,
    SWEEP_AFTER_S,
    Adopter,
    _last_sequence,
    _last_word,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def open_spool(home: Home, process: ProcessIdentity) -> SpoolWriter:
    owner = SpoolOwner(uuid.uuid4().bytes, process, RunKey("e", "p", "r"))
    spool = SpoolWriter(home.spool, owner, lambda: None)
    spool.put(encode_event(RunStarted(time=1.0, entity="e", project="p", run="r")))
    return spool


def of_elsewhere(process: ProcessIdentity) -> ProcessIdentity:
    return ProcessIdentity(process.pid, process.start_time, process.boot_id, 1)


@pytest.mark.parametrize(
    ("process", "ending"),
    [
        (this_process(), Ending(exit_code=0)),
        (of_elsewhere(this_process()), Ending()),
    ],
    ids=["became another program", "in a namespace that cannot be seen into"],
)
def test_a_free_spool_of_a_process_that_seems_alive(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    process: ProcessIdentity,
    ending: Ending,
) -> None:
    spool = open_spool(home, process)
    spool.close()
    adopter = Adopter(home)
    found: list[Ending] = []
    monkeypatch.setattr(adopter, "_adopt", lambda folder, end: found.append(end))
    adopter.scan()
    assert found == [], "it may be ending just now"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + EXEC_AFTER_S)

    adopter.scan()

    assert found == [ending]
    adopter.close()


def test_a_spool_being_made_is_left_alone(home: Home) -> None:
    folder = home.spool / f".new-{'0' * 32}"
    folder.mkdir()
    (folder / "lock").touch()
    adopter = Adopter(home)

    adopter.scan()
    assert folder.exists()

    long_ago = time.time() - SWEEP_AFTER_S - 1
    os.utime(folder, (long_ago, long_ago))
    adopter.scan()
    assert not folder.exists()
    adopter.close()


def test_a_spool_that_was_made_while_it_was_looked_at_is_no_trouble(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    name = f".new-{'0' * 32}"
    adopter = Adopter(home)

    adopter._try_to_look_at(name, home.spool / name)  # It has its own name now.

    assert not caplog.records
    adopter.close()


def test_once_told_to_stop_it_does_not_wait_for_answers(home: Home) -> None:
    spool = open_spool(home, this_process())
    spool.close()
    adopter = Adopter(home)
    adopter.stop()
    began = time.monotonic()

    assert not adopter._adopt(spool.folder, Ending())

    assert time.monotonic() - began < 2.0
    assert spool.folder.exists()
    adopter.close()


@pytest.mark.parametrize(("known", "flags"), [(1, 0), (0, FLAG_GAP)])
def test_the_last_word_waits_for_nothing_that_is_gone(
    home: Home, known: int, flags: int
) -> None:
    spool = open_spool(home, this_process())
    reader = SpoolReader(spool.folder)
    delivery = Delivery(spool.writer, reader)
    delivery.hello(0.0)
    delivery.receive(Welcome(0, 1 << 20, b""), 0.0)
    assert delivery.next(0.0)
    delivery.receive(Ack(known, 1 << 20), 0.0)

    last = _last_sequence(spool.folder, delivery)
    word = _last_word(spool.folder, delivery, Ending(signal=9), last, is_told=False)

    frame = parse_header(word[0])
    assert (frame.sequence, frame.flags) == (2, flags)
    reader.close()
