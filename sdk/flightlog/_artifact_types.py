"""The type that an artifact has already, as far as state.db knows: a quick look."""

import sqlite3
from contextlib import closing

from flightlog_storage.artifact_state import ArtifactKey
from flightlog_storage.artifact_tables import ArtifactTables
from flightlog_storage.connection import connect_reader
from flightlog_storage.errors import StorageError
from flightlog_storage.home import Home

__all__ = ("known_type",)


def known_type(home: Home, entity: str, project: str, name: str) -> str | None:
    """Return the type of an artifact; None where there is none, or none is folded."""
    if not home.state.exists():
        return None
    try:
        with closing(connect_reader(home.state)) as connection:
            key = ArtifactKey(entity, project, name)
            found = ArtifactTables(connection).artifact(key)
    except (OSError, StorageError, sqlite3.Error):
        return None  # Whoever reads will tell.
    return None if found is None or found.newest is None else found.type
