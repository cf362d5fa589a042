"""Reading a history: which rows, how many of them, and one after the other."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from flightlog.errors import BadArgumentError
from flightlog_storage.cells import History

if TYPE_CHECKING:
    from flightlog._runs import Run

__all__ = ("HistoryScan", "check_keys", "problem_of_keys", "spread", "with_runtime")


class HistoryScan(Iterator[dict[str, Any]]):
    """All rows of a run as they were when the scan was made; `iter()` starts over."""

    def __init__(
        self,
        run: "Run",
        history: History,
        keys: list[str] | None,
        page_size: int,
        started: float | None,
    ) -> None:
        self.run = run
        self.keys = keys
        self.page_size = page_size
        self._history = history
        self._started = started
        self._rows = self._all()

    def __iter__(self) -> "HistoryScan":
        self._rows = self._all()
        return self

    def __next__(self) -> dict[str, Any]:
        return next(self._rows)

    next = __next__

    def _all(self) -> Iterator[dict[str, Any]]:
        if self._started is None:
            return self._history.to_dicts()
        rows = with_runtime(self._history, self._started)
        return rows if self.keys is None else self._asked_for(rows)

    def _asked_for(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Leave out what came along with the time."""
        extra = {"_timestamp", "_runtime"}.difference(self.keys or ())
        for row in rows:
            for key in extra:
                row.pop(key, None)
            yield row


def with_runtime(history: History, started: float) -> Iterator[dict[str, Any]]:
    for row in history.to_dicts():
        if "_timestamp" in row:
            row["_runtime"] = max(0.0, row["_timestamp"] - started)
        yield row


def spread(count: int, samples: int) -> Any:
    """Return `samples` of `count` places, evenly spaced, with both ends."""
    if samples >= count:
        return np.arange(count)
    if samples == 1:
        return np.array([count - 1])
    return np.arange(samples) * (count - 1) // (samples - 1)


def problem_of_keys(keys: object) -> str | None:
    if keys is not None and not isinstance(keys, list):
        return "keys must be specified in a list"
    if keys and not all(isinstance(key, str) for key in keys):
        return "keys argument must be a list of strings"
    return None


def check_keys(keys: object) -> list[str] | None:
    problem = problem_of_keys(keys)
    if problem:
        raise BadArgumentError(problem)
    return list(dict.fromkeys(keys)) or None if isinstance(keys, list) else None
