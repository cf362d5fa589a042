"""What stays in the log of runs that were deleted, and that all else stays the same."""

import errno
import sqlite3
import threading
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.simfs import PowerLost, SimFS, fail_at, lose_power
from tests.storage.recording import Recorded, flip, fold, rows_of, writer_id

from flightlog_storage import compression, folding, projector
from flightlog_storage.backup import back_up
from flightlog_storage.carried import Picker
from flightlog_storage.codec import (
    EDITOR_RANK,
    RunKey,
    encode_definitions,
    encode_event,
    encode_run,
    packer,
    run_of,
)
from flightlog_storage.compression import compress, compressible
from flightlog_storage.database import Database
from flightlog_storage.emptied import emptied
from flightlog_storage.emptying import (
    Emptied,
    empty,
    empty_segment,
    find_holding,
    holding_deleted,
)
from flightlog_storage.event import (
    AlertRaised,
    ConfigUpdated,
    MetricDefined,
    Rows,
    RunCreated,
    RunDeleted,
    RunDescribed,
    RunFinished,
    RunStarted,
    SummaryUpdated,
    TagsChanged,
    WriterId,
)
from flightlog_storage.eventlog import LogReader, StoredFrame
from flightlog_storage.files import RealFiles
from flightlog_storage.fold import apply
from flightlog_storage.frame import FLAG_EMPTIED, Frame
from flightlog_storage.home import Home
from flightlog_storage.known_frames import known_frames
from flightlog_storage.projector import reset_projections
from flightlog_storage.reader import HomeReader
from flightlog_storage.rows import decode
from flightlog_storage.runstate import RunState
from flightlog_storage.segment import Damage
from flightlog_storage.segment_file import SegmentFile
from flightlog_storage.verification import verify

SECRET = "what nobody is to find"
KEYS = ("text", "n")
WRITER = WriterId(b"w" * 16)


def packed(value: object) -> bytes:
    data: bytes = packer().pack(value)
    return data


def framed(payload: bytes, count: int) -> Frame:
    return Frame(len(payload), zlib.crc32(payload), count, WRITER, 7, offset=70)


def payload_of(rows: int, *events: bytes, keys: tuple[str, ...] = KEYS) -> bytes:
    definitions = {
        -1: encode_run(RunKey("e", "p", "r", 3)),
        0: packed((0, keys)),
    }
    its_rows = [
        packed((0, step, 1.7e9, *([SECRET] * len(keys)))) for step in range(rows)
    ]
    return encode_definitions(definitions) + b"".join([*its_rows, *events])


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 1000, 9000])
def test_emptied_frame_has_its_size_its_run_and_as_many_rows(rows: int) -> None:
    payload = payload_of(rows)

    found = emptied(framed(payload, rows), payload)

    assert found is not None
    frame, empty_payload = found
    assert len(empty_payload) == len(payload) == frame.payload_size
    assert frame.payload_crc == zlib.crc32(empty_payload)
    assert (frame.writer, frame.sequence, frame.offset, frame.count) == (
        (WRITER, 7, 70, rows)
    )
    assert frame.flags == FLAG_EMPTIED
    assert run_of(empty_payload) == RunKey("e", "p", "r", 3)
    ((_, item),) = decode(empty_payload, rows)
    assert isinstance(item, Rows)
    assert len(item.steps) == rows
    assert item.series == ()
    assert SECRET.encode() not in empty_payload


@pytest.mark.parametrize(
    "payload",
    [
        payload_of(0, *[encode_event(RunFinished(time=1.0, exit_code=0))] * 2),
        payload_of(1, packed({"event": "RunFinished", "time": "?"})),
        payload_of(1, b"\xc0"),
        payload_of(1)[:-1],
        b"\x90" + packed((0, 0, 1.0)),
        b"",
    ],
    ids=["no rows", "a bad event", "no event", "cut", "no run", "nothing"],
)
def test_what_has_no_rows_or_is_refused_stays_as_it_is(payload: bytes) -> None:
    assert emptied(framed(payload, 2), payload) is None


