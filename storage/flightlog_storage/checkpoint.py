"""How far the log is folded: what state.db says, read without the rest of it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from flightlog_storage.connection import connect_reader
from flightlog_storage.errors import CorruptData
from flightlog_storage.queries import QUERIES

__all__ = ("Checkpoint", "checkpoint_of", "read_checkpoint")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Up to where the log is folded: `offset` is the next one to fold."""

    log_id: str = ""
    offset: int = 0
    segment_first_offset: int = 0
    position: int = 0


def checkpoint_of(connection: sqlite3.Connection) -> Checkpoint:
    row = connection.execute(QUERIES["checkpoint"]).fetchone()
    return Checkpoint(*row[1:]) if row else Checkpoint()


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a database's checkpoint; the log was once durable to there.

    Nothing is folded where there is no database that can be read.
    """
    try:
        with closing(connect_reader(path)) as connection:
            return checkpoint_of(connection)
    except (OSError, sqlite3.Error, CorruptData):
        return Checkpoint()
