"""The functions of the module `flightlog`: the active run without naming it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flightlog._disabled import DisabledRun
from flightlog._run import Run
from flightlog._session import session
from flightlog.errors import UsageError

__all__ = (
    "active_run",
    "alert",
    "define_metric",
    "finish",
    "init",
    "log",
    "mark_preempting",
)


# The signature is W&B's, which users know.
def init(  # noqa: PLR0913
    project: str | None = None,
    *,
    path: str | None = None,
    name: str | None = None,
    id: str | None = None,
    entity: str | None = None,
    config: object = None,
    tags: Sequence[str] | None = None,
    notes: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    resume: Literal["allow", "must", "never", "auto"] | bool | None = None,
    rank: int | None = None,
    shared: bool = False,
    mode: Literal["online", "offline", "disabled", "shared"] | None = None,
    home: str | os.PathLike[str] | None = None,
    reinit: str | bool | None = None,
    allow_val_change: bool | None = None,
) -> Run:
    """Start a run and make it the active one; waits for nothing, not even the daemon.

    What is not given here comes from the environment (FLIGHTLOG_PROJECT,
    FLIGHTLOG_ENTITY, FLIGHTLOG_RUN_ID, FLIGHTLOG_NAME, FLIGHTLOG_RUN_GROUP,
    FLIGHTLOG_JOB_TYPE, FLIGHTLOG_NOTES, FLIGHTLOG_TAGS, FLIGHTLOG_MODE,
    FLIGHTLOG_RESUME, FLIGHTLOG_HOME), then from the defaults.

    Args:
        project: Groups runs; may hold slashes. By default "uncategorized".
        path: Another word for `project`.
        name: What people call the run; by default made from the id.
        id: Names the run for machines; by default 8 random characters. Joining a run
            that is running simply works: each process is a writer of its own.
        entity: Whose run it is; by default the name of the OS user.
        config: A dict or an argparse namespace.
        tags: Words to find the run by, each of 1 to 64 characters.
        notes: A longer text.
        group: Groups runs within a project.
        job_type: Such as "train" or "eval".
        resume: "allow" continues the run `id` at its last step + 1 with its config,
            summary and tags if it exists; "must" raises if it does not and "never" if
            it does; "auto" continues this folder's last run unless that ended well.
        rank: Which of several processes this is; by default RANK or SLURM_PROCID.
        shared: Whether the run id is derived from the launcher's job id, so that all
            ranks meet in one run.
        mode: "disabled" records nothing; "offline" is "online", which needs no network.
        home: The folder of the log; by default FLIGHTLOG_HOME or the user's own.
        reinit: With a run active: "return_previous" (the default in scripts),
            "finish_previous" (in notebooks) or "create_new".
        allow_val_change: Whether config keys may change their value.

    Raises:
        TypeError: An argument has a wrong type.
        UsageError: An argument has a wrong value, or the home cannot be used.
    """
    return session.init(dict(locals()))  # type: ignore[return-value]  # Or its double.


def active_run() -> Run | DisabledRun | None:
    """Return the active run, if there is one."""
    return session.run


def log(
    data: Mapping[str, Any], step: int | None = None, commit: bool | None = None
) -> None:
    """Record one row in the active run; see `Run.log`."""
    _active("log").log(data, step, commit)


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """End the active run, if there is one; see `Run.finish`."""
    if session.run is not None:
        session.run.finish(exit_code, quiet)
        session.run = None


def define_metric(name: str, *args: Any, **rest: Any) -> Any:
    """Say how a metric is summarised; see `Run.define_metric`."""
    return _active("define_metric").define_metric(name, *args, **rest)


def alert(title: str, *args: Any, **rest: Any) -> None:
    """Ask a person to look; see `Run.alert`."""
    _active("alert").alert(title, *args, **rest)


def mark_preempting() -> None:
    """Say that the active run expects to be preempted."""
    _active("mark_preempting").mark_preempting()


def _active(what: str) -> Run | DisabledRun:
    if session.run is None:
        raise UsageError(f"call flightlog.init() before flightlog.{what}()")
    return session.run
