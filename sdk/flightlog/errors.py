"""What can go wrong for a caller.

Error
├── UsageError                        a call at the wrong time or with wrong arguments
│   ├── ConfigError                   a config value would be changed silently
│   ├── ArtifactNotLoggedError        wait() for the artifact, or log it, first
│   └── ArtifactFinalizedError        make a new_draft() of the artifact to change it
└── CommError                         reading failed; `exc` has the original exception
    ├── NotFoundError (ValueError)    no such run, project, file or artifact
    ├── CorruptError (ValueError)     bytes are not those that were logged
    └── BadArgumentError (ValueError, TypeError)
                                      an argument of the read API is wrong

The names and the classes of several parents follow the W&B public API, where code
expects either a CommError or the ValueError or TypeError behind it.
"""

__all__ = (
    "ArtifactFinalizedError",
    "ArtifactNotLoggedError",
    "BadArgumentError",
    "CommError",
    "ConfigError",
    "CorruptError",
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


class ArtifactNotLoggedError(UsageError, AttributeError):
    """An artifact has this only when it is logged: wait() for that."""


class ArtifactFinalizedError(UsageError, AttributeError):
    """A logged artifact's content cannot be changed; a new_draft() of it can."""


class CommError(Error):
    """Reading, or a change through the read API, failed."""

    def __init__(self, message: str, exc: Exception | None = None) -> None:
        super().__init__(message)
        self.exc: Exception = exc if exc is not None else self


class NotFoundError(CommError, ValueError):
    """There is no such run, project, file or artifact."""


class CorruptError(CommError, ValueError):
    """Bytes are missing or not those that were logged; the rest can be had."""


class BadArgumentError(CommError, ValueError, TypeError):
    """An argument of the read API is wrong in type or value."""
