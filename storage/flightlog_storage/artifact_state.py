"""The state of artifacts: what is known of each, its versions, and who made or used it.

An artifact is no run's: it lies in a project, and the versions that runs log into it
are numbered in the order of the log.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

__all__ = (
    "LATEST",
    "Artifact",
    "ArtifactKey",
    "Link",
    "Role",
    "RunName",
    "Version",
    "VersionKey",
    "is_implied",
)

LATEST = "latest"
_NUMBERED = re.compile(r"v[0-9]+")
RunName = tuple[str, str, str]  # Entity, project, id.


class ArtifactKey(NamedTuple):
    """Which artifact."""

    entity: str
    project: str
    name: str


class VersionKey(NamedTuple):
    """Which version of which artifact."""

    artifact: ArtifactKey
    number: int


class Role(StrEnum):
    """What a run has to do with a version."""

    LOGGED = "logged"
    USED = "used"


@dataclass(slots=True)
class Artifact:
    """What its versions share; `newest` is None when all are deleted."""

    key: ArtifactKey
    type: str
    next_number: int = 0
    newest: int | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    aliases: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Version:
    """A version without its manifest; `manifest` names the blob that has it, if any."""

    key: VersionKey
    digest: str
    size: int = 0
    file_count: int = 0
    manifest: str | None = None
    manifest_size: int = 0
    description: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Link:
    """A run and a version that it logged or used."""

    run: RunName
    role: Role
    version: VersionKey
    use_as: str | None = None


def is_implied(alias: str) -> bool:
    """Whether an alias follows from the versions there are, and cannot be moved."""
    return alias == LATEST or _NUMBERED.fullmatch(alias) is not None
