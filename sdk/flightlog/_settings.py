"""What the environment says; read here and nowhere else."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from flightlog._checks import check_name, check_path
from flightlog._disk import make_home
from flightlog.errors import UsageError
from flightlog_storage.disk import parse_size
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home, choose_home
from flightlog_storage.process import parent_process
from flightlog_storage.spool_room import SpoolCaps

__all__ = (
    "MODES",
    "Settings",
    "default_entity",
    "default_project",
    "describe_process",
    "find_home",
    "find_workspace",
    "job_id",
    "new_id",
    "open_home",
    "read_settings",
)

MODES = ("online", "offline", "disabled", "shared")
_RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "TORCHELASTIC_RUN_ID")


class Settings(msgspec.Struct, frozen=True):
    """Defaults for `init()`, from FLIGHTLOG_* and the launcher's variables."""

    entity: str
    project: str
    run_id: str | None
    name: str | None
    group: str | None
    job_type: str | None
    notes: str | None
    tags: tuple[str, ...] | None
    mode: str
    resume: str | None
    rank: int | None
    quiet: bool
    low_water: int | None
    caps: SpoolCaps


def read_settings() -> Settings:
    """Return what the environment says now.

    Raises:
        UsageError: A variable has a value that cannot be.
    """
    env = os.environ
    mode = env.get("FLIGHTLOG_MODE", "online")
    if mode not in MODES:
        raise UsageError(f"FLIGHTLOG_MODE is {mode!r}; it must be one of {MODES}")
    tags = env.get("FLIGHTLOG_TAGS")
    return Settings(
        entity=default_entity(),
        project=default_project(),
        run_id=env.get("FLIGHTLOG_RUN_ID") or None,
        name=env.get("FLIGHTLOG_NAME") or None,
        group=env.get("FLIGHTLOG_RUN_GROUP") or None,
        job_type=env.get("FLIGHTLOG_JOB_TYPE") or None,
        notes=env.get("FLIGHTLOG_NOTES") or None,
        tags=tuple(tag.strip() for tag in tags.split(",")) if tags else None,
        mode="disabled" if env.get("FLIGHTLOG_DISABLED") in ("1", "true") else mode,
        resume=env.get("FLIGHTLOG_RESUME") or None,
        rank=_rank(),
        quiet=env.get("FLIGHTLOG_QUIET") in ("1", "true"),
        low_water=_size("FLIGHTLOG_LOW_WATER"),
        caps=_caps(),
    )


def open_home(explicit: str | os.PathLike[str] | None) -> Home:
    """Return the home to use, its folders made if the disk has room for them.

    Raises:
        TypeError: It is no path.
        UsageError: It cannot be used; says why and what to do.
    """
    if explicit is not None and not isinstance(explicit, str | os.PathLike):
        raise TypeError(f"home must be a path, not {explicit!r}")
    if "\0" in os.fspath(explicit or ""):
        raise UsageError(f"home {explicit!r} holds a null character")
    try:
        home = choose_home(explicit, os.environ)
        with suppress(OSError):  # The run will tell.
            make_home(home)
    except HomeUnusable as error:
        raise UsageError(
            f"home {error}; choose another with home=… or FLIGHTLOG_HOME"
        ) from error
    return home


def find_home(explicit: str | os.PathLike[str] | None) -> Home:
    """Return the home to read from, nothing made."""
    return choose_home(explicit, {**os.environ, "FLIGHTLOG_ALLOW_NETWORK_FS": "1"})


def find_workspace(given: str | os.PathLike[str] | None) -> Path:
    """Return the folder of a run's code.

    That is the one given; else the nearest with a `.git` from the working folder
    upwards; else the working folder.

    Raises:
        TypeError: It is no path.
        ValueError: It is empty, or nothing can be called so.
    """
    if given is None:
        here = Path(_working_folder())
        found = (each for each in (here, *here.parents) if (each / ".git").exists())
        return next(found, here)
    path = check_path("workspace_root", given)
    return Path(os.path.realpath(os.path.expanduser(path)))


def default_entity() -> str:
    """Return whose runs they are when nobody says so."""
    named = os.environ.get("FLIGHTLOG_ENTITY")
    if named:
        return check_name("entity", named)
    import getpass  # Late: `import flightlog` has to be light.

    try:
        return check_name("entity", getpass.getuser())
    except (OSError, KeyError, UsageError):
        return "local"  # A uid without a name, as in many containers.


def default_project() -> str:
    """Return the project of runs without one."""
    named = os.environ.get("FLIGHTLOG_PROJECT")
    return check_name("project", named) if named else "uncategorized"


def describe_process() -> dict[str, str]:
    """Return what a run's metadata says of the process: no arguments, no variables."""
    system = os.uname()
    return {
        "os": f"{system.sysname} {system.release} {system.machine}",
        "python": sys.version.split()[0],
        "program": sys.argv[0] if sys.argv else "",
        "executable": sys.executable or "",
        "host": system.nodename,
        "cwd": _working_folder(),
    }


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""  # It was deleted under us.


def job_id() -> str:
    """Return a run id that all ranks of the launcher's job derive alike.

    Raises:
        UsageError: No launcher can be seen.
    """
    for variable in _JOB_VARIABLES:
        value = os.environ.get(variable)
        if value and value != "none":  # torchrun's --rdzv-id when none was given.
            return _digest(f"{variable}={value}")
    port = os.environ.get("MASTER_PORT")
    if port:  # A launcher without an id, on this machine: its ranks have one parent.
        parent = parent_process()
        return _digest(f"{port} {parent.boot_id} {parent.pid} {parent.start_time}")
    raise UsageError(
        "shared=True needs a launcher's job id to derive the run id from: none of "
        f"{', '.join(_JOB_VARIABLES)}, MASTER_PORT is set; pass id=… instead"
    )


def _rank() -> int | None:
    for variable in _RANK_VARIABLES:
        value = os.environ.get(variable)
        if value:
            if not value.isdecimal():
                raise UsageError(f"{variable} is {value!r}; it must be a number")
            return int(value)
    return None


def _caps() -> SpoolCaps:
    found = {
        "own": _size("FLIGHTLOG_SPOOL_SIZE_MAX"),
        "all": _size("FLIGHTLOG_SPOOLS_SIZE_MAX"),
    }
    return SpoolCaps(**{what: size for what, size in found.items() if size is not None})


def _size(variable: str) -> int | None:
    text = os.environ.get(variable)
    size = parse_size(text) if text else None
    if text and size is None:
        raise UsageError(f"{variable} is {text!r}; it must be a size, such as 64MiB")
    return size


def new_id() -> str:
    """Return a random run id: 8 characters of 0-9 and a-z."""
    return _letters(os.urandom(8))


def _digest(text: str) -> str:
    import hashlib  # Late: `import flightlog` has to be light.

    return _letters(hashlib.sha256(text.encode()).digest()[:8])


def _letters(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    letters = "0123456789abcdefghijklmnopqrstuvwxyz"
    return "".join(letters[number // 36**place % 36] for place in range(8))
