"""Archives that a run asked for, looked at once when it ends: which failed, by then."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing

from flightlog._say import say
from flightlog._spec import RunSpec
from flightlog_storage.assets import Asset, asset_of
from flightlog_storage.connection import connect_reader
from flightlog_storage.errors import StorageError
from flightlog_storage.queries import QUERIES

__all__ = ("tell_of_archives",)

LOOK_TIMEOUT_S = 0.2  # For a database that is locked.
TOLD_MAX = 10


def tell_of_archives(
    spec: RunSpec, asked: Mapping[str, str], *, is_quiet: bool
) -> None:
    """Say which archives failed, and how many are on their way; never raises for them.

    `asked` has names by token. What is not folded yet is on its way.
    """
    known = _known(spec)
    failed = [
        (name, asset.error)
        for token, name in asked.items()
        if (asset := known.get(token)) is not None and asset.error is not None
    ]
    for name, why in failed[:TOLD_MAX]:
        say(f"run {spec.path}: {name} could not be archived: {why}")
    if len(failed) > TOLD_MAX:
        say(f"run {spec.path}: {len(failed) - TOLD_MAX} more could not be archived")
    done = [token for token, asset in known.items() if asset.job is None]
    left = len(asked.keys() - done)
    if left and not is_quiet:
        say(
            f"run {spec.path}: {left} of what is to be archived is on its way yet: "
            "leave it in place; `flightlog jobs` shows it"
        )


def _known(spec: RunSpec) -> dict[str, Asset]:
    """Return the assets of the run by token, as far as they are folded."""
    try:
        with closing(connect_reader(spec.home.state, LOOK_TIMEOUT_S)) as connection:
            key = (spec.entity, spec.project, spec.id)
            row = connection.execute(QUERIES["number_of_run"], key).fetchone()
            if row is None:
                return {}
            rows = connection.execute(QUERIES["assets"], (json.dumps(row),))
            return {
                asset.token: asset for asset in (asset_of(each[1]) for each in rows)
            }
    except (OSError, StorageError, sqlite3.Error):
        return {}  # Whoever reads will tell.
