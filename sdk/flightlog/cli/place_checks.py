"""Where a home lies: who may read it, on which file system, with how much room."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote

from flightlog.cli.findings import Advice, listed
from flightlog.cli.output import sized
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.eventlog import SEGMENT_SIZE_MAX
from flightlog_storage.home import (
    NETWORK_FILE_SYSTEMS,
    SOCKET_PATH_MAX,
    Home,
    file_system_type,
)

__all__ = ("check_place",)

FREE_FILES_MIN = 1_000
_ODD = (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)
_IN_MEMORY = ("tmpfs", "ramfs")


def check_place(home: Home) -> Iterator[Advice]:
    yield from _access(home)
    yield from _socket(home)
    yield from _file_system(home)
    if home.is_writable:
        yield from _room(home)


def _access(home: Home) -> Iterator[Advice]:
    foreign, public, odd = [], [], []
    for path, status in _entries(home):
        name = str(path.relative_to(home.root))
        if status.st_uid != os.getuid():
            foreign.append(name)
        if status.st_mode & 0o077:
            public.append(name)
        if stat.S_IFMT(status.st_mode) in _ODD:
            odd.append(name)
    if foreign:
        yield Advice(
            where="home",
            what=listed(f"{len(foreign):,} files belong to another user", foreign),
            why="the daemon cannot use them, and their owner can read or change them",
            cure=f"sudo chown -R {os.getuid()} {quote(str(home.root))}",
        )
    if public:
        yield Advice(
            where="home",
            what=listed(f"{len(public):,} files are open to other users", public),
            why="others on this machine may read, or change, what was logged",
            cure=f"chmod -R go-rwx {quote(str(home.root))}",
        )
    if odd:
        yield Advice(
            where="home",
            what=listed(f"{len(odd):,} are pipes or devices, no files", odd),
            why="what should be there cannot be read, or written",
            cure=f"rm {' '.join(quote(str(home.root / name)) for name in odd)}",
        )


def _socket(home: Home) -> Iterator[Advice]:
    """Tell where no daemon can listen, and those who log talk to none."""
    try:
        home.check_socket()
    except HomeUnusable as error:
        yield Advice(
            where="socket",
            what=str(error),
            why="no daemon can listen there: what is logged waits in spools",
            cure="mend that, or name a socket in a folder of your own, with less than "
            f"{SOCKET_PATH_MAX} bytes, in FLIGHTLOG_SOCKET: for all who log, too",
        )


def _file_system(home: Home) -> Iterator[Advice]:
    kind = file_system_type(home.root)
    if kind in NETWORK_FILE_SYSTEMS:
        yield Advice(
            where="home",
            what=f"it is on a network file system ({kind})",
            why="a kill, or a second machine, can damage it in ways nothing can mend",
            cure="stop what trains, move the folder to a local disk, and name that in "
            "FLIGHTLOG_HOME",
        )
    if kind in _IN_MEMORY:
        yield Advice(
            where="home",
            what=f"it is in memory ({kind})",
            why="all of it is gone when the machine is switched off",
            cure="name a folder on a disk in FLIGHTLOG_HOME, unless that is meant",
            is_note=True,
        )


def _room(home: Home) -> Iterator[Advice]:
    """Tell where what waits has no room in the log and among the blobs."""
    found = os.statvfs(home.root)
    free = found.f_bavail * found.f_frsize
    waiting = sum(
        status.st_size
        for folder in (home.spool, home.inbox)
        for path, status in _within(folder)
        if stat.S_ISREG(status.st_mode) and path.name != "reserve"
    )
    needed = SEGMENT_SIZE_MAX + waiting
    if free < needed:
        yield Advice(
            where="home",
            what=f"{sized(free)} are free on its disk, and {sized(needed)} are needed: "
            f"for the next segment, and {sized(waiting)} that wait in spools and inbox",
            why="a full disk loses what is logged meanwhile; that is counted",
            cure=f"flightlog gc --home {quote(str(home.root))}, or make room",
        )
    if found.f_files and found.f_favail < FREE_FILES_MIN:
        yield Advice(
            where="home",
            what=f"its file system has room for {found.f_favail:,} more files only",
            why="each process that logs, each blob and each part is a file",
            cure="delete small files, or make a file system with more inodes",
        )


def _entries(home: Home) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield all that is the home's own; what lies in files/ is the users'."""
    yield home.root, os.lstat(home.root)
    yield from _within(home.root, {home.root / "files"})


def _within(
    folder: Path, closed: Iterable[Path] = ()
) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what is in a folder, links left out; what goes meanwhile is left out."""
    with suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    continue
                path = Path(entry.path)
                yield path, status
                if stat.S_ISDIR(status.st_mode) and path not in closed:
                    yield from _within(path, closed)
