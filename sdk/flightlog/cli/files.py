"""What was made from the event log, and what is not in it yet, checked."""

import sqlite3
from contextlib import closing
from pathlib import Path

from flightlog.cli.findings import REPLAY, Findings, Problem, listed
from flightlog_storage.connection import connect_reader
from flightlog_storage.database import Database, RunRow, SavedPart
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.home import Home
from flightlog_storage.part_reader import verify_part
from flightlog_storage.projector import part_folder
from flightlog_storage.spool import read_owner
from flightlog_storage.spool_reader import SpoolReader

__all__ = ("check_projections", "check_spools")


def check_projections(home: Home, findings: Findings, *, full: bool) -> None:
    if not home.state.exists() or not home.state.stat().st_size:
        findings.notes.append("nothing is folded yet: state.db is not there, or empty")
        return
    try:
        with Database.open_reader(home.state) as database:
            _check_parts(home, database, findings, full=full)
            if full:
                _note_losses(database, findings)
                _check_database(home, database)
    except (HomeUnusable, CorruptData, sqlite3.Error, ValueError) as error:
        findings.problems.append(Problem("state.db", str(error), cure=REPLAY))


def _check_database(home: Home, database: Database) -> None:
    for row in database.find_runs():
        database.load_run_by_number(row.number)
    with closing(connect_reader(home.state)) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if answer != "ok":
        raise CorruptData("state.db", 0, answer)


def _check_parts(
    home: Home, database: Database, findings: Findings, *, full: bool
) -> None:
    parts = database.parts()
    runs = {row.number: _path(row) for row in database.find_runs()}
    findings.counts["parts"] = len(parts)
    findings.counts["points"] = sum(part.points for part in parts)
    for part in parts:
        path = part_folder(home, part.run) / part.name
        what = _part_problem(path, part, full=full)
        if what and part in database.parts(part.run):  # Not merged meanwhile.
            findings.problems.append(
                Problem(
                    where=str(path.relative_to(home.root)),
                    what=what,
                    run=runs.get(part.run),
                    points=part.points,
                    cure=REPLAY,
                )
            )
    if full:
        _note_orphans(home, {(str(part.run), part.name) for part in parts}, findings)


def _part_problem(path: Path, part: SavedPart, *, full: bool) -> str | None:
    """Return what is wrong with a part, if anything is."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "the file is missing"
    except OSError as error:
        return str(error)
    if size != part.size:
        return f"the file has {size:,} bytes, not {part.size:,}"
    return "; ".join(verify_part(path, part.sha256)) or None if full else None


def _note_orphans(home: Home, named: set[tuple[str, str]], findings: Findings) -> None:
    orphans = [
        str(path.relative_to(home.root))
        for path in sorted(home.histories.glob("*/*"))
        if (path.parent.name, path.name) not in named
    ]
    if orphans:
        what = "files in histories are in no run: being written now, or left by a crash"
        findings.notes.append(listed(f"{len(orphans)} {what}", orphans))


def _note_losses(database: Database, findings: Findings) -> None:
    letters = database.dead_letters()
    if letters:
        reasons = [f"offset {each.offset}: {each.reason}" for each in letters]
        findings.notes.append(listed(f"{len(letters)} events were refused", reasons))
    gaps = database.gaps()
    if gaps:
        runs = {row.number: _path(row) for row in database.find_runs()}
        texts = [
            f"{gap.count or 'an unknown number'} of "
            f"{runs.get(gap.run, 'an unknown run') if gap.run is not None else '?'}: "
            f"{gap.why}"
            for gap in gaps
        ]
        findings.notes.append(listed("events known to be lost", texts))


def check_spools(home: Home, findings: Findings) -> None:
    folders = sorted(home.spool.glob("[!.]*"))
    findings.counts["spools"] = len(folders)
    for folder in folders:
        problem = _spool_problem(folder)
        if problem is not None and folder.exists():
            findings.problems.append(problem)
    aside = sorted(path.name for path in home.quarantine.glob("*"))
    if aside:
        what = f"{len(aside)} damaged files were set aside in quarantine"
        findings.notes.append(listed(what, aside))


def _spool_problem(folder: Path) -> Problem | None:
    where = f"spool/{folder.name}"
    try:
        owner = read_owner(folder)
    except ValueError:  # Text in it is not UTF-8 any more.
        owner = None
    if owner is None:
        return Problem(where, "it does not say whose it is")
    run = "/".join(owner.run[:3])
    if not any(folder.glob("*.chunk")):
        return Problem(where, "its chunks are gone, and what they held with them", run)
    try:
        with closing(SpoolReader(folder, is_onlooker=True)) as reader:
            while reader.cut() is not None:
                pass
            damage = reader.damage
    except OSError as error:
        return Problem(where, str(error), run)
    return None if damage is None else Problem(where, damage, run)


def _path(row: RunRow) -> str:
    return f"{row.entity}/{row.project}/{row.id}"
