"""What the machine allows a home's daemon, and whether its clock can be believed."""

import resource
import sqlite3
from collections.abc import Iterator
from itertools import pairwise

from flightlog.cli.findings import Advice
from flightlog_storage.files import RealFiles
from flightlog_storage.home import Home
from flightlog_storage.inotify import FolderEvent, FolderWatch
from flightlog_storage.survey import survey_folder

__all__ = ("check_machine",)

DESCRIPTORS_MIN = 4096
CLOCK_JUMP_S = 300.0
# Two connections that write, or checkpoint, at once may damage a database.
_WAL_BUG = ((3, 7, 0), (3, 51, 3))


def check_machine(home: Home, daemon_pid: int | None, now: float) -> Iterator[Advice]:
    yield from _descriptors(daemon_pid)
    yield from _inotify(home)
    yield from _clock(home, now)
    if _WAL_BUG[0] <= sqlite3.sqlite_version_info < _WAL_BUG[1]:
        yield Advice(
            where="machine",
            what=f"SQLite {sqlite3.sqlite_version} may damage what two write at once",
            why="flightlog is safe: one process writes state.db, and the log can make "
            "it anew",
            cure="leave state.db to the daemon: no other tool may write to it",
            is_note=True,
        )


def _descriptors(daemon_pid: int | None) -> Iterator[Advice]:
    """Look at the limit of the daemon, else at what one that we start would have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        if daemon_pid is not None:
            limit = resource.prlimit(daemon_pid, resource.RLIMIT_NOFILE)[0]
    except OSError:  # Ended, or in a container of its own.
        pass
    if 0 <= limit < DESCRIPTORS_MIN:
        yield Advice(
            where="machine",
            what=f"a process may open {limit:,} files",
            why=f"so about {int(limit * 0.7):,} processes can log at once; others wait",
            cure=f"raise the hard limit (ulimit -Hn, LimitNOFILE) to "
            f"{DESCRIPTORS_MIN:,} or more, and start the daemon anew",
        )


def _inotify(home: Home) -> Iterator[Advice]:
    try:
        FolderWatch([home.spool], FolderEvent.MOVED_TO).close()
    except OSError as error:
        yield Advice(
            where="machine",
            what=f"no folder can be watched: {error.strerror}",
            why="the daemon looks by the clock, and may miss how short processes end",
            cure="sysctl fs.inotify.max_user_instances=1024 (and max_user_watches)",
        )


def _clock(home: Home, now: float) -> Iterator[Advice]:
    if not home.log.is_dir():
        return
    headers = survey_folder(home.log, RealFiles()).segments
    times = [(header.created_ns / 1e9, header.name) for header in headers]
    known = [each for each in times if each[0]]  # The header was not lost.
    for (before, _), (after, name) in pairwise([*known, (now, "the end of the log")]):
        if before - after > CLOCK_JUMP_S:
            yield Advice(
                where=name,
                what=f"the clock was {before - after:,.0f} s further before this",
                why="times of runs and ages of files of then are wrong; the order of "
                "events is not",
                cure="see that the clock is kept (timedatectl)",
                is_note=True,
            )
