"""`flightlog export`: runs, with all their blobs, as one file."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from flightlog._daemon import DaemonStarter, find_socket
from flightlog.apis.public.reading import reading
from flightlog.apis.public.waiting import watch_home
from flightlog.cli.naming import find_run
from flightlog.cli.output import emit, emit_json, iso, talk
from flightlog.cli.progress import Advance, progress
from flightlog.errors import BadArgumentError, CommError, NotFoundError
from flightlog_storage.artifact_state import RunName
from flightlog_storage.blobs import BlobStore
from flightlog_storage.carried import CarriedFrame, Picker
from flightlog_storage.carried_state import CarriedFold, Tally, links_of
from flightlog_storage.database import Database
from flightlog_storage.export_format import CarriedRun, Link, Manifest
from flightlog_storage.export_writer import ExportWriter, written_export
from flightlog_storage.folding import Folding
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogReader
from flightlog_storage.named_blobs import named_blobs
from flightlog_storage.reader import HomeReader
from flightlog_storage.spool import is_owner_gone, read_owner
from flightlog_storage.terminal import plain

__all__ = ("export_runs",)

SETTLE_TIMEOUT_S = 30.0  # For the daemon to take spools, and to do what is owed.
LOOK_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class _Original:
    """What a home says of a run that is exported."""

    state: str
    lost_count: int
    links: list[Link]


def export_runs(
    home: Home, names: Sequence[str], target: str, *, as_json: bool
) -> None:
    """Write runs to a file, and say what is in it.

    Raises:
        NotFoundError: A run is not there.
        BadArgumentError: No file can be written there, or a run is named badly.
        CommError: Something is there already.
        CorruptData: A blob that they need is missing or damaged.
        OSError: The file cannot be written.
    """
    started = time.monotonic()
    path = _target(target)
    runs = list(dict.fromkeys(_key(home, name) for name in names))
    _settle(home, runs)
    manifest = _write(home, runs, path)
    size = path.stat().st_size
    seconds = time.monotonic() - started
    if as_json:
        data = {
            "path": str(path),
            "size": size,
            "seconds": round(seconds, 3),
            "runs": [_run_data(run) for run in manifest.runs],
            "blobs": len(manifest.blobs),
            "blob_bytes": sum(manifest.blobs.values()),
        }
        emit_json("flightlog.export/1", data)
        return
    events = sum(run.events for run in manifest.runs)
    what = ", ".join(plain(run.path) for run in manifest.runs)
    emit(
        f"exported {what}: {events:,} events and {len(manifest.blobs):,} blobs in "
        f"{plain(str(path))} ({size:,} bytes, {seconds:.1f} s)"
    )


def _run_data(run: CarriedRun) -> dict[str, object]:
    return {
        "path": run.path,
        "state": run.state,
        "events": run.events,
        "lost_events": run.lost_count,
    }


def _key(home: Home, name: str) -> RunName:
    return find_run(home, name).key


def _target(name: str) -> Path:
    path = Path(name)
    if not path.name or "\0" in name or path.is_dir():
        raise BadArgumentError(f"--to must name a file, not {name!r}")
    if not path.absolute().parent.is_dir():
        raise BadArgumentError(f"there is no folder {path.absolute().parent}")
    if path.exists() or path.is_symlink():
        raise CommError(f"{path} is there already, and is not replaced")
    return path.absolute()


def _write(home: Home, runs: list[RunName], path: Path) -> Manifest:
    store = BlobStore(home.blobs)
    picker = Picker(home.log, frozenset(runs))
    with ExitStack() as stack:
        database = stack.enter_context(Database.empty())
        stack.enter_context(database.snapshot())
        carried = CarriedFold(database)
        writer = stack.enter_context(written_export(path))
        end = picker.end()
        with progress("events", None) as advance:
            frames = carried.passing(picker.pick(end))
            writer.put_frames(_advancing(frames, advance))
        originals = _originals(home, runs)
        blobs = {
            each.sha256: each.size
            for each in named_blobs(database, carried.folding, store)
        }
        with progress("blobs", sum(blobs.values())) as advance:
            for sha256, size in blobs.items():
                writer.put_blob(store, sha256, size, advance)
        manifest = _manifest(home, writer, carried.tallies, originals)
        writer.put_manifest(manifest)
    _tell(picker, carried, runs)
    return manifest


def _advancing(
    frames: Iterator[CarriedFrame], advance: Advance
) -> Iterator[CarriedFrame]:
    for carried in frames:
        yield carried
        advance(len(carried.payload))


def _manifest(
    home: Home,
    writer: ExportWriter,
    tallies: dict[RunName, Tally],
    originals: dict[RunName, _Original],
) -> Manifest:
    for run in originals.keys() - tallies.keys():
        raise CommError(f"nothing of {'/'.join(run)} is recorded yet")
    runs = [
        CarriedRun(
            *run,
            state=original.state,
            frames=tallies[run].frames,
            events=tallies[run].events,
            lost_count=original.lost_count,
            links=original.links,
        )
        for run, original in originals.items()
    ]
    return Manifest(
        flightlog=version("flightlog"),
        log_id=LogReader(home.log).log_id.hex(),
        created_at=iso(time.time()),
        runs=runs,
        frames=writer.frames,
        blobs=writer.blobs,
    )


def _originals(home: Home, runs: list[RunName]) -> dict[RunName, _Original]:
    """Return what the home itself says of the runs.

    Raises:
        NotFoundError: One was deleted meanwhile.
    """

    def read(_: Database, folding: Folding) -> dict[RunName, _Original]:
        found = {}
        for run in runs:
            state = folding.load(*run)
            if state is None or state.deleted:
                raise NotFoundError(f"run {'/'.join(run)} was deleted meanwhile")
            # What a run that goes on used last may be in its spool only.
            links = [] if state.active else links_of(folding.artifacts, run)
            found[run] = _Original(str(state.state), state.lost_count, links)
        return found

    return reading(lambda: HomeReader(home).look(read))


def _settle(home: Home, runs: list[RunName]) -> None:
    """Wait for a moment until all that is said of the runs is in the log, and done."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    starter = DaemonStarter(home)
    with watch_home(home) as watch:
        while waiting := _unsettled(home, runs):
            problem = None
            if find_socket(home) is None:
                problem = starter.start(time.monotonic())
            if problem or time.monotonic() > deadline:
                why = problem or f"not within {SETTLE_TIMEOUT_S:.0f} s"
                talk(plain(f"not in the export: {', '.join(waiting)} ({why})"))
                return
            watch.wait(LOOK_INTERVAL_S)


def _unsettled(home: Home, runs: list[RunName]) -> list[str]:
    """Return what the daemon has still to do for runs into which nobody logs."""
    waiting = []
    for folder in sorted(home.spool.glob("[!.]*")):
        owner = read_owner(folder)
        if owner is not None and owner.run[:3] in runs and is_owner_gone(folder):
            waiting.append(f"what is in the spool {folder.name}")
    reader = HomeReader(home)
    for state in reading(lambda: reader.states_of(runs)):
        if not state.active and not state.carried:
            owed = [each.name for each in state.owed.values()]
            owed += [each.name for each in state.assets.values() if each.job]
            owed += [f"the outputs of watch {token}" for token in state.watches]
            waiting += [f"{name} of {state.id}" for name in owed]
    return waiting


def _tell(picker: Picker, carried: CarriedFold, runs: list[RunName]) -> None:
    """Say what an export is without."""
    for run in runs:
        state = carried.state(run)
        if state is not None and state.active:
            path = plain("/".join(run))
            talk(f"{path} is running: exported is what is recorded of it by now")
    if picker.damaged:
        talk(f"{picker.damaged:,} events are damaged in the log, and not exported")
