"""Small logs to break, and what to expect of them afterwards."""

import random
import zlib
from pathlib import Path

from flightlog_storage.event import WriterId
from flightlog_storage.eventlog import EventLog, LogReader, StoredFrame
from flightlog_storage.files import FileOps
from flightlog_storage.frame import Frame
from flightlog_storage.segment import Damage

__all__ = ("FOLDER", "QUARANTINE", "WRITERS", "frame", "next_frame", "read", "start")

FOLDER = Path("/home/log")
QUARANTINE = Path("/home/quarantine")
WRITERS = tuple(WriterId(bytes([number]) * 16) for number in (1, 2, 3))
NOW_NS = 1_700_000_000_000_000_000

Stored = tuple[Frame, bytes]


def frame(
    writer: WriterId, sequence: int, payload: bytes, count: int = 1, flags: int = 0
) -> Stored:
    """Return a frame as a writer sends it."""
    header = Frame(
        len(payload), zlib.crc32(payload), count, writer, sequence, flags=flags
    )
    return header, payload


def next_frame(
    log: EventLog, writer: WriterId, payload: bytes, count: int = 1
) -> Stored:
    """Return a frame that follows the writer's last one in the log."""
    return frame(writer, log.last_sequence.get(writer, 0) + 1, payload, count)


def start(
    files: FileOps | None,
    folder: Path = FOLDER,
    quarantine: Path = QUARANTINE,
    segment_size_max: int = 64 << 20,
    seed: int = 0,
    durable: tuple[str, int] = ("", 0),
) -> EventLog:
    """Open a log whose clock stands still and whose random numbers repeat."""
    return EventLog.open(
        folder,
        files,
        now_ns=lambda: NOW_NS,
        quarantine=quarantine,
        durable=durable,
        segment_size_max=segment_size_max,
        random=random.Random(seed).randbytes,
    )


def read(files: FileOps | None, folder: Path = FOLDER) -> list[Stored | Damage]:
    """Return all that the log holds: frames with their payloads, and damage."""
    return [
        (item.frame, item.payload()) if isinstance(item, StoredFrame) else item
        for item in LogReader(folder, files).read()
    ]
