"""The fold of assets: what a run tells of its config, data and models."""

import math
from dataclasses import replace

from flightlog_storage.assets import Asset
from flightlog_storage.event import (
    AssetCompleted,
    AssetEvent,
    AssetFailed,
    AssetLogged,
    ConfigLogged,
    FileFailed,
    OutputsWatchStopped,
)
from flightlog_storage.fold import count_lost
from flightlog_storage.runstate import RunState
from flightlog_storage.summary import plain

__all__ = ("CONFIG_PARTS", "change_assets", "given_up")

CONFIG_PARTS = ("args", "extra", "config_files")


def given_up(
    state: RunState, reason: str
) -> list[FileFailed | AssetFailed | OutputsWatchStopped]:
    """Return the events that say of all that is owed that it will not be done."""
    at = state.updated_at
    files = [FileFailed(time=at, token=token, reason=reason) for token in state.owed]
    assets = [
        AssetFailed(time=at, token=asset.token, reason=reason)
        for asset in state.assets.values()
        if asset.job is not None
    ]
    watches = [OutputsWatchStopped(time=at, token=token) for token in state.watches]
    return [*files, *assets, *watches]


def change_assets(state: RunState, event: AssetEvent) -> None:
    """Change the assets to those that follow from one more event of anybody."""
    if isinstance(event, ConfigLogged):
        for part in CONFIG_PARTS:
            if part in event.changes:
                state.logged_config[part] = plain(event.changes[part])
                state.changes.logged_config = True
        return
    known = state.assets.get(event.token)
    if isinstance(event, AssetLogged):
        if known is None:
            _put(state, _asset(event))
    elif known is None or known.job is None:
        return  # It was done before: the daemon said so twice.
    elif isinstance(event, AssetCompleted):
        _put(state, _completed(known, event))
    else:
        _put(state, replace(known, job=None, error=event.reason))
        count_lost(state, 1)


def _put(state: RunState, asset: Asset) -> None:
    state.assets[asset.token] = asset
    state.changes.assets[asset.token] = None


def _asset(event: AssetLogged) -> Asset:
    return Asset(
        token=event.token,
        kind=event.kind,
        name=event.name,
        logged_at=event.time if math.isfinite(event.time) else 0.0,
        uri=plain(event.uri),
        path=event.path,
        context=event.context,
        source_type=event.source_type,
        description=event.description,
        fingerprint=plain(event.fingerprint),
        job=event.job,
        size_max=event.size_max,
        file_count_max=event.file_count_max,
    )


def _completed(asset: Asset, event: AssetCompleted) -> Asset:
    return replace(
        asset,
        job=None,
        fingerprint=plain(event.fingerprint),
        size=event.size,
        file_count=event.file_count,
        blob=event.blob,
        digest=event.digest,
        manifest=event.manifest,
        manifest_size=event.manifest_size,
        skipped=tuple(event.skipped),
        skipped_count=event.skipped_count,
    )
