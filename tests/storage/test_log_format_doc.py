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


@pytest.mark.fault(61)
def test_hex_in_the_document_is_what_the_code_writes() -> None:
    lines = [f"{at}  {data}" for at, data in LINE.findall(DOCUMENT.read_text())]

    assert lines == list(dump(example()))
