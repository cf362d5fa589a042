"""`flightlog backup`: a copy of a home that is one itself, made while all goes on."""

import time
from dataclasses import asdict
from pathlib import Path

from flightlog.cli.output import emit, emit_json, sized, talk
from flightlog.cli.progress import progress
from flightlog.errors import BadArgumentError
from flightlog_storage.backup import BackedUp, back_up
from flightlog_storage.home import Home
from flightlog_storage.terminal import plain

__all__ = ("back_up_home",)


def back_up_home(home: Home, name: str, *, as_json: bool) -> bool:
    """Copy a home, say what was copied, and return whether all of it could be.

    Raises:
        BadArgumentError: No folder can have that name.
        HomeLocked, HomeUnusable: The target is no backup of this home.
        OSError: The disk refuses; an earlier backup there is as good as before.
    """
    if not name or "\0" in name:
        raise BadArgumentError(f"a backup needs the name of a folder, not {name!r}")
    started = time.monotonic()
    target = Home(Path(name).absolute())
    with progress("copied", None) as advance:
        done = back_up(home, target, advance)
    seconds = time.monotonic() - started
    if as_json:
        data = {"path": str(target.root), "seconds": round(seconds, 3)}
        emit_json("flightlog.backup/1", data | _data(done))
    else:
        _print(home, target, done, seconds)
    return not done.damaged


def _data(done: BackedUp) -> dict[str, object]:
    return {"blobs_kept" if k == "kept" else k: v for k, v in asdict(done).items()}


def _print(home: Home, target: Home, done: BackedUp, seconds: float) -> None:
    for what in done.damaged:
        talk(f"damaged: {what}")
    emit(
        f"backed up {plain(str(home.root))} in {plain(str(target.root))}: "
        f"{sized(done.size)} in {done.segments:,} segments, {done.blobs:,} blobs and "
        f"{done.inbox:,} files that wait, of {done.spools:,} writers; {done.kept:,} "
        f"blobs were there ({seconds:.1f} s)"
    )
