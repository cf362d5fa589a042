"""Staging: where a process keeps files that are not blobs yet.

Each process has a folder of its own in the home, named by who it is; what the dead left
there was never named by an event, and the daemon sweeps it. A scratch folder is the
same for a file that is to appear in a folder of the user's; the next one there sweeps.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flightlog_storage.process import ProcessIdentity, this_process

__all__ = (
    "SCRATCH_PREFIX",
    "dead_staging",
    "scratch_folder",
    "staging_folder",
    "sweep_staging",
)

SCRATCH_PREFIX = ".flightlog-scratch-"
# Of another boot: it may be another machine's that shares the folder, and lives.
FOREIGN_SCRATCH_AGE_S = 86_400.0


def staging_folder(staging: Path) -> Path:
    """Return this process's folder in `staging`, made if it is not there.

    Raises:
        OSError: It cannot be made.
    """
    folder = staging / _name(this_process())
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def dead_staging(staging: Path) -> list[Path]:
    """Return the folders that dead processes left."""
    try:
        names = sorted(os.listdir(staging))
    except OSError:
        return []  # It is not there yet, or whoever stores something will tell.
    owners = {name: _owner(name) for name in names}
    return [
        staging / name for name, who in owners.items() if who and not who.is_alive()
    ]


def sweep_staging(staging: Path) -> int:
    """Delete what dead processes left; return of how many there was something."""
    dead = dead_staging(staging)
    for folder in dead:
        shutil.rmtree(folder, ignore_errors=True)
    return len(dead)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give a hidden folder in `parent` that is gone afterwards.

    What dead processes left there goes, too.

    Raises:
        OSError: It cannot be made.
    """
    _sweep_scratch(parent)
    name = f"{SCRATCH_PREFIX}{uuid.uuid4().hex}-{_name(this_process())}"
    folder = parent / name
    os.mkdir(folder, mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep_scratch(parent: Path) -> None:
    here = this_process().boot_id
    for name in os.listdir(parent):
        if not name.startswith(SCRATCH_PREFIX):
            continue
        owner = _owner(name.removeprefix(SCRATCH_PREFIX).partition("-")[2])
        if owner is None or owner.is_alive():
            continue
        folder = parent / name
        if owner.boot_id == here or _age_s(folder) > FOREIGN_SCRATCH_AGE_S:
            shutil.rmtree(folder, ignore_errors=True)


def _age_s(path: Path) -> float:
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0  # It is gone.


def _name(owner: ProcessIdentity) -> str:
    return f"{owner.pid}-{owner.start_time}-{owner.pid_namespace}-{owner.boot_id}"


def _owner(name: str) -> ProcessIdentity | None:
    """Return whose folder this is; None for what no process of ours has made."""
    *numbers, boot_id = name.split("-", 3)
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        return None
    pid, start_time, namespace = map(int, numbers)
    return ProcessIdentity(pid, start_time, boot_id, namespace)
