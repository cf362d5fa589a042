"""`flightlog verify`: whether what lies on disk is sound, and what damage cost."""

from collections.abc import Iterator
from dataclasses import asdict

from flightlog.cli.damages import check_log
from flightlog.cli.files import check_projections, check_spools
from flightlog.cli.findings import Findings, Problem
from flightlog.cli.output import emit, emit_json, plain, talk
from flightlog_storage.home import Home

__all__ = ("check_home",)


def check_home(home: Home, *, full: bool, as_json: bool) -> bool:
    """Check a home, print what was found, and return whether it is sound."""
    findings = Findings()
    check_log(home, findings)
    check_projections(home, findings, full=full)
    if full:
        check_spools(home, findings)
    if as_json:
        data = {
            "sound": not findings.problems,
            "full": full,
            "checked": findings.counts,
            "problems": [asdict(problem) for problem in findings.problems],
            "notes": findings.notes,
        }
        emit_json("flightlog.verify/1", data)
    else:
        _print(home, findings)
    return not findings.problems


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
        emit(f"sound: {home.root} ({checked})")


def _problem_lines(problem: Problem) -> Iterator[str]:
    yield plain(f"damaged: {problem.where}: {problem.what}")
    lost = _lost(problem)
    yield plain(f"  run:  {problem.run or 'not known'}")
    yield f"  cost: {lost}"
    if problem.cure:
        yield plain(f"  cure: {problem.cure}")


def _lost(problem: Problem) -> str:
    if problem.points is not None:
        return f"{problem.points:,} points, until it is made anew"
    if problem.events is None:
        return "not known"
    return f"{problem.events:,} events"
