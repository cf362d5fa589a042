"""The summary of a run read back: changes are gathered until they are persisted."""

from collections.abc import Callable, Mapping
from typing import Any

from flightlog._summary import SummaryView
from flightlog._values import plain, plain_text
from flightlog.apis.public.drafts import copied
from flightlog.errors import BadArgumentError
from flightlog_storage.codec import unwrapped
from flightlog_storage.event import SummaryUpdated
from flightlog_storage.summary import remove_nested, set_nested

__all__ = ("Pending", "Summary")

_Path = tuple[str, ...]
_REMOVED = object()


class Pending:
    """What of a run's summary was changed and is not persisted."""

    def __init__(self) -> None:
        self._changes: list[tuple[_Path, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._changes)

    def set(self, path: _Path, value: Any) -> None:
        self._changes.append((path, value))

    def remove(self, path: _Path) -> None:
        self._changes.append((path, _REMOVED))

    def over(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the summary as it is to become."""
        values: dict[str, Any] = copied(stored)
        for path, value in self._changes:
            if value is _REMOVED:
                remove_nested(values, path)
            else:
                set_nested(values, path, copied(unwrapped(value)))
        return values

    def events(self, time: float) -> list[SummaryUpdated]:
        """Return the changes as events; what an event removes goes before it sets."""
        found: list[SummaryUpdated] = []
        for path, value in self._changes:
            is_removal = value is _REMOVED
            if not found or (is_removal and found[-1].changes):
                found.append(SummaryUpdated(time=time, changes=[], removed=[]))
            if is_removal:
                found[-1].removed.append(list(path))
            else:
                found[-1].changes.append((list(path), value))
        return found

    def clear(self) -> None:
        self._changes.clear()


class Summary(SummaryView):
    """Item and attribute access; a value that is a dict is a part of the summary.

    Assignments and `del` are gathered; `update()` or `Run.update()` persists them. A
    process that logs the key afterwards wins again. As in W&B.
    """

    _read: Callable[[], dict[str, Any]]
    _pending: Pending

    def __init__(
        self,
        read: Callable[[], dict[str, Any]],
        pending: Pending,
        persist: Callable[[], None],
        path: _Path = (),
    ) -> None:
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_pending", pending)
        object.__setattr__(self, "_persist", persist)
        object.__setattr__(self, "_path", path)

    def update(  # type: ignore[override]  # W&B's signature, which users know.
        self,
        values: Mapping[str, Any] | None = None,
        overwrite: bool = True,
        **more: Any,
    ) -> None:
        """Set several values and persist these and all earlier changes.

        Args:
            values: A mapping; with none, only what was changed before is persisted.
            overwrite: Whether a key that has a value already gets the new one.

        Raises:
            BadArgumentError: A key is no str, or a value cannot be stored.
            CommError: It could not be recorded.
        """
        if not isinstance(values, Mapping | None):
            kind = type(values).__qualname__
            raise BadArgumentError(f"summary.update() takes a mapping, not {kind}")
        for key, value in {**(values or {}), **more}.items():
            if overwrite or key not in self:
                self[key] = value
        self._persist()

    @property
    def _json_dict(self) -> dict[str, Any]:
        """A plain dict of it; under the name that W&B's guide to exports uses."""
        return self.as_dict()

    def _values(self) -> dict[str, Any]:
        return self._pending.over(self._read())

    def _within(self, key: str) -> "Summary":
        return Summary(self._read, self._pending, self._persist, (*self._path, key))

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise BadArgumentError(f"summary keys must be str; {key!r} is not")
        try:
            stored = plain(key, value)
        except TypeError as error:
            raise BadArgumentError(str(error)) from error
        self._pending.set((*self._path, plain_text(key.strip())), stored)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._pending.remove((*self._path, key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self.as_dict() == dict(other)

    __hash__ = None  # type: ignore[assignment]  # Like every mutable mapping.
