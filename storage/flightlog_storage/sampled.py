"""A history sampled: the rows are chosen by their steps, and only they are read.

What a row group's index says of steps is often all: which rows there are is then known
without reading any, and keys that none of the chosen rows have are never read.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from flightlog_storage.cells import History
from flightlog_storage.columns import Column, Floats, Ints, columns_of
from flightlog_storage.event import Kind
from flightlog_storage.history import Query, assemble, read_history
from flightlog_storage.part_reader import Part, Pick, is_whole, steps_form
from flightlog_storage.parts import Span
from flightlog_storage.points import Points
from flightlog_storage.sampling import (
    Found,
    Places,
    Steps,
    bucket_limit,
    bucket_starts,
    extremes,
    find_extremes,
    spread,
)

__all__ = ("read_sample",)


def read_sample(
    paths: Sequence[Path],
    tail: Points,
    query: Query,
    samples: int,
    extremes_of: Sequence[str] | None = None,
) -> History:
    """Return some of the rows that `read_history` returns.

    They are those that `spread` picks or, given keys of the query, `extremes`. The
    query has no bounds.

    Raises:
        CorruptData: A part is damaged.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(Part(path, query.stream)) for path in paths]
        source = _Source(parts, list(columns_of(tail, query.keys)), query.keys)
        chosen = source.choose(query, samples, extremes_of)
        if chosen is not None:
            pieces = source.pieces(chosen, with_time=query.with_time)
            history = assemble(pieces, query)
            if any(chosen) and history.ranks is None:  # Another rank has other rows.
                ranks = np.zeros(len(history), np.int64)
                history = replace(history, ranks=ranks)
            return history
    history = read_history(paths, tail, query)
    if extremes_of is None:
        return history.take(spread(len(history), samples))
    return history.take(extremes(history, extremes_of, samples))


@dataclass(slots=True)
class _Source:
    """The parts and the tail of a run, as far as some keys go."""

    parts: Sequence[Part]
    tail: list[Column]
    keys: Sequence[str] | None
    steps: dict[tuple[int, ...], Steps] = field(default_factory=dict)  # By form.

    def spans(self, part: Part) -> list[Span]:
        if self.keys is None:
            return part.spans
        wanted = set(self.keys)
        return [span for span in part.spans if span.key in wanted]

    def is_uniform(self) -> bool:
        """Whether all keys have a value in the same rows, so that any has in all."""
        forms: dict[str, list[tuple[int, ...]]] = {key: [] for key in self.keys or ()}
        for place, part in enumerate(self.parts):
            for span in self.spans(part):
                if span.kinds & (1 << Kind.NULL):
                    return False
                forms[span.key].append((place, span.rank, *steps_form(span)))
        for column in self.tail:
            if column.kinds is not None and (column.kinds == Kind.NULL).any():
                return False
            forms[column.key].append((column.rank, hash(column.steps.tobytes())))
        first, *others = forms.values()
        return all(form == first for form in others)

    def choose(
        self, query: Query, samples: int, extremes_of: Sequence[str] | None
    ) -> dict[int, Ints] | None:
        """Return the steps of the chosen rows of each rank that has rows.

        None if it takes more to know than steps, or than the values of one key alone.
        """
        is_uniform = query.keys is not None and self.is_uniform()
        if extremes_of is not None:
            return self._extremes(extremes_of, samples) if is_uniform else None
        if query.keys is None or query.join == "outer" or is_uniform:
            return _choose(self._row_steps(), samples)
        return None

    def _extremes(self, keys: Sequence[str], samples: int) -> dict[int, Ints] | None:
        """Return the steps of the rows that hide no spike; all keys are uniform."""
        by_rank = self._row_steps()
        if len(by_rank) != 1 or not set(keys) <= set(self.keys or ()):
            return None
        ((rank, blocks),) = by_rank.items()
        spans = sum(len(self.spans(part)) for part in self.parts)
        if len(blocks) * len(self.keys or ()) != spans + len(self.tail):
            return None  # Some steps were logged twice, and the later value counts.
        ends = np.cumsum([len(steps) for steps in blocks])
        if ends[-1] <= samples:
            return {rank: _steps_at(blocks, np.arange(ends[-1]))}
        starts = bucket_starts(blocks, bucket_limit(keys, samples))
        firsts = {
            int(steps[0]): int(end) - len(steps)
            for steps, end in zip(blocks, ends, strict=True)
        }
        places = Places(int(ends[-1]))
        for key, found in self._found(set(keys), starts, firsts):
            places.add(key, found)
        return {rank: _steps_at(blocks, places.all())}

    def _found(
        self, keys: set[str], starts: Ints, firsts: dict[int, int]
    ) -> Iterator[tuple[str, list[Found]]]:
        """Yield what extremes there are; `firsts`: a block's first row, by its step."""

        def find(span: Span, values: Floats) -> tuple[str, list[Found]]:
            return span.key, find_extremes(starts, values, firsts[span.min_step])

        for part in self.parts:
            wanted = [span for span in self.spans(part) if span.key in keys]
            yield from part.map_values(wanted, find)
        for column in self.tail:
            if column.key in keys:
                first = firsts[int(column.steps[0])]
                yield column.key, find_extremes(starts, column.values, first)

    def pieces(self, chosen: dict[int, Ints], *, with_time: bool) -> Iterator[Column]:
        """Yield the points of the chosen rows, in log order."""
        for part in self.parts:
            picks = self._picks(self.spans(part), chosen)
            yield from part.take(list(picks), with_time=with_time)
        for column in self.tail:
            places = _places(column.steps, chosen[column.rank])
            if len(places):
                yield column.take(places)

    def _picks(self, spans: Sequence[Span], chosen: dict[int, Ints]) -> Iterator[Pick]:
        """Yield what spans hold of the chosen rows."""
        known: dict[tuple[int, ...], tuple[Ints, Ints]] = {}
        for span in _meeting(spans, chosen):
            form = steps_form(span)
            found = known.get((span.rank, *form))
            if found is None:
                steps = self.steps[form]
                places = _places(steps, chosen[span.rank])
                found = known[span.rank, *form] = places, _at(steps, places)
            if len(found[0]):
                yield Pick(span, *found)

    def _row_steps(self) -> dict[int, list[Steps]]:
        """Return the steps of the rows of each rank, in ascending blocks."""
        blocks: dict[int, list[Steps]] = {}
        seen: set[tuple[int | bytes, ...]] = set()
        for column in self.tail:
            name = (column.rank, column.steps.tobytes())
            if name not in seen:
                seen.add(name)
                blocks.setdefault(column.rank, []).append(column.steps)
        for part in self.parts:
            for span in self._with_new_steps(part, seen):
                own = self.steps[steps_form(span)]
                blocks.setdefault(span.rank, []).append(own)
        return {rank: _union(own) for rank, own in sorted(blocks.items())}

    def _with_new_steps(
        self, part: Part, seen: set[tuple[int | bytes, ...]]
    ) -> list[Span]:
        """Return the spans with steps that none had before; these are then known."""
        new: list[Span] = []
        unread: dict[int, list[Span]] = {}
        for span in self.spans(part):
            form = steps_form(span)
            if (span.rank, *form) in seen:
                continue
            seen.add((span.rank, *form))
            new.append(span)
            if is_whole(span):
                self.steps[form] = range(span.min_step, span.max_step + 1)
            elif form not in self.steps:
                unread.setdefault(span.group, []).append(span)
        for group, spans in unread.items():
            steps = part.read_steps(group)
            for span in spans:
                own = steps[span.start : span.start + span.points]
                self.steps[steps_form(span)] = own
        return new


