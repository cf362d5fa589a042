"""Retention: which runs ended so long ago that they may go, where that is asked for."""

from typing import NamedTuple

from flightlog_storage.artifact_state import RunName
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import Event, Rows, RunDeleted, Unknown
from flightlog_storage.home import Home
from flightlog_storage.runstate import RunState
from flightlog_storage.spool import read_owner

__all__ = ("KEEP_TAG", "OldRun", "is_kept", "old_runs")

KEEP_TAG = "keep"  # A run that has it stays.


class OldRun(NamedTuple):
    """A run, and when it was last heard of, in seconds since 1970."""

    name: RunName
    heard_at: float


def old_runs(home: Home, retain_s: float, now: float) -> list[OldRun]:
    """Return the runs that ended longer ago, the oldest first.

    That is before what was logged last of all in the home, if this lies before `now`:
    a clock that jumps, or a home that rests for years, makes no run old. Runs with
    KEEP_TAG stay, those that a writer is at, though its start may not be recorded yet,
    and those that an import brought until they are logged into here.
    """
    logged = {
        owner.run[:3] for path in home.spool.glob("*") if (owner := read_owner(path))
    }
    try:
        database = Database.open_reader(home.state)
    except HomeUnusable:
        return []  # Nothing is folded yet.
    with database:
        found = database.old_runs(now, retain_s, KEEP_TAG)
    return [OldRun(name, at) for name, at in found if name not in logged]


def is_kept(state: RunState, event: Event | Rows | Unknown) -> bool:
    """Whether a run stays that was to be deleted only if nothing had happened to it."""
    since = event.if_quiet_since if isinstance(event, RunDeleted) else None
    return since is not None and (
        state.active or state.updated_at > since or KEEP_TAG in state.tags
    )
