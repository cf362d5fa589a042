"""The client: what reads and changes one home, shared by all that an `Api` returns."""

from collections.abc import Sequence

from flightlog._settings import default_entity
from flightlog.apis.public.editing import record, wait_for_start
from flightlog_storage.event import Event
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader

__all__ = ("Client",)


class Client:
    """Made by `Api`, found at `api.client`; `Runs` and `Run` take it as W&B's do."""

    def __init__(self, home: Home, settings: dict[str, str] | None = None) -> None:
        self.home = home
        self.settings = settings or {}
        self.reader = HomeReader(home)

    @property
    def default_entity(self) -> str:
        """`overrides["entity"]`, else FLIGHTLOG_ENTITY, else the OS user's name."""
        return self.settings.get("entity") or default_entity()

    def record(self, run: tuple[str, str, str], events: Sequence[Event]) -> None:
        """Record events about a run; see `editing.record`."""
        wait_for_start(self.reader, self.home, run)
        record(self.home, run, events)

    def __repr__(self) -> str:
        return f"<Client of {self.home.root}>"
