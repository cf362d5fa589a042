"""Artifacts read back: by name, by type, by the run that logged or used them."""

import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeVar

from flightlog._artifact import Artifact
from flightlog._artifact_checks import check_aliases
from flightlog._checks import check_tags
from flightlog._settings import default_project
from flightlog.apis.public.client import Client
from flightlog.apis.public.paginator import Paginator
from flightlog.apis.public.reading import checked, iso, reading
from flightlog.apis.public.versions import LoggedVersion
from flightlog.errors import BadArgumentError, CommError, NotFoundError
from flightlog_storage import artifact_state
from flightlog_storage.artifact_state import LATEST, ArtifactKey, Role, VersionKey
from flightlog_storage.catalog import Catalog
from flightlog_storage.event import ArtifactLogged, ArtifactUsed
from flightlog_storage.home import Home

__all__ = (
    "ArtifactCollection",
    "ArtifactCollections",
    "ArtifactType",
    "ArtifactTypes",
    "Artifacts",
    "RunArtifacts",
    "find_artifact",
    "find_collection",
    "list_collections",
    "list_types",
    "log_artifact",
    "look_up",
    "project_of",
    "run_artifacts",
    "use_artifact",
)

ORDERS = (None, "version_index", "+version_index", "-version_index")

_RunKey = tuple[str, str, str]
_Found = TypeVar("_Found")


class RunArtifacts(Paginator[Artifact]):
    """The artifacts that a run logged, or used, in that order."""


class Artifacts(Paginator[Artifact]):
    """The versions of an artifact."""


class ArtifactCollection:
    """An artifact with all its versions."""

    def __init__(self, client: Client, key: ArtifactKey, type: str = "") -> None:
        """Read it.

        Raises:
            NotFoundError: There is none, or it is of another type than is given.
        """
        self.client = client
        self._key = key
        self._state = self._read(type)

    def _read(self, type: str) -> artifact_state.Artifact:
        found = _ask(self.client, lambda catalog: catalog.artifact(self._key))
        if found is None or found.newest is None or type not in ("", found.type):
            what = f"artifact collection {'/'.join(self._key)}"
            raise NotFoundError(f"{what}{f' of type {type}' if type else ''} not found")
        return found

    @property
    def id(self) -> str:
        """An opaque name."""
        return b64encode(
            f"ArtifactCollection:v1:{'/'.join(self._key)}".encode()
        ).decode()

    @property
    def entity(self) -> str:
        return self._key.entity

    @property
    def project(self) -> str:
        return self._key.project

    @property
    def name(self) -> str:
        return self._key.name

    @property
    def type(self) -> str:
        return self._state.type

    @property
    def aliases(self) -> list[str]:
        """All names that its versions have, `latest` among them."""
        return [LATEST, *sorted(self._state.aliases)]

    @property
    def created_at(self) -> str:
        """When the first version was logged, ISO 8601, UTC."""
        return iso(self._state.created_at)

    @property
    def updated_at(self) -> str:
        """When a version was last logged or changed, ISO 8601, UTC."""
        return iso(self._state.updated_at)

    def artifacts(
        self,
        per_page: int = 50,
        *,
        tags: str | Collection[str] | None = None,
        order: str | None = None,
    ) -> Artifacts:
        """Return its versions, newest first.

        Args:
            per_page: How many `objects` grows by.
            tags: Only those that have all of these.
            order: "version_index" or "+version_index" for oldest first.

        Raises:
            BadArgumentError: An argument cannot be.
        """
        if order not in ORDERS:
            raise BadArgumentError(f"order {order!r} is none of {ORDERS}")
        wanted = {tags} if isinstance(tags, str) else set(tags or ())

        def find(catalog: Catalog) -> list[Artifact]:
            numbers = catalog.numbers(self._key)
            if order in (None, "-version_index"):
                numbers.reverse()
            keys = [VersionKey(self._key, number) for number in numbers]
            found = [LoggedVersion(self.client, key, catalog) for key in keys]
            return [Artifact.of(each) for each in found if wanted <= set(each.tags)]

        name = "/".join(self._key)
        return Artifacts(f"Artifacts {name}", lambda: _ask(self.client, find), per_page)

    versions = artifacts

    def is_sequence(self) -> bool:
        """Whether runs log into it: always, for there is no registry."""
        return True

    def __repr__(self) -> str:
        return f"<ArtifactCollection {'/'.join(self._key)} ({self.type})>"


