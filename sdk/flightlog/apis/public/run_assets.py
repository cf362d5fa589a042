"""Assets of a run that is read back: its config, what it took in and put out."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

from flightlog.apis.public.assets import Asset
from flightlog.apis.public.client import Client
from flightlog.errors import NotFoundError
from flightlog_storage.asset_fold import CONFIG_PARTS
from flightlog_storage.assets import Asset as Known
from flightlog_storage.names import CODE_FILE
from flightlog_storage.runfiles import SavedFile
from flightlog_storage.runstate import RunState

__all__ = ("RunAssets",)


class RunAssets:
    """What a run was told of; each access reads what is there by then."""

    def __init__(self, client: Client, read: Callable[[], RunState]) -> None:
        self._client = client
        self._read = read

    @property
    def config(self) -> dict[str, Any]:
        """`args`, `extra` and `config_files`, as far as they were given."""
        known = self._read().logged_config
        return {part: deepcopy(known[part]) for part in CONFIG_PARTS if part in known}

    @property
    def datasets(self) -> list[Asset]:
        """What `log_dataset()` told of, in that order."""
        return self._of_kind("dataset")

    @property
    def pretrained(self) -> list[Asset]:
        """What `log_pretrained()` told of, in that order."""
        return self._of_kind("pretrained")

    @property
    def outputs(self) -> list[Asset]:
        """What was archived of the folders that were looked through.

        The last revision of each, or all of them, as the mode was; in the order of the
        first one.
        """
        return self._of_kind("output")

    @property
    def code(self) -> Asset | None:
        """The snapshot of `init(snapshot_code=True)`, a zip archive; None without."""
        file = self._read().files.get(CODE_FILE)
        if file is None:
            return None
        known = _code(file)
        return Asset(self._client, known, lambda: known)

    def _of_kind(self, kind: str) -> list[Asset]:
        found = self._read().assets.values()
        return [
            Asset(self._client, known, partial(self._asset, known.token))
            for known in found
            if known.kind == kind
        ]

    def _asset(self, token: str) -> Known:
        assets = self._read().assets
        if token not in assets:
            raise NotFoundError("the run of this asset was deleted")
        return assets[token]


def _code(file: SavedFile) -> Known:
    return Known(
        token="",
        kind="code",
        name=file.name,
        logged_at=file.updated_at,
        uri=file.name,
        fingerprint=file.blob,
        size=file.size,
        blob=file.blob,
        digest=file.digest,
    )
