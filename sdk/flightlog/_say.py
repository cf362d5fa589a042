"""What the SDK tells its user: single lines on stderr."""

import sys

__all__ = ("say",)


def say(text: str) -> None:
    """Tell the user one line on stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"flightlog: {text}\n")