class ArtifactCollections(Paginator[ArtifactCollection]):
    """The artifacts of a type in a project, by name."""


class ArtifactType:
    """A type of artifacts in a project."""

    def __init__(self, client: Client, project: tuple[str, str], name: str) -> None:
        self.client = client
        self._project = project
        self.name = name

    @property
    def type(self) -> str:
        return self.name

    def collections(self, per_page: int = 50) -> ArtifactCollections:
        """Return the artifacts of this type, by name.

        Raises:
            BadArgumentError: `per_page` is no positive int.
        """

        return list_collections(self.client, self._project, per_page, self.name)

    def collection(self, name: str) -> ArtifactCollection:
        """Return one of them.

        Raises:
            NotFoundError: There is none of that name.
        """
        key = ArtifactKey(*self._project, name)
        return ArtifactCollection(self.client, key, self.name)

    def __repr__(self) -> str:
        return f"<ArtifactType {'/'.join(self._project)} {self.name}>"


class ArtifactTypes(Paginator[ArtifactType]):
    """The types of artifacts that a project has, sorted."""


def _ask(client: Client, question: Callable[[Catalog], _Found]) -> _Found:
    return reading(partial(client.reader.catalog, question))


def list_types(
    client: Client, project: tuple[str, str], per_page: int
) -> ArtifactTypes:
    """Return the types of a project's artifacts."""

    def find() -> list[ArtifactType]:
        found = _ask(client, lambda catalog: catalog.artifacts(*project))
        names = sorted({artifact.type for artifact in found})
        return [ArtifactType(client, project, name) for name in names]

    return ArtifactTypes(f"ArtifactTypes {'/'.join(project)}", find, per_page)


def list_collections(
    client: Client, project: tuple[str, str], per_page: int, type: str | None = None
) -> ArtifactCollections:
    """Return a project's artifacts, or those of a type.

    Raises:
        BadArgumentError: `per_page` is no positive int.
    """

    def find() -> list[ArtifactCollection]:
        found = _ask(client, lambda catalog: catalog.artifacts(*project))
        keys = [each.key for each in found if type in (None, each.type)]
        return [ArtifactCollection(client, key) for key in keys]

    what = f"ArtifactCollections {'/'.join(project)} {type or ''}".rstrip()
    return ArtifactCollections(what, find, per_page)


# --- by name ---


def project_of(client: Client, path: str | None) -> tuple[str, str]:
    """Return the entity and project of `entity/project`, `project` or None.

    Raises:
        BadArgumentError: It is no such path.
    """
    default = client.settings.get("project") or default_project()
    if path is None:
        return client.default_entity, default
    if not isinstance(path, str) or not path.strip(" /"):
        raise BadArgumentError(f"Invalid path: {path!r}")
    entity, slash, project = path.strip(" /").partition("/")
    return (entity, project) if slash else (client.default_entity, entity)


def _candidates(
    client: Client, path: object, project: str | None
) -> tuple[list[ArtifactKey], str]:
    """Return which artifacts a path may mean, for a project may hold slashes; alias."""
    if not isinstance(path, str) or not path.strip():
        raise BadArgumentError(f"an artifact's name must be a str, not {path!r}")
    head, _, alias = path.strip().partition(":")
    parts = [part.strip() for part in head.split("/")]
    if not all(parts):
        raise BadArgumentError(f"Invalid artifact path: {path!r}")
    *where, name = parts
    default = project or client.settings.get("project") or default_project()
    keys = [ArtifactKey(client.default_entity, "/".join(where) or default, name)]
    if len(where) > 1:
        keys.insert(0, ArtifactKey(where[0], "/".join(where[1:]), name))
    return keys, alias or LATEST


def find_artifact(
    client: Client, path: str, type: str | None = None, project: str | None = None
) -> Artifact:
    """Return the artifact at `entity/project/name:alias`, or the end of such a path.

    Raises:
        BadArgumentError: It is no such path, or of another type than `type`.
        NotFoundError: There is no such version.
    """
    keys, alias = _candidates(client, path, project)

    def find(catalog: Catalog) -> LoggedVersion | None:
        for key in keys:
            number = catalog.resolve(key, alias)
            if number is not None:
                return LoggedVersion(client, VersionKey(key, number), catalog)
        return None

    found = _ask(client, find)
    if found is None:
        entity, where, name = keys[0]
        raise NotFoundError(f"artifact {name}:{alias} not found in {entity}/{where}")
    if type not in (None, found.type):
        raise BadArgumentError(
            f"type {type!r} specified, but {found.qualified_name} has {found.type!r}"
        )
    return Artifact.of(found)


