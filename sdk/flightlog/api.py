"""The reading side: `Api`, as code for W&B's public API expects it."""

import os
from functools import partial

from flightlog._runs import Run, Runs, reading
from flightlog._settings import default_entity, default_project, find_home
from flightlog.errors import BadArgumentError, NotFoundError
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader

__all__ = ("Api", "Run", "Runs")


class Api:
    """Reads a home straight from its files; needs no daemon, account or server."""

    def __init__(self, *, home: str | os.PathLike[str] | None = None) -> None:
        """Read `home`; by default FLIGHTLOG_HOME or the user's own."""
        self._home = find_home(home)
        self._reader = HomeReader(self._home)
        self._runs: dict[str, Run] = {}

    @property
    def home(self) -> Home:
        return self._home

    @property
    def default_entity(self) -> str:
        return default_entity()

    def run(self, path: str = "") -> "Run":
        """Return the run at `entity/project/id`, `project/id` or `id`.

        A second call with the same path returns the same object.

        Raises:
            BadArgumentError: `path` is no path of a run.
            NotFoundError: There is no such run.
        """
        if path in self._runs:
            return self._runs[path]
        candidates = self._candidates(path)
        for entity, project, run in candidates:
            key = (entity, project, run)
            state = reading(partial(self._reader.state, key))
            if state is not None:
                self._runs[path] = Run(self._reader, state)
                return self._runs[path]
        entity, project, run = candidates[0]
        raise NotFoundError(
            f"Could not find run <Run {entity}/{project}/{run} (not found)>"
        )

    def runs(self, path: str | None = None) -> "Runs":
        """Return the runs of a project, `entity/project` or `project`, oldest first.

        Without a path: all runs of the home.

        Raises:
            BadArgumentError: `path` is no str.
        """
        if path is None:
            return Runs(self._reader, [])
        if not isinstance(path, str):
            raise BadArgumentError(f"path must be a str, not {type(path).__qualname__}")
        path = path.strip().strip("/")
        if not path:
            raise BadArgumentError("Invalid path: '' (missing project)")
        projects = [(self.default_entity, path)]
        entity, slash, project = path.partition("/")
        if slash:
            projects.insert(0, (entity, project))
        return Runs(self._reader, projects)

    def flush(self) -> None:
        """Forget the runs returned so far; the next `run()` reads them anew."""
        self._runs.clear()

    def _candidates(self, path: str) -> list[tuple[str, str, str]]:
        """Return what runs a path may mean: a project may hold slashes."""
        if not isinstance(path, str):
            raise BadArgumentError(f"path must be a str, not {type(path).__qualname__}")
        text = path.replace("/runs/", "/").strip(" /")
        head, colon, last = text.rpartition(":")
        if not colon:
            head, _, last = text.rpartition("/")
        parts = [part.strip() for part in (*head.split("/"), last)] if head else [last]
        if not all(parts) or (colon and not head):
            raise BadArgumentError(f"Invalid path: {path!r}")
        *project, run = parts
        if not project:
            return [(self.default_entity, default_project(), run)]
        found = [(self.default_entity, "/".join(project), run)]
        if len(project) > 1:
            found.insert(0, (project[0], "/".join(project[1:]), run))
        return found
