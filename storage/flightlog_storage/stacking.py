"""Stacking: the histories of several runs as one, one below the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flightlog_storage.cells import Cells, History
from flightlog_storage.columns import Column, Ints, concatenate
from flightlog_storage.points import Stream

__all__ = ("stack",)


def stack(histories: Sequence[History]) -> History:
    """Return the rows of all histories, of one stream, in their order; keys sorted.

    So a column's type follows from the values of all. Times, and runtimes, are there
    if all have them, ranks if any has.
    """
    starts = np.cumsum([0, *map(len, histories)]).tolist()
    pieces: dict[str, list[tuple[int, int, Cells]]] = {}
    for history, start in zip(histories, starts, strict=False):
        for cells in history.cells:
            pieces.setdefault(cells.key, []).append((start, len(history), cells))
    none = np.empty(0, np.int64)
    return History(
        np.concatenate([none, *(history.steps for history in histories)]),
        _ranks(histories),
        _joined([history.times for history in histories]),
        tuple(_stacked(key, pieces[key], starts[-1]) for key in sorted(pieces)),
        _joined([history.runtimes for history in histories]),
        histories[0].stream if histories else Stream.DEFAULT,
    )


def _ranks(histories: Sequence[History]) -> Ints | None:
    if all(history.ranks is None for history in histories):
        return None
    return np.concatenate(
        [
            np.zeros(len(history), np.int64) if history.ranks is None else history.ranks
            for history in histories
        ]
    )


def _joined(arrays: Sequence["NDArray[Any] | None"]) -> "NDArray[Any] | None":
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present and len(present) == len(arrays) else None


def _stacked(key: str, pieces: list[tuple[int, int, Cells]], row_count: int) -> Cells:
    """Return the cells of one key, given with the first row and the count of each."""
    columns = [
        Column(
            key,
            0,
            # Rows go up from one piece to the next: as "steps" they are sorted.
            start + (np.arange(count) if cells.rows is None else cells.rows),
            cells.values,
            None,
            cells.kinds,
            cells.texts,
        )
        for start, count, cells in pieces
        if len(cells.values)
    ]
    if not columns:
        return Cells.empty(key)
    column = concatenate(columns)
    rows = None if column.count == row_count else column.steps
    return Cells(key, rows, column.values, column.kinds, column.texts)
