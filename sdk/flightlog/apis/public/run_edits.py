"""What was changed of a run read back, and is not recorded yet."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flightlog._checks import check_tags
from flightlog._config import as_config
from flightlog._values import plain, plain_text
from flightlog.apis.public.drafts import DictDraft, ListDraft
from flightlog.apis.public.reading import checked
from flightlog.apis.public.summary import Pending
from flightlog.errors import BadArgumentError
from flightlog_storage.event import ConfigUpdated, Event, RunDescribed, TagsChanged
from flightlog_storage.runstate import RunState

__all__ = ("RunEdits",)


class RunEdits:
    """The changes of a run; what is not changed is as its state says."""

    def __init__(self) -> None:
        self.summary = Pending()
        self._texts: dict[str, str | None] = {}
        self._tags = ListDraft()
        self._config = DictDraft()

    def text(self, name: str, read: Callable[[], RunState]) -> str | None:
        """Return a text as it was assigned, or else as it is in what `read` returns."""
        if name in self._texts:
            return self._texts[name]
        value: str | None = getattr(read(), name)
        return value

    def set_text(self, name: str, value: str | None) -> None:
        """Assign a text.

        Raises:
            BadArgumentError: It is no str.
        """
        if not isinstance(value, str) and (value is not None or name == "name"):
            kind = type(value).__qualname__
            raise BadArgumentError(f"{name} must be a str, not {kind}")
        self._texts[name] = None if value is None else plain_text(value)

    def tags(self, state: RunState) -> list[str]:
        """Return the tags; the list may be changed in place."""
        self._tags.follow(state.tags)
        return self._tags.value

    def config(self, state: RunState) -> dict[str, Any]:
        """Return the config; the dict may be changed in place."""
        self._config.follow(state.config)
        return self._config.value

    def replace_config(self, config: dict[str, Any], state: RunState) -> None:
        self._config.follow(state.config)
        self._config.replace(config)

    def events(self, now: float, state: RunState) -> list[Event]:
        """Return the events that record the changes; none where there are none.

        Raises:
            BadArgumentError: A value cannot be stored.
        """
        events: list[Event] = []
        if self._texts:
            events.append(RunDescribed(time=now, changes=dict(self._texts)))
        tags, (changed, removed) = self.tags(state), self._changed_config(state)
        if self._tags.is_changed:
            found = checked(lambda: check_tags(tags))
            events.append(TagsChanged(time=now, tags=list(found)))
        if changed or removed:
            events.append(ConfigUpdated(time=now, changes=changed, removed=removed))
        return events + self.summary.events(now)

    def _changed_config(self, state: RunState) -> tuple[dict[str, Any], list[str]]:
        self._config.follow(state.config)
        changed, removed = self._config.changes()
        given = checked(lambda: as_config(changed))
        return {
            plain_text(key): checked(partial(plain, key, value))
            for key, value in given.items()
        }, removed

    def clear(self) -> None:
        """Forget texts and summary: they are recorded; the others are settled later."""
        self._texts.clear()
        self.summary.clear()

    def settle(self, state: RunState) -> None:
        """Take the tags and the config over that are stored now."""
        self._tags.settle(state.tags)
        self._config.settle(state.config)
