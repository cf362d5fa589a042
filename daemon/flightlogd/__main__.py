"""`python -m flightlogd`."""

from flightlogd.cli import main

__all__ = ()

main()
