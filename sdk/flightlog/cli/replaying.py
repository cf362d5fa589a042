"""`flightlog replay`: projections made anew from the event log."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flightlog.cli.damages import check_log
from flightlog.cli.findings import Findings
from flightlog.cli.output import emit, emit_json
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home, HomeLock
from flightlog_storage.logreader import LogReader
from flightlog_storage.projector import Projector, reset_projections

__all__ = ("replay_home",)


def replay_home(home: Home, *, is_forced: bool, as_json: bool) -> None:
    """Delete the projections of a home, rebuild them, and say what there is.

    Raises:
        HomeLocked: A daemon serves the home.
        HomeUnusable: Its log is damaged, or its projections cannot be written.
    """
    started = time.monotonic()
    with _alone(home):
        end = LogReader(home.log).end_position()  # Before anything is deleted.
        if not is_forced:
            _check_log(home)
        reset_projections(home)
        projector = Projector(home)
        try:
            while end is not None and projector.project(end):
                pass
        finally:
            projector.close()
        counts = _counts(home)
    seconds = time.monotonic() - started
    if as_json:
        emit_json("flightlog.replay/1", counts | {"seconds": round(seconds, 3)})
        return
    emit(
        f"replayed {counts['events']:,} events into {counts['runs']:,} runs and "
        f"{counts['parts']:,} parts with {counts['points']:,} points in {seconds:.1f} s"
    )


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Hold what the recorder and the materializer hold while they work.

    Raises:
        HomeLocked: A daemon serves the home.
        HomeUnusable: A materializer is at its last transaction.
    """
    lock = HomeLock(home)
    path = home.root / "materializer.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        why = "the materializer is about to end; try again in a moment"
        raise HomeUnusable(home.root, why) from error
    finally:
        os.close(fd)
        lock.close()


def _check_log(home: Home) -> None:
    findings = Findings()
    check_log(home, findings)
    if findings.problems:
        raise HomeUnusable(
            home.log,
            "the event log is damaged (see flightlog verify): what it lost may be "
            "left in state.db and the parts alone, which a replay deletes; --force "
            "does it all the same",
        )


def _counts(home: Home) -> dict[str, int]:
    with Database.open_reader(home.state) as database:
        parts = database.parts()
        return {
            "events": database.checkpoint().offset,
            "runs": len(database.find_runs()),
            "parts": len(parts),
            "points": sum(part.points for part in parts),
        }
