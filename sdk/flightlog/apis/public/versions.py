"""A logged artifact, read back: what is kept of one version, and changes to that."""

import os
import time
from base64 import b64encode
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from flightlog._artifact_checks import check_aliases, check_metadata
from flightlog._checks import check_tags
from flightlog._say import say
from flightlog.apis.public.client import Client
from flightlog.apis.public.downloads import (
    check_folder,
    clear_others,
    is_local,
    write_entry,
)
from flightlog.apis.public.drafts import ListDraft
from flightlog.apis.public.files import File, FileOrigin, Files, find_files
from flightlog.apis.public.reading import checked, iso, reading
from flightlog.errors import (
    BadArgumentError,
    CommError,
    CorruptError,
    NotFoundError,
)
from flightlog_storage.artifact_state import LATEST, Role, Version, VersionKey
from flightlog_storage.blobs import BlobStore
from flightlog_storage.catalog import Catalog
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import (
    ArtifactChanged,
    ArtifactDeleted,
    Event,
    ManifestEntry,
)
from flightlog_storage.home import Home
from flightlog_storage.manifest import decode_manifest

if TYPE_CHECKING:
    from flightlog.apis.public.run import Run

__all__ = ("LoggedVersion", "version_of_token")

_Path = str | os.PathLike[str]


