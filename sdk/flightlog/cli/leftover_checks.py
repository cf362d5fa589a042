"""What is left over in a home: what waits too long, failed, or was set aside."""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote

from flightlog.cli.findings import Advice, listed
from flightlog.cli.output import sized
from flightlog.cli.owing import Jobs, read_jobs
from flightlog.errors import Error
from flightlog_storage.database import Database
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.folding import UNKNOWN_KIND
from flightlog_storage.home import Home
from flightlog_storage.spool import is_owner_gone, read_owner

__all__ = ("check_leftovers",)

ADOPTED_WITHIN_S = 60.0  # By a daemon that runs.
JOB_WITHIN_S = 3600.0


def check_leftovers(home: Home, *, is_served: bool, now: float) -> Iterator[Advice]:
    yield from _spools(home, now, is_served=is_served)
    with suppress(Error, sqlite3.Error):  # Told where the projections are checked.
        yield from _jobs(home, read_jobs(home), now, is_served=is_served)
    with suppress(HomeUnusable, CorruptData, sqlite3.Error):
        yield from _dead_letters(home)
    yield from _set_aside(home)


def _spools(home: Home, now: float, *, is_served: bool) -> Iterator[Advice]:
    """Tell of what dead writers left; a daemon that runs takes it at once."""
    waiting = [
        folder
        for folder in sorted(home.spool.glob("[!.]*"))
        if _is_left(folder)
        and (not is_served or now - _age_of(folder) > ADOPTED_WITHIN_S)
    ]
    if waiting:
        size = sum(_size(folder) for folder in waiting)
        yield Advice(
            where="spool",
            what=listed(
                f"{sized(size)} wait in the spools of {len(waiting):,} dead writers",
                [folder.name for folder in waiting],
            ),
            why="nothing is lost, but it is neither in the log nor safe from a loss of "
            "power, and their runs seem to run",
            cure=f"see why in {quote(str(home.daemon_log))}, then {_stop(home)}"
            if is_served
            else _start(home),
        )


def _is_left(folder: Path) -> bool:
    owner = read_owner(folder)
    if owner is None or not is_owner_gone(folder):
        return False
    return not owner.process.is_alive()


def _age_of(folder: Path) -> float:
    """Return when something in a folder was last changed."""
    times = [0.0]
    for path in (folder, *folder.glob("*")):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.glob("*.chunk"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _jobs(home: Home, jobs: Jobs, now: float, *, is_served: bool) -> Iterator[Advice]:
    late = [
        f"{job.job} {job.name} of {job.run}"
        for job in jobs.ending
        if job.since and not job.is_running and now - job.since > JOB_WITHIN_S
    ]
    if late:
        yield Advice(
            where="jobs",
            what=listed(f"{len(late):,} have waited for more than an hour", late),
            why="what they are to keep is a copy, or the original that may be changed",
            cure=f"see flightlog jobs, and {quote(str(home.daemon_log))}"
            if is_served
            else _start(home),
        )
    if jobs.failed:
        failed = [f"{job.name} of {job.run}: {job.reason}" for job in jobs.failed]
        yield Advice(
            where="jobs",
            what=listed(f"{len(failed):,} archives failed", failed),
            why="those files were not kept",
            cure="log them again, if they are there",
            is_note=True,
        )


def _dead_letters(home: Home) -> Iterator[Advice]:
    with Database.open_reader(home.state) as database:
        letters = database.dead_letters()
    newer = [letter for letter in letters if letter.reason == UNKNOWN_KIND]
    if newer:
        yield Advice(
            where="log",
            what=f"a newer version logged {len(newer):,} events unknown to this one",
            why="they do not count here, and nothing is deleted that they may need",
            cure=f"pip install --upgrade flightlog, then {_stop(home)}",
        )
    others = [f"offset {e.offset}: {e.reason}" for e in letters if e not in newer]
    if others:
        yield Advice(
            where="log",
            what=listed(f"{len(others):,} events were refused", others),
            why="their runs count them as lost; they are kept as dead letters",
            cure="report it",
            is_note=True,
        )


def _set_aside(home: Home) -> Iterator[Advice]:
    """Tell of what was set aside, but for projections, of which verify tells."""
    for path in sorted(home.quarantine.glob("*")):
        where, is_torn = f"quarantine/{path.name}", ".torn" in path.name
        if path.name.startswith("projections-"):
            continue
        yield Advice(
            where=where,
            what="a crash cut the log here; it was never acknowledged"
            if is_torn
            else "it was damaged, or not of this home, and was set aside",
            why="nothing is lost by it: what it held was sent again from the spools"
            if is_torn
            else "what could be read of it was taken, and what could not is in it only",
            cure=f"{_rm(path)}, when you need it no more",
            is_note=is_torn,
        )
    for path in sorted(home.root.glob("state.db.damaged-*")):
        if not path.name.endswith(("-wal", "-shm")):
            yield Advice(
                where=path.name,
                what="a state.db, damaged or of another version, was set aside",
                why="nothing is lost by it: a new one was made from the log",
                cure=f"{_rm(path)}*",
                is_note=True,
            )


def _rm(path: Path) -> str:
    return f"rm -r {quote(str(path))}"


def _start(home: Home) -> str:
    return f"flightlogd start --home {quote(str(home.root))}"


def _stop(home: Home) -> str:
    return f"flightlogd stop --home {quote(str(home.root))}"
