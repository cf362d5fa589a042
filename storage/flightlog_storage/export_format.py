"""The format of an export: which members its zip archive has, and what it may hold.

docs/moving.md describes it. No member's name is ever taken for a path.
"""

import re

import msgspec

__all__ = (
    "BLOB_PREFIX",
    "FORMAT",
    "FRAMES",
    "MANIFEST",
    "MANIFEST_SIZE_MAX",
    "MEMBERS_MAX",
    "SIZE_MAX",
    "VERSION",
    "CarriedRun",
    "Link",
    "Manifest",
    "Member",
    "blob_of",
)

FORMAT = "flightlog-export"
VERSION = 1
MANIFEST, FRAMES, BLOB_PREFIX = "manifest.json", "frames", "blobs/"
MANIFEST_SIZE_MAX = 256 << 20
MEMBERS_MAX = 1_000_000
SIZE_MAX = 100 << 30  # Of all that is unpacked, unless another limit is given.

_BLOB = re.compile(rf"{BLOB_PREFIX}([0-9a-f]{{64}})")


class Member(msgspec.Struct, frozen=True):
    """A member of the archive, unpacked."""

    size: int
    sha256: str


class Link(msgspec.Struct, frozen=True, order=True):
    """A version of an artifact that a run logged or used; `digest` tells it apart."""

    role: str
    artifact: str
    digest: str


class CarriedRun(msgspec.Struct, frozen=True):
    """A run in an export; the counts are those of its frames."""

    entity: str
    project: str
    id: str
    state: str
    frames: int
    events: int
    lost_count: int
    links: list[Link] = []

    @property
    def name(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.entity, self.project, self.id

    @property
    def path(self) -> str:
        """Its name as people write it."""
        return "/".join(self.name)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an export holds: the runs, and each other member."""

    format: str = FORMAT
    version: int = VERSION
    flightlog: str
    log_id: str
    created_at: str
    runs: list[CarriedRun]
    frames: Member
    blobs: dict[str, int]  # By sha256: the size.


def blob_of(name: str) -> str | None:
    """Return the sha256 of the blob that a member of this name is, if it is one."""
    found = _BLOB.fullmatch(name)
    return None if found is None else found[1]
