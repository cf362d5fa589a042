"""`alert`: checking one, and leaving out its repeats."""

import time
from enum import StrEnum

from flightlog._values import plain_text
from flightlog_storage.event import AlertRaised

__all__ = ("REPEATS_AFTER_S", "AlertLevel", "Alerts")

ALERT_TITLE_LENGTH_MAX = 64
ALERT_TITLES_MAX = 1_000  # Remembered; who makes a new one each time has no repeats.
REPEATS_AFTER_S = 60.0


class AlertLevel(StrEnum):
    """How urgent an alert is. As in W&B."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class Alerts:
    """The alerts of a run."""

    def __init__(self) -> None:
        self._raised_at: dict[str, float] = {}

    def make(
        self, title: object, text: object, level: str, wait_duration: object
    ) -> AlertRaised | None:
        """Return the event, or None for a title raised within `wait_duration`.

        Raises:
            TypeError: A text is no str, or the duration no number or timedelta.
            ValueError: The level is no AlertLevel, or the title is too long.
        """
        if not isinstance(title, str) or not isinstance(text, str):
            raise TypeError("alert: title and text must be str")
        if len(title) > ALERT_TITLE_LENGTH_MAX:
            raise ValueError(
                f"alert: the title has more than {ALERT_TITLE_LENGTH_MAX} characters"
            )
        if not isinstance(level, str) or level.upper() not in tuple(AlertLevel):
            levels = ", ".join(AlertLevel)
            raise ValueError(f"alert: level {level!r} is none of {levels}")
        seconds = getattr(wait_duration, "total_seconds", lambda: wait_duration)()
        if not isinstance(seconds, int | float):
            raise TypeError(
                "alert: wait_duration must be a number of seconds or a timedelta, "
                f"not {wait_duration!r}"
            )
        now = time.monotonic()
        if now - self._raised_at.get(title, -1e18) < seconds:
            return None
        self._raised_at.pop(title, None)  # So that the first is the longest ago.
        self._raised_at[title] = now
        if len(self._raised_at) > ALERT_TITLES_MAX:
            del self._raised_at[next(iter(self._raised_at))]
        return AlertRaised(
            time=time.time(),
            title=plain_text(title),
            text=plain_text(text),
            level=level.upper(),
        )
