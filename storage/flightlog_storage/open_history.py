"""A history point by point: its metrics one after the other, a few in memory at a time.

Where `history` puts rows together, this keeps the points as they are: of points of one
key, rank and step the one logged last counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from flightlog_storage.cells import RANK, STEP, TIMESTAMP
from flightlog_storage.columns import Column, columns_of, concatenate
from flightlog_storage.event import Kind
from flightlog_storage.part_reader import Part, SharedArrays
from flightlog_storage.points import Points, Stream

__all__ = ("OpenHistory",)

POINTS_AT_ONCE = 1_048_576  # To be read at a time, or one metric if that has more.
_RESERVED = frozenset((STEP, RANK, TIMESTAMP))


class OpenHistory:
    """A run's parts, opened, and its tail; a context manager.

    Parts stay readable though they may be merged away meanwhile: what is read belongs
    together, however long it takes.
    """

    def __init__(self, paths: Sequence[Path], tail: Points) -> None:
        """Open the parts, given in log order.

        Raises:
            CorruptData: A part is damaged.
            FileNotFoundError: A part has been merged away.
        """
        self._tail = tail
        with ExitStack() as stack:
            self._parts = [
                stack.enter_context(Part(path, Stream.DEFAULT)) for path in paths
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> "OpenHistory":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def counts(self) -> dict[str, int]:
        """Return the keys in order, with how many points each has at most."""
        counts: dict[str, int] = {}
        for part in self._parts:
            for span in part.spans:
                counts[span.key] = counts.get(span.key, 0) + span.points
        for series in self._tail.series():
            counts[series.name] = counts.get(series.name, 0) + len(series.steps)
        return {key: counts[key] for key in sorted(counts) if key not in _RESERVED}

    def keys_with(self, kind: Kind) -> list[str]:
        """Return the keys that have a value of this kind, in order."""
        found = {
            span.key
            for part in self._parts
            for span in part.spans
            if span.kinds & 1 << kind
        }
        found |= {each.name for each in self._tail.series() if kind in each.kinds}
        return sorted(found - _RESERVED)

    def columns(self, keys: Iterable[str], *, with_time: bool) -> Iterator[Column]:
        """Yield the columns of these keys, by key and rank.

        Raises:
            CorruptData: A part is damaged.
        """
        for group in self._groups(set(keys)):
            by_key: dict[tuple[str, int], list[Column]] = {}
            for piece in self._pieces(group, with_time=with_time):
                by_key.setdefault((piece.key, piece.rank), []).append(piece)
            for _, pieces in sorted(by_key.items()):
                yield concatenate(pieces)

    def _groups(self, keys: set[str]) -> Iterator[set[str]]:
        """Yield the keys in groups that may be in memory together."""
        group: set[str] = set()
        size = 0
        for key, count in self.counts().items():
            if key not in keys:
                continue
            if group and size + count > POINTS_AT_ONCE:
                yield group
                group, size = set(), 0
            group.add(key)
            size += count
        if group:
            yield group

    def _pieces(self, keys: set[str], *, with_time: bool) -> Iterator[Column]:
        """Yield what parts and tail hold of these keys, in log order."""
        shared = SharedArrays()
        for part in self._parts:
            spans = [span for span in part.spans if span.key in keys]
            yield from part.read(spans, shared, with_time=with_time)
        yield from columns_of(self._tail, sorted(keys))
