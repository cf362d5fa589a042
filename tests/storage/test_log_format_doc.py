"""The worked example in docs/log_format.md is what the code writes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulation.simfs import SimFS

from flightlog_storage.codec import (
    RunKey,
    encode_definitions,
    encode_event,
    encode_run,
    packer,
)
from flightlog_storage.event import RunFinished, WriterId
from flightlog_storage.eventlog import EventLog
from flightlog_storage.frame import pack_frame, parse_header
from flightlog_storage.segment import compressed_name
from flightlog_storage.segment_file import SegmentFile

DOCUMENT = Path(__file__).parents[2] / "docs" / "log_format.md"
LINE = re.compile(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} ){0,15}[0-9a-f]{2})(?:  |$)", re.M)
WRITER = WriterId(bytes(range(0xA0, 0xB0)))


def example() -> bytes:
    """Return a sealed segment with one frame of two events."""
    definitions = {
        -1: encode_run(RunKey("ann", "mnist", "r1")),
        0: packer().pack([0, ["loss"]]),
    }
    payload = b"".join(
        [
            encode_definitions(definitions),
            packer().pack([0, 7, 1_700_000_000.5, 0.25]),
            encode_event(RunFinished(time=1_700_000_001.0, exit_code=0)),
        ]
    )
    header, payload = pack_frame(WRITER, 1, 2, payload)
    disk, folder = SimFS(), Path("/log")
    log = EventLog.open(
        folder,
        disk,
        now_ns=lambda: 1_700_000_002_000_000_000,
        quarantine=Path("/quarantine"),
        random=lambda size: bytes(range(1, size + 1)),
    )
    log.append([(parse_header(header), payload)])
    log.close()
    return disk.get(folder / disk.listdir(folder)[0])


def dump(data: bytes) -> Iterator[str]:
    for position in range(0, len(data), 16):
        yield f"{position:04x}  {data[position : position + 16].hex(' ')}"


def documented(section: str) -> list[str]:
    """Return the lines of a section's dump, without what is said of them."""
    text = DOCUMENT.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [f"{at}  {data}" for at, data in LINE.findall(text)]


@pytest.mark.fault(61)
def test_hex_in_the_document_is_what_the_code_writes() -> None:
    assert documented("Example") == list(dump(example()))


@pytest.mark.fault(61)
def test_compressed_hex_in_the_document_is_the_same_segment() -> None:
    lines = documented("Compressed")
    data = bytes.fromhex("".join(line[6:] for line in lines))
    path = Path("/log") / compressed_name(0)
    disk = SimFS()
    disk.put(path, data)

    file = SegmentFile(disk, path)

    assert lines == list(dump(data))
    assert file.is_compressed
    assert file.faults() == []
    assert file.read(0, 1 << 20) == example()
