"""Emptied frames: what stays in the log of what was logged into a deleted run.

Such a frame has the writer, the sequence, the offset and the size that it had, names
its run, and has as many events. Rows, and what was said of the run, are empty rows now:
of a run that is deleted all of these say the same, that its writer was alive then. What
says more, as that the run began or that an artifact was logged, is as it was. So
whatever is folded, counted or looked for comes out as before.
"""

import zlib
from collections.abc import Iterator

from msgspec import structs

from flightlog_storage.codec import (
    RUN_SHAPE,
    RunKey,
    encode_definitions,
    encode_run,
    packer,
    run_of,
    unpacker,
)
from flightlog_storage.event import (
    AlertRaised,
    ConfigUpdated,
    Malformed,
    MetricDefined,
    Rows,
    RunDescribed,
    SummaryUpdated,
    TagsChanged,
)
from flightlog_storage.frame import FLAG_EMPTIED, Frame, FrameType
from flightlog_storage.rows import decode

__all__ = ("emptied",)

# Of which nothing is left once the run is deleted.
_OF_THE_RUN = (
    AlertRaised,
    ConfigUpdated,
    MetricDefined,
    RunDescribed,
    SummaryUpdated,
    TagsChanged,
)
_SHAPE, _PADDING_SHAPE = 0, 1
_NO_KEYS: bytes = packer().pack((_SHAPE, ()))
_ROW: bytes = packer().pack((_SHAPE, 0, 0.0))
# A definition of one key: two arrays around the shape, and what precedes a text.
_PADDING_HEAD = b"\x92" + bytes([_PADDING_SHAPE]) + b"\x91\xdb"
_PADDING_SIZE_MIN = len(_PADDING_HEAD) + 4


def emptied(frame: Frame, payload: bytes) -> tuple[Frame, bytes] | None:
    """Return what is to stay of a frame; None: it stays as it is.

    That is so if there is nothing to empty, it was emptied before, or part of it is
    refused when it is folded.
    """
    run = run_of(payload)
    if frame.type != FrameType.EVENTS or frame.flags & FLAG_EMPTIED or run is None:
        return None
    void = _void(payload, frame.count)
    if not void:
        return None
    events = [
        _ROW if index in void else event
        for index, event in enumerate(_events(payload, frame.count))
    ]
    empty = _filled(run, b"".join(events), frame.payload_size)
    if empty is None:
        return None
    flags = frame.flags | FLAG_EMPTIED
    return structs.replace(frame, payload_crc=zlib.crc32(empty), flags=flags), empty


def _void(payload: bytes, count: int) -> set[int]:
    """Return which events may be empty rows; none where one is malformed."""
    void: set[int] = set()
    for index, item in decode(payload, count):
        if isinstance(item, Malformed):
            return set()
        if isinstance(item, Rows):
            void.update(range(index, index + len(item.steps)))
        elif isinstance(item, _OF_THE_RUN):
            void.add(index)
    return void


def _events(payload: bytes, count: int) -> Iterator[bytes]:
    """Yield the bytes of each event of a payload that is well-formed."""
    stream = unpacker(payload)
    stream.skip()
    for _ in range(count):
        start = stream.tell()
        stream.skip()
        yield payload[start : stream.tell()]


def _filled(run: RunKey, events: bytes, size: int) -> bytes | None:
    """Return a payload of these events that has a size, if there can be one."""
    definitions = {RUN_SHAPE: encode_run(run), _SHAPE: _NO_KEYS}
    room = size - len(encode_definitions(definitions)) - len(events)
    if room:
        length = room - _PADDING_SIZE_MIN
        if length < 0:
            return None
        padding = _PADDING_HEAD + length.to_bytes(4, "big") + bytes(length)
        definitions[_PADDING_SHAPE] = padding
    return encode_definitions(definitions) + events