class LoggedVersion:
    """What an `Artifact` that is logged asks; read once, and again by `refresh`."""

    def __init__(self, client: Client, key: VersionKey, catalog: Catalog) -> None:
        """Take the version from a catalog.

        Raises:
            NotFoundError: It is not there.
        """
        self.client = client
        self.key = key
        self.is_deleted = False
        self._aliases = ListDraft()
        self._tags = ListDraft()
        self._entries: dict[str, ManifestEntry] | None = None
        self._take(catalog)
        self._aliases.settle(self._stored_aliases)
        self._tags.settle(self.state.tags)
        self.description = self.state.description
        self.metadata = check_metadata(self.state.metadata)

    def _take(self, catalog: Catalog) -> None:
        artifact = catalog.artifact(self.key.artifact)
        state = catalog.version(self.key)
        if artifact is None or state is None:
            raise NotFoundError(f"artifact {self.qualified_name} not found")
        self.type = artifact.type
        self.state: Version = state
        self._stored_aliases = [LATEST] if artifact.newest == self.number else []
        self._stored_aliases += sorted(
            alias for alias, number in artifact.aliases.items() if number == self.number
        )

    def refresh(self) -> None:
        """Read what is kept by now.

        Raises:
            NotFoundError: It was deleted.
            CommError: It cannot be read.
        """
        reading(partial(self.client.reader.catalog, self._take))

    @property
    def number(self) -> int:
        return self.key.number

    @property
    def qualified_name(self) -> str:
        return f"{'/'.join(self.key.artifact)}:v{self.number}"

    @property
    def id(self) -> str:
        return b64encode(f"Artifact:v1:{self.qualified_name}".encode()).decode()

    @property
    def digest(self) -> str:
        return self.state.digest

    @property
    def size(self) -> int:
        return self.state.size

    @property
    def file_count(self) -> int:
        return self.state.file_count

    @property
    def created_at(self) -> str:
        return iso(self.state.created_at)

    @property
    def updated_at(self) -> str:
        return iso(self.state.updated_at)

    # What may be changed

    @property
    def aliases(self) -> list[str]:
        return self._aliases.value

    def set_aliases(self, aliases: Iterable[str]) -> None:
        kept = [LATEST] if LATEST in self._stored_aliases else []
        self._aliases.value[:] = kept + checked(partial(check_aliases, aliases))

    @property
    def tags(self) -> list[str]:
        return self._tags.value

    def set_tags(self, tags: Iterable[str]) -> None:
        self._tags.value[:] = checked(partial(check_tags, tags))

    def save(self) -> None:
        """Record what was changed; durable and seen by every reader on return.

        Raises:
            BadArgumentError: A value cannot be.
            CommError: The change could not be recorded, or the version was deleted.
        """
        before = self.state
        aliases = checked(partial(check_aliases, self.aliases))
        tags = checked(partial(check_tags, self.tags))
        metadata = checked(partial(check_metadata, self.metadata))
        known = [alias for alias in self._stored_aliases if alias != LATEST]
        changes: dict[str, Any] = {}
        if self.description != before.description:
            changes["description"] = self.description
        if repr(metadata) != repr(check_metadata(before.metadata)):
            changes["metadata"] = metadata
        event = ArtifactChanged(
            time=time.time(),
            name=self.key.artifact.name,
            number=self.number,
            changes=changes,
            aliases_added=[alias for alias in aliases if alias not in known],
            aliases_removed=[alias for alias in known if alias not in aliases],
            tags_added=[tag for tag in tags if tag not in before.tags],
            tags_removed=[tag for tag in before.tags if tag not in tags],
        )
        self.refresh()
        if event != ArtifactChanged(
            time=event.time, name=event.name, number=event.number
        ):
            self._record(event)
            self.refresh()
        self._aliases.settle(self._stored_aliases)
        self._tags.settle(self.state.tags)

    def delete(self, delete_aliases: bool) -> None:
        """Delete the version.

        Raises:
            BadArgumentError: It has aliases, and they are not to be deleted.
            CommError: The change could not be recorded.
        """
        self.refresh()
        if self._stored_aliases and not delete_aliases:
            names = ", ".join(self._stored_aliases)
            raise BadArgumentError(
                f"{self.qualified_name} has aliases ({names}): "
                "pass delete_aliases=True to delete it with them"
            )
        name = self.key.artifact.name
        self._record(ArtifactDeleted(time=time.time(), name=name, number=self.number))
        self.is_deleted = True

    def _record(self, event: Event) -> None:
        entity, project, _ = self.key.artifact
        self.client.record((entity, project, ""), [event])  # No run's: the project's.

    # Its files

    def entries(self) -> dict[str, ManifestEntry]:
        """Return its files by path.

        Raises:
            CorruptError: The blob that says so is missing or damaged.
        """
        if self._entries is None:
            found = reading(
                partial(self.client.reader.catalog, lambda c: c.entries(self.key))
            )
            if self.state.manifest is not None:
                found = self._entries_of_blob(self.state.manifest)
            self._entries = {entry.path: entry for entry in found}
        return self._entries

    def _entries_of_blob(self, manifest: str) -> list[ManifestEntry]:
        try:
            with self._store().open_verified(manifest) as file:
                return decode_manifest(file.read())
        except (CorruptData, msgspec.MsgspecError) as error:
            message = f"the manifest of {self.qualified_name}: {error}"
            raise CorruptError(message, error) from error
        except OSError as error:
            raise CommError(str(error), error) from error

    def files(self, names: list[str] | None, per_page: int) -> Files:
        origin = FileOrigin(self.qualified_name)

        def find() -> list[File]:
            made_at = self.state.created_at
            return [
                File(self.client, origin, entry, made_at)
                for _, entry in sorted(self.entries().items())
            ]

        return find_files(origin, find, names, per_page)

    def download(self, root: _Path | None, *, prefix: str, allow_missing: bool) -> str:
        folder = self._folder(root)
        chosen = [e for path, e in self.entries().items() if path.startswith(prefix)]
        local = [entry for entry in chosen if is_local(entry)]
        os.makedirs(folder, exist_ok=True)
        for entry in local:
            try:
                write_entry(self._store(), entry, folder)
            except CommError as error:
                is_gone = isinstance(error.exc, FileNotFoundError)
                if not (allow_missing and entry.reference is not None and is_gone):
                    raise
        if len(local) < len(chosen):
            count = len(chosen) - len(local)
            say(f"{self.qualified_name}: {count} references are not fetched")
        return str(folder)

    def checkout(self, root: _Path | None) -> str:
        folder = self.download(root, prefix="", allow_missing=False)
        clear_others(Path(folder), self.entries())
        return folder

    def verify(self, root: _Path | None) -> None:
        check_folder(self._folder(root), self.entries().values())

    def _folder(self, root: _Path | None) -> Path:
        if root is None:
            return Path("artifacts") / f"{self.key.artifact.name}:v{self.number}"
        return Path(root)

    def _store(self) -> BlobStore:
        return BlobStore(self.client.home.blobs)

    # Runs

    def used_by(self) -> "list[Run]":
        """Return the runs that used it."""
        return self._runs(Role.USED)

    def logged_by(self) -> "Run | None":
        """Return the run that logged it first; None when that is deleted."""
        return next(iter(self._runs(Role.LOGGED)), None)

    def _runs(self, role: Role) -> "list[Run]":
        # Only here: runs know their artifacts.
        from flightlog.apis.public.run import Run

        links = reading(
            partial(
                self.client.reader.catalog,
                lambda catalog: catalog.links_of_version(self.key, role),
            )
        )
        return [Run(self.client, *link.run) for link in links]


def version_of_token(home: Home, token: str) -> LoggedVersion:
    """Return what became of an artifact that this process has logged.

    Raises:
        CommError: It is not there: it was refused, or deleted again.
    """
    client = Client(home)

    def find(catalog: Catalog) -> LoggedVersion | None:
        key = catalog.logged_as(token)
        return None if key is None else LoggedVersion(client, key, catalog)

    found = reading(partial(client.reader.catalog, find))
    if found is None:
        raise CommError("the artifact is in the log and was refused there")
    return found
