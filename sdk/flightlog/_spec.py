"""What `init()` was asked for: which run to open, and what is known of it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from flightlog._checks import check_bool, check_name, check_tags
from flightlog._config import as_config
from flightlog._settings import (
    Settings,
    describe_process,
    find_workspace,
    job_id,
    new_id,
    open_home,
)
from flightlog._values import plain, plain_text
from flightlog.errors import UsageError
from flightlog_storage.home import Home
from flightlog_storage.spool_room import SpoolCaps

__all__ = ("RESUME", "RunSpec", "check_snapshot", "describe", "make_spec")

TEXT_LENGTH_MAX = 1 << 20
RESUME = (None, "allow", "must", "never", "auto", True, False)


class RunSpec(msgspec.Struct, frozen=True):
    """What `init()` found out about the run that it opens."""

    home: Home
    entity: str
    project: str
    id: str
    name: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] | None = None
    group: str | None = None
    job_type: str | None = None
    rank: int = 0
    resumed: bool = False
    first_step: int = 0
    allow_val_change: bool = False
    forked: bool = False
    quiet: bool = False
    low_water: int | None = None
    caps: SpoolCaps = SpoolCaps()
    workspace: Path = Path()

    @property
    def path(self) -> str:
        return f"{self.entity}/{self.project}/{self.id}"


def make_spec(
    arguments: Mapping[str, Any], settings: Settings, shared: bool
) -> tuple[RunSpec, dict[str, Any]]:
    """Return what run the arguments and the environment ask for, and its config."""
    project = arguments["project"]
    if project is not None and arguments["path"] is not None:
        raise UsageError("path is another word for project: give one of them")
    what = "project" if arguments["path"] is None else "path"
    project = project if project is not None else arguments["path"]
    if arguments["resume"] not in RESUME:
        raise UsageError(f"resume {arguments['resume']!r} is none of {RESUME}")
    given_id = arguments["id"] if arguments["id"] is not None else settings.run_id
    if given_id is None and shared:
        given_id = job_id()
    rank = arguments["rank"] if arguments["rank"] is not None else settings.rank
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int)):
        raise TypeError(f"rank must be an int, not {rank!r}")
    if rank is not None and not 0 <= rank < 2**31:
        raise ValueError(f"rank must be from 0 to 2**31 - 1, not {rank}")
    tags = arguments["tags"] if arguments["tags"] is not None else settings.tags
    given = as_config(arguments["config"])
    config = {key: plain(key, value) for key, value in given.items()}
    allow = arguments["allow_val_change"]
    spec = RunSpec(
        home=open_home(arguments["home"]),
        entity=_named("entity", arguments["entity"], settings.entity),
        project=_named("project", project, settings.project, what),
        id=new_id() if given_id is None else check_name("id", given_id),
        name=_text("name", arguments["name"], settings.name),
        notes=_text("notes", arguments["notes"], settings.notes),
        tags=None if tags is None else check_tags(tags),
        group=_text("group", arguments["group"], settings.group),
        job_type=_text("job_type", arguments["job_type"], settings.job_type),
        rank=rank or 0,
        allow_val_change=hasattr(sys, "ps1") if allow is None else bool(allow),
        quiet=settings.quiet,
        low_water=settings.low_water,
        caps=settings.caps,
        workspace=find_workspace(arguments["workspace_root"]),
    )
    return spec, config


def check_snapshot(arguments: Mapping[str, Any]) -> None:
    """Check what `init()` was told of a code snapshot.

    Raises:
        TypeError: A switch is no bool.
        ValueError: The format is another than "zip".
    """
    for what in ("snapshot_code", "force_snapshot"):
        check_bool(what, arguments[what])
    given = arguments["snapshot_format"]
    if not isinstance(given, str) or given != "zip":
        raise ValueError(
            f"snapshot_format currently only supports 'zip', not {given!r}"
        )


def _named(what: str, given: object, default: str, called: str | None = None) -> str:
    return default if given is None else check_name(what, given, called)


def _text(what: str, given: object, default: str | None) -> str | None:
    if given is None:
        return default
    if not isinstance(given, str):
        raise TypeError(f"{what} must be a str, not {type(given).__qualname__}")
    if len(given) > TEXT_LENGTH_MAX:
        raise ValueError(
            f"{what} has {len(given):,} characters; at most {TEXT_LENGTH_MAX:,} can be "
            "stored"
        )
    return plain_text(given)


def describe(spec: RunSpec) -> dict[str, Any]:
    """Return what the first writer of a process says of the run."""
    return {
        "name": spec.name,
        "notes": spec.notes,
        "tags": None if spec.tags is None else list(spec.tags),
        "group": spec.group,
        "job_type": spec.job_type,
        "resumed": spec.resumed,
        "metadata": describe_process(),
    }
