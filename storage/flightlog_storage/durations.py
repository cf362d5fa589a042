"""How long: times as they are given, with their units."""

import re

__all__ = ("RETAIN_MIN_S", "parse_time")

RETAIN_MIN_S = 86_400.0  # Of a time that runs are kept: what is less may be a slip.
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_TIME_MAX_S = 1e9


def parse_time(text: str) -> float | None:
    """Return the seconds of a time that is given with its unit, such as 90d."""
    found = _TIME.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else None
    return None if seconds is None or seconds > _TIME_MAX_S else seconds
