"""The command line for people, `flightlog`: to look, to check, and to tidy up."""

from flightlog.cli.commands import main

__all__ = ("main",)