def test_what_says_more_than_that_its_run_was_alive_is_as_it_was() -> None:
    config = encode_event(ConfigUpdated(time=1.0, changes={"secret": SECRET}))
    unknown = packed({"event": "OfTheFuture", "blob": "ab" * 32})
    start = encode_event(RunStarted(time=1.0, entity="e", project="p", run="r", rank=3))
    end = encode_event(RunFinished(time=1.0, exit_code=0))
    rows = payload_of(2)
    head = len(payload_of(0))
    payload = rows[:head] + start + rows[head:] + config + unknown + end
    before = [item for _, item in decode(payload, 6)]

    found = emptied(framed(payload, 6), payload)

    assert found is not None
    first, empty_rows, *rest = [item for _, item in decode(found[1], 6)]
    assert [first, *rest] == [before[0], *before[3:]]
    assert isinstance(empty_rows, Rows)
    assert (len(empty_rows.steps), empty_rows.series) == (3, ())
    assert SECRET.encode() not in found[1]


def test_what_is_empty_stays_as_it_is() -> None:
    payload = payload_of(4)
    found = emptied(framed(payload, 4), payload)
    assert found is not None
    assert emptied(*found) is None


@pytest.mark.parametrize("size", range(20))
def test_frame_without_room_for_what_is_to_stay_is_left(size: int) -> None:
    """However much longer it is than what stays: it is filled up, or left."""
    payload = payload_of(3, keys=())
    key = "k" * size
    definitions = {-1: encode_run(RunKey("e", "p", "r", 3)), 0: packed((0, ()))}
    longer = definitions | {5: packed((5, (key,)))}
    rows = payload[len(encode_definitions(definitions)) :]
    payload = encode_definitions(longer) + rows

    found = emptied(framed(payload, 3), payload)

    if found is None:
        assert size < 5
    else:
        assert len(found[1]) == len(payload)
        assert len(list(decode(found[1], 3))) == 1


# In a log.


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """A home with a run that stays, one that was deleted, and one logged anew."""
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    recorded = Recorded(tmp_path, segment_size_max=2_000)
    kept, gone = recorded.start("kept", "k"), recorded.start("gone", "g")
    other, again = recorded.start("gone", "h", rank=1), recorded.start("again", "a")
    sampler = recorded.join("gone", "sampler", EDITOR_RANK)
    for n in range(12):
        recorded.rows(kept, *((n * 10 + i, i / 2) for i in range(10)))
        for writer in (gone, other, again, sampler):
            recorded.record(writer, *({"text": f"{SECRET} {n}"} for _ in range(5)))
    for writer in (gone, again, sampler):
        recorded.tell(writer, ConfigUpdated(time=2.5, changes={"lr": SECRET}))
        recorded.tell(writer, SummaryUpdated(time=2.5, changes=[(["a"], SECRET)]))
        recorded.tell(writer, TagsChanged(time=2.5, tags=[SECRET]))
        recorded.tell(writer, RunDescribed(time=2.5, changes={"notes": SECRET}))
    recorded.tell(gone, MetricDefined(time=2.5, name=SECRET))
    recorded.tell(gone, AlertRaised(time=2.5, title=SECRET, text="", level="INFO"))
    recorded.finish(other, 3)
    recorded.rows(other, (1, 1.0))  # It is not over, after all.
    refused = payload_of(1, b"\xc0").replace(SECRET.encode(), b"?" * len(SECRET))
    recorded.append(gone, refused, 2)
    for run in ("gone", "again"):
        recorded.tell(recorded.join(run, f"ed-{run}", EDITOR_RANK), deleted())
    recorded.rows(gone, (500, 1.0), missing=4)  # It does not know yet.
    new = recorded.start("again", "b")
    recorded.rows(new, (1, 1.0), (2, 2.0))
    recorded.rows(again, (3, 3.0))
    for n in range(120, 300, 10):
        recorded.rows(kept, *((n + i, i / 2) for i in range(10)))
    for writer in (kept, new):
        recorded.finish(writer)
    recorded.fold()
    return recorded


def deleted() -> RunDeleted:
    return RunDeleted(time=9.0)


def state_of(home: Home) -> dict[str, list[Any]]:
    """Return all that state.db holds but where parts begin and end."""
    left_out = {"parts", "tails", "sqlite_sequence"}
    with closing(sqlite3.connect(home.state)) as database:
        tables = [
            name
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
            if name not in left_out
        ]
        return {
            name: sorted(map(repr, database.execute(f"SELECT * FROM {name}")))
            for name in tables
        }


def seen(home: Home) -> dict[str, Any]:
    runs = ("kept", "gone", "again")
    states = {run: HomeReader(home).state(("e", "p", run)) for run in runs}
    return {run: (states[run], rows_of(home, run)) for run in runs}


