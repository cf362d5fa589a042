import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.effort import tries

from flightlog_storage import budget, buffers
from flightlog_storage import process as process_module
from flightlog_storage.buffers import CHUNK_SIZE
from flightlog_storage.codec import RunKey, encode_event, packer
from flightlog_storage.event import ConfigUpdated
from flightlog_storage.frame import EVENT_SIZE_MAX
from flightlog_storage.process import this_process
from flightlog_storage.spool import SpoolOwner, read_owner, remove_spool
from flightlog_storage.spool_reader import SpoolReader
from flightlog_storage.spool_writer import SpoolWriter

RUN = RunKey("someone", "project", "run", 3)
pack = packer().pack


def writer_in(folder: Path) -> SpoolWriter:
    owner = SpoolOwner(os.urandom(16), this_process(), RUN)
    return SpoolWriter(folder, owner, lambda: None)


def put_row(writer: SpoolWriter, keys: tuple[str, ...], *values: Any) -> None:
    writer.put_row(keys, lambda number: pack((number, 0, 1.0, *values)))


def items_in(
    reader: SpoolReader, **arguments: int
) -> list[tuple[tuple[str, ...], Any]]:
    """Return (keys, values) of all rows that can be cut; each cut can be read alone."""
    found = []
    while cut := reader.cut(**arguments):
        stream = msgpack.Unpacker(strict_map_key=False)
        stream.feed(cut.payload)
        shapes = {number: tuple(keys) for number, keys in stream.unpack()}
        rows = list(stream)
        assert len(rows) == cut.count
        rows = [row for row in rows if type(row) is list]
        found += [(shapes[row[0]], row[3:]) for row in rows]
    return found


@pytest.fixture(params=["mapped", "plain"])
def writer(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SpoolWriter]:
    if request.param == "plain":
        monkeypatch.setattr(buffers, "_MAPPABLE", frozenset())
    made = writer_in(tmp_path)
    yield made
    made.close()


def test_rows_come_back_with_their_keys(writer: SpoolWriter) -> None:
    put_row(writer, ("a", "b"), 1, 2)
    put_row(writer, ("c",), 3)
    put_row(writer, ("a", "b"), 4, 5)

    found = items_in(SpoolReader(writer.folder))

    assert found == [(("a", "b"), [1, 2]), (("c",), [3]), (("a", "b"), [4, 5])]


def test_rows_of_many_shapes_make_few_cuts(writer: SpoolWriter) -> None:
    for number in range(1000):
        put_row(writer, (f"k{number}",), number)

    cut = SpoolReader(writer.folder).cut()

    assert cut is not None
    assert cut.count == 1000


def test_cut_at_every_committed_size_holds_whole_events_only(tmp_path: Path) -> None:
    writer = writer_in(tmp_path)
    ends = [64]
    for number in range(10):
        put_row(writer, ("a",) if number % 2 else ("b",), number)
        ends.append(writer.position)
    chunk = writer.folder / "0000000001.chunk"
    whole = chunk.read_bytes()[: writer.position]

    for committed in range(64, len(whole) + 1):
        chunk.write_bytes(committed.to_bytes(8, "little") + whole[8:committed])
        reader = SpoolReader(writer.folder)

        found = [values[0] for _, values in items_in(reader)]

        count = sum(end <= committed for end in ends) - 1
        assert found == list(range(count))
        reader.close()
    writer.close()


def test_rolling_loses_nothing(writer: SpoolWriter) -> None:
    text = "x" * 100_000
    for number in range(100):
        put_row(writer, ("n", "text"), number, text)

    found = [values[0] for _, values in items_in(SpoolReader(writer.folder))]

    assert found == list(range(100))
    assert writer.chunk == 3


def test_event_larger_than_a_chunk_gets_its_own(writer: SpoolWriter) -> None:
    put_row(writer, ("a",), "x" * (CHUNK_SIZE + 1))
    put_row(writer, ("a",), "y")

    sizes = [len(values[0]) for _, values in items_in(SpoolReader(writer.folder))]

    assert sizes == [CHUNK_SIZE + 1, 1]


def test_keys_too_long_together_are_refused(writer: SpoolWriter) -> None:
    with pytest.raises(ValueError, match="names of the 1 keys"):
        put_row(writer, ("x" * EVENT_SIZE_MAX,), 1)

    put_row(writer, ("a",), 1)
    assert items_in(SpoolReader(writer.folder)) == [(("a",), [1])]


def test_seek_goes_to_any_sequence_and_over_what_is_freed(writer: SpoolWriter) -> None:
    for number in range(100):
        put_row(writer, ("n", "text"), number, "x" * 100_000)
    reader = SpoolReader(writer.folder)

    reached = [reader.seek(sequence) for sequence in (1, 50, 101, 500)]
    assert reached == [1, 50, 101, 101]

    reader.seek(60)
    assert [values[0] for _, values in items_in(reader)] == list(range(59, 100))

    reader.free(60)
    first = reader.seek(1)
    assert 1 < first <= 61
    assert [values[0] for _, values in items_in(reader)] == list(range(first - 1, 100))


