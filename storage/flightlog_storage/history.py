"""Histories: a run's points put together as rows, when they are read.

A row is identified by step and rank; of points of one row and key the one logged
last counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from flightlog_storage.cells import RANK, STEP, TIMESTAMP, Cells, History
from flightlog_storage.columns import Column, Ints, columns_of, concatenate
from flightlog_storage.event import Kind
from flightlog_storage.part_reader import Part, SharedArrays
from flightlog_storage.parts import Span
from flightlog_storage.points import Points, Stream

__all__ = ("Query", "assemble", "read_history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which part of a history to read.

    `keys` of None are all keys, with every row. An inner join keeps the rows in which
    each key has a value that is not None (NaN is one), an outer join those in which
    any key was logged. Steps go from `min_step` up to, not including, `max_step`. A
    row's time is the latest among its points of these keys.
    """

    keys: Sequence[str] | None = None
    join: Literal["inner", "outer"] = "outer"
    min_step: int | None = None
    max_step: int | None = None
    with_time: bool = False
    stream: Stream = Stream.DEFAULT


def read_history(
    parts: Sequence[Path], tail: Points | None = None, query: Query | None = None
) -> History:
    """Return the rows in parts, given in log order, and in the tail after them.

    The tail has points of the query's stream only.

    Raises:
        CorruptData: A part is damaged.
    """
    query = query or Query()
    return assemble(_pieces(parts, tail, query), query)


def assemble(pieces: Iterable[Column], query: Query) -> History:
    """Return the rows that pieces of columns, given in log order, make together."""
    columns = list(_merged(pieces))
    if query.keys is None:
        keys = sorted({column.key for column in columns} - {STEP, RANK, TIMESTAMP})
        query = replace(query, join="outer")
    else:
        keys = list(dict.fromkeys(query.keys))
    if query.join == "inner":
        columns = [_without_nulls(column) for column in columns]
    columns = [_between(column, query.min_step, query.max_step) for column in columns]
    blocks = [block for block in _blocks(columns, keys, query) if len(block.steps)]
    return replace(_stack(blocks, keys, query), stream=query.stream)


def _pieces(
    parts: Sequence[Path], tail: Points | None, query: Query
) -> Iterator[Column]:
    """Yield what parts and tail hold of the keys, in log order."""
    wanted = None if query.keys is None else set(query.keys)
    shared = SharedArrays()
    with ExitStack() as stack:
        for path in parts:
            part = stack.enter_context(Part(path, query.stream))
            spans = [span for span in part.spans if _is_wanted(span, wanted, query)]
            yield from part.read(spans, shared, with_time=query.with_time)
    if tail is not None:
        yield from columns_of(tail, query.keys)


def _is_wanted(span: Span, keys: set[str] | None, query: Query) -> bool:
    return (
        (keys is None or span.key in keys)
        and (query.min_step is None or span.max_step >= query.min_step)
        and (query.max_step is None or span.min_step < query.max_step)
    )


def _merged(pieces: Iterable[Column]) -> Iterator[Column]:
    """Yield one column for each key and rank; equal steps become one array."""
    by_key: dict[tuple[str, int], list[Column]] = {}
    for piece in pieces:
        by_key.setdefault((piece.key, piece.rank), []).append(piece)
    known: dict[tuple[int, int, int], Ints] = {}
    for group in by_key.values():
        column = concatenate(group)
        steps = column.steps
        form = (len(steps), int(steps[0]), int(steps[-1]))
        same = known.setdefault(form, steps)
        if same is not steps and np.array_equal(same, steps):
            column = replace(column, steps=same)
        yield column


def _without_nulls(column: Column) -> Column:
    if column.kinds is None:
        return column
    present = column.kinds != Kind.NULL
    return column if present.all() else column.take(np.flatnonzero(present))


def _between(column: Column, min_step: int | None, max_step: int | None) -> Column:
    start, stop = 0, column.count
    if min_step is not None:
        start = int(np.searchsorted(column.steps, min_step))
    if max_step is not None:
        stop = int(np.searchsorted(column.steps, max_step))
    return column.slice(start, max(start, stop))


@dataclass(frozen=True, slots=True)
class _Block:
    """The rows of one rank."""

    rank: int
    steps: Ints
    times: Ints | None
    cells: dict[str, Cells]


