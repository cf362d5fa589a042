import os
import shutil
import sqlite3
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import msgpack
import pytest
from tests.storage.recording import Recorded, rows_of

from flightlog_storage import projector as projector_module
from flightlog_storage import reader as module
from flightlog_storage.codec import RunKey, encode_event
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import RunFinished, RunStarted
from flightlog_storage.filters import parse_filter
from flightlog_storage.frame import parse_header
from flightlog_storage.history import Query, read_history
from flightlog_storage.home import Home
from flightlog_storage.process import this_process
from flightlog_storage.protocol import Ack, Delivery, Welcome
from flightlog_storage.reader import HomeReader
from flightlog_storage.run_query import RunQuery, Window, parse_order
from flightlog_storage.runstate import State
from flightlog_storage.spool import SpoolOwner, remove_spool
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter

KEY = ("e", "p", "r")


def open_spool(home: Home, run: str = "r", rank: int = 0) -> SpoolWriter:
    owner = SpoolOwner(uuid.uuid4().bytes, this_process(), RunKey("e", "p", run, rank))
    spool = SpoolWriter(home.spool, owner, lambda: None)
    spool.put(
        encode_event(RunStarted(time=1.0, entity="e", project="p", run=run, rank=rank))
    )
    spool.put(msgpack.packb((0, ("n",))))
    return spool


def log_row(spool: SpoolWriter, step: int) -> None:
    spool.put(msgpack.packb((0, step, 2.0, float(step))))


def record(recorded: Recorded, spool: SpoolWriter) -> None:
    """Bring all that a spool holds into the log, and free it."""
    reader = SpoolReader(spool.folder)
    delivery = Delivery(spool.writer, reader)
    delivery.hello(0.0)
    known = recorded.log.last_sequence.get(spool.writer, 0)
    delivery.receive(Welcome(known, 1 << 30, b""), 0.0)
    while parts := delivery.next(0.0):
        recorded.log.append([(parse_header(parts[0]), parts[1])])
        last = recorded.log.last_sequence[spool.writer]
        delivery.receive(Ack(last, 1 << 30), 0.0)
    reader.close()


def test_a_home_without_anything_has_no_runs(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()

    assert HomeReader(home).runs() == []
    assert HomeReader(home).state(KEY) is None
    assert HomeReader(home).history(KEY, Query()) is None


@pytest.mark.parametrize("is_projected", [False, True])
def test_it_makes_no_difference_how_far_the_materializer_is(
    recorded: Recorded, is_projected: bool
) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0), (1, 1.0))
    if is_projected:
        recorded.fold()
    recorded.rows(writer, (2, 2.0))
    recorded.finish(writer)

    state = HomeReader(recorded.home).state(KEY)

    assert rows_of(recorded.home, "r") == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert state is not None
    assert (state.state, state.row_count) == (State.FINISHED, 3)
    (row,) = HomeReader(recorded.home).runs("e", "p")
    assert (row.id, row.row_count) == ("r", 3)


def test_rows_that_no_daemon_has_taken_are_there(recorded: Recorded) -> None:
    spool = open_spool(recorded.home)
    log_row(spool, 0)
    record(recorded, spool)
    recorded.fold()
    log_row(spool, 1)

    assert rows_of(recorded.home, "r") == [(0, 0.0), (1, 1.0)]
    record(recorded, spool)
    assert rows_of(recorded.home, "r") == [(0, 0.0), (1, 1.0)], "once"


def test_runs_that_no_daemon_has_heard_of_are_listed(recorded: Recorded) -> None:
    for run, rank in (("r", 0), ("r", 1), ("other", 0), ("third", 0)):
        spool = open_spool(recorded.home, run, rank)
        log_row(spool, rank)
        spool.seal(encode_event(RunFinished(time=3.0, exit_code=0)))

    rows = {row.id: row for row in HomeReader(recorded.home).runs()}

    assert rows.keys() == {"r", "other", "third"}
    assert rows["r"].row_count == 2
    assert all(row.state is State.FINISHED for row in rows.values())


