"""Budget: what bytes would take as objects, told before they are made such.

A byte of msgpack can become a hundred bytes of memory: an empty map, say. So whoever
makes objects of an event that is large looks first at how many they would be. Most
payloads are too small for that to matter, or are plain at one look at their bytes.
"""

from collections.abc import Callable

from flightlog_storage.errors import MalformedEvent
from flightlog_storage.frame import EVENT_SIZE_MAX

__all__ = (
    "DECODED_SIZE_MAX",
    "FRAME_POINTS_MAX",
    "ROW_POINTS_MAX",
    "UNCOUNTED_SIZE_MAX",
    "check_cost",
    "is_cheap",
    "refusal",
)

DECODED_SIZE_MAX = 96 << 20  # Of the objects that are made of one event.
ROW_POINTS_MAX = 1 << 18  # Each of which may be a series of its own, of some 900 bytes.
FRAME_POINTS_MAX = 1 << 20  # Points of series take 50 bytes at most.
UNCOUNTED_SIZE_MAX = 512 << 10  # Smaller payloads never make more than is allowed.

# What CPython needs for one and for its place in a list, rounded up.
_SCALAR_COST = 40
_SMALL_COST = 8  # Of one that exists already.
_TEXT_COST = 64
_TEXT_BYTE_COST = 4  # As wide as the widest character in it.
_LIST_COST = 80
_MAP_COST = 80  # Of an empty one,
_PAIRS_COST = 256  # of one with a few pairs,
_PAIR_COST = 120  # and of each pair beyond these, while it grows.
_PAIRS_FEW = 5

_SMALL = bytes((*range(0x80), *range(0xE0, 0x100)))
_CONTAINERS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))

# What a marker says: how many bytes it is to the next one, how many parts follow, and
# what it costs.
_Form = tuple[int, int, int]


def _text(size: int) -> _Form:
    return 1 + size, 0, _TEXT_COST + _TEXT_BYTE_COST * size


def _extension(size: int) -> _Form:
    return 2 + size, 0, _TEXT_COST + _TEXT_BYTE_COST * size


def _list(count: int) -> _Form:
    return 1, count, _LIST_COST


def _map(count: int) -> _Form:
    more = _PAIR_COST * max(0, count - _PAIRS_FEW)
    return 1, 2 * count, _PAIRS_COST + more if count else _MAP_COST


_FIXED = {
    **dict.fromkeys(_SMALL, (1, 0, _SMALL_COST)),
    **{0x80 + count: _map(count) for count in range(16)},
    **{0x90 + count: _list(count) for count in range(16)},
    **{0xA0 + size: _text(size) for size in range(32)},
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC3), (1, 0, _SMALL_COST)),
    **dict.fromkeys((0xCC, 0xD0), (2, 0, _SCALAR_COST)),
    **dict.fromkeys((0xCD, 0xD1), (3, 0, _SCALAR_COST)),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), (5, 0, _SCALAR_COST)),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), (9, 0, _SCALAR_COST)),
    **{0xD4 + power: _extension(1 << power) for power in range(5)},
}
# Of these the size or count follows the marker, in so many bytes.
_TOLD: dict[int, tuple[int, Callable[[int], _Form]]] = {
    **{0xC4 + power: (1 << power, _text) for power in range(3)},
    **{0xC7 + power: (1 << power, _extension) for power in range(3)},
    **{0xD9 + power: (1 << power, _text) for power in range(3)},
    **{0xDC + power: (2 << power, _list) for power in range(2)},
    **{0xDE + power: (2 << power, _map) for power in range(2)},
}
_FORMS = tuple(_FIXED.get(marker, (0, 0, 0)) for marker in range(0x100))


def is_cheap(data: bytes) -> bool:
    """Whether nothing in `data` can be over the budget, as far as a look can tell."""
    if len(data) <= UNCOUNTED_SIZE_MAX:
        return True
    large = data.translate(None, _SMALL)
    containers = len(large) - len(large.translate(None, _CONTAINERS))
    cost = _SMALL_COST * (len(data) - len(large))
    cost += _PAIRS_COST * containers + _TEXT_COST * (len(large) - containers)
    return cost <= DECODED_SIZE_MAX


def check_cost(data: bytes, at: int = 0) -> None:
    """Look at the object that begins at `at`, of which the end may be missing.

    Raises:
        MalformedEvent: It would take more than DECODED_SIZE_MAX.
    """
    cost = 0
    owed = 1
    end = len(data)
    while owed > 0 and at < end:
        size, parts, price = _FORMS[data[at]]
        if not size:
            width, form = _TOLD[data[at]]
            at += width
            size, parts, price = form(int.from_bytes(data[at + 1 - width : at + 1]))
        at += size
        owed += parts - 1
        cost += price
        if cost > DECODED_SIZE_MAX:
            raise MalformedEvent(
                f"as objects it would take more than {DECODED_SIZE_MAX:,} bytes"
            )


def refusal(event: bytes) -> str | None:
    """Return why an encoded event cannot be stored, if it cannot."""
    if len(event) > EVENT_SIZE_MAX:
        return (
            f"{len(event):,} bytes are too many; at most {EVENT_SIZE_MAX:,} can be "
            "stored at once"
        )
    if not is_cheap(event):
        try:
            check_cost(event)
        except MalformedEvent as error:
            return f"these are too many small values: {error}"
    return None