@pytest.mark.fault(8)
def test_damage_costs_what_is_behind_it_in_its_chunk_only(writer: SpoolWriter) -> None:
    ends = []
    for number in range(100):
        put_row(writer, ("n", "text"), number, "x" * 100_000)
        ends.append((writer.chunk, writer.position))
    last_of_chunk = max(n for n, (chunk, _) in enumerate(ends) if chunk == 1)
    with open(writer.folder / "0000000001.chunk", "r+b") as file:
        file.seek(ends[9][1])
        file.write(b"\xc1")  # Never used in msgpack.
    reader = SpoolReader(writer.folder)

    found = [values[0] for _, values in items_in(reader)]

    assert found == [*range(10), *range(last_of_chunk + 1, 100)]
    assert reader.damage is not None
    assert reader.damage.startswith("chunk 1: ")


def test_first_sequence_that_went_with_the_power_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_in(tmp_path)
    for number in range(3):
        put_row(writer, ("a",), number)
        writer.roll(0)
    writer.close()
    (writer.folder / "0000000001.chunk").unlink()  # It was durable in the log.
    monkeypatch.setattr(process_module, "_boot_id", lambda: "the next one")

    reader = SpoolReader(writer.folder, is_onlooker=True)

    assert reader.damage == "chunk 2: its first sequence is lost"


def test_a_spool_that_lost_nothing_with_the_power_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_in(tmp_path)
    for number in range(3):
        put_row(writer, ("a",), number)
        writer.roll(0)
    reader = SpoolReader(writer.folder)
    items_in(reader)
    reader.free(2)
    writer.close()
    monkeypatch.setattr(process_module, "_boot_id", lambda: "the next one")

    reader = SpoolReader(writer.folder)

    assert [values for _, values in items_in(reader)] == [[2]]
    assert reader.damage is None


@pytest.mark.parametrize("boot", ["this one", "the next one"])
def test_zeros_are_doubted_after_a_loss_of_power_alone(
    writer: SpoolWriter, boot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_row(writer, ("a",), "x")
    put_row(writer, ("a",), "\0" * 1024)
    put_row(writer, ("a",), "y")
    if boot == "the next one":
        monkeypatch.setattr(process_module, "_boot_id", lambda: boot)

    reader = SpoolReader(writer.folder)
    found = [values[0] for _, values in items_in(reader)]

    is_whole = boot == "this one"
    assert found == (["x", "\0" * 1024, "y"] if is_whole else ["x"])
    assert reader.damage == (None if is_whole else "chunk 1: zeros at byte 512")


@pytest.mark.parametrize(
    "value", [{(1, 2): 3}, {"a": {(1, (2,)): {"b": 1}}}, [0] * 1_000_001]
)
def test_unusual_rows_are_read_among_their_neighbours(
    writer: SpoolWriter, value: Any
) -> None:
    put_row(writer, ("a",), 1)
    put_row(writer, ("a",), value)
    put_row(writer, ("a",), 2)

    reader = SpoolReader(writer.folder)
    found = [values[0] for _, values in items_in(reader)]

    assert (found[0], found[-1], reader.damage) == (1, 2, None)
    assert len(found) == 3


def test_reader_follows_a_writer(writer: SpoolWriter) -> None:
    reader = SpoolReader(writer.folder)
    found = []
    for number in range(200):
        put_row(writer, ("n", "text"), number, "x" * 50_000)
        if number % 7 == 0:
            found += [values[0] for _, values in items_in(reader)]
            reader.free(len(found))

    found += [values[0] for _, values in items_in(reader)]

    assert found == list(range(200))
    assert len(list(writer.folder.glob("*.chunk"))) < writer.chunk


def test_interrupted_append_is_completed_by_whoever_comes_next(
    writer: SpoolWriter,
) -> None:
    put_row(writer, ("a",), 1)
    writer.pending = pack((0, 1, 1.0, 2))  # As a handler finds it.

    put_row(writer, ("a",), 3)

    assert items_in(SpoolReader(writer.folder)) == [(("a",), [n]) for n in (1, 2, 3)]


@pytest.mark.fault(56)
def test_handler_that_logs_during_a_roll_loses_nothing(writer: SpoolWriter) -> None:
    put_row(writer, ("a",), 0)
    count = 1

    def handle(number: int, frame: object) -> None:
        nonlocal count
        put_row(writer, ("h",), "x" * 1000)
        count += 1

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for _ in range(60):
        writer.roll(0)
        put_row(writer, ("b",), 1)
        count += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)

    assert len(items_in(SpoolReader(writer.folder))) == count


