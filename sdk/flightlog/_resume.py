"""Resuming: what `init(resume=…)` finds out about the run before it goes on."""

import hashlib
import os
import sys
from pathlib import Path

from msgspec import structs

from flightlog._disk import refuses
from flightlog._say import say
from flightlog._spec import RunSpec
from flightlog.errors import UsageError
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState, State

__all__ = ("resume",)


def resume(spec: RunSpec, how: str | bool) -> tuple[RunSpec, RunState | None]:
    """Return the run to go on with, and what it had, or None where it is new.

    Raises:
        UsageError: "must" and there is no such run, or "never" and there is one.
    """
    if how == "auto":
        spec = _remembered(spec)
    state = HomeReader(spec.home).state((spec.entity, spec.project, spec.id))
    path = f"{spec.entity}/{spec.project}/{spec.id}"
    if state is None:
        if how == "must":
            raise UsageError(f'resume="must", but there is no run {path}')
        return spec, None
    if how == "never":
        raise UsageError(f'resume="never", but there is a run {path}')
    return structs.replace(spec, resumed=True, first_step=state.last_step + 1), state


def _remembered(spec: RunSpec) -> RunSpec:
    """Return the spec with this program's last run, unless that ended well."""
    program = f"{os.getcwd()}\0{sys.argv[0]}\0{spec.entity}\0{spec.project}"
    name = hashlib.sha256(program.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    file = spec.home.root / "resume" / name
    if file.exists():
        last = structs.replace(spec, id=file.read_text())
        state = HomeReader(spec.home).state((last.entity, last.project, last.id))
        if state is not None and state.state is not State.FINISHED:
            return last
    _write(file, spec.id)
    return spec


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with open(os.open(file, flags, 0o600), "w") as remembered:
            remembered.write(text)
    except OSError as error:
        told = f"cannot remember the run for resume='auto': {error}"
        if not refuses(error):
            raise UsageError(told) from error
        say(told)
