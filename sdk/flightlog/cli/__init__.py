"""The command line for people: `flightlog ls | show | verify | replay`."""

from flightlog.cli.commands import main

__all__ = ("main",)
