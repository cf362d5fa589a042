"""A run id used again: what is there already is told of."""

import sqlite3

from flightlog._say import say
from flightlog._spec import RunSpec
from flightlog_storage.database import Database
from flightlog_storage.errors import StorageError

__all__ = ("warn_of_reuse",)


def warn_of_reuse(spec: RunSpec) -> None:
    """Tell somebody who names a run anew that it is there already, and over."""
    if not spec.home.state.exists():
        return
    try:
        with Database.open_reader(spec.home.state) as database:
            found = database.load_run(spec.entity, spec.project, spec.id)
    except (StorageError, sqlite3.Error):
        return  # Whoever reads will tell.
    if found is not None and not found.active:
        say(
            f"run {spec.id} is there already ({found.state}): this adds to it, and "
            "rows of equal step and key replace the old ones; resume='allow' goes on "
            "behind them, resume='never' refuses"
        )
