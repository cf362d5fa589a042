"""Artifact tables: artifacts, their versions and links as rows of state.db."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from flightlog_storage.artifact_state import (
    Artifact,
    ArtifactKey,
    Link,
    Role,
    RunName,
    Version,
    VersionKey,
)
from flightlog_storage.event import ManifestEntry
from flightlog_storage.manifest import decode_manifest, encode_manifest
from flightlog_storage.queries import QUERIES

__all__ = ("ArtifactTables",)

# As in run_tables: NaN as a token, and escapes for what UTF-8 cannot hold.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class ArtifactTables:
    """What state.db holds of artifacts; its writer writes inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def artifact(self, key: ArtifactKey) -> Artifact | None:
        row = self._query("artifact", *key).fetchone()
        if row is None:
            return None
        aliases = dict(self._query("artifact_aliases", *key).fetchall())
        type_, next_number, newest, created_at, updated_at = row
        return Artifact(
            key, type_, next_number, newest, created_at, updated_at, aliases
        )

    def names(self, entity: str, project: str) -> list[str]:
        """Return the names of a project's artifacts, sorted."""
        return [name for (name,) in self._query("artifact_names", entity, project)]

    def version(self, key: VersionKey) -> Version | None:
        row = self._query("artifact_version", *key.artifact, key.number).fetchone()
        if row is None:
            return None
        return Version(
            key=key,
            digest=row[0],
            size=row[1],
            file_count=row[2],
            manifest=row[3],
            manifest_size=row[4],
            description=row[5],
            metadata=_decode(row[6]),
            tags=_decode(row[7]),
            created_at=row[8],
            updated_at=row[9],
        )

    def numbers(self, key: ArtifactKey) -> list[int]:
        """Return the numbers of the versions there are, in order."""
        return [number for (number,) in self._query("artifact_numbers", *key)]

    def all_versions(self) -> Iterator[VersionKey]:
        """Yield every version there is."""
        for *artifact, number in self._query("all_artifact_versions"):
            yield VersionKey(ArtifactKey(*artifact), number)

    def entries(self, key: VersionKey) -> list[ManifestEntry]:
        """Return the manifest of a version, empty where it is a blob."""
        row = self._query("artifact_manifest", *key.artifact, key.number).fetchone()
        return [] if row is None else decode_manifest(row[0])

    def links_of_run(self, run: RunName, role: Role) -> list[Link]:
        """Return what a run logged or used, in that order."""
        return _links(self._query("links_of_run", *run, str(role)))

    def links_of_version(self, key: VersionKey, role: Role) -> list[Link]:
        """Return the runs that logged or used a version, in that order."""
        found = self._query("links_of_version", *key.artifact, key.number, str(role))
        return _links(found)

    def logged_as(self, token: str) -> VersionKey | None:
        """Return the version that a logged artifact became."""
        row = self._query("artifact_token", token).fetchone()
        return None if row is None else VersionKey(ArtifactKey(*row[:3]), row[3])

    def file_blobs(self) -> Iterator[tuple[int, str, int, RunName, str]]:
        """Yield the blobs of all runs' files: run, sha256, size, whose and its name."""
        for number, blob, size, *run, name in self._query("file_blobs"):
            yield number, blob, size, (*run,), name

    def _query(self, name: str, *parameters: object) -> sqlite3.Cursor:
        return self._connection.execute(QUERIES[name], parameters)

    # --- written in the transaction of the checkpoint ---

    def save_artifact(self, artifact: Artifact) -> None:
        """Write an artifact with its aliases."""
        self._query(
            "save_artifact",
            *artifact.key,
            artifact.type,
            artifact.next_number,
            artifact.newest,
            artifact.created_at,
            artifact.updated_at,
        )
        self._query("clear_artifact_aliases", *artifact.key)
        self._connection.executemany(
            QUERIES["save_artifact_alias"],
            ((*artifact.key, *pair) for pair in artifact.aliases.items()),
        )

    def save_version(self, version: Version) -> None:
        """Write a version without its manifest."""
        row: tuple[Any, ...] = (
            *version.key.artifact,
            version.key.number,
            version.digest,
            version.size,
            version.file_count,
            version.manifest,
            version.manifest_size,
            version.description,
            _encode(version.metadata),
            _encode(version.tags),
            version.created_at,
            version.updated_at,
        )
        self._query("save_artifact_version", *row)

    def save_entries(self, key: VersionKey, entries: list[ManifestEntry]) -> None:
        """Write the manifest of a version."""
        data = encode_manifest(entries)
        self._query("save_artifact_manifest", *key.artifact, key.number, data)

    def remove_version(self, key: VersionKey) -> None:
        """Delete a version and all that leads to it but its aliases."""
        for table in (
            "artifact_version",
            "artifact_manifest",
            "links_of_version",
            "artifact_tokens",
        ):
            self._query(f"remove_{table}", *key.artifact, key.number)

    def save_link(self, link: Link) -> None:
        """Write that a run logged or used a version; once more changes nothing."""
        key = (*link.version.artifact, link.version.number)
        self._query("save_link", *link.run, str(link.role), *key, link.use_as)

    def save_token(self, token: str, key: VersionKey) -> None:
        """Write what version a logged artifact became."""
        self._query("save_artifact_token", token, *key.artifact, key.number)

    def forget_run(self, run: RunName) -> None:
        """Delete what links a run with versions."""
        self._query("remove_links_of_run", *run)


def _links(rows: Iterable[tuple[Any, ...]]) -> list[Link]:
    return [
        Link(
            (row[0], row[1], row[2]),
            Role(row[3]),
            VersionKey(ArtifactKey(*row[4:7]), row[7]),
            row[8],
        )
        for row in rows
    ]
