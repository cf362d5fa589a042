"""Figures: how a daemon and its home are, for who watches over them.

The recorder is asked for its status, as `flightlogd status` asks; all else is read from
the home by whoever wants to know.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flightlog_storage.database import Database, Totals
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.home import Home
from flightlogd.main import Status

__all__ = ("FIGURES_ERRORS", "Figures", "exposition", "read_figures")

FIGURES_ERRORS = (OSError, sqlite3.Error, CorruptData)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a home, in numbers."""

    folded_offset: int
    lag_events: int
    log_size: int
    spools: int
    spool_size: int
    inbox_files: int
    disk_free: int
    totals: Totals


def read_figures(home: Home, status: Status) -> Figures:
    """Return the figures of a home whose daemon said how it is.

    Raises:
        OSError: Its folders cannot be read.
        sqlite3.Error, CorruptData: Nor can its state.db.
    """
    spools = [_size(path) for path in _folders(home.spool)]
    disk = os.statvfs(home.root)
    folded, totals = _read_state(home)
    return Figures(
        folded_offset=folded,
        lag_events=max(0, status.end_offset - folded),
        log_size=_size(home.log),
        spools=len(spools),
        spool_size=sum(spools),
        inbox_files=sum(1 for _ in os.scandir(home.inbox)),
        disk_free=disk.f_bavail * disk.f_frsize,
        totals=totals,
    )


def exposition(status: Status | None, figures: Figures | None) -> str:
    """Return it all in Prometheus' text format, 0.0.4."""
    lines = [
        *_metric("up", "gauge", "Whether the recorder answers.", int(bool(status)))
    ]
    if status is not None:
        lines += _of_recorder(status)
    if figures is not None:
        lines += _of_home(figures)
    return "\n".join(lines) + "\n"


def _of_recorder(status: Status) -> Iterator[str]:
    counters = status.counters
    for name, help_, value in (
        ("frames", "Frames that became durable.", counters.frames),
        ("events", "Events that became durable.", counters.events),
        ("acks", "Answers that something is durable.", counters.acks),
        ("duplicates", "Frames that were durable already.", counters.duplicates),
        ("rewinds", "Frames with others missing before.", counters.rewinds),
        ("refused", "Requests and frames that were refused.", counters.refused),
        ("append_failures", "Batches that the disk refused.", counters.append_failures),
        (
            "materializer_restarts",
            "Deaths of the materializer.",
            status.materializer_restarts,
        ),
        ("worker_restarts", "Deaths of the worker.", status.worker_restarts),
    ):
        yield from _metric(f"{name}_total", "counter", help_, value)
    yield "# HELP flightlog_sync_seconds Appending a batch to the log, with its sync."
    yield "# TYPE flightlog_sync_seconds summary"
    yield f"flightlog_sync_seconds_sum {counters.sync_s!r}"
    yield f"flightlog_sync_seconds_count {counters.batches}"
    for name, help_, number in (
        ("sync_last_seconds", "The latest of these.", counters.last_sync_s),
        ("sync_max_seconds", "The longest of these.", counters.sync_max_s),
        ("batch_frames", "Frames of the latest batch.", counters.last_batch_frames),
        ("writers", "Writers heard of in the last 10 s.", status.active_writers),
        ("accepting", "Whether new connections are.", int(status.is_accepting)),
        ("uptime_seconds", "Since the recorder began.", status.uptime_s),
        ("end_offset", "Events in the log, ever.", status.end_offset),
        ("damages", "Found when the log was opened.", status.damages_found),
        ("scrub_damages", "Files at rest that are damaged.", status.scrub_damages),
    ):
        yield from _metric(name, "gauge", help_, number)


def _of_home(figures: Figures) -> Iterator[str]:
    totals = figures.totals
    for name, help_, value in (
        ("lag_events", "Events that are not folded yet.", figures.lag_events),
        ("log_bytes", "What the event log takes of the disk.", figures.log_size),
        ("spools", "Writers' own files there are.", figures.spools),
        ("spool_bytes", "What these take of the disk.", figures.spool_size),
        ("inbox_files", "Of which files are to be made.", figures.inbox_files),
        ("disk_free_bytes", "Of the home's disk.", figures.disk_free),
        ("runs", "Runs there are.", totals.runs),
        ("lost_events", "Dropped or damaged events of all runs.", totals.lost_events),
        ("dead_letters", "Events that cannot be folded.", totals.dead_letters),
        ("owed_files", "Files that the worker owes.", totals.owed_files),
        ("owed_archives", "Archives that it owes.", totals.owed_archives),
    ):
        yield from _metric(name, "gauge", help_, value)


def _metric(name: str, kind: str, help_: str, value: float) -> Iterator[str]:
    yield f"# HELP flightlog_{name} {help_}"
    yield f"# TYPE flightlog_{name} {kind}"
    yield f"flightlog_{name} {value!r}"


def _read_state(home: Home) -> tuple[int, Totals]:
    try:
        database = Database.open_reader(home.state)
    except HomeUnusable:
        return 0, Totals()  # Nothing is folded yet.
    with database, database.snapshot():
        return database.checkpoint().offset, database.totals()


def _folders(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        yield from (Path(entry.path) for entry in entries if entry.is_dir())


def _size(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_blocks * 512 for entry in entries)
    except FileNotFoundError:
        return 0  # Its writer has ended meanwhile.
