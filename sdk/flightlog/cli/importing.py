"""`flightlog import`: runs of an export, brought into a home.

Everything is checked first, and blobs are kept; only then is the recorder told, in the
names of those who logged the runs. So it may be repeated, and killed at any point.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from flightlog.apis.public.reading import reading
from flightlog.cli.closing import closing_frames, state_of
from flightlog.cli.courier import Courier
from flightlog.cli.output import emit, emit_json, talk
from flightlog.cli.progress import progress
from flightlog.errors import CommError
from flightlog_storage.artifact_state import RunName
from flightlog_storage.blobs import BlobStore, check_blob
from flightlog_storage.carried import CarriedFrame
from flightlog_storage.carried_state import CarriedFold, links_of
from flightlog_storage.copies import stage_stream
from flightlog_storage.database import Database
from flightlog_storage.errors import ExportUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.export_format import CarriedRun
from flightlog_storage.export_reader import ExportReader
from flightlog_storage.folding import Folding
from flightlog_storage.home import Home
from flightlog_storage.known_frames import Known, known_frames
from flightlog_storage.named_blobs import named_blobs
from flightlog_storage.reader import HomeReader
from flightlog_storage.staging import staging_folder
from flightlog_storage.terminal import plain

__all__ = ("import_runs",)

_DELETED = "was deleted here, and cannot come back under this id"
REASONS_MAX = 5  # Shown of those for which events would be lost.


@dataclass(slots=True)
class _Arrival:
    """What is known of an export once its frames were checked."""

    writers: dict[WriterId, RunName] = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    new: set[RunName] = field(default_factory=set)  # Runs that lack frames here.


def import_runs(
    home: Home, source: str, *, size_max: int, is_lossy: bool, as_json: bool
) -> None:
    """Bring the runs of an export into a home, and say which they are.

    Raises:
        ExportUnusable: The file is no export, is damaged, or larger than allowed.
        CommError: A run is in the way, would lose something, or cannot be recorded.
        OSError: The file cannot be read, or the home not be written.
    """
    started = time.monotonic()
    with ExportReader(Path(source), size_max) as export:
        arrival = _bring(home, export, is_lossy=is_lossy)
        runs = [_run_data(home, run, arrival) for run in export.manifest.runs]
        blobs = len(export.manifest.blobs)
    seconds = time.monotonic() - started
    if as_json:
        data = {"runs": runs, "blobs": blobs, "seconds": round(seconds, 3)}
        emit_json("flightlog.import/1", data)
        return
    for run in runs:
        word = "imported" if run["is_new"] else "nothing to do: here already is"
        emit(plain(f"{word} {run['path']} ({run['state']}, {run['events']:,} events)"))


def _run_data(home: Home, run: CarriedRun, arrival: _Arrival) -> dict[str, object]:
    state = state_of(home, run.name)
    return {
        "path": run.path,
        "state": None if state is None else str(state.state),
        "events": run.events,
        "lost_events": None if state is None else state.lost_count,
        "is_new": run.name in arrival.new,
    }


def _bring(home: Home, export: ExportReader, *, is_lossy: bool) -> _Arrival:
    store = BlobStore(home.blobs)
    with ExitStack() as stack:
        database = stack.enter_context(Database.empty())
        stack.enter_context(database.snapshot())
        alone = CarriedFold(database)
        arrival = _checked(home, export, alone)
        _check_in_the_way(home, export, arrival)
        _check_room(home, export)
        home.create()
        _keep_blobs(home, store, export)
        _check_blobs(export, alone, store)
    if arrival.new and not is_lossy:
        _check_losses(home, export, arrival)
    with store.holding():  # Until they are named, nobody is to delete the blobs.
        for sha256, size in export.manifest.blobs.items():
            if not store.renew(sha256, size):
                raise CommError(f"the blob {sha256} was deleted meanwhile: do it again")
        _deliver(home, export, arrival)
    return arrival


def _deliver(home: Home, export: ExportReader, arrival: _Arrival) -> None:
    frames = (carried for run, carried in export.frames() if run in arrival.new)
    with Courier(home) as courier:
        with progress("events", export.manifest.frames.size) as advance:
            for size in courier.deliver(frames):
                advance(size)
        if courier.is_reordered:
            talk("the disk refused events meanwhile: their order among writers changed")
        for _ in courier.deliver(closing_frames(home, export, arrival.writers)):
            pass


def _checked(home: Home, export: ExportReader, alone: CarriedFold) -> _Arrival:
    """Check each frame, and compare the export with what it says of itself."""
    arrival = _Arrival()
    with progress("checking", export.manifest.frames.size) as advance:
        for name, carried in export.frames():
            alone.fold(name, carried)
            arrival.writers[carried.frame.writer] = name
            advance(len(carried.payload))
    for run in export.manifest.runs:
        tally = alone.tallies.get(run.name)
        if tally is None or (tally.frames, tally.events) != (run.frames, run.events):
            why = f"has other events of {run.path} than its manifest says"
            raise ExportUnusable(export.path, why)
        if alone.state(run.name) is None:
            raise ExportUnusable(export.path, f"has no events that make {run.path}")
    arrival.known = known_frames(home.log, frozenset(arrival.writers))
    for name, carried in export.frames():
        if not _is_known(arrival.known, name, carried):
            arrival.new.add(name)
    return arrival


def _is_known(known: Known, run: RunName, carried: CarriedFrame) -> bool:
    try:
        return known.has(carried)
    except ValueError as error:
        raise CommError(f"{'/'.join(run)} is here already, and {error}") from error


def _check_in_the_way(home: Home, export: ExportReader, arrival: _Arrival) -> None:
    """Refuse a run that is there and not this one; what is there is never changed.

    Raises:
        CommError: There is one.
    """
    for run in export.manifest.runs:
        state = state_of(home, run.name)
        if state is None and run.name not in arrival.new:
            raise CommError(f"{run.path} {_DELETED}")
        if state is None or run.name not in arrival.new:
            continue
        others = state.writers.keys() - arrival.writers.keys()
        if others or not (arrival.known.last.keys() & state.writers.keys()):
            raise CommError(
                f"there is another run {run.path} in {home.root}, or one that was "
                "logged into since; nothing was imported"
            )


def _check_room(home: Home, export: ExportReader) -> None:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    store = BlobStore(home.blobs)
    needed = export.manifest.frames.size + sum(
        size
        for sha256, size in export.manifest.blobs.items()
        if check_blob(store, sha256, size, full=False)
    )
    if needed > free:
        raise CommError(
            f"{needed:,} bytes are needed in {home.root}, {free:,} are free"
        )


def _keep_blobs(home: Home, store: BlobStore, export: ExportReader) -> None:
    staging = staging_folder(home.staging)
    with progress("blobs", sum(export.manifest.blobs.values())) as advance:
        for sha256, size in export.manifest.blobs.items():
            with store.holding():
                is_there = store.renew(sha256, size)
            if not is_there:
                with export.blob(sha256) as stream:
                    store.keep(stage_stream(stream, staging))
            advance(size)


def _check_blobs(export: ExportReader, alone: CarriedFold, store: BlobStore) -> None:
    """Refuse an export without a blob that its runs need, or with one more."""
    needed = {
        (each.sha256, each.size)
        for each in named_blobs(alone.database, alone.folding, store)
    }
    there = set(export.manifest.blobs.items())
    for sha256, _ in needed - there:
        raise ExportUnusable(export.path, f"lacks the blob {sha256:.64}")
    for sha256, _ in there - needed:
        raise ExportUnusable(export.path, f"has a blob that nothing needs: {sha256}")


def _check_losses(home: Home, export: ExportReader, arrival: _Arrival) -> None:
    """Fold what is new on top of the home, and refuse it if something would be lost.

    Raises:
        CommError: Something would.
    """

    def read(database: Database, folding: Folding) -> list[str]:
        carried = CarriedFold(database, folding)
        for run, frame in export.frames():
            if run in arrival.new:
                carried.fold(run, frame)
        new = (run for run in export.manifest.runs if run.name in arrival.new)
        return [why for run in new for why in _losses(carried, run)]

    losses = reading(lambda: HomeReader(home).look(read))
    if losses:
        more = len(losses) - REASONS_MAX
        shown = losses[:REASONS_MAX] + ([f"… and {more} more"] if more > 0 else [])
        raise CommError(
            "\n".join(("this would lose something here:", *shown))
            + "\nexport the runs that logged what is used together with this one, or "
            "import them first; --lossy imports it all the same, and counts it"
        )


def _losses(carried: CarriedFold, run: CarriedRun) -> Iterator[str]:
    state = carried.state(run.name)
    if state is None:
        yield f"{run.path} {_DELETED}"
        return
    lost = state.lost_count - run.lost_count
    if lost > 0:
        yield f"{lost:,} events of {run.path}"
        yield from dict.fromkeys(carried.tallies[run.name].refused)
    there = links_of(carried.folding.artifacts, run.name)
    for link in run.links:
        if link in there:
            there.remove(link)
        else:
            yield f"{link.artifact}, {link.role} by {run.path}, is another version here"
