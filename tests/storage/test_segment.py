import random
import zlib
from pathlib import Path

import pytest
from tests.counts import count
from tests.effort import tries
from tests.simulation.simfs import SimFS

from flightlog_storage.errors import CorruptData
from flightlog_storage.event import WriterId
from flightlog_storage.frame import Frame
from flightlog_storage.scan import (
    Found,
    Scan,
    Scope,
    find_footer,
    find_salt,
)
from flightlog_storage.segment import (
    FLAG_BATCH,
    Damage,
    DamageKind,
    Footer,
    SegmentHeader,
    first_offset_of,
    mend_segment_header,
    pack_footer,
    pack_padded,
    parse_footer,
    parse_segment_header,
    segment_name,
)
from flightlog_storage.segment_file import SegmentFile

PATH = Path("/log") / segment_name(10)
SALT = 0xDEADBEEF
HEADER = SegmentHeader(bytes(range(16)), 3, 10, SALT, 77, 1_700_000_000)
WRITER = WriterId(b"w" * 16)


def packed(
    offset: int, payload: bytes, count: int = 2, flags: int = FLAG_BATCH
) -> bytes:
    frame = Frame(
        payload_size=len(payload),
        payload_crc=zlib.crc32(payload),
        count=count,
        writer=WRITER,
        sequence=offset + 1,
        offset=offset,
        flags=flags,
    )
    return b"".join(pack_padded(frame, payload, SALT))


def file_of(data: bytes) -> SegmentFile:
    disk = SimFS()
    disk.put(PATH, data)
    return SegmentFile(disk, PATH)


def scan_of(
    data: bytes, scope: Scope | None = None
) -> tuple[Scan, list[Found | Damage]]:
    scan = Scan(file_of(data), SALT, scope or Scope(expected=10))
    return scan, list(scan)


def test_header_is_read_back() -> None:
    assert parse_segment_header(HEADER.pack()) == HEADER
    assert len(HEADER.pack()) == 64


@pytest.mark.parametrize("size", [0, 1, 63])
def test_short_header_is_corrupt(size: int) -> None:
    with pytest.raises(CorruptData):
        parse_segment_header(HEADER.pack()[:size])


