"""`flightlog doctor`: what a home needs, and what mends it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from flightlog.cli.blob_checks import cure_of_blob
from flightlog.cli.checking import find_problems, lost_line
from flightlog.cli.daemon_checks import ask_daemon, check_daemon, is_served
from flightlog.cli.findings import REPLAY, Advice, Findings, Problem, cost_of
from flightlog.cli.leftover_checks import check_leftovers
from flightlog.cli.machine_checks import check_machine
from flightlog.cli.output import emit, emit_json, talk
from flightlog.cli.place_checks import check_place
from flightlog_storage.home import Home
from flightlog_storage.scrub import fault_of
from flightlog_storage.scrubbing import read_scrubbing
from flightlog_storage.terminal import plain

__all__ = ("examine_home",)

RESTORE = "while no daemon runs, copy it from a flightlog backup"
# A copy that is shorter lacks what came since: it would cost more than it mends.
RESTORE_SEGMENT = (
    "while no daemon runs, delete it and copy it from a flightlog backup whose copy "
    "ends in .logz or is no shorter; then flightlog replay"
)


def examine_home(home: Home, *, full: bool, as_json: bool) -> bool:
    """Examine a home, print what there is to do, and return whether that is nothing."""
    found = find_problems(home, full=full)
    if not full:
        found.problems += _scrubbed(home)
    advice = [*_of_findings(found), *_around(home, time.time())]
    to_do = [each for each in advice if not each.is_note]
    if as_json:
        data = {
            "sound": not to_do,
            "full": full,
            "checked": found.counts,
            "findings": [_data(each) for each in advice],
        }
        emit_json("flightlog.doctor/1", data)
    else:
        _print(home, found, to_do, [each for each in advice if each.is_note])
    return not to_do


def _around(home: Home, now: float) -> Iterator[Advice]:
    """Yield what is to be done about all but damage."""
    status = ask_daemon(home)
    yield from check_place(home)
    yield from check_daemon(home, status, now)
    yield from check_leftovers(home, is_served=is_served(home), now=now)
    yield from check_machine(home, None if status is None else status.pid, now)


def _scrubbed(home: Home) -> Iterator[Problem]:
    """Yield what the daemon found damaged when it last read all, and still is."""
    scrubbing = read_scrubbing(home.scrubbing)
    for name in () if scrubbing is None else scrubbing.known:
        if not name.startswith("log/") and (what := fault_of(home, name)):
            is_blob = name.startswith("blobs/")
            cure = cure_of_blob(home.root / name) if is_blob else REPLAY
            yield Problem(name, what, cure=cure)


def _of_findings(findings: Findings) -> Iterator[Advice]:
    yield from map(_of_problem, findings.problems)
    if findings.lost:
        yield Advice(
            where="log",
            what=lost_line(findings.lost),
            why="they cannot be had any more; all else of these runs can",
            cure="flightlog verify --full says for what reasons",
            is_note=True,
        )


def _of_problem(problem: Problem) -> Advice:
    of_run = f" of {problem.run}" if problem.run else ""
    return Advice(
        where=problem.where,
        what=f"damaged: {problem.what}",
        why=f"it costs: {cost_of(problem)}{of_run}",
        cure=problem.cure or _restored(problem.where),
    )


def _restored(where: str) -> str:
    return RESTORE_SEGMENT if where.startswith("log/") else RESTORE


def _data(advice: Advice) -> dict[str, Any]:
    data = asdict(advice)
    return {"level": "note" if data.pop("is_note") else "to do"} | data


def _print(
    home: Home, found: Findings, to_do: Sequence[Advice], notes: Sequence[Advice]
) -> None:
    for word, advice in (("to do", to_do), ("note", notes)):
        for each in advice:
            emit(plain(f"{word}: {each.where}: {each.what}"))
            emit(plain(f"  why:  {each.why}"))
            emit(plain(f"  cure: {each.cure}"))
    counts = ", ".join(f"{count:,} {name}" for name, count in found.counts.items())
    if to_do:
        things = "thing" if len(to_do) == 1 else "things"
        talk(f"{len(to_do)} {things} to do in {plain(str(home.root))} ({counts})")
    else:
        emit(f"nothing to do: {plain(str(home.root))} ({counts})")