def test_spool_says_whose_it_is_and_can_be_removed(writer: SpoolWriter) -> None:
    owner = read_owner(writer.folder)

    assert owner is not None
    assert (owner.run, owner.process) == (RUN, this_process())
    remove_spool(writer.folder)
    assert not writer.folder.exists()


def test_sealed_spool_ends_with_its_last_event(writer: SpoolWriter) -> None:
    put_row(writer, ("a",), 1)
    writer.seal(pack({"event": "RunFinished"}))

    cut = SpoolReader(writer.folder).cut()

    assert cut is not None
    assert cut.count == 2
    assert (writer.is_open, writer.shapes) == (False, {})


class SpoolAgainstAList(RuleBasedStateMachine):
    """A spool does what a list of rows does."""

    @initialize(mappable=st.booleans())
    def begin(self, mappable: bool) -> None:
        self.root = (
            Path(os.environ.get("TMPDIR", "/tmp")) / f"spool-{os.urandom(8).hex()}"
        )
        self.root.mkdir()
        self.writer = writer_in(self.root)
        self.writer._mappable = mappable
        self.reader = SpoolReader(self.writer.folder)
        self.rows: list[tuple[tuple[str, ...], list[Any]]] = []
        self.freed = 0

    @rule(
        keys=st.sampled_from([("a",), ("b",), ("a", "b"), ()]),
        size=st.sampled_from([0, 10, 300_000, 1_500_000]),
    )
    def put(self, keys: tuple[str, ...], size: int) -> None:
        values = [len(self.rows) + size * 1000] + ["x" * size] * (len(keys) - 1)
        put_row(self.writer, keys, *values[: len(keys)])
        self.rows.append((keys, values[: len(keys)]))

    @rule()
    def roll(self) -> None:
        self.writer.roll(0)

    @rule(limit=st.integers(1, 5), size=st.sampled_from([1, 100, 1 << 18]))
    def cut(self, limit: int, size: int) -> None:
        first = self.reader.sequence
        cut = self.reader.cut(size, limit)
        if cut is None:
            assert first == len(self.rows) + 1
        else:
            assert cut.sequence == first
            assert 1 <= cut.count <= limit

    @rule(sequence=st.integers(1, 30))
    def seek(self, sequence: int) -> None:
        reached = self.reader.seek(sequence)
        assert reached == min(max(sequence, reached), len(self.rows) + 1)
        assert reached <= max(sequence, self.freed + 1)

    @rule()
    def free(self) -> None:
        self.freed = max(self.freed, self.reader.sequence - 1)
        self.reader.free(self.freed)

    @invariant()
    def everything_not_freed_is_there(self) -> None:
        onlooker = SpoolReader(self.writer.folder, is_onlooker=True)
        first = onlooker.sequence
        assert first <= self.freed + 1
        assert items_in(onlooker) == self.rows[first - 1 :]
        onlooker.close()

    def teardown(self) -> None:
        self.reader.close()
        self.writer.close()
        shutil.rmtree(self.root)


TestSpoolAgainstAList = SpoolAgainstAList.TestCase
TestSpoolAgainstAList.settings = settings(
    max_examples=tries(25), stateful_step_count=20
)


@pytest.mark.fault(30)
@pytest.mark.parametrize("is_row", [True, False], ids=["row", "event"])
def test_an_event_over_the_budget_is_a_loss_that_is_counted(
    writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch, is_row: bool
) -> None:
    monkeypatch.setattr(budget, "DECODED_SIZE_MAX", 8 << 20)
    bomb: list[object] = [{}] * 600_000
    put_row(writer, ("a",), 1)
    if is_row:
        writer.put_row(("a",), lambda number: pack((number, 0, 7.5, bomb)))
    else:
        writer.put(encode_event(ConfigUpdated(time=7.5, changes={"k": bomb})))
    put_row(writer, ("a",), 2)

    reader = SpoolReader(writer.folder)
    cuts = [cut for cut in iter(reader.cut, None) if cut is not None]

    items: list[Any] = []
    for cut in cuts:
        stream = msgpack.Unpacker()
        stream.feed(cut.payload)
        items += list(stream)[1:]
    assert [item[3] for item in items if type(item) is list] == [1, 2]
    assert [item for item in items if type(item) is dict] == [
        {
            "event": "Gap",
            "time": 7.5,
            "count": 1,
            "reason": "an event is lost: as objects it would take more than 8,388,608 "
            "bytes",
        }
    ]
    assert sum(cut.count for cut in cuts) == 3
    assert reader.damage is None


@pytest.mark.fault(30)
def test_a_definition_over_the_budget_is_damage(
    writer: SpoolWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "DECODED_SIZE_MAX", 8 << 20)
    writer.put_row(("",) * 900_000, lambda number: pack((number, 0, 1.0)))

    reader = SpoolReader(writer.folder)

    assert reader.cut() is None
    assert "a definition that is too large" in str(reader.damage)
