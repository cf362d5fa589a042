"""Between events and bytes: how writers encode and how a payload is taken apart.

A payload is one array of definitions, `[[shape, [key, …]], …]`, holding the shapes
that its rows use, and then the events one after the other. The shape RUN_SHAPE names
the run that the writer logs into: `[entity, project, run, rank]`. So a frame can be
read alone. Payloads are untrusted: they are taken apart under limits.
"""

import operator
import re
from typing import Any, NamedTuple

import msgpack
import msgspec

from flightlog_storage.errors import MalformedEvent
from flightlog_storage.event import EVENT_KINDS, Event, Malformed, Unknown
from flightlog_storage.frame import PAYLOAD_SIZE_MAX

__all__ = (
    "BIG_INT_DIGITS_MAX",
    "DIGITS",
    "EDITOR_RANK",
    "KEY_SIZE_MAX",
    "RUN_SHAPE",
    "RunKey",
    "Shapes",
    "decode_event",
    "encode_definitions",
    "encode_event",
    "encode_run",
    "packer",
    "read_definitions",
    "run_of",
    "unpacker",
    "unwrapped",
)

KEY_SIZE_MAX = 1024  # Bytes of UTF-8 in a metric's name.
BIG_INT_DIGITS_MAX = 4300  # As many as Python turns into an int by default.
DIGITS = re.compile(rf"-?[0-9]{{1,{BIG_INT_DIGITS_MAX}}}")

RUN_SHAPE = -1
EDITOR_RANK = -1  # Of a writer that changes a run and is no process of its life.

Shapes = dict[int, list[str]]

_encode = msgspec.msgpack.Encoder().encode
_TAGS = {kind.__struct_config__.tag: kind for kind in EVENT_KINDS}


class RunKey(NamedTuple):
    """The run that a writer logs into, and as which rank."""

    entity: str
    project: str
    run: str
    rank: int = 0


def encode_run(key: RunKey) -> bytes:
    """Return the definition that names a writer's run."""
    definition: bytes = packer().pack((RUN_SHAPE, (*key[:3], str(key.rank))))
    return definition


def run_of(payload: bytes) -> RunKey | None:
    """Return the run that a payload names, if it does."""
    try:
        definitions = dict(_read_definitions(unpacker(payload)))
        entity, project, run, rank = definitions[RUN_SHAPE]
        return RunKey(entity, project, run, int(rank))
    except (MalformedEvent, KeyError, ValueError, msgpack.BufferFull):
        return None


def encode_event(event: Event) -> bytes:
    """Return the event as one msgpack map."""
    return _encode(event)


def encode_definitions(definitions: dict[int, bytes]) -> bytes:
    """Return a payload's first object from encoded `[shape, keys]` pairs."""
    header: bytes = packer().pack_array_header(len(definitions))
    return header + b"".join(definitions.values())


def unwrapped(value: Any) -> Any:
    """Return a value with the integers that msgpack cannot carry as such.

    A part in which there are none is the one given, for it may be large.
    """
    match value:
        case {"_type": "int", "value": str(digits)} if DIGITS.fullmatch(digits):
            return int(digits)
        case dict():
            items = {key: unwrapped(item) for key, item in value.items()}
            is_same = all(map(operator.is_, items.values(), value.values()))
            return value if is_same else items
        case list():
            parts = [unwrapped(item) for item in value]
            return value if all(map(operator.is_, parts, value)) else parts
    return value


def packer() -> msgpack.Packer:
    """Return a packer as writers use it: it raises TypeError for what is not plain."""
    return msgpack.Packer(use_bin_type=True)


def unpacker(data: bytes | memoryview) -> msgpack.Unpacker:
    """Return an unpacker over `data` whose limits hold against any bytes."""
    stream = msgpack.Unpacker(
        max_buffer_size=2 * PAYLOAD_SIZE_MAX,
        max_str_len=PAYLOAD_SIZE_MAX,
        max_bin_len=PAYLOAD_SIZE_MAX,
        max_array_len=PAYLOAD_SIZE_MAX,
        max_map_len=PAYLOAD_SIZE_MAX,
        max_ext_len=0,
        strict_map_key=False,
    )
    stream.feed(data)
    return stream


def decode_event(fields: dict[str, Any]) -> Event | Unknown | Malformed:
    """Return the typed event in a decoded map; never raises for what the map holds."""
    kind = fields.get("event")
    if not isinstance(kind, str):
        return Malformed("the event has no kind", _raw(fields))
    struct = _TAGS.get(kind)
    if struct is None:
        return Unknown(kind, fields)
    try:
        return msgspec.convert(fields, struct)  # type: ignore[return-value]  # Tagged.
    except msgspec.ValidationError as error:
        return Malformed(f"{kind}: {error}", _raw(fields))


def _raw(obj: object) -> bytes:
    try:
        return msgpack.packb(obj) or b""
    except (TypeError, ValueError, OverflowError) as error:
        return repr(error).encode()


def read_definitions(stream: msgpack.Unpacker) -> Shapes:
    """Return the shapes a payload starts with.

    Raises:
        MalformedEvent: The payload does not start with definitions.
    """
    shapes: Shapes = dict(_read_definitions(stream))
    shapes.pop(RUN_SHAPE, None)
    return shapes


def _read_definitions(stream: msgpack.Unpacker) -> list[tuple[int, list[str]]]:
    try:
        definitions = stream.unpack()
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise MalformedEvent(f"no shape definitions: {error}") from error
    if not isinstance(definitions, list) or not all(map(_is_definition, definitions)):
        raise MalformedEvent("shape definitions of wrong types")
    return definitions


def _is_definition(pair: object) -> bool:
    match pair:
        case [shape, [*keys]]:
            return type(shape) is int and all(type(key) is str for key in keys)
    return False