def test_a_spool_recorded_and_removed_while_reading_is_not_missed(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool(recorded.home)
    log_row(spool, 0)
    fold_spools = HomeReader._fold_spools

    def first_have_it_recorded(*arguments: Any, **options: Any) -> None:
        if spool.folder.exists():
            record(recorded, spool)  # After the log was read, before the spool is.
            remove_spool(spool.folder)
        fold_spools(*arguments, **options)

    monkeypatch.setattr(HomeReader, "_fold_spools", first_have_it_recorded)

    assert rows_of(recorded.home, "r") == [(0, 0.0)]


def test_events_lost_between_log_and_spool_do_not_hide_the_rest(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flightlog_storage.buffers.CHUNK_SIZE", 200)
    spool = open_spool(recorded.home)
    for step in range(3):
        log_row(spool, step)
    spool.roll(200)
    spool.put(msgpack.packb((0, ("n",))))
    log_row(spool, 3)
    record(recorded, spool)
    recorded.log.close()
    for segment in recorded.home.log.iterdir():
        segment.unlink()  # As a disk may do; and the spool is freed in part.

    assert rows_of(recorded.home, "r") == [(3, 3.0)]
    assert HomeReader(recorded.home).state(KEY).lost_count == 4  # type: ignore[union-attr]


def test_a_spool_that_cannot_be_read_does_not_hide_the_rest(
    recorded: Recorded,
) -> None:
    recorded.rows(recorded.start("r"), (0, 0.0))
    spool = open_spool(recorded.home)
    chunk = next(spool.folder.glob("*.chunk"))
    chunk.unlink()
    chunk.mkdir()

    assert rows_of(recorded.home, "r") == [(0, 0.0)]


def test_parts_merged_while_reading_are_read_anew(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "TAIL_FRAMES_MAX", 1)
    writer = recorded.start("r")
    for step in range(20):
        recorded.rows(writer, (step, float(step)))
    recorded.fold()
    calls = 0

    def first_merge(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            recorded.finish(writer)
            recorded.fold()  # Merges all parts and deletes the ones just found.
        return read_history(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "read_history", first_merge)

    assert rows_of(recorded.home, "r") == [(step, float(step)) for step in range(20)]
    assert calls == 2


def test_a_reader_that_loops_sees_each_row_once(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While rows go into the tail, from there into parts, and parts into others."""
    monkeypatch.setattr(projector_module, "TAIL_FRAMES_MAX", 2)
    monkeypatch.setattr(projector_module, "MERGE_PARTS", 2)
    writer = recorded.start("r")
    stopped = Event()

    def keep_projecting() -> None:
        while not stopped.is_set():
            recorded.fold()

    with ThreadPoolExecutor(1) as pool:
        projecting = pool.submit(keep_projecting)
        try:
            for step in range(100):
                recorded.rows(writer, (step, float(step)))
                query = Query(keys=["n"], join="inner")
                sample = HomeReader(recorded.home).sample(KEY, query, 3)

                assert rows_of(recorded.home, "r") == [
                    (each, float(each)) for each in range(step + 1)
                ]
                assert sample is not None
                assert sample.steps.tolist() == sorted({0, step // 2, step})
        finally:
            stopped.set()
        projecting.result()

    recorded.fold()
    (folder,) = recorded.home.histories.iterdir()
    assert len(list(folder.iterdir())) < 100 / 2 / 2  # They were merged.


def test_a_copy_that_nobody_may_write_can_be_read(
    recorded: Recorded, tmp_path: Path
) -> None:
    """In a process without rights, for root may write everything."""
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0))
    recorded.fold()
    recorded.rows(writer, (1, 1.0))
    spool = open_spool(recorded.home, rank=1)
    log_row(spool, 2)
    copy = shutil.copytree(recorded.home.root, tmp_path / "copy")
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for folder in copy.parents:
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    code = """
import os, sys
if os.getuid() == 0:
    import numpy, pyarrow, flightlog_storage.reader  # Before the rights are gone.
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
from pathlib import Path
from flightlog_storage.filters import parse_filter
from flightlog_storage.frame import parse_header
from flightlog_storage.history import Query, read_history
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader
home = Home(Path(sys.argv[1]))
try:
    (home.root / "probe").touch()
except PermissionError:
    pass
else:
    sys.exit("it can be written")
reader = HomeReader(home)
history = reader.history(("e", "p", "r"), Query())
print([row["_step"] for row in history.to_dicts()], len(reader.runs()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)],
        env={"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.stdout == "[0, 1, 2] 1\n", done.stderr


@pytest.mark.parametrize("is_projected", [False, True])
def test_runs_are_found_however_far_the_materializer_is(
    recorded: Recorded, is_projected: bool
) -> None:
    for number, run in enumerate(("a", "b", "c")):
        writer = recorded.start(run, run)
        recorded.rows(writer, (0, float(number)))
        recorded.finish(writer)
    if is_projected:
        recorded.fold()
    spool = open_spool(recorded.home, "d")
    log_row(spool, 7)
    query = RunQuery("e", "p", parse_filter({"summary.n": {"$gt": 0}}))
    query = replace(query, order=parse_order("-summary.n"))

    page = HomeReader(recorded.home).page(query, Window(2, count=True), states=9)

    assert ([run.id for run in page.runs], page.total) == (["d", "c"], 3)
    assert [state.summary["n"] for state in page.states] == [7.0, 2.0]
    (last,) = HomeReader(recorded.home).page(query, Window(9, page.runs[-1].place)).runs
    assert last.id == "b"
    found = HomeReader(recorded.home).states_of([("e", "p", "d"), ("e", "p", "a")])
    assert [state.id for state in found] == ["d", "a"]


def test_a_damaged_state_is_read_from_the_log(recorded: Recorded) -> None:
    writer = recorded.start("r")
    recorded.rows(writer, (0, 7.0))
    recorded.fold()
    with closing(sqlite3.connect(recorded.home.state)) as connection:
        connection.execute("UPDATE summary SET packed = x'c1'")
        connection.commit()

    state = HomeReader(recorded.home).state(("e", "p", "r"))

    assert state is not None
    assert state.summary["n"] == 7.0


# --- a home without a log ---


def test_a_home_that_is_not_there_yet_has_no_runs(tmp_path: Path) -> None:
    reader = HomeReader(Home(tmp_path / "new"))

    assert reader.runs() == []
    assert reader.states() == []
    assert reader.state(KEY) is None
    assert reader.history(KEY, Query()) is None
    assert not (tmp_path / "new").exists()


def test_a_log_that_is_gone_is_told(recorded: Recorded) -> None:
    recorded.rows(recorded.start("r"), (0, 1.0))
    recorded.fold()
    shutil.rmtree(recorded.home.log)

    with pytest.raises(HomeUnusable, match=r"log: is gone, .* flightlog verify"):
        HomeReader(recorded.home).runs()