def frames_of(home: Home) -> list[tuple[Frame, bytes]]:
    items = LogReader(home.log).read()
    return [(x.frame, x.payload()) for x in items if isinstance(x, StoredFrame)]


def holds_secret(home: Home) -> bool:
    """Whether any of the segments, decompressed, has what was logged."""
    found = False
    for path in sorted(home.log.iterdir()):
        with closing(SegmentFile(RealFiles(), path)) as file:
            found = found or SECRET.encode() in file.read(0, file.size)
    return found


@pytest.fixture(params=["plain", "compressed"])
def form(request: pytest.FixtureRequest, recorded: Recorded) -> str:
    if request.param == "compressed":
        log = recorded.home.log
        for sealed in compressible(log, RealFiles(), 1 << 62):
            assert compress(log, RealFiles(), sealed) is not None
    return str(request.param)


def test_rows_of_deleted_runs_leave_the_log_and_nothing_else_changes(
    recorded: Recorded, form: str
) -> None:
    home = recorded.home
    assert any(home.log.glob("*.logz")) == (form == "compressed")
    recorded.replay()
    before, state, frames = seen(home), state_of(home), frames_of(home)
    assert holds_secret(home)
    report = verify(home.log)

    done = empty(home)

    assert done.frames > 40
    assert done.segments > 3
    assert done.freed > 0
    assert not holds_secret(home)
    assert seen(home) == before
    assert state_of(home) == state
    recorded.replay()
    assert state_of(home) == state
    assert seen(home) == before
    assert before["gone"] == (None, [])
    assert before["again"][1] == [(1, 1.0), (2, 2.0)]
    after = frames_of(home)
    assert [f.offset for f, _ in after] == [f.offset for f, _ in frames]
    changed = [
        (one, other) for one, other in zip(frames, after, strict=True) if one != other
    ]
    assert len(changed) == done.frames
    for (frame, _), (other, payload) in changed:
        assert frame.writer not in (writer_id("k"), writer_id("b"))
        assert other.flags == frame.flags | FLAG_EMPTIED
        assert SECRET.encode() not in payload
    assert verify(home.log) == report


def test_a_second_time_there_is_nothing_to_do(recorded: Recorded, form: str) -> None:
    assert form
    assert empty(recorded.home).frames > 0
    before = {p: p.stat().st_ino for p in recorded.home.log.iterdir()}

    assert holding_deleted(recorded.home) == []
    assert empty(recorded.home) == Emptied()

    assert {p: p.stat().st_ino for p in recorded.home.log.iterdir()} == before


