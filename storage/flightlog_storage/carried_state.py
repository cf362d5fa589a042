"""Carried runs, folded: what an export adds up to, alone or on top of a home.

Alone it tells which blobs the runs need; on top of a home, what they would be there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import structs

from flightlog_storage.artifact_state import Role, RunName
from flightlog_storage.carried import CarriedFrame
from flightlog_storage.catalog import Catalog
from flightlog_storage.database import Database
from flightlog_storage.export_format import Link
from flightlog_storage.folding import Folding
from flightlog_storage.runstate import RunState

__all__ = ("CarriedFold", "Tally", "links_of")

_FIRST_OFFSET = 1 << 61  # Behind all that a log can have.


@dataclass(slots=True)
class Tally:
    """How much of a run there is, and why events of it are refused, if any are."""

    frames: int = 0
    events: int = 0
    refused: list[str] = field(default_factory=list)


class CarriedFold:
    """Folds carried frames in memory, by the code that folds a log."""

    def __init__(self, database: Database, folding: Folding | None = None) -> None:
        self.database = database
        self.folding = Folding(database) if folding is None else folding
        self.tallies: dict[RunName, Tally] = {}
        self._offset = _FIRST_OFFSET

    def fold(self, run: RunName, carried: CarriedFrame) -> None:
        """Fold one more frame, as if it were in the log."""
        frame = structs.replace(carried.to_record(), offset=self._offset)
        self._offset = frame.offset_end
        folded = self.folding.fold(frame, carried.payload)
        tally = self.tallies.setdefault(run, Tally())
        tally.frames += 1
        tally.events += frame.count
        tally.refused += (letter.reason for letter in folded.dead_letters)

    def passing(
        self, frames: Iterator[tuple[RunName, CarriedFrame]]
    ) -> Iterator[CarriedFrame]:
        """Yield frames on, folded."""
        for run, carried in frames:
            self.fold(run, carried)
            yield carried

    def state(self, run: RunName) -> RunState | None:
        """Return a run, unless it is deleted or was never there."""
        found = self.folding.load(*run)
        return None if found is None or found.deleted else found


def links_of(catalog: Catalog, run: RunName) -> list[Link]:
    """Return the versions that a run logged or used and that are there."""
    return [
        Link(role, "/".join(link.version.artifact), version.digest)
        for role in Role
        for link in catalog.links_of_run(run, role)
        if (version := catalog.version(link.version)) is not None
    ]
