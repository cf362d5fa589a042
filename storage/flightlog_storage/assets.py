"""Assets: files and folders that a run took in or put out, as its user knows them."""

import math
import posixpath
from dataclasses import astuple, dataclass, fields
from typing import Any

from flightlog_storage.event import ROLLING, OutputArchived
from flightlog_storage.run_values import packed, unpacked

__all__ = (
    "ARCHIVE",
    "Asset",
    "Output",
    "asset_of",
    "asset_of_output",
    "packed_asset",
)

ARCHIVE = "archive"  # What is owed where the bytes are to be in blobs, too.


@dataclass(frozen=True, slots=True)
class Output:
    """What is known of an asset that is an output; see OutputArchived.

    The one of a key with the highest `serial` is what was there last.
    """

    key: str
    mode: str
    seen: str
    boot: str
    looked_ns: int
    serial: int

    @property
    def path(self) -> str:
        """Where it lies, seen from the run's workspace."""
        return self.key if self.key.startswith("/") else f"./{self.key}"


@dataclass(frozen=True, slots=True)
class Asset:
    """What is known of an asset; see AssetLogged and AssetCompleted.

    `job` is what the daemon still owes, `error` why it never will be done.
    """

    token: str
    kind: str
    name: str
    logged_at: float
    uri: Any = None
    path: str | None = None
    context: str | None = None
    source_type: str | None = None
    description: str | None = None
    fingerprint: Any = None
    job: str | None = None
    size_max: int | None = None
    file_count_max: int | None = None
    size: int | None = None
    file_count: int | None = None
    blob: str | None = None
    digest: str | None = None
    manifest: str | None = None
    manifest_size: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    skipped_count: int = 0
    error: str | None = None
    output: Output | None = None

    @property
    def is_saved(self) -> bool:
        """Whether its bytes are in blobs."""
        return self.blob is not None or self.manifest is not None


_NAMES = tuple(field.name for field in fields(Asset))


def packed_asset(asset: Asset) -> bytes:
    """Return an asset as it lies in state.db."""
    found = {name: getattr(asset, name) for name in _NAMES}
    if asset.output is not None:
        found["output"] = astuple(asset.output)
    return packed(found)


def asset_of(data: bytes) -> Asset:
    """Return the asset that was packed.

    Raises:
        sqlite3.DatabaseError: What is stored is damaged.
    """
    found = unpacked(data)
    found["skipped"] = tuple((path, why) for path, why in found["skipped"])
    if found["output"] is not None:
        found["output"] = Output(*found["output"])
    return Asset(**found)


def asset_of_output(event: OutputArchived, serial: int) -> Asset:
    """Return what an event tells of."""
    if event.mode == ROLLING:
        token = f"rolling {event.key}"
    else:
        token = f"version {event.boot} {event.looked_ns} {event.key}"
    output = Output(
        event.key, event.mode, event.seen, event.boot, event.looked_ns, serial
    )
    return Asset(
        token=token,
        kind="output",
        name=posixpath.basename(event.key),
        logged_at=event.time if math.isfinite(event.time) else 0.0,
        path=output.path,
        fingerprint=event.fingerprint,
        size=event.size,
        file_count=event.file_count,
        blob=event.blob,
        digest=event.digest,
        manifest=event.manifest,
        manifest_size=event.manifest_size,
        skipped=tuple(event.skipped),
        skipped_count=event.skipped_count,
        output=output,
    )
