"""`flightlog jobs`: what is owed, listed, and waited for."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flightlog._daemon import DaemonStarter, find_socket
from flightlog.apis.public.waiting import watch_home
from flightlog.cli.output import (
    age,
    emit,
    emit_json,
    emit_table,
    is_terminal,
    iso,
    shown,
    sized,
    talk,
)
from flightlog.cli.owing import FailedJob, Jobs, OwedJob, read_jobs
from flightlog_storage.home import Home
from flightlog_storage.progress import Progress
from flightlog_storage.terminal import plain

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ("list_jobs", "wait_for_jobs")

FAILED_SHOWN_MAX = 10
LOOK_INTERVAL_S = 1.0


def list_jobs(home: Home, *, as_json: bool) -> None:
    """Print what is owed in a home, and what failed."""
    jobs = read_jobs(home)
    if as_json:
        emit_json("flightlog.jobs/1", _data(jobs))
        return
    now = time.time()
    if jobs.owed:
        header = ["STATE", "JOB", "NAME", "RUN", "SINCE", "DONE"]
        emit_table(header, [_line(job, now) for job in jobs.owed])
    talk(_summary(jobs))
    _tell_failed(jobs.failed)


def wait_for_jobs(home: Home, *, as_json: bool) -> bool:
    """Wait until nothing is owed, also of what comes meanwhile; start a daemon if none.

    What is watched as long as its run goes on is not waited for.

    Returns:
        Whether nothing failed meanwhile.
    """
    starter = DaemonStarter(home)
    before = len((jobs := read_jobs(home)).failed)
    with _Waiting() as waiting, watch_home(home) as watch:
        while owed := jobs.ending:
            waiting.show(owed)
            if find_socket(home) is None:
                starter.start(time.monotonic())
            watch.wait(LOOK_INTERVAL_S)
            jobs = read_jobs(home)
    if as_json:
        emit_json("flightlog.jobs/1", _data(jobs))
    else:
        talk(_summary(jobs))
        _tell_failed(jobs.failed[before:])
    return len(jobs.failed) <= before


class _Waiting:
    """What is seen meanwhile: bars on a terminal, elsewhere nothing."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "_Waiting":
        if sys.stderr.isatty():
            # Loaded only here: elsewhere nothing is drawn.
            from rich.console import Console
            from rich.progress import Progress as Bars

            self._bars = Bars(console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, owed: Sequence[OwedJob]) -> None:
        if self._bars is None:
            return
        running = next((job for job in owed if job.progress), owed[0])
        progress = running.progress
        text = f"{len(owed):,} owed; {running.job} {plain(running.name)[:40]}"
        total = None if progress is None else progress.size_total
        if progress is not None:
            text = f"{text}: {_done(progress)}"
        if self._task is None:
            self._task = self._bars.add_task(text, total=total)
        # Brackets in a name are no markup.
        self._bars.update(
            self._task,
            description=text.replace("[", "\\["),
            total=total,
            completed=0 if progress is None else progress.size,
        )


def _summary(jobs: Jobs) -> str:
    states = [_state(job) for job in jobs.owed]
    running, watching = states.count("running"), states.count("watching")
    parts = [f"{running:,} running", f"{states.count('waiting'):,} waiting"]
    parts += [f"{watching:,} watching"] if watching else []
    return f"{', '.join(parts)}, {len(jobs.failed):,} failed"


def _tell_failed(failed: Sequence[FailedJob]) -> None:
    for job in failed[-FAILED_SHOWN_MAX:]:
        what = f"{job.job} {shown(job.name)} of {plain(job.run)}"
        emit(f"failed: {what}, {iso(job.since)}: {plain(job.reason)}")


def _state(job: OwedJob) -> str:
    if job.is_open:
        return "watching"
    return "running" if job.is_running else "waiting"


def _line(job: OwedJob, now: float) -> list[str]:
    return [
        _state(job),
        job.job,
        shown(job.name),
        job.run,
        age(job.since, now) if is_terminal() else iso(job.since),
        "" if job.progress is None else _done(job.progress),
    ]


def _done(progress: Progress) -> str:
    """Return how far a job is, as people read it."""
    size, files = sized(progress.size), f"{progress.file_count:,}"
    if progress.size_total is not None:
        size = f"{size} of {sized(progress.size_total)}"
    if progress.file_count_total is not None:
        files = f"{files} of {progress.file_count_total:,}"
    return f"{size}, {files} files, {sized(progress.speed)}/s"


def _data(jobs: Jobs) -> dict[str, Any]:
    return {
        "owed": [_owed_data(job) for job in jobs.owed],
        "failed": [asdict(job) | {"since": iso(job.since)} for job in jobs.failed],
    }


def _owed_data(job: OwedJob) -> dict[str, Any]:
    progress = job.progress
    return {
        "state": _state(job),
        "job": job.job,
        "name": job.name,
        "run": job.run,
        "since": iso(job.since) or None,
        "progress": progress
        and {
            "bytes": progress.size,
            "bytes_total": progress.size_total,
            "files": progress.file_count,
            "files_total": progress.file_count_total,
            "bytes_per_second": round(progress.speed),
            "told_at": iso(progress.told_at),
        },
    }
