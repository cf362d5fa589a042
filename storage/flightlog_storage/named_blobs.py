"""Named blobs: those that files of runs, assets and artifacts need, for readers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from flightlog_storage.assets import Asset
from flightlog_storage.blobs import BlobStore
from flightlog_storage.database import Database
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import ManifestEntry
from flightlog_storage.folding import Folding
from flightlog_storage.manifest import read_manifest

__all__ = ("Holder", "NamedBlob", "holders", "named_blobs")


@dataclass(frozen=True, slots=True)
class NamedBlob:
    """A blob that something needs; `use` tells what, `run` whose, if it is a run's."""

    sha256: str
    size: int
    use: str
    run: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What needs blobs: one itself, a manifest, and all that this or `entries` name."""

    use: str
    run: str | None = None
    blob: str | None = None
    size: int = 0
    manifest: str | None = None
    manifest_size: int = 0
    entries: Sequence[ManifestEntry] = ()


def named_blobs(
    database: Database, folding: Folding, store: BlobStore
) -> Iterator[NamedBlob]:
    """Yield every blob that is needed, as often as it is.

    What a damaged manifest names is not known: such a manifest is itself among them.
    """
    for holder in holders(database, folding):
        use, run, entries = holder.use, holder.run, holder.entries
        if holder.blob is not None:
            yield NamedBlob(holder.blob, holder.size, use, run)
        if holder.manifest is not None:
            yield NamedBlob(
                holder.manifest, holder.manifest_size, f"{use}, manifest", run
            )
            try:
                entries = read_manifest(store, holder.manifest)
            except (CorruptData, OSError, msgspec.MsgspecError):
                continue
        for entry in entries:
            if entry.blob is not None:
                yield NamedBlob(entry.blob, entry.size, f"{use}/{entry.path}", run)


def holders(database: Database, folding: Folding) -> Iterator[Holder]:
    """Yield all that needs blobs."""
    for kind in _KINDS:
        yield from kind(database, folding)


def _files(database: Database, folding: Folding) -> Iterator[Holder]:
    for number, sha256, size, key, name in database.artifacts.file_blobs():
        if number not in folding.states:
            run = "/".join(key)
            yield Holder(use=f"{run}/{name}", run=run, blob=sha256, size=size)
    for state in folding.states.values():
        run = "/".join(state.key)
        for file in state.files.values():
            use = f"{run}/{file.name}"
            yield Holder(use=use, run=run, blob=file.blob, size=file.size)


def _assets(database: Database, folding: Folding) -> Iterator[Holder]:
    moved = folding.states.values()
    names = {state.key for state in moved}
    for run, asset in database.all_assets():
        if run not in names:
            yield _asset(asset, "/".join(run))
    for state in moved:
        for asset in state.assets.values():
            yield _asset(asset, "/".join(state.key))


def _asset(asset: Asset, run: str) -> Holder:
    return Holder(
        use=f"{run}, {asset.name}",
        run=run,
        blob=asset.blob,
        size=asset.size or 0,
        manifest=asset.manifest,
        manifest_size=asset.manifest_size,
    )


def _versions(database: Database, folding: Folding) -> Iterator[Holder]:
    for version in folding.artifacts.all_versions():
        yield Holder(
            use=f"{'/'.join(version.key.artifact)}:v{version.key.number}",
            manifest=version.manifest,
            manifest_size=version.manifest_size,
            entries=folding.artifacts.entries(version.key),
        )


# A new kind of what needs blobs joins here; verify, gc and exports ask no other.
_KINDS: tuple[Callable[[Database, Folding], Iterator[Holder]], ...] = (
    _files,
    _assets,
    _versions,
)
