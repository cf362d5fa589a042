"""The event log checked: what of it is damaged, and whose events that cost."""

import sqlite3
from pathlib import Path

from flightlog.cli.findings import Findings, Problem, listed
from flightlog_storage.checkpoint import Checkpoint, read_checkpoint
from flightlog_storage.codec import run_of
from flightlog_storage.database import Database
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.home import Home
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame
from flightlog_storage.segment import Damage, DamageKind, first_offset_of
from flightlog_storage.verification import SequenceHole, VerifyReport, verify

__all__ = ("check_log", "check_set_aside")

_SET_ASIDE = "the next start of the daemon sets it aside"


def check_log(home: Home, findings: Findings) -> None:
    """Read every frame of the log and compare its checksums."""
    folded = read_checkpoint(home.state)
    if not home.log.is_dir():
        what = "the event log is gone"
        findings.problems.append(Problem("log", what, events=folded.offset or None))
        return
    if folded.log_id not in ("", LogReader(home.log).log_id.hex()):
        what = "this is not the log that state.db was made from: that one is gone"
        findings.problems.append(Problem("log", what, events=folded.offset))
        folded = Checkpoint()
    report = verify(home.log)
    findings.counts |= {
        "segments": report.segments,
        "frames": report.frames,
        "events": report.events,
        "bytes": report.size,
    }
    damages = [each for each in report.damages if not _is_live(home, each, folded)]
    holes = [hole for hole in report.holes if not _is_told(hole, report)]
    torn = [each for each in damages if each.kind is DamageKind.TORN]
    lacking = _lacking(home, folded) - sum(each.count or 0 for each in torn)
    if damages or holes:
        runs = _runs_of_writers(home)
        findings.problems += [_of_damage(each, runs, folded) for each in damages]
        findings.problems += [_of_hole(hole, runs) for hole in holes]
    if lacking > 0:
        what = "the log ends before what state.db was made from: its end is gone"
        findings.problems.append(Problem("log", what, events=lacking))


def check_set_aside(home: Home, findings: Findings) -> None:
    """Tell of what was folded from logs that are gone, as long as it is kept.

    It is no damage of the log that is there now, and no reason not to replay that.
    """
    for folder in sorted(home.quarantine.glob("projections-*")):
        folded = read_checkpoint(folder / "state.db")
        runs = _folded_paths(folder / "state.db")
        what = "these states and histories were made from a log that is gone or was cut"
        findings.problems.append(
            Problem(
                f"quarantine/{folder.name}",
                listed(f"{what}; runs in them", runs) if runs else what,
                run=runs[0] if len(runs) == 1 else None,
                events=folded.offset or None,
                cure=f"delete {folder} when you need it no more",
            )
        )


def _was_durable(damage: Damage, folded: Checkpoint) -> bool:
    place = LogPosition(first_offset_of(damage.segment) or 0, damage.position)
    return place < _place(folded)


def _is_live(home: Home, damage: Damage, folded: Checkpoint) -> bool:
    """Whether this is the end of the log that a daemon is writing just now."""
    info = home.daemon()
    return (
        damage.kind is DamageKind.TORN
        and info is not None
        and info.process.is_alive()
        and not _was_durable(damage, folded)
    )


def _is_told(hole: SequenceHole, report: VerifyReport) -> bool:
    """Whether a damage says what a hole in the writer's sequence says again."""
    found = (hole.writer, hole.sequence, hole.count)
    return any(
        (each.writer, each.sequence, each.count) == found for each in report.damages
    )


def _lacking(home: Home, folded: Checkpoint) -> int:
    """Return how many events the log lacks that the projections have seen."""
    reader = LogReader(home.log)
    end = reader.end_position()
    if end is None or _place(folded) <= end:
        return 0
    offset = 0
    for item in reader.read():
        if isinstance(item, StoredFrame):
            offset = item.frame.offset_end
    return max(1, folded.offset - offset)


def _place(checkpoint: Checkpoint) -> LogPosition:
    return LogPosition(checkpoint.segment_first_offset, checkpoint.position)


def _runs_of_writers(home: Home) -> dict[WriterId, str]:
    """Return the run of each writer, as its frames say, or else state.db."""
    runs: dict[WriterId, str] = {}
    for item in LogReader(home.log).read():
        if not isinstance(item, StoredFrame) or item.frame.writer in runs:
            continue
        try:
            key = run_of(item.payload())
        except CorruptData:
            continue
        if key is not None:
            runs[item.frame.writer] = "/".join(key[:3])
    return _folded_runs(home) | runs


def _folded_runs(home: Home) -> dict[WriterId, str]:
    runs: dict[WriterId, str] = {}
    try:
        with Database.open_reader(home.state) as database:
            for row in database.find_runs():
                state = database.load_run_by_number(row.number)
                path = f"{row.entity}/{row.project}/{row.id}"
                runs |= dict.fromkeys(() if state is None else state.writers, path)
    except (HomeUnusable, sqlite3.Error):
        pass  # Told where the projections are checked.
    return runs


def _folded_paths(state: Path) -> list[str]:
    """Return the runs in a database that was set aside, as far as it can be read."""
    try:
        with Database.open_reader(state) as database:
            return [f"{r.entity}/{r.project}/{r.id}" for r in database.find_runs()]
    except (HomeUnusable, CorruptData, sqlite3.Error):
        return []


def _of_damage(
    damage: Damage, runs: dict[WriterId, str], folded: Checkpoint
) -> Problem:
    what = damage.why
    cure = None
    if damage.kind is DamageKind.TORN:
        what = f"the end of the log cannot be read: {what}"
        cure = _SET_ASIDE
        if not _was_durable(damage, folded):
            cure += (
                "; if a crash cut it, it was never acknowledged, and what it held is "
                "in its writers' spools"
            )
    return Problem(
        where=f"log/{damage.segment}, byte {damage.position}",
        what=what,
        run=None if damage.writer is None else runs.get(damage.writer),
        events=damage.count,
        cure=cure,
    )


def _of_hole(hole: SequenceHole, runs: dict[WriterId, str]) -> Problem:
    return Problem(
        where=f"writer {hole.writer.hex()}, sequence {hole.sequence}",
        what="events are missing",
        run=runs.get(hole.writer),
        events=hole.count,
    )
