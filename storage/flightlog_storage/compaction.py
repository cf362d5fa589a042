"""Compaction: several parts of a run become one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from flightlog_storage.columns import Column, concatenate
from flightlog_storage.part_reader import Part
from flightlog_storage.parts import (
    GROUP_POINTS_MAX,
    GROUP_TEXT_SIZE_MAX,
    PartInfo,
    Span,
    write_columns,
)

__all__ = ("merge_parts",)

_Piece = tuple[int, Part, Span]  # The first is the part's place in log order.


def merge_parts(folder: Path, paths: Sequence[Path], name: str) -> PartInfo:
    """Write one part with the points of several, given in log order.

    Never holds more than about a row group's points, or those of one key whose steps
    overlap. The parts that were merged stay.

    Raises:
        CorruptData: A part is damaged; nothing was written.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(Part(path)) for path in paths]
        return write_columns(folder, name, _merged(parts))


def _merged(parts: Sequence[Part]) -> Iterator[Column]:
    by_key: dict[tuple[str, int], list[_Piece]] = {}
    for place, part in enumerate(parts):
        for span in part.spans:
            by_key.setdefault((span.key, span.rank), []).append((place, part, span))
    for _, pieces in sorted(by_key.items()):
        yield from _merged_key(pieces)


def _merged_key(pieces: list[_Piece]) -> Iterator[Column]:
    """Yield a key's points, cut where no steps overlap, once a row group is full."""
    batch: list[tuple[int, int, Column]] = []
    count = text_size = end = 0
    for place, part, span in sorted(
        pieces, key=lambda each: (each[2].min_step, each[0])
    ):
        is_full = (
            count + span.points > GROUP_POINTS_MAX or text_size >= GROUP_TEXT_SIZE_MAX
        )
        if batch and span.min_step > end and is_full:
            yield _one(batch)
            batch, count, text_size = [], 0, 0
        end = max(end, span.max_step) if batch else span.max_step
        column = part.read_whole(span)
        batch.append((place, span.min_step, column))
        count += span.points
        text_size += 0 if column.texts is None else column.texts.nbytes
    yield _one(batch)


def _one(batch: list[tuple[int, int, Column]]) -> Column:
    """Join columns in log order."""
    ordered = sorted(batch, key=lambda each: each[:2])
    return concatenate([column for _, _, column in ordered])