def _union(blocks: list[Steps]) -> list[Steps]:
    """Return the steps of all blocks, ascending; as they are if they do not overlap."""
    ordered = sorted(blocks, key=lambda steps: int(steps[0]))
    if all(a[-1] < b[0] for a, b in pairwise(ordered)):
        return ordered
    return [np.unique(np.concatenate([np.asarray(steps) for steps in ordered]))]


def _choose(blocks: dict[int, list[Steps]], samples: int) -> dict[int, Ints]:
    """Return the steps of the chosen rows of each rank."""
    counts = {rank: sum(map(len, own)) for rank, own in blocks.items()}
    if len(blocks) == 1:
        ((rank, own),) = blocks.items()
        return {rank: _steps_at(own, spread(counts[rank], samples))}
    ranks = np.repeat(np.array(list(counts), np.int64), list(counts.values()))
    none = np.empty(0, np.int64)
    steps = np.concatenate([none, *(s for own in blocks.values() for s in own)])
    places = np.lexsort((ranks, steps))
    places = places[spread(len(places), samples)]
    return {rank: steps[places[ranks[places] == rank]] for rank in blocks}


def _steps_at(blocks: list[Steps], places: Ints) -> Ints:
    ends = np.cumsum([len(steps) for steps in blocks])
    owners = np.searchsorted(ends, places, "right")
    found = np.empty(len(places), np.int64)
    for owner in np.unique(owners).tolist():
        own = owners == owner
        steps = blocks[owner]
        found[own] = _at(steps, places[own] - (ends[owner] - len(steps)))
    return found


def _at(steps: Steps, places: Ints) -> Ints:
    found: Ints = places + steps[0] if isinstance(steps, range) else steps[places]
    return found


def _places(steps: Steps, wanted: Ints) -> Ints:
    """Return where the wanted steps are that are there; both ascend."""
    if isinstance(steps, range):
        start, stop = np.searchsorted(wanted, (steps[0], steps[-1] + 1)).tolist()
        places: Ints = wanted[start:stop] - steps[0]
        return places
    found = np.searchsorted(steps, wanted)
    found = found[found < len(steps)]
    present: Ints = found[steps[found] == wanted[: len(found)]]
    return present


def _meeting(spans: Sequence[Span], chosen: dict[int, Ints]) -> list[Span]:
    """Return the spans that may hold a chosen row."""
    is_met = np.zeros(len(spans), np.bool_)
    lows = np.array([span.min_step for span in spans], np.int64)
    highs = np.array([span.max_step for span in spans], np.int64)
    ranks = np.array([span.rank for span in spans], np.int64)
    for rank, steps in chosen.items():
        first = np.searchsorted(steps, lows)
        is_met |= (ranks == rank) & (np.searchsorted(steps, highs, "right") > first)
    return [spans[place] for place in np.flatnonzero(is_met).tolist()]
