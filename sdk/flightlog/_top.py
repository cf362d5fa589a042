"""The functions of the module `flightlog`: the active run without naming it."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from flightlog._disabled import DisabledRun
from flightlog._run import Run
from flightlog._session import session
from flightlog._wandb import take_wandb_arguments
from flightlog.errors import UsageError

if TYPE_CHECKING:
    from flightlog._artifact import Artifact

__all__ = (
    "active_run",
    "alert",
    "define_metric",
    "finish",
    "init",
    "log",
    "log_artifact",
    "mark_preempting",
    "save",
    "use_artifact",
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
    snapshot_code: bool = False,
    workspace_root: str | os.PathLike[str] | None = None,
    snapshot_format: Literal["zip"] = "zip",
    force_snapshot: bool = False,
    **wandb_arguments: Any,
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
        snapshot_code: Whether the code is kept with the run, as `code/snapshot.zip`: it
            is looked through now and packed in the background. Rank 0 does it for all.
        workspace_root: Where the code is; by default the nearest folder with a `.git`
            from the working folder upwards, else the working folder.
        snapshot_format: "zip".
        force_snapshot: Whether the code may have any size; by default it is at most
            200,000 files of 500 MiB.
        wandb_arguments: More that `wandb.init` takes: `config_exclude_keys` and
            `config_include_keys` are heard, `save_code` is another word for
            `snapshot_code`; what has no meaning here is told once.

    Raises:
        TypeError: An argument has a wrong type.
        UsageError: An argument has a wrong value, or the home cannot be used.
        ValueError: The code is too large, or another format is asked for.
        OSError: The folder of the code is not there, or none.
    """
    return session.init(take_wandb_arguments(dict(locals())))  # type: ignore[return-value]  # Or its double.


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


def log_artifact(artifact_or_path: Any, *args: Any, **rest: Any) -> "Artifact":
    """Log an artifact as an output of the active run; see `Run.log_artifact`."""
    return _active("log_artifact").log_artifact(artifact_or_path, *args, **rest)


def use_artifact(artifact_or_name: Any, *args: Any, **rest: Any) -> "Artifact":
    """Declare an artifact an input of the active run; see `Run.use_artifact`."""
    return _active("use_artifact").use_artifact(artifact_or_name, *args, **rest)


def save(glob_str: Any, *args: Any, **rest: Any) -> list[str]:
    """Keep files with the active run; see `Run.save`."""
    return _active("save").save(glob_str, *args, **rest)


def _active(what: str) -> Run | DisabledRun:
    if session.run is None:
        raise UsageError(f"call flightlog.init() before flightlog.{what}()")
    return session.run
