"""Calls into the store, with what goes wrong there told as the read API tells it."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from flightlog.errors import BadArgumentError, CommError, UsageError
from flightlog_storage.errors import StorageError

__all__ = ("check_per_page", "checked", "iso", "reading")

_Found = TypeVar("_Found")


def reading(read: Callable[[], _Found]) -> _Found:
    """Return what `read` does; what goes wrong in the store is told as a CommError."""
    try:
        return read()
    except (StorageError, OSError, sqlite3.Error) as error:
        raise CommError(str(error), error) from error


def checked(check: Callable[[], _Found]) -> _Found:
    """Return what `check` does; what it refuses is an argument of the read API."""
    try:
        return check()
    except (TypeError, ValueError, UsageError) as error:
        raise BadArgumentError(str(error)) from error


def check_per_page(per_page: object) -> int:
    """Return how many to read at a time.

    Raises:
        BadArgumentError: It is no positive int.
    """
    if isinstance(per_page, bool) or not isinstance(per_page, int) or per_page < 1:
        raise BadArgumentError(f"per_page must be a positive int, not {per_page!r}")
    return per_page


def iso(seconds: float) -> str:
    """Return a time as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
