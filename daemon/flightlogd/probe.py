"""Probes: readings that may fail or hang, which must keep nothing else waiting."""

import logging
from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

__all__ = ("PROBE_TIMEOUT_S", "Probe")

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 2.0  # A driver that takes longer has got stuck, mostly for good.

_Found = TypeVar("_Found")


class Probe(Generic[_Found]):
    """What reads one thing again and again, in a thread of its own.

    It is told once that it cannot be read, and once that it can again. As long as a
    reading hangs no other is begun.
    """

    def __init__(
        self, name: str, nothing: _Found, timeout_s: float = PROBE_TIMEOUT_S
    ) -> None:
        """`nothing` is what stands for a reading that could not be had."""
        self._name = name
        self._nothing = nothing
        self._timeout_s = timeout_s
        self._thread: Thread | None = None
        self._found = nothing
        self._problem: str | None = None
        self.failures = 0  # Since it was last read.

    def read(self, ask: Callable[[], _Found]) -> _Found:
        """Return what `ask` returns, or `nothing`, within the time-out."""
        if self._thread is None:
            # A daemon: should it hang for ever, this process can end all the same.
            self._thread = Thread(target=self._run, args=(ask,), daemon=True)
            self._thread.start()
            self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            return self._fail(f"no answer within {self._timeout_s:g} s")
        self._thread = None
        if self._problem is not None:
            return self._fail(self._problem)
        if self.failures:
            logger.info("%s: read again after %d failures", self._name, self.failures)
            self.failures = 0
        return self._found

    def _run(self, ask: Callable[[], _Found]) -> None:
        self._problem = None
        try:
            self._found = ask()
        except Exception as error:  # noqa: BLE001  # Whatever a driver comes up with.
            self._problem = repr(error)

    def _fail(self, why: str) -> _Found:
        if not self.failures:
            logger.warning("%s: cannot be read: %s", self._name, why)
        self.failures += 1
        return self._nothing
