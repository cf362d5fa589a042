"""Scanning a history: all of its rows, page after page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flightlog.apis.public.histories import RunHistory, check_count, check_keys
from flightlog.errors import BadArgumentError

if TYPE_CHECKING:
    from flightlog.apis.public.run import Run

__all__ = ("HistoryScan", "Scan", "check_scan")


@dataclass(frozen=True, slots=True)
class Scan:
    """What `Run.scan_history` was asked for; see there."""

    keys: list[str] | None
    page_size: int
    min_step: int | None
    max_step: int | None


class HistoryScan(Iterator[dict[str, Any]]):
    """All rows of a run as they were when the scan was made; `iter()` starts over.

    The attributes are W&B's, but a page is a number of rows, not a range of steps:
    `page_offset` is how many rows there were before the page after this one, `rows`
    are those of this page, `scan_offset` how many of them were given out.
    """

    def __init__(self, run: "Run", scan: Scan, source: RunHistory) -> None:
        self.run = run
        self.keys = scan.keys
        self.page_size = scan.page_size
        self._history = source.read(scan.keys, scan.min_step, scan.max_step)
        end = int(self._history.steps[-1]) + 1 if len(self._history) else 0
        self.min_step = scan.min_step or 0
        self.max_step = end if scan.max_step is None else min(scan.max_step, end)
        self.page_offset = 0
        self.scan_offset = 0
        self.rows: list[dict[str, Any]] = []

    def __iter__(self) -> "HistoryScan":
        self.page_offset = 0
        self.scan_offset = 0
        self.rows = []
        return self

    def __next__(self) -> dict[str, Any]:
        if self.scan_offset >= len(self.rows):
            self._turn()
        row = self.rows[self.scan_offset]
        self.scan_offset += 1
        return row

    next = __next__

    def _turn(self) -> None:
        """Go to the next page.

        Raises:
            StopIteration: There is none.
        """
        start = self.page_offset
        stop = min(start + self.page_size, len(self._history))
        if start == stop:
            raise StopIteration
        self.rows = list(self._history.dicts(start, stop))
        self.page_offset = stop
        self.scan_offset = 0

    def __repr__(self) -> str:
        return f"<HistoryScan of {'/'.join(self.run.path)}>"


def check_scan(
    keys: list[str] | None, page_size: int, min_step: int | None, max_step: int | None
) -> Scan:
    """Return what is to be scanned.

    Raises:
        BadArgumentError: An argument has a wrong type or value.
    """
    check_count("page_size", page_size)
    for name, value in (("min_step", min_step), ("max_step", max_step)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int)
        ):
            raise BadArgumentError(f"{name} must be an int or None, not {value!r}")
    return Scan(check_keys(keys), page_size, min_step, max_step)
