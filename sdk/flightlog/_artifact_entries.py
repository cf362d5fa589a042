"""The files of an artifact as its user sees them: entries of its manifest."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flightlog_storage.event import ManifestEntry

if TYPE_CHECKING:
    from flightlog._artifact import Artifact

__all__ = ("ArtifactManifest", "ArtifactManifestEntry")


class ArtifactManifestEntry:
    """A file of an artifact: bytes that are kept, or a reference to some."""

    def __init__(
        self, artifact: "Artifact", entry: ManifestEntry, local: Path | None = None
    ) -> None:
        self._artifact = artifact
        self._local = local
        self.stored = entry

    @property
    def path(self) -> str:
        """Its path within the artifact."""
        return self.stored.path

    name = path

    @property
    def digest(self) -> str:
        """The MD5 of its bytes in base64; of what is not read, the reference."""
        return self.stored.digest

    @property
    def size(self) -> int:
        """In bytes; 0 where it is not known."""
        return self.stored.size

    @property
    def ref(self) -> str | None:
        """Where a reference leads; None for bytes that are kept."""
        return self.stored.reference

    @property
    def local_path(self) -> str | None:
        """Where the bytes of a draft are now; None once they are logged."""
        return None if self._local is None else str(self._local)

    def parent_artifact(self) -> "Artifact":
        return self._artifact

    def ref_target(self) -> str:
        """Return where the reference leads.

        Raises:
            ValueError: It is none.
        """
        if self.stored.reference is None:
            raise ValueError(f"{self.path!r} is kept here and refers to nothing else")
        return self.stored.reference

    def ref_url(self) -> str:
        """Return a URI of this file; `add_reference` of an artifact takes the entry."""
        return f"flightlog-artifact://{self._artifact.qualified_name}/{self.path}"

    def download(
        self, root: str | os.PathLike[str] | None = None, skip_cache: bool | None = None
    ) -> str:
        """Write the file below `root`; return where it is.

        Args:
            root: By default that of `Artifact.download`.
            skip_cache: Accepted; there is no cache.

        Raises:
            ArtifactNotLoggedError: The artifact is a draft.
            CorruptError: The bytes are missing or damaged.
            CommError: It cannot be written.
        """
        folder = self._artifact.download(root, path_prefix=self.path)
        return os.path.join(folder, self.path)

    def __repr__(self) -> str:
        return f"<ArtifactManifestEntry {self.path} ({self.size} bytes)>"


class ArtifactManifest:
    """Which files make up an artifact: `entries`, by path."""

    def __init__(self, entries: Mapping[str, ArtifactManifestEntry]) -> None:
        self.entries = entries

    def get_entry_by_path(self, path: str) -> ArtifactManifestEntry | None:
        return self.entries.get(path)

    def __len__(self) -> int:
        return len(self.entries)
