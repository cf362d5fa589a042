"""Watches: that the outputs of a run are looked for again and again."""

from dataclasses import dataclass

from flightlog_storage.event import Looking, WriterId

__all__ = ("OpenWatch", "Watch")


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch that was started and not stopped; see OutputsWatchStarted."""

    token: str
    writer: WriterId
    interval_s: float
    looking: Looking


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """A watch, on which machine its writer is, and whether that one has ended."""

    watch: Watch
    host: str
    is_over: bool

    @property
    def token(self) -> str:
        return self.watch.token

    @property
    def name(self) -> str:
        return ", ".join(self.watch.looking.dirs)
