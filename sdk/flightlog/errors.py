"""What can go wrong for a caller.

Error
├── UsageError                        a call at the wrong time or with wrong arguments
│   └── ConfigError                   a config value would be changed silently
└── CommError                         reading failed; `exc` has the original exception
    ├── NotFoundError (ValueError)    no such run or project
    └── BadArgumentError (ValueError) an argument of the read API is wrong

The names and the two-parent classes follow the W&B public API, where code expects
either a CommError or a ValueError.
"""

__all__ = (
    "BadArgumentError",
    "CommError",
    "ConfigError",
    "Error",
    "NotFoundError",
    "UsageError",
)


class Error(Exception):
    """Base of all errors of flightlog."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UsageError(Error):
    """A call at the wrong time or with arguments that cannot be."""


class ConfigError(UsageError):
    """A config value would be replaced with a different one."""


class CommError(Error):
    """Reading failed."""

    def __init__(self, message: str, exc: Exception | None = None) -> None:
        super().__init__(message)
        self.exc: Exception = exc if exc is not None else self


class NotFoundError(CommError, ValueError):
    """There is no such run or project."""


class BadArgumentError(CommError, ValueError):
    """An argument of the read API is wrong."""
