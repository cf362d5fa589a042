"""A run id used again: what is there already is told of."""

import sqlite3
from contextlib import closing

from flightlog._say import say
from flightlog._spec import RunSpec
from flightlog_storage.connection import connect_reader
from flightlog_storage.errors import StorageError
from flightlog_storage.queries import QUERIES

__all__ = ("warn_of_reuse",)

_NOT_OVER = ("pending", "running", "preempting")


def warn_of_reuse(spec: RunSpec) -> None:
    """Tell somebody who names a run anew that it is there already, and over."""
    if not spec.home.state.exists():
        return
    key = (spec.entity, spec.project, spec.id)
    try:
        with closing(connect_reader(spec.home.state)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(QUERIES["run_by_name"], key).fetchone()
    except (OSError, StorageError, sqlite3.Error):
        return  # Whoever reads will tell.
    # One that nobody has logged into, or that was deleted, is pending.
    if found is not None and found["state"] not in _NOT_OVER:
        say(
            f"run {spec.id} is there already ({found['state']}): this adds to it, and "
            "rows of equal step and key replace the old ones; resume='allow' goes on "
            "behind them, resume='never' refuses"
        )
