"""Frames: the rows of a history as dicts and as data frames."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flightlog._say import say_once
from flightlog_storage.cells import Cells, History
from flightlog_storage.event import Kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ("dicts", "frame", "frame_or_dicts", "shown")

_FLOATING = {Kind.FLOAT, Kind.INT, Kind.NULL}


def dicts(history: History, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows as dicts, with these columns only, in this order."""
    rows = list(history.to_dicts())
    if names is None:
        return rows
    columns = shown(history, names)
    return [{name: row[name] for name in columns if name in row} for row in rows]


def frame_or_dicts(history: History, names: Sequence[str] | None = None) -> Any:
    """Return a data frame; without pandas say so once and return dicts."""
    try:
        return frame(history, names)
    except ImportError:
        say_once("pandas is not installed: history() returns a list of dicts")
        return dicts(history, names)


def frame(history: History, names: Sequence[str] | None = None) -> "pd.DataFrame":
    """Return the rows as a data frame: what a row lacks, and None, is NaN.

    Ints and bools stay what they are where no cell is missing. Without `names` the
    columns come in the order in which the rows first have them.

    Raises:
        ImportError: pandas is not installed.
    """
    import pandas as pd  # Optional, and slow to load.

    if not len(history):
        return pd.DataFrame()
    columns: dict[str, Any] = dict(history.identity())
    for cells in sorted(history.cells, key=_first_row):
        if names is not None or len(cells.values):
            columns[cells.key] = _column(cells, len(history))
    data = pd.DataFrame(columns, copy=False)
    return data if names is None else data.reindex(columns=shown(history, names))


def shown(history: History, names: Sequence[str]) -> list[str]:
    """Return the columns to be shown: with ranks, there is one more that counts."""
    extra = ["_rank"] if history.ranks is not None and "_rank" not in names else []
    return [*names, *extra]


def _first_row(cells: Cells) -> int:
    return 0 if cells.rows is None or not len(cells.rows) else int(cells.rows[0])


def _column(cells: Cells, row_count: int) -> Any:
    """Return a column as numpy's or pandas' array."""
    kinds = cells.present_kinds()
    if kinds <= _FLOATING and _has_no_text(cells):
        if kinds == {Kind.INT} and cells.rows is None:
            return cells.values.astype(np.int64)
        return _filled(cells, cells.values, np.full(row_count, np.nan))
    if kinds == {Kind.BOOL} and cells.rows is None:
        return cells.values != 0
    return _objects(cells, row_count)


def _has_no_text(cells: Cells) -> bool:
    return cells.texts is None or cells.texts.null_count == len(cells.texts)


def _filled(cells: Cells, values: Any, column: Any) -> Any:
    column[slice(None) if cells.rows is None else cells.rows] = values
    return column


def _objects(cells: Cells, row_count: int) -> Any:
    """Return a column of whatever pandas makes of the values."""
    import pandas as pd

    values = cells.objects()
    if cells.rows is not None:
        column: list[Any] = [np.nan] * row_count
        for row, value in zip(cells.rows.tolist(), values, strict=True):
            column[row] = value
        values = column
    return pd.Series(values)
