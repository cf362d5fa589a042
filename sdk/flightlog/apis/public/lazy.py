"""Datasets that hold nothing: what a scan asks of them is read when it is asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

__all__ = ("Batches", "LazyDataset", "Scan", "possible")

Batches = Iterator[pa.RecordBatch]
# Given the columns that are needed and a filter or None: batches that have at least
# these columns and all rows that pass it.
Scan = Callable[[Sequence[str], Any], Batches]


class LazyDataset(ds.InMemoryDataset):  # type: ignore[misc]  # pyarrow has no types.
    """A dataset whose scans are made by a function.

    To Arrow itself it is empty. DuckDB calls `scanner` of any dataset, with the columns
    and with those conditions of a query that it leaves to the dataset.
    """

    def __init__(self, schema: pa.Schema, scan: Scan) -> None:
        super().__init__(schema.empty_table())
        self._scan = scan

    def scanner(
        self, columns: Sequence[str] | None = None, filter: Any = None
    ) -> "_Scanner":
        """Return what yields these columns of the rows that pass the filter."""
        return _Scanner(self.schema, self._scan, columns, filter)


class _Scanner:
    """A scan to be: of pyarrow's Scanner what DuckDB uses."""

    def __init__(
        self, schema: pa.Schema, scan: Scan, columns: Sequence[str] | None, where: Any
    ) -> None:
        self._schema = schema
        self._scan = scan
        self._columns = schema.names if columns is None else list(columns)
        self._where = where

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self._schema.field(name) for name in self._columns])

    def to_reader(self) -> pa.RecordBatchReader:
        """Return a reader of the batches, each made when it is asked for."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches())

    def _batches(self) -> Batches:
        for batch in self._scan(self._needed(), self._where):
            if self._where is None:
                yield batch.select(self._columns)
                continue
            # Arrow's own threads can abort a process that exits soon after.
            yield from (
                ds.InMemoryDataset(batch)
                .scanner(columns=self._columns, filter=self._where, use_threads=False)
                .to_batches()
            )

    def _needed(self) -> list[str]:
        """Return the columns that are asked for or that the filter may look at."""
        # An expression does not tell its fields, but its text has their names.
        text = "" if self._where is None else str(self._where)
        wanted = set(self._columns)
        return [n for n in self._schema.names if n in wanted or n in text]


def possible(
    known: Sequence[Mapping[str, str]], schema: pa.Schema, where: Any
) -> list[int]:
    """Return the places of those of which rows may pass a filter.

    `known` is what all rows of each have in common. Arrow weighs that against the
    filter as it does for folders named `year=2026`; no file is opened.
    """
    if where is None:
        return list(range(len(known)))
    file_format, files = ds.ParquetFileFormat(), LocalFileSystem()
    fragments = [
        file_format.make_fragment(str(place), files, partition_expression=_equal(each))
        for place, each in enumerate(known)
    ]
    dataset = ds.FileSystemDataset(fragments, schema, file_format, files)
    return [int(fragment.path) for fragment in dataset.get_fragments(filter=where)]


def _equal(known: Mapping[str, str]) -> Any:
    expression: Any = ds.scalar(True)
    for name, value in known.items():
        expression &= ds.field(name) == value
    return expression
