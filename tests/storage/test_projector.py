import hashlib
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgpack
import pytest
from tests.storage.recording import Recorded, fold, rows_of

from flightlog_storage import projector as module
from flightlog_storage.database import Database, SavedPart
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition
from flightlog_storage.points import POINT_SIZE
from flightlog_storage.projector import Projector, part_folder, reset_projections
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState

RUNS = ("a", "b", "c")


class Crash(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("TAIL_FRAMES_MAX", 5),
        ("TAIL_POINTS_MAX", 40),
        ("TAIL_EVENTS_MAX", 60),
        ("ALL_POINTS_MAX", 80),
        ("MERGE_PARTS", 3),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts stay as they are cut: when they are merged depends on the commits."""
    monkeypatch.setattr(module, "MERGE_PARTS", 1000)
    monkeypatch.setattr(module, "WHOLE_POINTS_MAX", 0)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    recorded = Recorded(tmp_path, segment_size_max=4000)
    yield recorded
    recorded.log.close()


def fill(recorded: Recorded, seed: int = 0) -> list[LogPosition]:
    """Have three runs log, one of them to its end; return the ends of all batches."""
    chance = random.Random(seed)
    writers = {run: recorded.start(run, run) for run in RUNS}
    ends = []
    steps = dict.fromkeys(RUNS, 0)
    for _ in range(120):
        run = chance.choice(RUNS)
        count = chance.randint(1, 9)
        first, steps[run] = steps[run], steps[run] + count
        rows = [(step, float(step)) for step in range(first, steps[run])]
        recorded.rows(writers[run], *rows)
        ends.append(recorded.log.durable)
    recorded.finish(writers["a"])
    ends.append(recorded.log.durable)
    return ends


def contents(home: Home) -> tuple[Any, ...]:
    """Return all that the projections hold, down to the bytes of the parts."""
    with Database.open_reader(home.state) as database:
        parts = database.parts()
        digests = [
            hashlib.sha256(
                (part_folder(home, part.run) / part.name).read_bytes()
            ).hexdigest()
            for part in parts
        ]
        rows = database.find_runs()
        states = [database.load_run_by_number(row.number) for row in rows]
        place = database.checkpoint(), database.tails(), database.gaps()
    return parts, digests, states, place, database.set_aside


def states(home: Home) -> list[RunState | None]:
    return [HomeReader(home).state(("e", "p", run)) for run in RUNS]


def histories(home: Home) -> list[list[tuple[int, float]]]:
    return [rows_of(home, run) for run in RUNS]


@pytest.mark.usefixtures("unmerged")
@pytest.mark.parametrize("batch_size", [1, 100, 1000, 1 << 20])
def test_parts_are_the_same_whatever_the_batches(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    ends = fill(recorded)
    recorded.fold()
    at_once = contents(recorded.home)
    assert len(at_once[0]) > 5
    reset_projections(recorded.home)
    monkeypatch.setattr(module, "BATCH_SIZE", batch_size)

    for end in ends[:: batch_size % 7 + 1]:
        fold(recorded.home, end)  # Each time by a new projector.
    recorded.fold()

    assert contents(recorded.home) == at_once


def test_texts_weigh_what_they_take(recorded: Recorded) -> None:
    writer = recorded.start("a", "a")
    text = "t" * (40 * POINT_SIZE // 3)
    texts = [msgpack.packb((0, step, 1.0, text)) for step in range(4)]

    for each in texts:
        recorded.say(writer, each)
        recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        parts, tails = database.parts(), database.tails()
    assert [part.points for part in parts] == [3]
    assert len(tails) == 1


def test_histories_are_whole_at_every_step(recorded: Recorded) -> None:
    ends = fill(recorded)
    whole = histories(recorded.home)
    assert sum(map(len, whole)) > 300

    for end in ends[::10]:
        fold(recorded.home, end)
        assert histories(recorded.home) == whole


def test_an_ended_run_is_one_part(recorded: Recorded) -> None:
    fill(recorded)

    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        (run,) = [row for row in database.find_runs() if row.id == "a"]
        (part,) = database.parts(run.number)
        assert part.points == run.row_count
        assert database.tail(run.number) is None
    assert [path.name for path in part_folder(recorded.home, run.number).iterdir()] == [
        part.name
    ]


@pytest.mark.parametrize("is_left", [False, True], ids=["new", "left by a crash"])
def test_the_folder_of_a_part_is_durable_before_the_part_is_named(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, is_left: bool
) -> None:
    synced: list[str] = []
    fsync, add_part = os.fsync, Database.add_part

    def sync(fd: int) -> None:
        fsync(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        if part_folder(recorded.home, 0).exists():  # Before, it tells nothing of it.
            synced.append(path)

    def add(database: Database, part: SavedPart) -> None:
        folder = part_folder(recorded.home, part.run)
        assert {str(recorded.home.histories), str(folder)} <= {*synced}
        add_part(database, part)
        synced.append("named")

    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0))
    recorded.finish(writer)
    if is_left:
        part_folder(recorded.home, 0).mkdir()
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Database, "add_part", add)

    recorded.fold()

    assert synced[-1] == "named"


@pytest.mark.fault(54)
def test_files_that_no_transaction_names_are_removed(recorded: Recorded) -> None:
    fill(recorded)
    recorded.fold()
    folder = next(recorded.home.histories.iterdir())
    kept = sorted(recorded.home.histories.rglob("*"))
    for name in ("part-9-9.parquet", ".tmp-part-1-2.parquet"):
        (folder / name).write_bytes(b"left by a crash")

    Projector(recorded.home).close()

    assert sorted(recorded.home.histories.rglob("*")) == kept


def project_crashing(
    recorded: Recorded,
    ends: list[LogPosition],
    patches: pytest.MonkeyPatch,
    place: str,
    number: int,
) -> None:
    """Project, but crash behind the `number`th call of `place`."""
    target = module if hasattr(module, place) else Database
    real = getattr(target, place)
    calls = 0

    def crash_once(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*arguments)
        if calls == number:
            raise Crash
        return result

    patches.setattr(module, "BATCH_SIZE", 300)
    patches.setattr(target, place, crash_once)
    for end in [*ends[::20], ends[-1]]:
        try:
            fold(recorded.home, end)
        except Crash:
            fold(recorded.home, end)
    assert calls > number


@pytest.mark.fault(54)
@pytest.mark.usefixtures("unmerged")
@pytest.mark.parametrize("number", range(1, 12, 2))
@pytest.mark.parametrize("place", ["write_part", "set_checkpoint"])
def test_after_a_crash_the_same_parts_are_cut(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    ends = fill(recorded)
    recorded.fold()
    undisturbed = contents(recorded.home)
    reset_projections(recorded.home)

    project_crashing(recorded, ends, monkeypatch, place, number)

    assert contents(recorded.home) == undisturbed


@pytest.mark.fault(54)
@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("place", ["merge_parts", "remove_part", "add_part"])
def test_after_a_crash_while_merging_nothing_is_different(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    ends = fill(recorded)
    before = states(recorded.home), histories(recorded.home)

    project_crashing(recorded, ends, monkeypatch, place, number)

    assert (states(recorded.home), histories(recorded.home)) == before
    with Database.open_reader(recorded.home.state) as database:
        named = {f"{part.run}/{part.name}" for part in database.parts()}
    found = recorded.home.histories.glob("*/*")
    assert {str(path.relative_to(recorded.home.histories)) for path in found} == named


def test_what_a_crash_left_unmerged_is_merged_without_news(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recorded.start("r")
    for life in range(2):
        recorded.rows(writer, (life, life / 2))
        recorded.finish(writer)
    with monkeypatch.context() as refusing:
        refusing.setattr(module, "merge_parts", refuse)
        with pytest.raises(OSError, match="refused"):
            recorded.fold()
    assert len([*recorded.home.histories.glob("*/*")]) == 2

    recorded.fold()

    assert len([*recorded.home.histories.glob("*/*")]) == 1
    assert rows_of(recorded.home, "r") == [(0, 0.0), (1, 0.5)]


def refuse(*_: object) -> None:
    raise OSError("refused")


def test_a_run_that_ends_without_a_tail_is_one_part_too(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAIL_FRAMES_MAX", 1)
    writer = recorded.start("r")
    recorded.rows(writer, (0, 0.0))
    recorded.rows(writer, (1, 1.0))
    recorded.fold()
    recorded.finish(writer)

    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        assert [part.points for part in database.parts()] == [2]
    assert rows_of(recorded.home, "r") == [(0, 0.0), (1, 1.0)]


@pytest.mark.fault(52)
@pytest.mark.parametrize(
    "harm",
    [
        lambda state: state.unlink(),
        lambda state: state.write_bytes(b"no database at all" * 1000),
        lambda state: state.write_bytes(state.read_bytes()[:5000]),
        lambda state: state.write_bytes(b""),
    ],
    ids=["deleted", "overwritten", "cut", "emptied"],
)
def test_a_lost_database_is_rebuilt(recorded: Recorded, harm: Any) -> None:
    fill(recorded)
    recorded.fold()
    before = states(recorded.home), histories(recorded.home)
    for suffix in ("-wal", "-shm"):
        Path(f"{recorded.home.state}{suffix}").unlink(missing_ok=True)
    harm(recorded.home.state)
    assert (states(recorded.home), histories(recorded.home)) == before, "meanwhile"

    recorded.fold()

    assert (states(recorded.home), histories(recorded.home)) == before
    with Database.open_reader(recorded.home.state) as database:
        assert database.checkpoint().offset == recorded.log.end_offset


@pytest.mark.fault(17)
def test_a_log_shorter_than_the_checkpoint_is_replayed(recorded: Recorded) -> None:
    fill(recorded)
    recorded.fold()
    recorded.log.close()
    last = max(recorded.home.log.iterdir())
    last.unlink()  # As a disk may do that said it was durable.
    recorded.log = recorded.open()

    recorded.fold()

    with Database.open_reader(recorded.home.state) as database:
        assert database.checkpoint().offset == recorded.log.end_offset
    live = states(recorded.home), histories(recorded.home)
    recorded.replay()
    assert (states(recorded.home), histories(recorded.home)) == live


@pytest.mark.fault(62)
@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_while_projections_are_set_aside_deletes_no_part(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fill(recorded)
    recorded.fold()
    parts = {path.name for path in recorded.home.histories.glob("*/*")}
    recorded.log.close()
    max(recorded.home.log.iterdir()).unlink()
    recorded.log = recorded.open()
    real = Path.rename
    renamed = []

    def crash_behind(path: Path, target: Path) -> None:
        real(path, target)
        renamed.append(path)
        if len(renamed) == number:
            raise Crash

    with monkeypatch.context() as patches:
        patches.setattr(Path, "rename", crash_behind)
        with pytest.raises(Crash):
            Projector(recorded.home)
    recorded.fold()

    assert parts <= {path.name for path in recorded.home.quarantine.glob("*/*/*/*")}


@pytest.mark.fault(61, 62)
@pytest.mark.parametrize("number", [1, 4, 9])
@pytest.mark.parametrize("place", ["write_part", "set_checkpoint", "save_run"])
def test_state_of_another_version_is_made_again_through_crashes(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    ends = fill(recorded)
    recorded.fold()
    before = states(recorded.home), histories(recorded.home)
    with closing(sqlite3.connect(recorded.home.state)) as connection, connection:
        connection.execute("UPDATE checkpoint SET schema_version = 1")

    project_crashing(recorded, ends, monkeypatch, place, number)

    assert (states(recorded.home), histories(recorded.home)) == before
    with Database.open_reader(recorded.home.state) as database:
        assert database.checkpoint().offset == recorded.log.end_offset


def test_another_log_in_its_place_is_projected_instead(
    recorded: Recorded, tmp_path: Path
) -> None:
    fill(recorded)
    recorded.fold()
    recorded.log.close()
    for path in recorded.home.log.iterdir():
        path.unlink()
    recorded.log = recorded.open()
    recorded.rows(recorded.start("new"), (0, 7.0))

    recorded.fold()

    assert [row.id for row in HomeReader(recorded.home).runs()] == ["new"]
    assert rows_of(recorded.home, "new") == [(0, 7.0)]


def test_a_rotten_stretch_larger_than_a_batch_is_stepped_over(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = recorded.start("a")
    for step in range(40):
        recorded.rows(writer, (step, 1.0))
    first, *_ = sorted(recorded.home.log.iterdir())
    data = bytearray(first.read_bytes())
    data[1000:3000] = bytes(2000)
    first.write_bytes(data)
    monkeypatch.setattr(module, "BATCH_SIZE", 300)
    projector = Projector(recorded.home)

    batches = 0
    while projector.project(recorded.log.durable):
        batches += 1
        assert batches < 100, "it goes in circles"

    projector.close()
    steps = [step for step, _ in rows_of(recorded.home, "a")]
    assert steps[-1] == 39
    assert 10 < len(steps) < 40
    (state,) = HomeReader(recorded.home).runs()
    assert state.lost_count == 40 - len(steps)


@pytest.mark.fault(11)
def test_a_commit_that_fails_is_done_by_the_next_projector(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(recorded)
    whole = histories(recorded.home)

    def refuse(*arguments: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patches:
        patches.setattr(Database, "set_checkpoint", refuse)
        with pytest.raises(sqlite3.OperationalError):
            recorded.fold()
    assert histories(recorded.home) == whole

    recorded.fold()

    assert histories(recorded.home) == whole
