"""What the SDK tells its user: single lines on stderr."""

import sys
from contextlib import suppress

__all__ = ("say",)


def say(text: str) -> None:
    """Tell the user one line on stderr; where that is full or closed, nobody."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"flightlog: {text}\n")
