"""What a home is said to hold, as any reader sees it: folded already or not."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from flightlog.cli.owing import owed_files
from flightlog_storage.blobs import Blob, BlobStore
from flightlog_storage.database import Database
from flightlog_storage.folding import Folding
from flightlog_storage.home import Home
from flightlog_storage.named_blobs import NamedBlob, named_blobs
from flightlog_storage.reader import HomeReader
from flightlog_storage.runfiles import OwedFile

__all__ = ("Contents", "read_contents")


@dataclass(slots=True)
class Contents:
    """What is needed, and what is known to be lost.

    `blobs` tells what for only of those that were asked about. `owed` is by token,
    with the run; `lost` has how many events of which runs are lost.
    """

    blobs: dict[Blob, list[NamedBlob]] = field(default_factory=dict)
    owed: dict[str, tuple[str, OwedFile]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)


def read_contents(home: Home, asked: Collection[Blob] = ()) -> Contents:
    """Return the contents of a home, with the uses of the blobs that are asked about.

    Raises:
        HomeUnusable: The log is gone.
        CorruptData, sqlite3.Error, ValueError, MsgspecError: state.db is damaged.
    """
    store = BlobStore(home.blobs)

    def read(database: Database, folding: Folding) -> Contents:
        contents = Contents()
        for named in named_blobs(database, folding, store):
            blob = (named.sha256, named.size)
            uses = contents.blobs.setdefault(blob, [])
            if blob in asked:
                uses.append(named)
        for run, owed in owed_files(database, folding):
            contents.owed[owed.token] = ("/".join(run), owed)
        contents.lost.update(_lost(database, folding))
        return contents

    return HomeReader(home).look(read)


def _lost(database: Database, folding: Folding) -> Iterator[tuple[str, int]]:
    for row in database.find_runs():
        if row.lost_count and row.number not in folding.states:
            yield f"{row.entity}/{row.project}/{row.id}", row.lost_count
    for state in folding.states.values():
        if state.lost_count and not state.deleted:
            yield "/".join(state.key), state.lost_count
