"""Tables: rows of cells, as a file of the run in JSON."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from flightlog._media import FileKind, Media, MediaFiles
from flightlog._texts import left_text
from flightlog._values import plain, plain_text
from flightlog_storage.codec import unwrapped

__all__ = ("Table",)

CELLS_MAX = 10_000_000
_KIND = FileKind("media/table", "table.json")
_LOG_MODES = ("IMMUTABLE", "MUTABLE", "INCREMENTAL")
_SIMPLE = frozenset((str, int, bool, type(None)))
_ABSENT = frozenset(("NAType", "NaTType"))  # What pandas has for None.


class Table(Media):
    """A table. As in W&B, but that each `log()` writes all that it holds then.

    `columns` are its names, `data` its rows, as lists.
    """

    def __init__(  # noqa: PLR0913  # As in W&B.
        self,
        columns: Sequence[str | int] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        dtype: Any = None,
        optional: bool | list[bool] = True,
        allow_mixed_types: bool = False,
        log_mode: Literal["IMMUTABLE", "MUTABLE", "INCREMENTAL"] | None = "IMMUTABLE",
    ) -> None:
        """Take rows, whose cells are what `log()` takes, Images and the like too.

        Args:
            columns: Their names; by default "Input", "Output" and "Expected".
            data: Rows: lists, an array, or a pandas DataFrame, which has names.
            rows: An older name of `data`.
            dataframe: A pandas DataFrame, in place of `columns` and `data`.
            dtype: Accepted, as W&B has it: types are not checked.
            optional: As `dtype`.
            allow_mixed_types: As `dtype`.
            log_mode: One of those of W&B; it has no meaning here.

        Raises:
            TypeError: What is given is of another type, or a cell cannot be stored.
            ValueError: A row has too few or too many cells, two columns are called the
                same, or the table is too large.
        """
        if not isinstance(log_mode, str | None) or log_mode not in (None, *_LOG_MODES):
            raise ValueError(f"Table: log_mode {log_mode!r} is none of {_LOG_MODES}")
        columns, given = _given(columns, dataframe, data, rows)
        self.columns = _names(columns)
        self.data: list[list[Any]] = []
        for row in given:
            if isinstance(row, str | bytes | dict) or not isinstance(row, Iterable):
                raise TypeError(f"Table: a row must be a list of cells, not {row!r}")
            self.add_data(*row)

    def add_data(self, *data: Any) -> None:
        """Add a row of as many cells as there are columns.

        Raises:
            TypeError: A cell cannot be stored.
            ValueError: There are more or fewer; or the table is too large.
        """
        width = len(self.columns)
        if len(data) != width:
            raise ValueError(
                f"Table: a row has {width} cells, one for each of {self.columns}, not "
                f"{len(data)}"
            )
        self._check_size(width * (len(self.data) + 1))
        pairs = zip(self.columns, data, strict=True)
        self.data.append([_cell(str(name), value) for name, value in pairs])

    def add_column(self, name: str, data: Any, optional: bool = False) -> None:
        """Add a column with a cell for each row, or the first column of a table.

        Raises:
            TypeError: The name or a cell cannot be stored, or `data` is no list.
            ValueError: There are more or fewer cells than rows, or there is a column
                of that name, or the table is too large.
        """
        if hasattr(data, "tolist"):
            data = data.tolist()
        if not isinstance(data, list | tuple):
            raise TypeError(f"Table: a column must be a list of cells, not {data!r}")
        columns = _names([*self.columns, name])
        if not self.columns:
            self.data = [[] for _ in data]
        if len(data) != len(self.data):
            raise ValueError(
                f"Table: a column has {len(self.data)} cells, one a row, not "
                f"{len(data)}"
            )
        self._check_size(len(columns) * len(data))
        cells = [_cell(str(name), value) for value in data]
        self.columns = columns
        for row, value in zip(self.data, cells, strict=True):
            row.append(value)

    def get_column(self, name: str, convert_to: Literal["numpy"] | None = None) -> Any:
        """Return the cells of a column, as a list or an array.

        Raises:
            ValueError: There is no such column, or nothing else to convert to.
        """
        if name not in self.columns:
            raise ValueError(f"Table: column {name!r} is none of {self.columns}")
        if convert_to not in (None, "numpy"):
            raise ValueError(f"Table: convert_to must be 'numpy', not {convert_to!r}")
        place = self.columns.index(name)
        found = [row[place] for row in self.data]
        if convert_to is None:
            return found
        import numpy as np  # Late: `import flightlog` has to be light.

        return np.array(found)

    def get_index(self) -> list[int]:
        """Return the numbers of the rows."""
        return list(range(len(self.data)))

    def get_dataframe(self) -> Any:
        """Return it as pandas has tables, which has to be installed."""
        import pandas as pd  # Late: it may not be there.

        return pd.DataFrame(self.data, columns=self.columns)

    def iterrows(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield each row's number and cells."""
        yield from enumerate(self.data)

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row; it is a file."""
        rows = [[_written(key, cell, files) for cell in row] for row in self.data]
        content = {"columns": self.columns, "data": rows}
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        return {
            "_type": "table-file",
            **left_text(key, _KIND, text.encode(), files),
            "ncols": len(self.columns),
            "nrows": len(rows),
        }

    def _check_size(self, count: int) -> None:
        if count > CELLS_MAX:
            raise ValueError(f"Table: at most {CELLS_MAX:,} cells can be stored")


def _given(columns: Any, dataframe: Any, data: Any, rows: Any) -> tuple[Any, Any]:
    """Return the names of columns, if there are any, and rows."""
    sources = [each for each in (dataframe, data, rows) if each is not None]
    if len(sources) > 1:
        raise ValueError("Table: give one of dataframe, data and rows")
    given: Any = sources[0] if sources else []
    if hasattr(given, "itertuples"):
        columns, given = list(given.columns), [*given.itertuples(False, None)]
    elif dataframe is not None:
        kind = type(dataframe).__name__
        raise TypeError(f"Table: dataframe must be one of pandas, not {kind}")
    elif hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, list | tuple):
        raise TypeError(f"Table: data must be a list of rows, not {given!r}")
    return columns, given


def _names(columns: Any) -> list[str | int]:
    given = ["Input", "Output", "Expected"] if columns is None else columns
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(f"Table: columns must be a list of str, not {given!r}")
    found: list[str | int] = []
    for name in given:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise TypeError(f"Table: columns must be str or int; {name!r} is neither")
        found.append(plain_text(name) if isinstance(name, str) else int(name))
    if len(set(found)) < len(found):
        raise ValueError(f"Table: two columns have the same name: {found}")
    return found


def _cell(name: str, value: Any) -> Any:
    """Return a cell as it can be stored; it does not change any more."""
    if type(value) is str:
        return plain_text(value)
    if type(value) in _SIMPLE or isinstance(value, Media):
        return value
    if type(value).__name__ in _ABSENT:
        return None
    return unwrapped(plain(name, value))


def _written(key: str, cell: Any, files: MediaFiles) -> Any:
    """Return a cell as JSON can carry it."""
    if type(cell) in _SIMPLE:
        return cell
    if isinstance(cell, Media):
        return cell.described(key, files)
    if isinstance(cell, float) and not math.isfinite(cell):
        return "NaN" if math.isnan(cell) else "Infinity" if cell > 0 else "-Infinity"
    if isinstance(cell, list):
        return [_written(key, each, files) for each in cell]
    if isinstance(cell, dict):
        return {name: _written(key, each, files) for name, each in cell.items()}
    return cell
