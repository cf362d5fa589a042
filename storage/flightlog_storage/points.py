"""Points: what a run has logged and no part holds yet, in compact columns."""

from array import array
from collections.abc import Iterator
from enum import StrEnum

from flightlog_storage.event import Rows, Series

__all__ = ("POINT_SIZE", "PointSeries", "Points", "Stream")

POINT_SIZE = 32  # Bytes of memory, about, of a point without its text.


class Stream(StrEnum):
    """Which of a run's two histories points are of; their rank tells.

    What processes of the run log has their rank, 0 or more. System metrics are logged
    by editors, which have none.
    """

    DEFAULT = "default"
    SYSTEM = "system"

    def holds(self, rank: int) -> bool:
        """Whether points of this rank are of the stream."""
        return (rank < 0) is (self is Stream.SYSTEM)


class PointSeries:
    """The points of one metric of one rank, in the order they were logged.

    The columns are those of `event.Series`, but `kinds` is never left out.
    """

    __slots__ = ("kinds", "name", "rank", "steps", "texts", "times", "values")

    def __init__(self, name: str, rank: int) -> None:
        self.name = name
        self.rank = rank
        self.steps = array("q")
        self.times = array("q")
        self.values = array("d")
        self.kinds = bytearray()
        self.texts: dict[int, str] = {}

    def extend(self, series: Series) -> None:
        """Append a series' points."""
        if series.texts:
            first = len(self.steps)
            for index, text in series.texts.items():
                self.texts[first + index] = text
        self.steps.extend(series.steps)
        self.times.extend(series.times)
        self.values.extend(series.values)
        self.kinds.extend(series.kinds or bytes(len(series.steps)))


class Points:
    """A run's points by metric and rank, in the order they were logged."""

    def __init__(self) -> None:
        self._series: dict[tuple[tuple[str, ...], int], PointSeries] = {}
        self._by_name: dict[tuple[str, int], PointSeries] = {}
        self._count = 0
        self._text_size = 0

    @property
    def count(self) -> int:
        """How many points there are."""
        return self._count

    @property
    def weight(self) -> int:
        """How many points without text take as much memory, about."""
        return self._count + self._text_size // POINT_SIZE

    def add(self, rows: Rows, rank: int) -> None:
        """Append rows that a writer of this rank logged."""
        for series in rows.series:
            target = self._series.get((series.path, rank))
            if target is None:
                target = self._place(series.path, rank)
            target.extend(series)
            self._count += len(series.steps)
            if series.texts:
                self._text_size += sum(map(len, series.texts.values()))

    def series(self) -> Iterator[PointSeries]:
        """Yield the series in order of name and rank; names are joined with dots."""
        for _, series in sorted(self._by_name.items()):
            yield series

    def get(self, name: str) -> list[PointSeries]:
        """Return one metric's series, in order of rank."""
        found = [s for (key, _), s in self._by_name.items() if key == name]
        return sorted(found, key=lambda series: series.rank)

    def _place(self, path: tuple[str, ...], rank: int) -> PointSeries:
        name = ".".join(path)
        series = self._by_name.get((name, rank))
        if series is None:
            series = self._by_name[name, rank] = PointSeries(name, rank)
        self._series[path, rank] = series
        return series
