"""The life of an artifact: a draft, on its way when a run logs it, then logged."""

import threading
from typing import TYPE_CHECKING

from flightlog._storing import Pending
from flightlog.errors import ArtifactNotLoggedError
from flightlog_storage.home import Home

if TYPE_CHECKING:
    from flightlog.apis.public.versions import LoggedVersion

__all__ = ("ArtifactLife",)


class ArtifactLife:
    """How far an artifact is, as far as is known here."""

    def __init__(self, name: str, version: "LoggedVersion | None" = None) -> None:
        """Begin with a draft, or with what is kept of a logged one."""
        self.version = version
        self.is_final = version is not None
        self._name = name
        self._is_discarded = False
        self._lock = threading.Lock()
        self._pending: Pending | None = None

    @property
    def logged(self) -> "LoggedVersion":
        """What is kept of it.

        Raises:
            ArtifactNotLoggedError: It is not logged, or that is not known here yet.
        """
        if self.version is None:
            cure = "log it with run.log_artifact() first"
            if self._pending is not None:
                cure = "call wait() first"
            raise ArtifactNotLoggedError(f"artifact {self._name} is a draft: {cure}")
        return self.version

    @property
    def is_pending(self) -> bool:
        """Whether a run has logged it, and what came of that is not known here yet."""
        return self._pending is not None and self.version is None

    @property
    def home(self) -> Home:
        """Where it is logged, or being logged.

        Raises:
            ArtifactNotLoggedError: It is a draft.
        """
        if self.version is None and self._pending is not None:
            return self._pending.home
        return self.logged.client.home

    def begin(self, pending: Pending) -> None:
        """Take note that a run logs it."""
        self.is_final = True
        self._pending = pending

    def discard(self) -> None:
        """Take note that a run that records nothing has logged it."""
        self.is_final = self._is_discarded = True

    def wait(self, timeout: float | None) -> None:
        """Wait until it is logged and durable; see `Artifact.wait`."""
        if self.version is not None or self._is_discarded:
            return
        if self._pending is None:
            self.logged  # noqa: B018  # Raises.
        assert self._pending is not None
        self._pending.wait(timeout)
        with self._lock:
            if self.version is None:
                # Only here: it brings the reading side with it.
                from flightlog.apis.public.versions import version_of_token

                self.version = version_of_token(self._pending.home, self._pending.token)
