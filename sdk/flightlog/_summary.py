"""Summaries: what both kinds show, and that of a live run."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from flightlog._values import plain, plain_text

__all__ = ("Overlay", "Summary", "SummaryView", "put_value")

REMOVED = object()  # Stands for a value that was deleted.

Path = list[str]
_Record = Callable[[list[tuple[Path, Any]], list[Path]], None]


class SummaryView(MutableMapping[str, Any]):
    """A summary, or a dict within one: item and attribute access, nested."""

    _path: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return a plain dict of it."""
        values: Any = self._values()
        for key in self._path:
            values = values.get(key) if isinstance(values, dict) else None
        return values if isinstance(values, dict) else {}

    @abstractmethod
    def _values(self) -> dict[str, Any]:
        """Return the whole summary."""

    @abstractmethod
    def _within(self, key: str) -> "SummaryView":
        """Return the view of a value that is a dict."""

    def __getitem__(self, key: str) -> Any:
        value = self.as_dict()[key]
        return self._within(key) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") or key not in self.as_dict():
            raise AttributeError(f"summary has no key {key!r}")
        return self[key]

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __repr__(self) -> str:
        return repr(self.as_dict())


class Summary(SummaryView):
    """Item and attribute access; a value that is a dict is a part of the summary.

    Shows last values and what was set. The aggregates of `define_metric` are made by
    the daemon and seen through `Api`.
    """

    _latest: Callable[[], dict[str, Any]]

    def __init__(
        self,
        latest: Callable[[], dict[str, Any]],
        record: _Record,
        path: tuple[str, ...] = (),
    ) -> None:
        object.__setattr__(self, "_latest", latest)
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_path", path)

    def update(self, values: Mapping[str, Any] | None = None, **more: Any) -> None:  # type: ignore[override]  # W&B's.
        """Set several values.

        Raises:
            TypeError: A key is no str or a value cannot be stored.
        """
        given = {**(values or {}), **more}
        wrong = [key for key in given if not isinstance(key, str)]
        if wrong:
            raise TypeError(f"summary keys must be str; {wrong[0]!r} is not")
        changes = [
            ([*self._path, plain_text(key.strip())], plain(key, given[key]))
            for key in given
        ]
        if changes:
            self._record(changes, [])

    def _values(self) -> dict[str, Any]:
        return self._latest()

    def _within(self, key: str) -> "Summary":
        return Summary(self._latest, self._record, (*self._path, key))

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._record([], [[*self._path, key]])


class Overlay:
    """What was set by hand, among what was logged: the later one counts."""

    def __init__(self) -> None:
        self._set: dict[tuple[str, ...], tuple[float, Any]] = {}

    def restore(self, summary: Mapping[str, Any]) -> None:
        """Begin with the summary of a resumed run."""
        self._set.update({(key,): (0.0, value) for key, value in summary.items()})

    def set(
        self, now: float, changes: list[tuple[Path, Any]], removed: list[Path]
    ) -> None:
        self._set.update({tuple(path): (now, value) for path, value in changes})
        self._set.update({tuple(path): (now, REMOVED) for path in removed})

    def over(self, logged: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
        """Return the summary, given (time, values) of the rows logged last."""
        known = self._set.copy()  # At once: another thread may set more.
        found = [(at, path, value) for path, (at, value) in known.items()]
        for at, row in logged:
            found.extend((at, (key,), value) for key, value in row.items())
        summary: dict[str, Any] = {}
        for _, path, value in sorted(found, key=lambda each: each[0]):
            put_value(summary, path, value)
        return summary


def put_value(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set, merge or remove what is at `path` in nested dicts."""
    *folders, last = path
    for folder in folders:
        inner = values.get(folder)
        if not isinstance(inner, dict):
            if value is REMOVED:
                return
            inner = values[folder] = {}
        values = inner
    if value is REMOVED:
        values.pop(last, None)
    elif isinstance(value, dict) and value.get("_type") == "int":
        values[last] = int(value["value"])
    elif isinstance(value, dict) and value and "_type" not in value:
        for key, item in value.items():
            put_value(values, (*path[-1:], key), item)
    else:
        values[last] = value
