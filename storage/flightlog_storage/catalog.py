"""The catalog: artifacts as they are saved, and as events since then change them.

Its fold is pure as that of runs is. What it changes it keeps here until it is saved; so
the materializer, which saves, and a reader, which does not, ask the same questions.
"""

import math
from collections.abc import Iterator

from flightlog_storage.artifact_state import (
    LATEST,
    Artifact,
    ArtifactKey,
    Link,
    Role,
    RunName,
    Version,
    VersionKey,
    is_implied,
)
from flightlog_storage.artifact_tables import ArtifactTables
from flightlog_storage.event import (
    ArtifactChanged,
    ArtifactDeleted,
    ArtifactEvent,
    ArtifactLogged,
    ArtifactUsed,
    ManifestEntry,
)
from flightlog_storage.runstate import RunState
from flightlog_storage.summary import plain

__all__ = ("Catalog",)


class Catalog:
    """All artifacts of a home: asked, and folded further."""

    def __init__(self, tables: ArtifactTables) -> None:
        self._tables = tables
        self.settle()

    def settle(self) -> None:
        """Forget the changes: they are saved."""
        self._artifacts: dict[ArtifactKey, Artifact] = {}
        self._versions: dict[VersionKey, Version | None] = {}  # None: deleted.
        self._entries: dict[VersionKey, list[ManifestEntry]] = {}
        self._links: dict[Link, None] = {}
        self._tokens: dict[str, VersionKey] = {}
        self._forgotten: dict[RunName, None] = {}

    def save(self) -> None:
        """Write the changes, inside a transaction."""
        tables = self._tables
        for run in self._forgotten:
            tables.forget_run(run)
        for artifact in self._artifacts.values():
            tables.save_artifact(artifact)
        for link in self._links:
            tables.save_link(link)
        for token, key in self._tokens.items():
            tables.save_token(token, key)
        for key, entries in self._entries.items():
            tables.save_entries(key, entries)
        for key, version in self._versions.items():
            if version is None:
                tables.remove_version(key)
            else:
                tables.save_version(version)

    # --- asked ---

    def artifact(self, key: ArtifactKey) -> Artifact | None:
        """Return an artifact; also one whose versions are all deleted."""
        return self._artifacts.get(key) or self._tables.artifact(key)

    def artifacts(self, entity: str, project: str) -> list[Artifact]:
        """Return the artifacts of a project that have versions, by name."""
        names = set(self._tables.names(entity, project))
        names |= {key.name for key in self._artifacts if key[:2] == (entity, project)}
        keys = (ArtifactKey(entity, project, name) for name in sorted(names))
        found = (self.artifact(key) for key in keys)
        return [each for each in found if each is not None and each.newest is not None]

    def version(self, key: VersionKey) -> Version | None:
        """Return a version, if it is there."""
        if key in self._versions:
            return self._versions[key]
        return self._tables.version(key)

    def numbers(self, key: ArtifactKey) -> list[int]:
        """Return the numbers of an artifact's versions, in order."""
        found = set(self._tables.numbers(key))
        for changed, version in self._versions.items():
            if changed.artifact == key:
                (found.discard if version is None else found.add)(changed.number)
        return sorted(found)

    def all_versions(self) -> Iterator[Version]:
        """Yield every version of the home."""
        for key in self._tables.all_versions():
            if key not in self._versions and (saved := self._tables.version(key)):
                yield saved
        yield from filter(None, self._versions.values())

    def entries(self, key: VersionKey) -> list[ManifestEntry]:
        """Return the manifest of a version, empty where it is a blob."""
        found = self._entries.get(key)
        return self._tables.entries(key) if found is None else found

    def resolve(self, key: ArtifactKey, alias: str) -> int | None:
        """Return the number of the version that an alias means."""
        artifact = self.artifact(key)
        if artifact is None:
            return None
        if alias == LATEST:
            return artifact.newest
        if is_implied(alias):
            number = int(alias[1:20])
            found = self.version(VersionKey(key, number)) if number < 2**62 else None
            return None if found is None else number
        return artifact.aliases.get(alias)

    def logged_as(self, token: str) -> VersionKey | None:
        """Return the version that a logged artifact became, if it is still there."""
        key = self._tokens.get(token) or self._tables.logged_as(token)
        return None if key is None or self.version(key) is None else key

    def links_of_run(self, run: RunName, role: Role) -> list[Link]:
        """Return what a run logged or used and is still there, in that order."""
        saved = [] if run in self._forgotten else self._tables.links_of_run(run, role)
        new = [link for link in self._links if (link.run, link.role) == (run, role)]
        return self._there(saved + new)

    def links_of_version(self, key: VersionKey, role: Role) -> list[Link]:
        """Return the runs that logged or used a version, in that order."""
        saved = [
            link
            for link in self._tables.links_of_version(key, role)
            if link.run not in self._forgotten
        ]
        new = [link for link in self._links if (link.version, link.role) == (key, role)]
        return self._there(saved + new)

    def _there(self, links: list[Link]) -> list[Link]:
        firsts: dict[tuple[RunName, VersionKey], Link] = {}
        for link in links:
            firsts.setdefault((link.run, link.version), link)
        return [
            link for link in firsts.values() if self.version(link.version) is not None
        ]

    # --- folded ---

    def apply(self, state: RunState, event: ArtifactEvent) -> str | None:
        """Change what follows from one more event of a run, or of its project.

        Returns:
            Why the event is refused, if it is.
        """
        if isinstance(event, ArtifactLogged | ArtifactUsed) and state.deleted:
            return "its run is deleted"
        match event:
            case ArtifactLogged(existing=None):
                return self._log(state, event)
            case ArtifactLogged():
                return self._log_existing(state, event)
            case ArtifactUsed():
                return self._use(state, event)
            case ArtifactChanged():
                return self._change(_key(state, event), event)
            case ArtifactDeleted():
                return self._delete(_key(state, event))

    def forget_run(self, state: RunState) -> None:
        """Take note that a run was deleted."""
        self._forgotten[state.key] = None
        for link in [link for link in self._links if link.run == state.key]:
            del self._links[link]

    def _log(self, state: RunState, event: ArtifactLogged) -> str | None:
        if not event.name or not event.type:
            return "an artifact without a name or a type"
        key = ArtifactKey(state.entity, state.project, event.name)
        artifact = self.artifact(key) or Artifact(
            key, event.type, created_at=_at(event)
        )
        self._artifacts[key] = artifact
        newest = None
        if artifact.newest is not None:
            newest = self._touch(VersionKey(key, artifact.newest))
        else:
            artifact.type = event.type
        if newest is None or newest.digest != event.digest:
            newest = self._add(artifact, event)
        self._declare(state, newest, event)
        return None

    def _add(self, artifact: Artifact, event: ArtifactLogged) -> Version:
        key = VersionKey(artifact.key, artifact.next_number)
        artifact.newest = key.number
        artifact.next_number += 1
        version = Version(
            key,
            event.digest,
            event.size,
            event.file_count,
            event.manifest,
            event.manifest_size,
            event.description,
            plain(event.metadata),
            created_at=_at(event),
        )
        self._versions[key] = version
        self._entries[key] = list(event.entries)
        return version

    def _log_existing(self, state: RunState, event: ArtifactLogged) -> str | None:
        key = ArtifactKey(state.entity, state.project, event.name)
        version = self._touch(VersionKey(key, event.existing or 0))
        if version is None:
            return "there is no such version of the artifact"
        self._declare(state, version, event)
        return None

    def _declare(
        self, state: RunState, version: Version, event: ArtifactLogged
    ) -> None:
        """Say that a run logged a version, as what, and with which token."""
        version.tags = list(dict.fromkeys((*version.tags, *event.tags)))
        version.updated_at = _at(event)
        self._tokens[event.token] = version.key
        self._move(version.key, event.aliases, _at(event))
        self._link(state, Role.LOGGED, version.key)

    def _use(self, state: RunState, event: ArtifactUsed) -> str | None:
        artifact = ArtifactKey(event.entity, event.project, event.name)
        key = VersionKey(artifact, event.number)
        if self.version(key) is None:
            return "there is no such version of the artifact"
        self._link(state, Role.USED, key, event.use_as)
        return None

    def _change(self, key: VersionKey, event: ArtifactChanged) -> str | None:
        version = self._touch(key)
        if version is None:
            return "there is no such version of the artifact"
        description = event.changes.get("description", version.description)
        metadata = event.changes.get("metadata", version.metadata)
        if not isinstance(description, str | None) or not isinstance(metadata, dict):
            return "a description that is no text, or metadata that is no map"
        version.description, version.metadata = description, plain(metadata)
        tags = dict.fromkeys((*version.tags, *event.tags_added))
        version.tags = [tag for tag in tags if tag not in event.tags_removed]
        version.updated_at = _at(event)
        self._unname(key, event.aliases_removed)
        self._move(key, event.aliases_added, _at(event))
        return None

    def _delete(self, key: VersionKey) -> str | None:
        artifact = self.artifact(key.artifact)
        if artifact is None or self.version(key) is None:
            return "there is no such version of the artifact"
        self._artifacts[key.artifact] = artifact
        self._versions[key] = None
        self._entries.pop(key, None)
        self._unname(key, [*artifact.aliases])
        if artifact.newest == key.number:
            artifact.newest = max(self.numbers(key.artifact), default=None)
        return None

    def _touch(self, key: VersionKey) -> Version | None:
        """Return a version that is about to be changed."""
        version = self.version(key)
        if version is not None:
            self._versions[key] = version
        return version

    def _move(self, key: VersionKey, aliases: list[str], time: float) -> None:
        artifact = self.artifact(key.artifact)
        assert artifact is not None, "a version without its artifact"
        self._artifacts[key.artifact] = artifact
        artifact.updated_at = max(artifact.updated_at, time)
        for alias in aliases:
            if alias and not is_implied(alias):
                artifact.aliases[alias] = key.number

    def _unname(self, key: VersionKey, aliases: list[str]) -> None:
        artifact = self.artifact(key.artifact)
        assert artifact is not None, "a version without its artifact"
        self._artifacts[key.artifact] = artifact
        for alias in aliases:
            if artifact.aliases.get(alias) == key.number:
                del artifact.aliases[alias]

    def _link(
        self, state: RunState, role: Role, key: VersionKey, use_as: str | None = None
    ) -> None:
        self._links[Link(state.key, role, key, use_as)] = None


def _key(state: RunState, event: ArtifactChanged | ArtifactDeleted) -> VersionKey:
    artifact = ArtifactKey(state.entity, state.project, event.name)
    return VersionKey(artifact, event.number)


def _at(event: ArtifactEvent) -> float:
    return event.time if math.isfinite(event.time) else 0.0
