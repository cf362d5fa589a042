"""Runs as people name them on the command line."""

from flightlog.apis.public import Api
from flightlog.apis.public.reading import reading
from flightlog.errors import BadArgumentError, NotFoundError
from flightlog_storage.home import Home
from flightlog_storage.names import default_name
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState

__all__ = ("find_run",)


def find_run(home: Home, name: str) -> RunState:
    """Return the run with this path, or the only one with this id or name.

    Raises:
        NotFoundError: There is none.
        BadArgumentError: There are several.
    """
    reader = HomeReader(home)
    try:
        run = Api(home=home.root).run(name)
        found = [(run.entity, run.project, run.id)]
    except NotFoundError:
        if "/" in name:
            raise
        found = _named(reader, name)
    if len(found) > 1:
        paths = ", ".join("/".join(key) for key in found[:10])
        raise BadArgumentError(f"{name} may be any of {paths}")
    state = reading(lambda: reader.state(found[0])) if found else None
    if state is None:
        raise NotFoundError(f"there is no run {name} in {home.root}; see flightlog ls")
    return state


def _named(reader: HomeReader, name: str) -> list[tuple[str, str, str]]:
    return [
        (row.entity, row.project, row.id)
        for row in reading(reader.runs)
        if name in (row.id, row.name or default_name(row.id))
    ]
