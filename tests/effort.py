"""How much is tried where tests try at random: FLIGHTLOG_EFFORT times their own count.

Up to 1, the tests try the same each time; above it, something else each time, and what
fails says how to repeat it.
"""

import os

from hypothesis import settings

__all__ = ("EFFORT", "tries")

EFFORT = float(os.environ.get("FLIGHTLOG_EFFORT", "1"))

settings.register_profile("ours", deadline=None, derandomize=EFFORT <= 1)
settings.load_profile("ours")


def tries(count: int) -> int:
    return max(1, round(count * EFFORT))
