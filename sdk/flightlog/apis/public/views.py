"""The tables that SQL sees, runs, config, summary and history, read when scanned."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from flightlog.apis.public.lazy import Batches, LazyDataset, Scan, possible
from flightlog_storage.arrow import arrow_of, strings_of
from flightlog_storage.artifact_state import RunName
from flightlog_storage.columns import Column
from flightlog_storage.event import Kind
from flightlog_storage.names import default_name
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState
from flightlog_storage.values import leaves, scalar

__all__ = ("Views",)

BATCH_ROWS = 131_072  # To be made at a time.
MICROSECONDS_MAX = 1 << 62  # Of a time that a column can hold.

_TIME = pa.timestamp("us", "UTC")
_IDENTITY = [(name, pa.string()) for name in ("entity", "project", "run_id")]
_RUNS = pa.schema(
    [
        *_IDENTITY,
        ("name", pa.string()),
        ("state", pa.string()),
        ("created_at", _TIME),
        ("updated_at", _TIME),
        ("duration", pa.float64()),
        ("tags", pa.list_(pa.string())),
        ("group", pa.string()),
        ("job_type", pa.string()),
        ("notes", pa.large_string()),
        ("exit_code", pa.int64()),
        ("signal", pa.int64()),
        ("last_step", pa.int64()),
        ("row_count", pa.int64()),
        ("lost_count", pa.int64()),
        ("host", pa.string()),
    ]
)
_VALUES = pa.schema(
    [
        *_IDENTITY,
        ("key", pa.string()),
        ("number", pa.float64()),
        ("text", pa.large_string()),
        ("type", pa.string()),
    ]
)
_HISTORY = pa.schema(
    [
        *_IDENTITY,
        ("key", pa.string()),
        ("rank", pa.int32()),
        ("step", pa.int64()),
        ("time", _TIME),
        ("value", pa.float64()),
        ("text", pa.large_string()),
        ("kind", pa.string()),
    ]
)
_KIND_NAMES = strings_of([kind.name.lower() for kind in Kind]).cast(pa.string())
_NUMBERS = (Kind.FLOAT, Kind.INT, Kind.BOOL)

_Row = tuple[Any, ...]


class Views:
    """The views of one home, for one query: what two of them show belongs together.

    `check` is called again and again while histories are read, and may raise. An error
    in a scan passes through the code of others, which changes it; `problem` keeps it.
    """

    def __init__(self, reader: HomeReader, check: Callable[[], None]) -> None:
        self.problem: Exception | None = None
        self._reader = reader
        self._check = check

    def datasets(self) -> dict[str, LazyDataset]:
        """Return the views by name."""
        scans: dict[str, tuple[pa.Schema, Scan]] = {
            "runs": (_RUNS, self._scan_states(_RUNS, _run_rows)),
            "config": (_VALUES, self._scan_states(_VALUES, _config_rows)),
            "summary": (_VALUES, self._scan_states(_VALUES, _summary_rows)),
            "history": (_HISTORY, self._scan_history),
        }
        return {
            name: LazyDataset(schema, self._keeping_problems(scan))
            for name, (schema, scan) in scans.items()
        }

    def _keeping_problems(self, scan: Scan) -> Scan:
        def kept(columns: Sequence[str], where: Any) -> Batches:
            try:
                yield from scan(columns, where)
            except Exception as error:
                self.problem = error
                raise

        return kept

    @cached_property
    def _states(self) -> list[RunState]:
        return self._reader.states()

    def _scan_states(
        self, schema: pa.Schema, rows_of: Callable[[RunState], Iterator[_Row]]
    ) -> Scan:
        def scan(columns: Sequence[str], where: Any) -> Batches:
            del columns, where  # Small: whoever asks takes what they need.
            rows = (row for state in self._states for row in rows_of(state))
            while some := list(islice(rows, BATCH_ROWS)):
                yield _batch(schema, some)

        return scan

    def _scan_history(self, columns: Sequence[str], where: Any) -> Batches:
        """Yield the points of the runs and keys that may count, run by run."""
        runs = [(row.entity, row.project, row.id) for row in self._reader.runs()]
        known = [_named(run) for run in runs]
        for place in possible(known, _HISTORY, where):
            yield from self._scan_run(runs[place], columns, where)

    def _scan_run(self, run: RunName, columns: Sequence[str], where: Any) -> Batches:
        self._check()
        opened = self._reader.open_history(run)
        if opened is None:
            return  # Deleted since it was listed.
        with opened:
            keys = list(opened.counts())
            if where is not None:
                known = [_named(run) | {"key": key} for key in keys]
                keys = [keys[place] for place in possible(known, _HISTORY, where)]
            for column in opened.columns(keys, with_time="time" in columns):
                for start in range(0, column.count, BATCH_ROWS):
                    self._check()
                    piece = column.slice(start, min(start + BATCH_ROWS, column.count))
                    yield _points(piece, _named(run), columns)


def _named(run: RunName) -> dict[str, str]:
    entity, project, run_id = run
    return {"entity": entity, "project": project, "run_id": run_id}


# States


def _run_rows(state: RunState) -> Iterator[_Row]:
    yield (
        *state.key,
        state.name or default_name(state.id),
        str(state.state),
        _microseconds(state.created_at),
        _microseconds(state.updated_at),
        max(0.0, state.updated_at - state.created_at),
        state.tags,
        state.group,
        state.job_type,
        state.notes,
        state.exit_code,
        state.signal,
        None if state.last_step < 0 else state.last_step,
        state.row_count,
        state.lost_count,
        state.host,
    )


def _microseconds(seconds: float) -> int | None:
    found = seconds * 1e6
    return round(found) if abs(found) < MICROSECONDS_MAX else None


def _config_rows(state: RunState) -> Iterator[_Row]:
    return _value_rows(state, state.config)


def _summary_rows(state: RunState) -> Iterator[_Row]:
    return _value_rows(state, state.summary)


def _value_rows(state: RunState, values: Mapping[str, Any]) -> Iterator[_Row]:
    """Yield a config's or a summary's values, nested keys joined with dots."""
    for name, value in values.items():
        for path, leaf in leaves((name,), value):
            number, kind, text = scalar(leaf)
            yield (
                *state.key,
                ".".join(path),
                number if kind in _NUMBERS else None,
                text,
                kind.name.lower(),
            )


def _batch(schema: pa.Schema, rows: Sequence[_Row]) -> pa.RecordBatch:
    arrays = [
        _array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_list(type_):
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        members = [member for value in values for member in value]
        return pa.ListArray.from_arrays(
            arrow_of(offsets), _array(members, type_.value_type)
        )
    if pa.types.is_floating(type_) or pa.types.is_integer(type_) or type_ == _TIME:
        dtype = np.float64 if pa.types.is_floating(type_) else np.int64
        numbers = np.array([value or 0 for value in values], dtype)
        absent = np.array([value is None for value in values], np.bool_)
        return arrow_of(numbers, type_, absent)
    return strings_of(values).cast(type_)


# Histories


def _points(
    column: Column, named: Mapping[str, str], names: Iterable[str]
) -> pa.RecordBatch:
    """Return points as rows with these columns."""
    constants = {**named, "key": column.key, "rank": column.rank}
    fields = [_HISTORY.field(name) for name in names]
    arrays = [
        pa.repeat(pa.scalar(constants[field.name], field.type), column.count)
        if field.name in constants
        else _point_array(column, field.name)
        for field in fields
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _point_array(column: Column, name: str) -> pa.Array:
    kinds = column.kinds
    match name:
        case "step":
            return arrow_of(column.steps)
        case "time":
            assert column.times is not None, "asked for with the column"
            return arrow_of(column.times, _TIME)
        case "text":
            texts = column.texts
            return pa.nulls(column.count, pa.large_string()) if texts is None else texts
        case "kind":
            if kinds is None:
                return pa.repeat(_KIND_NAMES[Kind.FLOAT], column.count)
            return _KIND_NAMES.take(arrow_of(kinds))
    # Where no number was logged there is none: the NaN that a part has is null here.
    absent = None if kinds is None else ~np.isin(kinds, _NUMBERS)
    return arrow_of(column.values, absent=absent)