def _blocks(
    columns: Sequence[Column], keys: Sequence[str], query: Query
) -> Iterator[_Block]:
    """Yield the rows of each rank."""
    by_rank: dict[int, dict[str, Column]] = {}
    for column in columns:
        by_rank.setdefault(column.rank, {})[column.key] = column
    for rank, members in sorted(by_rank.items()):
        if query.join == "outer":
            yield _outer(rank, members)
        elif all(key in members for key in keys):
            yield _inner(rank, members)


def _distinct_steps(columns: Iterable[Column]) -> list[Ints]:
    return list({id(column.steps): column.steps for column in columns}.values())


def _outer(rank: int, columns: dict[str, Column]) -> _Block:
    distinct = _distinct_steps(columns.values())
    steps = distinct[0] if len(distinct) == 1 else np.unique(np.concatenate(distinct))
    # None where a column's steps are all those of the rows.
    rows = {
        id(own): None if len(own) == len(steps) else np.searchsorted(steps, own)
        for own in distinct
    }
    cells = {
        key: Cells(key, rows[id(c.steps)], c.values, c.kinds, c.texts)
        for key, c in columns.items()
    }
    times = _latest(
        len(steps), [(c.times, rows[id(c.steps)]) for c in columns.values()]
    )
    return _Block(rank, steps, times, cells)


def _inner(rank: int, columns: dict[str, Column]) -> _Block:
    distinct = _distinct_steps(columns.values())
    steps = distinct[0]
    for other in distinct[1:]:
        steps = np.intersect1d(steps, other, assume_unique=True)
    taken = [
        c if len(c.steps) == len(steps) else c.take(np.searchsorted(c.steps, steps))
        for c in columns.values()
    ]
    cells = {c.key: Cells(c.key, None, c.values, c.kinds, c.texts) for c in taken}
    times = _latest(len(steps), [(c.times, None) for c in taken])
    return _Block(rank, steps, times, cells)


def _latest(count: int, times: list[tuple[Ints | None, Ints | None]]) -> Ints | None:
    """Return each row's latest time, given the columns' times and rows."""
    distinct = {(id(own), id(rows)): (own, rows) for own, rows in times}
    latest: Ints | None = None
    for own, rows in distinct.values():
        if own is None:
            continue
        if latest is None:
            latest = np.full(count, np.iinfo(np.int64).min)
        places = slice(None) if rows is None else rows
        latest[places] = np.maximum(latest[places], own)
    return latest


def _stack(blocks: list[_Block], keys: Sequence[str], query: Query) -> History:
    """Return the rows of all ranks in order of step and rank."""
    if len(blocks) == 1 and blocks[0].rank == 0:
        block = blocks[0]
        cells = tuple(block.cells.get(key) or Cells.empty(key) for key in keys)
        times = block.times if query.with_time else None
        return History(block.steps, None, times, cells)
    none = np.empty(0, np.int64)
    steps = np.concatenate([none, *(block.steps for block in blocks)])
    counts = [len(block.steps) for block in blocks]
    ranks = np.repeat(np.array([b.rank for b in blocks], np.int64), counts)
    order = np.lexsort((ranks, steps))
    places = np.empty(len(order), np.int64)  # Where each row has gone.
    places[order] = np.arange(len(order))
    times = None
    if query.with_time:
        times = np.concatenate(
            [none, *(b.times for b in blocks if b.times is not None)]
        )[order]
    starts = np.cumsum([0, *counts]).tolist()
    cells = tuple(_stack_cells(key, blocks, places, starts) for key in keys)
    return History(steps[order], ranks[order] if blocks else None, times, cells)


def _stack_cells(
    key: str, blocks: list[_Block], places: Ints, starts: list[int]
) -> Cells:
    """Return one key's cells of all ranks in their new order."""
    rows: list[Ints] = []
    columns: list[Column] = []
    for block, start in zip(blocks, starts, strict=False):
        cells = block.cells.get(key)
        if cells is None:
            continue
        own = places[start : start + len(block.steps)]
        rows.append(own if cells.rows is None else own[cells.rows])
        columns.append(
            Column(key, 0, rows[-1], cells.values, None, cells.kinds, cells.texts)
        )
    if not columns:
        return Cells.empty(key)
    # A rank's rows go apart but never collide: as "steps" they are sorted like any.
    column = concatenate(columns)
    whole = column.count == len(places)
    return Cells(
        key, None if whole else column.steps, column.values, column.kinds, column.texts
    )
