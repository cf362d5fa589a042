"""What the daemon owes in a home: what waits, what it is at, and what failed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from flightlog.apis.public.reading import reading
from flightlog_storage.artifact_state import RunName
from flightlog_storage.assets import Asset
from flightlog_storage.database import Database
from flightlog_storage.files import read_file
from flightlog_storage.folding import Folding
from flightlog_storage.home import Home
from flightlog_storage.inbox import inbox_path
from flightlog_storage.progress import Progress, read_progress
from flightlog_storage.reader import HomeReader
from flightlog_storage.runfiles import OwedFile
from flightlog_storage.runstate import RunState, WriterStatus
from flightlog_storage.watches import Watch

__all__ = ("FailedJob", "Jobs", "OwedJob", "owed_files", "read_jobs")

ALL = 1 << 31

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class OwedJob:
    """A job that is not done; `since` is 0 where that is not known.

    A watch is owed a last look when its writer has ended, and `is_open` until then.
    """

    job: str
    name: str
    run: str
    since: float
    is_running: bool
    progress: Progress | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that never will be done, and why."""

    job: str
    name: str
    run: str
    since: float
    reason: str


@dataclass(slots=True)
class Jobs:
    """All jobs of a home, oldest first."""

    owed: list[OwedJob] = field(default_factory=list)
    failed: list[FailedJob] = field(default_factory=list)

    @property
    def ending(self) -> list[OwedJob]:
        """What is owed but watches, which go on as long as their runs do."""
        return [job for job in self.owed if not job.is_open]


def read_jobs(home: Home) -> Jobs:
    """Return what is owed and what failed, as any reader sees it: folded or not."""

    def read(database: Database, folding: Folding) -> Jobs:
        progress, at_work = read_progress(home.progress), _file_at_work(home)
        files = [
            OwedJob(
                job="file" if owed.pixels is None else "image",
                name=owed.name,
                run="/".join(run),
                since=_left_at(home, owed.token),
                is_running=owed.token == at_work,
            )
            for run, owed in owed_files(database, folding)
        ]
        assets = [
            _owed_asset(run, asset, progress)
            for run, asset in _owed_assets(database, folding)
        ]
        watches = _watches(database, folding)
        owed = sorted((*watches, *files, *assets), key=lambda job: job.since)
        return Jobs(owed, _failed(database, folding))

    return reading(lambda: HomeReader(home).look(read))


def owed_files(
    database: Database, folding: Folding
) -> Iterator[tuple[RunName, OwedFile]]:
    """Yield the files that are requested and not made, and whose."""

    def of(state: RunState) -> Iterable[OwedFile]:
        return () if state.carried else state.owed.values()

    return _by_now(folding, database.owed_files(ALL), of)


def _by_now(
    folding: Folding,
    saved: Iterable[tuple[RunName, _Found]],
    of: Callable[[RunState], Iterable[_Found]],
) -> Iterator[tuple[RunName, _Found]]:
    """Yield what state.db has of runs; where it is behind, what `of` finds."""
    moved = {state.key: state for state in folding.states.values()}
    yield from ((run, found) for run, found in saved if run not in moved)
    for run, state in moved.items():
        yield from ((run, found) for found in of(state))


def _failed(database: Database, folding: Folding) -> list[FailedJob]:
    """Return the archives and surveys that failed."""
    assets = _by_now(folding, database.all_assets(), lambda s: s.assets.values())
    found = [
        FailedJob(asset.kind, asset.name, "/".join(run), asset.logged_at, asset.error)
        for run, asset in assets
        if asset.error is not None
    ]
    return sorted(found, key=lambda job: job.since)


def _owed_assets(
    database: Database, folding: Folding
) -> Iterator[tuple[RunName, Asset]]:
    def of(state: RunState) -> Iterable[Asset]:
        assets = () if state.carried else state.assets.values()
        return (asset for asset in assets if asset.job)

    return _by_now(folding, database.owed_assets(ALL), of)


def _owed_asset(run: RunName, asset: Asset, progress: Progress | None) -> OwedJob:
    is_running = progress is not None and progress.token == asset.token
    return OwedJob(
        job=asset.job or "",
        name=asset.name,
        run="/".join(run),
        since=asset.logged_at,
        is_running=is_running,
        progress=progress if is_running else None,
    )


def _watches(database: Database, folding: Folding) -> Iterator[OwedJob]:
    def of(state: RunState) -> Iterable[tuple[Watch, bool]]:
        for watch in () if state.carried else state.watches.values():
            writer = state.writers.get(watch.writer)
            yield watch, writer is None or writer.status is not WriterStatus.ACTIVE

    saved = (
        (run, (found.watch, found.is_over)) for run, found in database.open_watches(ALL)
    )
    for run, (watch, is_over) in _by_now(folding, saved, of):
        yield OwedJob(
            job="watch",
            name=", ".join(watch.looking.dirs),
            run="/".join(run),
            since=0.0,
            is_running=False,
            is_open=not is_over,
        )


def _file_at_work(home: Home) -> str | None:
    with suppress(OSError, ValueError, IndexError):
        return read_file(home.job).decode().split()[0]
    return None


def _left_at(home: Home, token: str) -> float:
    with suppress(OSError, ValueError):
        return inbox_path(home.inbox, token).stat().st_mtime
    return 0.0
