"""The reading side: `Api`, as code for W&B's public API expects it."""

import os
import time
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from flightlog._artifact import Artifact
from flightlog._checks import check_name
from flightlog._settings import default_project, find_home, new_id
from flightlog.apis.public.artifacts import (
    ArtifactCollection,
    ArtifactCollections,
    Artifacts,
    ArtifactType,
    ArtifactTypes,
    find_artifact,
    find_collection,
    list_types,
    project_of,
)
from flightlog.apis.public.client import Client
from flightlog.apis.public.project import Project, Projects
from flightlog.apis.public.reading import check_per_page, checked, reading
from flightlog.apis.public.run import Run
from flightlog.apis.public.runs import Runs
from flightlog.apis.public.user import User
from flightlog.errors import BadArgumentError, NotFoundError
from flightlog_storage.event import RunCreated
from flightlog_storage.home import Home

if TYPE_CHECKING:
    import pyarrow as pa

    from flightlog.apis.public.sql import Parameters

__all__ = ("Api",)

OVERRIDES = ("base_url", "entity", "project", "run")
_CREATED = ("running", "pending")


class Api:
    """Reads a home straight from its files; needs no daemon, account or server.

    What it changes goes through the event log, for which it starts a daemon if there
    is none.
    """

    def __init__(
        self,
        overrides: Mapping[str, str] | None = None,
        timeout: float | None = None,
        api_key: str | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
    ) -> None:
        """Read `home`; by default FLIGHTLOG_HOME or the user's own.

        Args:
            overrides: Defaults under W&B's names: `entity`, `project`, `run`; and
                `base_url`, which is kept and means nothing here.
            timeout: Accepted, as W&B has it; reading files waits for nobody.
            api_key: Accepted and kept; there is no account.
            home: The folder to read.

        Raises:
            BadArgumentError: An argument has a wrong type, or an unknown key.
        """
        if timeout is not None and not isinstance(timeout, int | float):
            raise BadArgumentError(f"timeout must be a number, not {timeout!r}")
        if not isinstance(api_key, str | None):
            raise BadArgumentError("api_key must be a str")
        if not isinstance(home, str | os.PathLike | None):
            raise BadArgumentError(f"home must be a path, not {home!r}")
        settings = _checked_overrides(overrides)
        self._client = Client(checked(lambda: find_home(home)), settings)
        self._runs: dict[str, Run] = {}
        self._found: dict[str, Runs] = {}
        self.api_key = api_key

    @property
    def client(self) -> Client:
        """What `Runs` and `Run` are made with."""
        return self._client

    @property
    def settings(self) -> Mapping[str, str | None]:
        """`entity`, `project`, `run` and `base_url`, as far as they are given."""
        given = self._client.settings
        found: dict[str, str | None] = {name: given.get(name) for name in OVERRIDES}
        found["entity"] = self.default_entity
        found["project"] = found["project"] or default_project()
        return MappingProxyType(found)

    @property
    def home(self) -> Home:
        return self._client.home

    @property
    def default_entity(self) -> str:
        return self._client.default_entity

    @property
    def viewer(self) -> User:
        """Who reads: the default entity."""
        return User(self.default_entity)

    @property
    def user_agent(self) -> str:
        """What W&B's client would tell a server; nobody is told."""
        return "flightlog"

    def create_run(
        self,
        *,
        run_id: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        state: Literal["running", "pending"] = "running",
    ) -> Run:
        """Make a run into which nobody logs yet; `init(id=…)` may join it.

        Args:
            run_id: Its id; by default 8 random characters of 0-9 and a-z.
            project: Its project; by default that of the settings or "uncategorized".
            entity: Whose run it is; by default the default entity.
            state: How it stands until somebody logs.

        Raises:
            BadArgumentError: A name or state that cannot be, or the run exists.
            CommError: It could not be recorded.
        """
        if state not in _CREATED:
            raise BadArgumentError(f"state {state!r} is none of {_CREATED}")
        key = (
            _named("entity", entity, self.default_entity),
            _named("project", project, self.settings["project"] or ""),
            _named("id", run_id, new_id()),
        )
        if reading(partial(self._client.reader.state, key)) is not None:
            raise BadArgumentError(f"there is a run {'/'.join(key)} already")
        self._client.record(key, [RunCreated(time=time.time(), state=state)])
        return Run(self._client, *key)

    def project(self, name: str, entity: str | None = None) -> Project:
        """Return a project; whether it exists is seen when something of it is read.

        Raises:
            BadArgumentError: A name that no project can have.
        """
        entity = _named("entity", entity, self.default_entity)
        return Project(self._client, entity, _named("project", name, ""))

    def projects(self, entity: str | None = None, per_page: int = 200) -> Projects:
        """Return the projects of an entity, by the start of their first run.

        Raises:
            BadArgumentError: A name that no entity can have, or a wrong `per_page`.
        """
        check_per_page(per_page)
        entity = _named("entity", entity, self.default_entity)
        return Projects(self._client, entity)

    def from_path(self, path: str) -> Run | Project:
        """Return what is at a path: `project`, `entity/project`, or a run.

        A run is `entity/project/id` or `entity/project/runs/id`.

        Raises:
            BadArgumentError: It is no such path.
            NotFoundError: There is no such run.
        """
        if not isinstance(path, str):
            raise BadArgumentError(f"path must be a str, not {type(path).__qualname__}")
        parts = path.strip(" /").split("/")
        if not all(part.strip() for part in parts):
            raise BadArgumentError(f"Invalid path: {path!r}")
        match parts:
            case [project]:
                return self.project(project)
            case [entity, project]:
                return self.project(project, entity)
            case [_, _, kind, _] if not kind.startswith("run"):
                raise BadArgumentError(
                    f"Invalid path: {path!r}: {kind!r} is not 'runs'; there are no "
                    "sweeps and no reports"
                )
        return self.run(path)

    def run(self, path: str = "") -> "Run":
        """Return the run at `entity/project/id`, `project/id` or `id`.

        A second call with the same path returns the same object.

        Raises:
            BadArgumentError: `path` is no path of a run.
            NotFoundError: There is no such run.
        """
        candidates = self._candidates(path)
        if path in self._runs:
            return self._runs[path]
        for entity, project, run in candidates:
            key = (entity, project, run)
            state = reading(partial(self._client.reader.state, key))
            if state is not None:
                self._runs[path] = Run(self._client, *key, attrs=state)
                return self._runs[path]
        entity, project, run = candidates[0]
        raise NotFoundError(
            f"Could not find run <Run {entity}/{project}/{run} (not found)>"
        )

    # The signature is W&B's, which users know.
    def runs(
        self,
        path: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order: str = "+created_at",
        per_page: int = 50,
        include_sweeps: bool = True,
    ) -> "Runs":
        """Return the runs of a project, `entity/project` or `project`.

        They are read at the first use. Equal arguments give the same object until
        `flush()`.

        Args:
            path: The project; by default all runs of the home.
            filters: Which of its runs, a dict in MongoDB's style; by default all.
            order: Fields with + or - before, joined with commas; by default the oldest
                first.
            per_page: How many runs to read at a time.
            include_sweeps: Accepted; there are no sweeps.

        Raises:
            BadArgumentError: An argument is wrong, and how.
        """
        asked = repr((path, filters, order, per_page))
        if asked not in self._found:
            self._found[asked] = Runs._in_any(
                self._client,
                self._projects(path),
                filters=filters,
                order=order,
                per_page=per_page,
                include_sweeps=include_sweeps,
            )
        return self._found[asked]

    def _projects(self, path: object) -> list[tuple[str | None, str | None]]:
        """Return which projects a path may mean: a project may hold slashes."""
        if path is None:
            return [(None, None)]
        if not isinstance(path, str):
            raise BadArgumentError(f"path must be a str, not {type(path).__qualname__}")
        path = path.strip().strip("/")
        if not path:
            raise BadArgumentError("Invalid path: '' (missing project)")
        projects: list[tuple[str | None, str | None]] = [(self.default_entity, path)]
        entity, slash, project = path.partition("/")
        if slash:
            projects.insert(0, (entity, project))
        return projects

    def sql(
        self,
        query: str,
        parameters: "Parameters | None" = None,
        *,
        timeout_s: float = 60.0,
        memory_mb: int = 1024,
    ) -> "pa.Table":
        """Return the result of one SQL query over all runs, in DuckDB's dialect.

        Views: `runs`, `config`, `summary`, `history`, see docs/read_api.md. Needs the
        extra: `pip install "flightlog[sql]"`. The query can read nothing else, and
        change nothing.

        Args:
            query: One SELECT or the like.
            parameters: Values for `?` in the query, or a dict of those for `$name`.
            timeout_s: How long it may take, in seconds.
            memory_mb: How many megabytes its work, and also its result, may take.

        Raises:
            BadArgumentError: The query is wrong, does not only read, or would leave
                the home.
            CommError: It takes more than its limits, or the home cannot be read.
            Error: DuckDB is not installed.
        """
        # Loaded here: of all readers only these need Arrow's datasets.
        from flightlog.apis.public.sql import Limits, run_query

        limits = Limits(timeout_s, memory_mb)
        return run_query(self._client.reader, query, parameters, limits)

    # Artifacts

    def artifact(self, name: str, type: str | None = None) -> Artifact:
        """Return the artifact at `entity/project/name:alias`.

        Entity and project may be left out; without an alias it is the latest.

        Raises:
            BadArgumentError: It is no such path, or of another type than `type`.
            NotFoundError: There is no such version.
        """
        return find_artifact(self._client, name, type)

    def artifacts(
        self,
        type_name: str,
        name: str,
        per_page: int = 50,
        tags: str | list[str] | None = None,
        order: str | None = None,
    ) -> Artifacts:
        """Return the versions of an artifact, newest first.

        Args:
            type_name: Its type.
            name: `entity/project/name`, or the end of such a path.
            per_page: How many `objects` grows by.
            tags: Only those that have all of these.
            order: "version_index" or "+version_index" for oldest first.

        Raises:
            BadArgumentError: An argument cannot be.
            NotFoundError: There is no such artifact of that type.
        """
        collection = find_collection(self._client, type_name, name)
        return collection.artifacts(per_page, tags=tags, order=order)

    def artifact_versions(
        self, type_name: str, name: str, per_page: int = 50
    ) -> Artifacts:
        """Deprecated by W&B: see `artifacts`."""
        return self.artifacts(type_name, name, per_page)

    def artifact_exists(self, name: str, type: str | None = None) -> bool:
        """Whether there is such a version of an artifact, of that type if one is given.

        Raises:
            BadArgumentError: `name` is no path.
        """
        try:
            return find_artifact(self._client, name).type == type or type is None
        except NotFoundError:
            return False

    def artifact_collection(self, type_name: str, name: str) -> ArtifactCollection:
        """Return an artifact with all its versions.

        Raises:
            BadArgumentError: `name` is no path.
            NotFoundError: There is no such artifact of that type.
        """
        return find_collection(self._client, type_name, name)

    def artifact_collection_exists(self, name: str, type: str) -> bool:
        """Whether there is such an artifact of that type.

        Raises:
            BadArgumentError: `name` is no path.
        """
        try:
            find_collection(self._client, type, name)
        except NotFoundError:
            return False
        return True

    def artifact_collections(
        self, project_name: str, type_name: str, per_page: int = 50
    ) -> ArtifactCollections:
        """Return the artifacts of a type in a project, by name.

        Raises:
            BadArgumentError: An argument cannot be.
        """
        return self.artifact_type(type_name, project_name).collections(per_page)

    def artifact_types(self, project: str | None = None) -> ArtifactTypes:
        """Return the types of a project's artifacts.

        Raises:
            BadArgumentError: `project` is no path.
        """
        return list_types(self._client, project_of(self._client, project), 50)

    def artifact_type(self, type_name: str, project: str | None = None) -> ArtifactType:
        """Return a type of artifacts; whether there are any is seen when it is asked.

        Raises:
            BadArgumentError: `project` is no path.
        """
        where = project_of(self._client, project)
        return ArtifactType(self._client, where, type_name)

    def flush(self) -> None:
        """Forget what `run()` and `runs()` returned; the next call reads anew."""
        self._runs.clear()
        self._found.clear()

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
            return [(self.default_entity, self.settings["project"] or "", run)]
        found = [(self.default_entity, "/".join(project), run)]
        if len(project) > 1:
            found.insert(0, (project[0], "/".join(project[1:]), run))
        return found


def _checked_overrides(overrides: object) -> dict[str, str]:
    if not isinstance(overrides, Mapping | None):
        raise BadArgumentError("overrides must be a dict")
    found: dict[str, Any] = dict(overrides or {})
    for name, value in found.items():
        if name not in OVERRIDES:
            raise BadArgumentError(f"overrides: {name!r} is none of {OVERRIDES}")
        if not isinstance(value, str) or not value:
            raise BadArgumentError(f"overrides: {name} must be a str, not {value!r}")
    if "base_url" in found:
        found["base_url"] = found["base_url"].rstrip("/")
    return found


def _named(what: str, given: object, default: str) -> str:
    return default if given is None else checked(lambda: check_name(what, given))
