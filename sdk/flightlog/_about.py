"""What is said of a live run beside its rows: names, tags, config, summary."""

import time
from collections.abc import Sequence
from typing import Any

from flightlog._checks import check_tags
from flightlog._config import Config
from flightlog._run_life import RunLife
from flightlog._summary import Overlay, Summary
from flightlog._values import plain_text
from flightlog_storage.event import (
    ConfigUpdated,
    RunDescribed,
    SummaryUpdated,
    TagsChanged,
)

__all__ = ("About",)

_TEXTS = ("name", "notes", "group", "job_type")


class About:
    """What is said of a run; each change is recorded."""

    def __init__(self, life: RunLife) -> None:
        """Begin with what `init()` was given, which the run's first event holds."""
        spec = life.spec
        self._life = life
        self._texts: dict[str, str | None] = {
            field: getattr(spec, field) for field in _TEXTS
        }
        self._overlay = Overlay()
        self.tags = spec.tags or ()
        self.config = Config(self._record_config, spec.allow_val_change)

    def restore(self, found: Any) -> None:
        """Take over what a resumed run, a RunState, has recorded already."""
        self.config.restore(found.config)
        self._overlay.restore(found.summary)
        self.tags = self.tags or tuple(found.tags)
        for field, value in self._texts.items():
            if value is None:
                self._texts[field] = getattr(found, field)

    @property
    def summary(self) -> Summary:
        rows = self._life.rows
        return Summary(lambda: self._overlay.over(rows.latest()), self._record_summary)

    def text(self, field: str) -> str | None:
        """Return the name, the notes, the group or the job type."""
        return self._texts[field]

    def set_text(self, field: str, value: str | None) -> None:
        self._life.check_open(f"changing {field}")
        if not isinstance(value, str) and (value is not None or field == "name"):
            raise TypeError(f"{field} must be a str, not {type(value).__qualname__}")
        self._texts[field] = None if value is None else plain_text(value)
        changes = {field: self._texts[field]}
        self._life.record(RunDescribed(time=time.time(), changes=changes))

    def set_tags(self, tags: Sequence[str]) -> None:
        self._life.check_open("tags")
        self.tags = check_tags(tags)
        self._life.record(TagsChanged(time=time.time(), tags=list(self.tags)))

    def _record_config(self, changes: dict[str, Any], removed: list[str]) -> None:
        self._life.check_open("changing config")
        event = ConfigUpdated(time=time.time(), changes=changes, removed=removed)
        self._life.record(event)

    def _record_summary(
        self, changes: list[tuple[list[str], Any]], removed: list[list[str]]
    ) -> None:
        self._life.check_open("changing summary")
        now = time.time()
        self._life.record(SummaryUpdated(time=now, changes=changes, removed=removed))
        self._overlay.set(now, changes, removed)
