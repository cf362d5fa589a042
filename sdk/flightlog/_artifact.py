"""Artifacts: named files that runs put out and take in, in versions."""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Any, Literal

from msgspec import structs

from flightlog._artifact_checks import (
    check_artifact_name,
    check_description,
    check_metadata,
    check_type,
    local_path_of,
    tidy_path,
)
from flightlog._artifact_entries import ArtifactManifest, ArtifactManifestEntry
from flightlog._artifact_life import ArtifactLife
from flightlog._draft import REFERENCES_MAX, Draft, references
from flightlog._session import session
from flightlog.errors import ArtifactFinalizedError, UsageError

if TYPE_CHECKING:
    from flightlog.apis.public.artifacts import ArtifactCollection
    from flightlog.apis.public.files import Files
    from flightlog.apis.public.run import Run
    from flightlog.apis.public.versions import LoggedVersion

__all__ = ("Artifact",)

_Path = str | os.PathLike[str]


class Artifact:
    """A named set of files in versions, such as a model or a data set.

    It begins as a draft: files are added, then a run logs it, which finalizes it. What
    was added is what is stored, whatever happens to the files later. `run.log_artifact`
    returns at once; what a logged artifact has, such as its version, it has when
    `wait()` has returned, or when it comes from `Api.artifact`.
    """

    # The signature is W&B's, which users know.
    def __init__(
        self,
        name: str,
        type: str,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        incremental: bool = False,
        use_as: str | None = None,
    ) -> None:
        """Make a draft.

        Args:
            name: 1 to 128 letters, digits, `_`, `.` and `-`.
            type: Such as "model" or "dataset"; `job` and `wandb-…` are reserved.
            description: A text.
            metadata: A dict of at most 100 keys. NaN becomes None.
            incremental: Must be False: `new_draft()` of a version takes over its files.
            use_as: Kept.

        Raises:
            TypeError: An argument has a wrong type.
            ValueError: An argument has a value that cannot be.
        """
        self._name = check_artifact_name(name)
        self.draft = Draft(
            check_type(type), check_description(description), check_metadata(metadata)
        )
        if incremental:
            raise ValueError(
                "incremental artifacts are not kept: take Api().artifact(…).new_draft()"
            )
        self.use_as = use_as
        self.life = ArtifactLife(self._name)

    # Making a draft

    def add_file(  # As in W&B.
        self,
        local_path: _Path,
        name: str | None = None,
        is_tmp: bool = False,
        skip_cache: bool = False,
        policy: Literal["mutable", "immutable"] = "mutable",
        overwrite: bool = False,
    ) -> ArtifactManifestEntry:
        """Add a file; it is read now, which takes as long as that takes.

        Args:
            local_path: The file.
            name: Its path in the artifact, by default the file's name.
            is_tmp: Accepted, as W&B has it.
            skip_cache: Accepted; there is no cache.
            policy: "mutable" copies it now; "immutable" copies it when it is logged,
                which fails if it has changed by then.
            overwrite: Whether other content of that name is replaced.

        Raises:
            ArtifactFinalizedError: The artifact is logged.
            ValueError: It is no file, the name cannot be, or other content has it.
        """
        draft, path = self._open_draft(), local_path_of(local_path)
        name = path.name if name is None else tidy_path(name)
        if not path.is_file():
            raise ValueError(f"{path} is no file")
        entry = draft.add_file(path, name, policy=policy, overwrite=overwrite)
        return self._entry(entry.path)

    def add_dir(
        self,
        local_path: _Path,
        name: str | None = None,
        skip_cache: bool = False,
        policy: Literal["mutable", "immutable"] = "mutable",
    ) -> None:
        """Add all files below a folder, those that links lead to, too.

        Args:
            local_path: The folder.
            name: Where in the artifact they go; by default to its top.
            skip_cache: Accepted; there is no cache.
            policy: As in `add_file`.

        Raises:
            ArtifactFinalizedError: The artifact is logged.
            ValueError: It is no folder; or as `add_file`.
        """
        draft, folder = self._open_draft(), local_path_of(local_path)
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder")
        prefix = f"{tidy_path(name)}/" if name else ""
        draft.add_folder(folder, prefix, policy=policy)

    def add_reference(
        self,
        uri: str | ArtifactManifestEntry,
        name: str | None = None,
        checksum: bool = True,
        max_objects: int | None = None,
    ) -> list[ArtifactManifestEntry]:
        """Add where bytes are, without taking them; only those of `file://` are read.

        Args:
            uri: With a scheme. A folder of `file://` stands for the files below it. An
                entry of a logged artifact stands for its bytes.
            name: The path in the artifact; by default the last part of the URI. For a
                folder: where its files go.
            checksum: Whether the digest of a local file is that of its bytes; that of
                all else is the URI.
            max_objects: How many files a folder may have; by default 10,000,000.

        Raises:
            ArtifactFinalizedError: The artifact is logged.
            ValueError: It has no scheme, there is no such file, there are too many, or
                a name cannot be or is taken.
        """
        draft = self._open_draft()
        if isinstance(uri, ArtifactManifestEntry):
            return [self.add(uri, name or uri.path)]
        if not isinstance(uri, str) or "://" not in uri:
            raise ValueError(f"a reference must be a URI with a scheme, not {uri!r}")
        name = None if name is None else tidy_path(name)
        count_max = REFERENCES_MAX if max_objects is None else max_objects
        found = references(uri, name, checksum=checksum, count_max=count_max)
        return [self._entry(draft.add_entry(entry).path) for entry in found]

    def new_file(
        self, name: str, mode: str = "x", encoding: str | None = None
    ) -> AbstractContextManager[IO[Any]]:
        """Open a file to write into the artifact; it is added when it is closed.

        Args:
            name: Its path in the artifact.
            mode: "x" or "xb"; "w" or "wb" replace a file of that name.
            encoding: Of text.

        Raises:
            ArtifactFinalizedError: The artifact is logged.
            ValueError: The name or the mode cannot be, or the name is taken.
        """
        return self._open_draft().new_file(tidy_path(name), mode, encoding)

    def add(
        self, obj: ArtifactManifestEntry, name: str, overwrite: bool = False
    ) -> ArtifactManifestEntry:
        """Add a file of a logged artifact under a name; its bytes are not copied.

        Raises:
            ArtifactFinalizedError: This artifact is logged.
            ArtifactNotLoggedError: The other one is not.
            TypeError: `obj` is no such file. There are no media objects: write what is
                to be kept to a file, with `new_file`.
            ValueError: The name cannot be, or other content has it.
        """
        draft = self._open_draft()
        if not isinstance(obj, ArtifactManifestEntry):
            kind = type(obj).__qualname__
            raise TypeError(
                f"add() takes a file of a logged artifact, not a {kind}: write it to a "
                "file, with new_file()"
            )
        obj.parent_artifact().logged  # noqa: B018  # Raises for a draft.
        entry = structs.replace(obj.stored, path=tidy_path(name))
        return self._entry(draft.add_entry(entry, overwrite).path)

    def remove(self, item: str | ArtifactManifestEntry) -> None:
        """Take a file out again, or all files below a folder.

        Raises:
            ArtifactFinalizedError: The artifact is logged.
            FileNotFoundError: There is no such file and no such folder.
        """
        path = item.path if isinstance(item, ArtifactManifestEntry) else tidy_path(item)
        self._open_draft().remove(path)

    def finalize(self) -> None:
        """Allow no more changes of the content; logging does it."""
        self.life.is_final = True

    def is_draft(self) -> bool:
        """Whether it is not logged, as far as is known here: see `wait`."""
        return self.life.version is None

    # What it is

    @property
    def name(self) -> str:
        """`name`, and of a logged artifact `name:vN`."""
        logged = self.life.version
        return self._name if logged is None else f"{self._name}:v{logged.number}"

    @property
    def type(self) -> str:
        return self._content.type

    @property
    def description(self) -> str | None:
        return self._content.description

    @description.setter
    def description(self, description: str | None) -> None:
        self._changeable.description = check_description(description)

    @property
    def metadata(self) -> dict[str, Any]:
        """A dict; it may be changed in place."""
        return self._content.metadata

    @metadata.setter
    def metadata(self, metadata: Mapping[str, Any] | None) -> None:
        self._changeable.metadata = check_metadata(metadata)

    @property
    def manifest(self) -> ArtifactManifest:
        """Its files: `manifest.entries` maps paths to entries."""
        logged = self.life.version
        if logged is not None:
            entries = logged.entries()
            return ArtifactManifest(
                {path: ArtifactManifestEntry(self, e) for path, e in entries.items()}
            )
        paths = sorted(self.draft.entries)
        return ArtifactManifest({path: self._entry(path) for path in paths})

    @property
    def digest(self) -> str:
        """The MD5 of the manifest, in hexadecimal; metadata is not part of it."""
        return self._content.digest

    @property
    def size(self) -> int:
        """The bytes of all files; of references as far as that is known."""
        return self._content.size

    @property
    def file_count(self) -> int:
        return self._content.file_count

    @property
    def state(self) -> str:
        """PENDING, COMMITTED when it is logged, DELETED when it was deleted here."""
        logged = self.life.version
        if logged is None:
            return "PENDING"
        return "DELETED" if logged.is_deleted else "COMMITTED"

    @property
    def incremental(self) -> bool:
        return False

    @property
    def history_step(self) -> None:
        """None: it is not kept at which step a run logged it."""

    # What it is when it is logged

    @property
    def logged(self) -> "LoggedVersion":
        """What is kept of it.

        Raises:
            ArtifactNotLoggedError: It is not logged, or that is not known here yet.
        """
        return self.life.logged

    @property
    def id(self) -> str:
        """An opaque name of this version."""
        return self.logged.id

    @property
    def entity(self) -> str:
        return self.logged.key.artifact.entity

    @property
    def project(self) -> str:
        return self.logged.key.artifact.project

    @property
    def qualified_name(self) -> str:
        """`entity/project/name:vN`."""
        return f"{self.entity}/{self.project}/{self.name}"

    @property
    def collection(self) -> "ArtifactCollection":
        """All versions of it."""
        # Only here: collections hold artifacts.
        from flightlog.apis.public.artifacts import ArtifactCollection

        return ArtifactCollection(self.logged.client, self.logged.key.artifact)

    @property
    def version(self) -> str:
        """`vN`."""
        return f"v{self.logged.number}"

    @property
    def aliases(self) -> list[str]:
        """Its names, `latest` among them, without `vN`; may be changed in place."""
        return self.logged.aliases

    @aliases.setter
    def aliases(self, aliases: Iterable[str]) -> None:
        self.logged.set_aliases(aliases)

    @property
    def tags(self) -> list[str]:
        """Words to find it by; may be changed in place."""
        return self.logged.tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        self.logged.set_tags(tags)

    @property
    def created_at(self) -> str:
        """When it was logged, ISO 8601, UTC."""
        return self.logged.created_at

    @property
    def updated_at(self) -> str:
        """When it was last changed, ISO 8601, UTC."""
        return self.logged.updated_at

    source_name = name
    source_entity = entity
    source_project = project
    source_qualified_name = qualified_name
    source_collection = collection
    source_version = version

    def save(self) -> None:
        """Log a draft into the active run; of a logged one record what was changed.

        Only what was changed is sent: description, metadata, aliases and tags.

        Raises:
            UsageError: A draft, and no run is active.
            BadArgumentError: A value cannot be.
            CommError: The change could not be recorded.
        """
        if self.life.version is not None:
            self.life.version.save()
        elif session.run is None:
            raise UsageError("call flightlog.init() before saving an artifact")
        else:
            session.run.log_artifact(self)

    def wait(self, timeout: float | None = None) -> "Artifact":
        """Wait until it is logged and durable; return it.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Raises:
            ArtifactNotLoggedError: No run has logged it.
            CommError: It could not be stored, or is not logged by then, and `exc` is a
                TimeoutError.
        """
        self.life.wait(timeout)
        return self

    # Reading a logged one

    def download(
        self,
        root: _Path | None = None,
        allow_missing_references: bool = False,
        skip_cache: bool | None = None,
        path_prefix: str | None = None,
    ) -> str:
        """Write its files to a folder; each is checked against its digest on the way.

        Files that are there and right are left alone, as are files of others.
        References are followed when they are `file://`; others are told of.

        Args:
            root: The folder; by default `./artifacts/name:vN`.
            allow_missing_references: Whether what references lead to may be gone.
            skip_cache: Accepted; there is no cache.
            path_prefix: Only paths that begin so.

        Returns:
            The folder.

        Raises:
            ArtifactNotLoggedError: It is a draft.
            CorruptError: Bytes are missing or damaged.
            CommError: A file cannot be written; `exc` says why.
            TypeError: `path_prefix` is no str.
        """
        if not isinstance(path_prefix, str | None):
            raise TypeError(f"path_prefix must be a str, not {path_prefix!r}")
        return self.logged.download(
            root, prefix=path_prefix or "", allow_missing=allow_missing_references
        )

    def checkout(self, root: _Path | None = None) -> str:
        """Write its files to a folder, and delete all others there; see `download`."""
        return self.logged.checkout(root)

    def verify(self, root: _Path | None = None) -> None:
        """Compare a folder with its files; references are not looked at.

        Args:
            root: The folder; by default that of `download`.

        Raises:
            ArtifactNotLoggedError: It is a draft.
            CorruptError: A file is missing, another, or not one of its own.
        """
        self.logged.verify(root)

    def file(self, root: _Path | None = None) -> str:
        """Download its only file and return where it is.

        Raises:
            ArtifactNotLoggedError: It is a draft.
            ValueError: It has not exactly one file.
        """
        entries = list(self.logged.entries())
        if len(entries) != 1:
            raise ValueError(f"{self.name} has {len(entries)} files, not one")
        return os.path.join(self.download(root), entries[0])

    def files(self, names: list[str] | None = None, per_page: int = 50) -> "Files":
        """Return its files, or those of `names` that it has.

        Raises:
            ArtifactNotLoggedError: It is a draft.
            BadArgumentError: An argument cannot be.
        """
        return self.logged.files(names, per_page)

    def get_entry(self, name: str) -> ArtifactManifestEntry:
        """Return the file at a path; also `artifact[name]`.

        Raises:
            KeyError: There is none.
        """
        entries = self.manifest.entries
        if name not in entries:
            raise KeyError(f"artifact {self.name} has no file {name!r}")
        return entries[name]

    __getitem__ = get_entry

    def get(self, name: str) -> ArtifactManifestEntry | None:
        """Return the file at a path, or None."""
        return self.manifest.entries.get(name)

    def used_by(self) -> list["Run"]:
        """Return the runs that used it.

        Raises:
            ArtifactNotLoggedError: It is a draft.
        """
        return self.logged.used_by()

    def logged_by(self) -> "Run | None":
        """Return the run that logged it first; None when that is deleted.

        Raises:
            ArtifactNotLoggedError: It is a draft.
        """
        return self.logged.logged_by()

    def delete(self, delete_aliases: bool = False) -> None:
        """Delete this version; its number is not given again.

        Raises:
            ArtifactNotLoggedError: It is a draft.
            BadArgumentError: It has aliases, be it `latest`, and they are to stay.
            CommError: The change could not be recorded.
        """
        self.logged.delete(delete_aliases)

    def new_draft(self) -> "Artifact":
        """Return a draft with the same files, to be changed and logged.

        Raises:
            ArtifactNotLoggedError: It is a draft itself.
        """
        logged = self.logged
        draft = Artifact(self._name, self.type, self.description, dict(self.metadata))
        for entry in logged.entries().values():
            draft.draft.add_entry(entry)
        return draft

    def link(self, target_path: str, aliases: list[str] | None = None) -> None:
        """Raise UsageError: there is no registry to link artifacts into."""
        raise UsageError("there is no registry: give an artifact an alias instead")

    def unlink(self) -> None:
        """Raise UsageError: see `link`."""
        raise UsageError("there is no registry, so this artifact is linked nowhere")

    def __repr__(self) -> str:
        where = self._name if self.is_draft() else self.qualified_name
        return f"<Artifact {where} ({self.type})>"

    # Inside

    @classmethod
    def of(cls, logged: "LoggedVersion") -> "Artifact":
        """Return the artifact that is kept as `logged`."""
        found = cls.__new__(cls)
        found._name = logged.key.artifact.name
        found.draft, found.use_as = Draft(logged.type), None
        found.life = ArtifactLife(found._name, logged)
        return found

    @property
    def _content(self) -> "Draft | LoggedVersion":
        """Who knows what it is."""
        return self.draft if self.life.version is None else self.life.version

    @property
    def _changeable(self) -> "Draft | LoggedVersion":
        """Whom a change is told; nobody while it is on its way."""
        return self.logged if self.life.is_pending else self._content

    def _entry(self, path: str) -> ArtifactManifestEntry:
        draft = self.draft
        return ArtifactManifestEntry(self, draft.entries[path], draft.local_path(path))

    def _open_draft(self) -> Draft:
        if self.life.is_final:
            raise ArtifactFinalizedError(
                f"artifact {self.name} is final: its content cannot be changed; "
                "new_draft() of the logged artifact can"
            )
        return self.draft
