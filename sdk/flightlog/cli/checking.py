"""`flightlog verify`: whether what lies on disk is sound, and what damage cost."""

import sqlite3
from collections.abc import Iterator
from dataclasses import asdict

import msgspec

from flightlog.cli.blob_checks import check_blobs
from flightlog.cli.contents import read_contents
from flightlog.cli.damages import check_log, check_set_aside
from flightlog.cli.files import check_projections, check_spools
from flightlog.cli.findings import REPLAY, Findings, Problem, cost_of, listed
from flightlog.cli.output import emit, emit_json, talk
from flightlog_storage.errors import CorruptData, HomeUnusable
from flightlog_storage.home import Home
from flightlog_storage.terminal import plain

__all__ = ("check_home", "find_problems", "lost_line")


def check_home(home: Home, *, full: bool, as_json: bool) -> bool:
    """Check a home, print what was found, and return whether it is sound."""
    findings = find_problems(home, full=full)
    if as_json:
        data = {
            "sound": not findings.problems,
            "full": full,
            "checked": findings.counts,
            "problems": [asdict(problem) for problem in findings.problems],
            "notes": findings.notes,
            "lost_events": findings.lost,
        }
        emit_json("flightlog.verify/1", data)
    else:
        _print(home, findings)
    return not findings.problems


def find_problems(home: Home, *, full: bool) -> Findings:
    """Return what is damaged in a home, and what was looked at."""
    findings = Findings()
    check_log(home, findings)
    check_set_aside(home, findings)
    check_projections(home, findings, full=full)
    _check_contents(home, findings, full=full)
    if full:
        check_spools(home, findings)
    return findings


def lost_line(lost: dict[str, int]) -> str:
    """Return a line that says how many events of which runs are lost."""
    runs = [f"{count:,} of {run}" for run, count in lost.items()]
    return listed(
        "events of runs that are lost: dropped, refused, damaged or failed", runs
    )


def _check_contents(home: Home, findings: Findings, *, full: bool) -> None:
    try:
        contents = read_contents(home)
        check_blobs(home, contents, findings, full=full)
    except HomeUnusable:
        findings.notes.append(
            "blobs are not checked, for without the log none is known"
        )
        return
    except (CorruptData, sqlite3.Error, ValueError, msgspec.MsgspecError) as error:
        findings.problems.append(Problem("state.db", str(error), cure=REPLAY))
        return
    findings.lost = contents.lost
    if contents.lost:
        findings.notes.append(lost_line(contents.lost))


def _print(home: Home, findings: Findings) -> None:
    for problem in findings.problems:
        emit("\n".join(_problem_lines(problem)))
    for note in findings.notes:
        emit(f"note: {note}")
    counts = findings.counts
    checked = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    if findings.problems:
        count = len(findings.problems)
        places = "damaged place" if count == 1 else "damaged places"
        talk(f"{count} {places} in {home.root} ({checked})")
    else:
        word = "sound, though events are lost" if findings.lost else "sound"
        emit(f"{word}: {home.root} ({checked})")


def _problem_lines(problem: Problem) -> Iterator[str]:
    yield plain(f"damaged: {problem.where}: {problem.what}")
    if problem.run or problem.events != 0:  # Without events it need not be a run's.
        yield plain(f"  run:  {problem.run or 'not known'}")
    yield f"  cost: {cost_of(problem)}"
    if problem.cure:
        yield plain(f"  cure: {problem.cure}")
