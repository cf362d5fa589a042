"""Connections to state.db: for its one writer, and for readers, wherever it lies."""

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

from flightlog_storage.errors import CorruptData
from flightlog_storage.queries import QUERIES, SCHEMA

__all__ = (
    "SCHEMA_VERSION",
    "connect_empty",
    "connect_reader",
    "connect_writer",
    "set_aside",
)

SCHEMA_VERSION = 9
BUSY_TIMEOUT_S = 10.0
CACHE_KIB = 16 << 10

_BESIDE = ("", "-wal", "-shm")  # The files that together are one database.
# Not ours, or not whole. Of other errors (locked, disk full) a new file is no cure.
_DAMAGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect_writer(path: Path) -> sqlite3.Connection:
    """Return the one connection that writes; an empty database gets its tables.

    Raises:
        CorruptData: To be set aside.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = _connect(f"file:{quote(str(path))}?mode=rw")
    with _closed_on_error(connection, path):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if connection.execute(QUERIES["tables"]).fetchone() == (0,):
            _create(connection)
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise CorruptData(str(path), 0, str(found[0]))
        _check_version(connection, path)
    return connection


def connect_empty() -> sqlite3.Connection:
    """Return a database in memory that holds nothing."""
    connection = _connect("file::memory:")
    _create(connection)
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(f"BEGIN IMMEDIATE;{SCHEMA}")
    connection.execute(QUERIES["set_checkpoint"], (SCHEMA_VERSION, "", 0, 0, 0))
    connection.execute("COMMIT")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    row = connection.execute(QUERIES["checkpoint"]).fetchone()
    if row is None or row[0] != SCHEMA_VERSION:
        why = f"schema version {row and row[0]}, not {SCHEMA_VERSION}"
        raise CorruptData(str(path), 0, why)


@contextmanager
def _closed_on_error(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Close the connection on an error; tell damage from other errors."""
    try:
        yield
    except BaseException as error:
        connection.close()
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _DAMAGE:
            raise CorruptData(str(path), 0, str(error)) from error
        raise


def set_aside(path: Path) -> Path:
    """Rename the database to the first free `….damaged-N`; return that path."""
    aside = next(
        name
        for n in count(1)
        if not (name := path.with_name(f"{path.name}.damaged-{n}")).exists()
    )
    # Its write-ahead log first: a crash here must not leave one beside a new file.
    for suffix in reversed(_BESIDE):
        if os.path.exists(f"{path}{suffix}"):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside


def connect_reader(path: Path, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Return a connection that reads only, also where nothing may be written.

    It waits so long where the database is locked.

    Raises:
        CorruptData: It is damaged, or of another version.
        OSError: It is no file.
        sqlite3.Error: It cannot be opened, or is locked.
    """
    # Only looked at: to open it and close it again would undo SQLite's locks.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    try:
        return _open_reader(path, "mode=ro", timeout_s)
    except sqlite3.OperationalError as error:
        # A read-only copy: SQLite wants to write beside it even to read.
        if not path.exists() or error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise
    if not _has_bytes(Path(f"{path}-wal")):
        return _open_reader(path, "mode=ro&immutable=1")
    return _open_copy(path)


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _open_copy(path: Path) -> sqlite3.Connection:
    """Open a copy in memory that takes in the write-ahead log beside the file."""
    with tempfile.TemporaryDirectory(prefix="flightlog-") as folder:
        copy = Path(folder) / "state.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        source = _open_reader(copy, "mode=rw")
        connection = _connect(":memory:")
        try:
            source.backup(connection)
        finally:
            source.close()
    connection.execute("PRAGMA query_only = ON")
    return connection


def _open_reader(
    path: Path, options: str, timeout_s: float = BUSY_TIMEOUT_S
) -> sqlite3.Connection:
    connection = _connect(f"file:{quote(str(path))}?{options}", timeout_s)
    with _closed_on_error(connection, path):
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        _check_version(connection, path)
    return connection


def _connect(uri: str, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