def test_what_the_fold_could_not_take_is_a_dead_letter_ever_after(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = recorded.home

    def refuse_config(state: RunState, writer: WriterId, event: Any) -> None:
        if isinstance(event, ConfigUpdated):
            raise RecursionError
        apply(state, writer, event)

    monkeypatch.setattr(folding, "apply", refuse_config)
    recorded.replay()
    state = state_of(home)
    assert any("RecursionError" in each for each in state["dead_letters"])

    assert empty(home).frames > 40

    recorded.replay()
    assert state_of(home) == state


def test_only_what_is_folded_and_sealed_is_looked_through(recorded: Recorded) -> None:
    home = recorded.home
    place = recorded.log.durable
    for n in range(200):
        recorded.rows(writer_id("g"), (n, 1.0))
    reset_projections(home)
    assert empty(home) == Emptied()
    fold(home, place)

    found = [each.sealed for each in holding_deleted(home)]

    assert found
    assert all(x.following.first_offset <= place[0] for x in found)
    recorded.fold()
    every = [each.sealed for each in holding_deleted(home)]
    assert len(every) > len(found) + 2
    assert recorded.log.durable[0] not in [x.header.first_offset for x in every]


def test_rows_that_a_run_has_again_stay(recorded: Recorded) -> None:
    """Also if its editor, a sampler, is the one that it had before."""
    sampler = recorded.join("gone", "sampler", EDITOR_RANK)
    recorded.tell(sampler, RunCreated(time=10.0, state="running"))
    recorded.record(sampler, {"n": 5.0})
    for _ in range(60):
        recorded.rows(writer_id("b"), (1, 1.0))
    recorded.fold()
    before = frames_of(recorded.home)

    empty(recorded.home)

    after = frames_of(recorded.home)
    its = [n for n, (frame, _) in enumerate(before) if frame.writer == sampler]
    assert [after[n] for n in its] == [before[n] for n in its]
    assert after != before


def test_without_values_parts_are_still_cut(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay comes to where the run was not deleted yet."""
    before = seen(recorded.home)
    empty(recorded.home)
    for limit in ("TAIL_FRAMES_MAX", "TAIL_EVENTS_MAX", "BATCH_SIZE"):
        monkeypatch.setattr(projector, limit, 2)

    recorded.replay()

    assert seen(recorded.home) == before


@pytest.mark.fault(63)
def test_what_was_spooled_is_still_known(recorded: Recorded) -> None:
    """A spool that is sent again, long after, is recognised, footers or not."""
    recorded.log.close()
    known = recorded.open().last_sequence
    empty(recorded.home)

    assert recorded.open().last_sequence == known
    for path in recorded.home.log.glob("*.logz"):
        data = bytearray(path.read_bytes())
        data[data.rfind(b"GFRM") + 70] ^= 1  # In the footer.
        path.write_bytes(data)
    assert recorded.open().last_sequence == known


@pytest.mark.parametrize("run", ["kept", "again"])
def test_other_runs_and_what_was_logged_anew_can_be_carried(
    recorded: Recorded, tmp_path: Path, run: str
) -> None:
    """Into another home, and an older export is still known here."""
    key = ("e", "p", run)
    older = [carried for _, carried in Picker(recorded.home.log, [key]).pick(None)]
    state, rows = seen(recorded.home)[run]
    empty(recorded.home)

    found = Picker(recorded.home.log, [key])
    frames = [carried for _, carried in found.pick(None)]
    other = Recorded(tmp_path / "other")
    for carried in frames:
        other.log.append([(carried.to_record(), carried.payload)])
    other.fold()

    there = HomeReader(other.home).state(key)
    assert there is not None
    assert found.damaged == 0
    assert (there.row_count, there.lost_count) == (state.row_count, state.lost_count)
    assert there.summary == state.summary
    assert rows_of(other.home, run) == rows
    writers = frozenset(carried.frame.writer for carried in older)
    known = known_frames(recorded.home.log, writers)
    assert all(known.has(carried) for carried in older)
    assert known_frames(other.home.log, writers).has(frames[-1])


def test_a_damaged_segment_is_left(recorded: Recorded) -> None:
    home = recorded.home
    path = sorted(home.log.iterdir())[1]
    flip(path, 900)
    data = path.read_bytes()

    assert empty(home).frames > 0

    assert path.read_bytes() == data
    assert empty(home) == Emptied()


def test_another_log_is_left(recorded: Recorded, tmp_path: Path) -> None:
    other = Recorded(tmp_path / "other", segment_size_max=2_000)
    for path in other.home.log.iterdir():
        path.unlink()
    for path in recorded.home.log.iterdir():
        path.unlink()
    log = recorded.open()
    log.close()

    assert holding_deleted(recorded.home) == []


def test_readers_meanwhile_find_each_frame_whole(recorded: Recorded, form: str) -> None:
    assert form
    home = recorded.home
    offsets = [frame.offset for frame, _ in frames_of(home)]
    stopping = threading.Event()
    seen_offsets: list[bool] = []

    def follow() -> None:
        while not stopping.is_set():
            items = list(LogReader(home.log).read())
            assert not [item for item in items if isinstance(item, Damage)]
            seen_offsets.append([f.offset for f, _ in frames_of(home)] == offsets)

    readers = [threading.Thread(target=follow) for _ in range(2)]
    for thread in readers:
        thread.start()
    done = empty(home)
    stopping.set()
    for thread in readers:
        thread.join()

    assert done.frames > 0
    assert seen_offsets
    assert all(seen_offsets)


def test_a_backup_loses_them_with_the_next_one(
    recorded: Recorded, form: str, tmp_path: Path
) -> None:
    assert form
    copy = Home(tmp_path / "copy")
    back_up(recorded.home, copy)
    assert holds_secret(copy)
    empty(recorded.home)

    done = back_up(recorded.home, copy)

    assert done.damaged == []
    assert not holds_secret(copy)
    assert frames_of(copy) == frames_of(recorded.home)
    assert verify(copy.log).sound


def test_a_backup_of_an_open_segment_goes_on_when_that_was_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "SIZE_MIN", 0)
    recorded = Recorded(tmp_path, segment_size_max=2_000)
    kept, gone = recorded.start("kept", "k"), recorded.start("gone", "g")
    recorded.rows(gone, *((step, 1.0) for step in range(5)))
    copy = Home(tmp_path / "copy")
    back_up(recorded.home, copy)
    recorded.tell(recorded.join("gone", "editor", EDITOR_RANK), deleted())
    for step in range(200):
        recorded.rows(kept, (step, 1.0))
    recorded.fold()
    assert empty(recorded.home).frames

    done = back_up(recorded.home, copy)

    assert done.damaged == []
    assert frames_of(copy) == frames_of(recorded.home)


def test_a_backup_keeps_a_good_copy_of_what_was_damaged_once_emptied(
    recorded: Recorded, form: str, tmp_path: Path
) -> None:
    copy = Home(tmp_path / "copy")
    back_up(recorded.home, copy)
    before = frames_of(copy)
    assert empty(recorded.home).frames
    emptied_files = sorted(recorded.home.log.glob("*.logz"))
    flip(emptied_files[0], emptied_files[0].stat().st_size // 2)

    back_up(recorded.home, copy)

    assert verify(copy.log).sound, form
    assert len(frames_of(copy)) == len(before)


def test_a_log_that_was_put_back_is_left(recorded: Recorded, tmp_path: Path) -> None:
    """It may not say any more that the runs were deleted."""
    last = max(recorded.home.log.iterdir())
    assert holding_deleted(recorded.home)

    last.unlink()

    assert holding_deleted(recorded.home) == []


@pytest.mark.parametrize("is_emptied", [False, True])
def test_exports_before_and_after_are_known_to_each_other(
    recorded: Recorded, tmp_path: Path, is_emptied: bool
) -> None:
    key = ("e", "p", "again")
    older = [carried for _, carried in Picker(recorded.home.log, [key]).pick(None)]
    if is_emptied:
        assert empty(recorded.home).frames
    newer = [carried for _, carried in Picker(recorded.home.log, [key]).pick(None)]

    for here, there in ((older, newer), (newer, older)):
        other = Recorded(tmp_path / str(here is older))
        for carried in here:
            other.log.append([(carried.to_record(), carried.payload)])
        writers = frozenset(carried.frame.writer for carried in there)
        known = known_frames(other.home.log, writers)
        assert all(known.has(carried) for carried in there)


# Cut short, and refused.


def on_a_disk(recorded: Recorded) -> tuple[SimFS, Path, set[WriterId], int]:
    """Return the log on a disk that may fail, and what is to be emptied of it."""
    disk, log = SimFS(), recorded.home.log
    for path in log.iterdir():
        disk.put(path, path.read_bytes())
    with Database.open_reader(recorded.home.state) as database:
        writers = set(database.deleted_writers())
        return disk, log, writers, database.checkpoint().segment_first_offset


def read_all(disk: SimFS, log: Path) -> list[tuple[Frame, bytes]]:
    items = LogReader(log, disk).read()
    return [(x.frame, x.payload()) for x in items if isinstance(x, StoredFrame)]


@pytest.mark.fault(5, 19)
@pytest.mark.parametrize("ending", ["kill", "power", "error"])
@pytest.mark.usefixtures("form")
def test_end_at_any_call_leaves_each_frame_as_it_was_or_empty(
    recorded: Recorded, ending: str
) -> None:
    calls = 0
    for call in range(1, 1000):
        disk, log, writers, before = on_a_disk(recorded)
        old = read_all(disk, log)
        disk.fail = (
            fail_at(disk.calls + call, errno.ENOSPC)
            if ending == "error"
            else lose_power(disk.calls + call)
        )
        try:
            (holding, *_) = find_holding(log, disk, writers, before)
            assert empty_segment(log, disk, holding).frames
            calls = call
        except (PowerLost, OSError):
            pass
        disk.fail = lambda name, number: 0
        disk.crash(call) if ending == "power" else disk.kill()

        new = read_all(disk, log)
        assert [frame.offset for frame, _ in new] == [f.offset for f, _ in old]
        for one, other in zip(old, new, strict=True):
            assert one == other or other[0].flags & FLAG_EMPTIED
        assert verify(log, disk).sound
        for holding in find_holding(log, disk, writers, before):
            empty_segment(log, disk, holding)
        assert find_holding(log, disk, writers, before) == []
        if calls:
            break
    assert calls > 5