def look_up(
    home: Home, path: str, type: str | None, entity: str, project: str
) -> Artifact:
    """Return the artifact that a live run names; entity and project are its own.

    Raises:
        BadArgumentError: It is no such path, or of another type than `type`.
        NotFoundError: There is no such version.
    """
    return find_artifact(Client(home, {"entity": entity}), path, type, project)


def find_collection(client: Client, type: str, path: str) -> ArtifactCollection:
    """Return the artifact at `entity/project/name`, or the end of such a path.

    Raises:
        BadArgumentError: It is no such path.
        NotFoundError: There is no such artifact of that type.
    """
    keys, _ = _candidates(client, path, None)
    for key in keys[:-1]:
        try:
            return ArtifactCollection(client, key, type)
        except NotFoundError:
            continue  # Perhaps its project has a slash.
    return ArtifactCollection(client, keys[-1], type)


# --- by run ---


def run_artifacts(
    client: Client, run: _RunKey, role: Role, per_page: int
) -> RunArtifacts:
    """Return what a run logged, or used.

    Raises:
        BadArgumentError: `per_page` is no positive int.
    """

    def find(catalog: Catalog) -> list[Artifact]:
        keys = [link.version for link in catalog.links_of_run(run, role)]
        return [Artifact.of(LoggedVersion(client, key, catalog)) for key in keys]

    what = f"RunArtifacts {'/'.join(run)} {role}"
    return RunArtifacts(what, lambda: _ask(client, find), per_page)


def log_artifact(
    client: Client,
    run: _RunKey,
    artifact: Artifact,
    aliases: Collection[str] | None,
    tags: Collection[str] | None,
) -> Artifact:
    """Declare a logged artifact an output of a run read back; return it.

    Raises:
        BadArgumentError: It is none, a draft, of another project, or an alias or a tag
            cannot be.
        CommError: It could not be recorded.
    """
    logged = _logged(client, artifact)
    if logged.key.artifact[:2] != run[:2]:
        raise BadArgumentError("A run can't log an artifact to a different project.")
    event = ArtifactLogged(
        time=time.time(),
        name=logged.key.artifact.name,
        token=uuid.uuid4().hex,
        existing=logged.number,
        aliases=checked(partial(check_aliases, aliases)),
        tags=list(checked(partial(check_tags, tags or ()))),
    )
    client.record(run, [event])
    return _again(client, logged)


def use_artifact(
    client: Client, run: _RunKey, artifact: Artifact, use_as: str | None
) -> Artifact:
    """Declare a logged artifact an input of a run read back; return it.

    Raises:
        BadArgumentError: It is none, or a draft; or `use_as` is no str.
        CommError: It could not be recorded.
    """
    logged = _logged(client, artifact)
    if not isinstance(use_as, str | None):
        raise BadArgumentError(f"use_as must be a str, not {use_as!r}")
    entity, project, name = logged.key.artifact
    event = ArtifactUsed(
        time=time.time(),
        entity=entity,
        project=project,
        name=name,
        number=logged.number,
        use_as=use_as,
    )
    client.record(run, [event])
    return artifact


def _logged(client: Client, artifact: object) -> LoggedVersion:
    if not isinstance(artifact, Artifact):
        kind = type(artifact).__qualname__
        raise BadArgumentError(f"an Artifact from Api.artifact is needed, not a {kind}")
    if artifact.is_draft():
        raise BadArgumentError(
            f"artifact {artifact.name} is a draft: only a run made by flightlog.init() "
            "can log it"
        )
    if artifact.life.home.root != client.home.root:
        raise BadArgumentError(f"artifact {artifact.name} lies in another home")
    artifact.logged.refresh()  # Or it was deleted meanwhile.
    return artifact.logged


def _again(client: Client, logged: LoggedVersion) -> Artifact:
    found = _ask(client, partial(LoggedVersion, client, logged.key))
    if found is None:
        raise CommError(f"artifact {logged.qualified_name} is gone")
    return Artifact.of(found)