@pytest.mark.fault(8)
@pytest.mark.parametrize("bit", range(512))
def test_header_with_one_wrong_bit_is_mended(bit: int) -> None:
    wrong = bytearray(HEADER.pack())
    wrong[bit // 8] ^= 1 << bit % 8
    count("bits flipped")

    with pytest.raises(CorruptData):
        parse_segment_header(bytes(wrong))
    assert mend_segment_header(bytes(wrong)) == HEADER


def test_header_with_many_wrong_bits_is_not_mended() -> None:
    chance = random.Random(1)

    for _ in range(50):
        assert mend_segment_header(chance.randbytes(64)) is None


def test_lost_salt_is_found_from_a_frame() -> None:
    junk = random.Random(2).randbytes(64)

    assert find_salt(file_of(junk + packed(10, b"payload")), 10) == SALT
    assert find_salt(file_of(junk + b"GFRM" * 40), 10) is None
    assert find_salt(file_of(junk), 10) is None


def test_lost_salt_is_not_that_of_a_frame_that_is_damaged() -> None:
    damaged = bytearray(packed(10, b"one"))
    damaged[12] ^= 1  # The checksum of its payload.
    data = bytes(64) + bytes(damaged)

    assert find_salt(file_of(data), 10) is None
    assert find_salt(file_of(data + packed(12, b"two")), 10) == SALT


def test_frames_of_no_interest_are_not_stepped_over_where_a_bit_is_wrong() -> None:
    frames = [packed(10, b"one"), packed(12, b"two"), packed(14, b"three")]
    scope = Scope(expected=10, writers=frozenset())
    before = len(HEADER.pack() + frames[0])
    data = HEADER.pack() + b"".join(frames)
    assert scan_of(data, scope)[1] == []

    for bit in range(8 * before, 8 * (before + 64)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        count("bits flipped")
        _, items = scan_of(bytes(wrong), scope)
        assert any(isinstance(item, Damage) for item in items), bit


def test_names_are_first_offsets() -> None:
    assert segment_name(42) == "00000000000000000042.log"
    assert first_offset_of(segment_name(42)) == 42
    assert first_offset_of("00000000000000000042.log.tmp") is None
    assert first_offset_of("state.db") is None


@pytest.mark.parametrize("writers", [0, 1, 5_000])
def test_footer_is_found_from_the_end(writers: int) -> None:
    last = {number.to_bytes(16, "little"): number for number in range(writers)}
    footer = Footer(last, 2, 10, 12, 144)
    body = HEADER.pack() + packed(10, b"GFRM" * 5_000)
    file = file_of(body + pack_footer(footer, SALT, 0))

    assert find_footer(file, SALT) == footer
    assert find_footer(file, SALT + 1) is None
    assert find_footer(file_of(body), SALT) is None


def test_footer_with_a_wrong_bit_is_none() -> None:
    footer = Footer({bytes(16): 7}, 2, 10, 12, 144)
    body = HEADER.pack() + packed(10, b"one")
    data = body + pack_footer(footer, SALT, 0).rstrip(b"\0")
    padding = bytes(-len(data) % 8)
    assert find_footer(file_of(data + padding), SALT) == footer

    for bit in range(8 * len(body), 8 * len(data)):
        wrong = bytearray(data + padding)
        wrong[bit // 8] ^= 1 << bit % 8
        count("bits flipped")
        assert find_footer(file_of(bytes(wrong)), SALT) is None, bit


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03"])
def test_payload_that_is_no_footer_is_none(payload: bytes) -> None:
    assert parse_footer(payload) is None


def test_damaged_header_costs_its_frame() -> None:
    frames = [packed(10, b"one"), packed(12, b"two"), packed(14, b"three")]
    frames[1] = b"X" + frames[1][1:]

    _, items = scan_of(HEADER.pack() + b"".join(frames))

    damage = items[1]
    assert isinstance(damage, Damage)
    assert (damage.first_offset, damage.count, damage.size) == (12, 2, len(frames[1]))
    assert (damage.kind, damage.writer) == (DamageKind.ROTTEN, None)
    assert [x.frame.offset for x in items if isinstance(x, Found)] == [10, 14]


def test_damaged_payload_says_whose_it_was() -> None:
    frames = [packed(10, b"one"), packed(12, b"twX"), packed(14, b"three")]
    frames[1] = frames[1].replace(b"twX", b"two")

    _, items = scan_of(HEADER.pack() + b"".join(frames))

    damage = items[1]
    assert isinstance(damage, Damage)
    assert (damage.writer, damage.sequence, damage.count) == (WRITER, 13, 2)


@pytest.mark.fault(9)
def test_frames_of_another_segment_inside_a_payload_are_not_taken_for_frames() -> None:
    inner = packed(12, b"inner")
    foreign = Frame(4, zlib.crc32(b"data"), 1, WRITER, 1, offset=99)
    payload = b"".join(pack_padded(foreign, b"data", SALT + 1)) + inner[:60]
    data = HEADER.pack() + b"X" + packed(10, payload)[1:] + packed(12, b"two")

    _, items = scan_of(data)

    assert [x.frame.offset for x in items if isinstance(x, Found)] == [12]


def test_what_was_not_durable_ends_where_the_next_segment_starts() -> None:
    data = HEADER.pack() + packed(10, b"one") + packed(12, b"failed")

    scan, items = scan_of(data, Scope(expected=10, limit=12))

    assert len(items) == 1
    assert scan.expected == 12
    assert scan.tail == []


def test_missing_offsets_are_told() -> None:
    _, items = scan_of(HEADER.pack() + packed(10, b"one") + packed(20, b"two"))

    damage = items[1]
    assert isinstance(damage, Damage)
    assert (damage.first_offset, damage.count, damage.size) == (12, 8, 0)


@pytest.mark.fault(9)
def test_repeated_frame_is_damage() -> None:
    one = packed(10, b"one")

    _, items = scan_of(HEADER.pack() + one + one + packed(12, b"two"))

    assert [type(item) for item in items] == [Found, Damage, Found]
    assert isinstance(items[1], Damage)
    assert items[1].count == 0


@pytest.mark.parametrize("seed", range(tries(50)))
def test_any_bytes_are_scanned_without_error(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [packed(10, b"x" * 30), b"GFRM", b"\0" * 8, chance.randbytes(40)]
    data = HEADER.pack() + b"".join(chance.choices(pieces, k=30))

    scan, items = scan_of(data)

    found = [x.frame.offset for x in (*items, *scan.tail) if isinstance(x, Found)]
    assert found in ([], [10])
