"""Compaction: several parts of a run become one."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from flightlog_storage.columns import Column, concatenate
from flightlog_storage.part_reader import Part
from flightlog_storage.parts import GROUP_POINTS_MAX, PartInfo, Span, write_columns

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
        for batch in _batches(pieces):
            yield concatenate([part.read_whole(span) for _, part, span in batch])


def _batches(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Cut pieces where no steps overlap, once enough for a row group has gathered."""
    batch: list[_Piece] = []
    count = 0
    end = 0
    for piece in sorted(pieces, key=lambda piece: (piece[2].min_step, piece[0])):
        span = piece[2]
        if batch and span.min_step > end and count + span.points > GROUP_POINTS_MAX:
            yield _in_log_order(batch)
            batch = []
            count = 0
        end = max(end, span.max_step) if batch else span.max_step
        batch.append(piece)
        count += span.points
    yield _in_log_order(batch)


def _in_log_order(batch: list[_Piece]) -> list[_Piece]:
    return sorted(batch, key=lambda piece: (piece[0], piece[2].min_step))
