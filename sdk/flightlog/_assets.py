"""Files and artifacts of a live run: copied into blobs in the background, then told."""

import glob
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from flightlog._artifact import Artifact
from flightlog._artifact_checks import (
    NAME_LENGTH_MAX,
    check_aliases,
    check_metadata,
)
from flightlog._artifact_types import known_type
from flightlog._checks import check_tags
from flightlog._draft import Source, relative_path, walk
from flightlog._say import say
from flightlog._spec import RunSpec
from flightlog._storing import Job, Pending, Storing, keep_file
from flightlog._values import plain_text
from flightlog_storage.blobs import BlobStore
from flightlog_storage.codec import encode_event
from flightlog_storage.copies import stage_bytes, stage_file
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.event import (
    ArtifactLogged,
    ArtifactUsed,
    Event,
    ManifestEntry,
    StoringBegun,
    StoringEnded,
)
from flightlog_storage.manifest import (
    MANIFEST_INLINE_SIZE_MAX,
    encode_manifest,
    manifest_digest,
)
from flightlog_storage.paths import checked_path
from flightlog_storage.staging import staging_folder

if TYPE_CHECKING:
    from flightlog._outputs import Outputs
    from flightlog.apis.public.versions import LoggedVersion

__all__ = ("STORE_TIMEOUT_S", "Assets")

STORE_TIMEOUT_S = 60.0  # What finish() waits for files that are on their way.
DESCRIPTION_SIZE_MAX = 1 << 20  # Of an artifact, with metadata and names.
POLICIES = ("live", "now", "end")
_UNNAMABLE = re.compile(r"[^A-Za-z0-9_.\-]")
_REMOTE = ("gs://", "s3://", "http://", "https://", "hdfs://")


@dataclass(slots=True)
class _Saved:
    """A file of `run.save` that is to be stored again when the run ends."""

    path: Path
    is_begun: bool = False  # That is, what is to be stored at the end is told of.
    stored_as: tuple[int, int] | None = None  # mtime_ns and size, when last stored.
    is_lost: bool = False


class Assets:
    """What a run puts out and takes in but its rows."""

    def __init__(
        self,
        spec: RunSpec,
        record: Callable[[Event], None],
        flush: Callable[[float | None], bool],
    ) -> None:
        self._spec = spec
        self._record = record
        self._flush = flush
        self._store = BlobStore(spec.home.blobs)
        self._storing = Storing()
        self._recording = threading.RLock()  # A signal handler may end the run.
        self._is_over = False
        self._has_warned = False
        self._types: dict[str, str] = {}
        self._at_end: dict[str, _Saved] = {}

    # Artifacts

    def as_artifact(
        self, given: object, name: str | None, type: str | None
    ) -> Artifact:
        """Return an artifact that is given, or a draft made of a path or a URI."""
        if isinstance(given, Artifact):
            if name is not None or type is not None:
                raise ValueError("name and type are for an artifact made of a path")
            return given
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"an Artifact or a path is needed, not {given!r}")
        path = os.fsdecode(given)
        if name is None:
            base = _UNNAMABLE.sub("_", Path(path).name)
            name = f"run-{self._spec.id}-{base}"[:NAME_LENGTH_MAX]
        artifact = Artifact(name, "unspecified" if type is None else type)
        if os.path.isfile(path):
            artifact.add_file(path)
        elif os.path.isdir(path):
            artifact.add_dir(path)
        elif "://" in path:
            artifact.add_reference(path)
        else:
            raise ValueError(f"{path} is no file, no folder and no URI")
        return artifact

    def find(self, given: object, type: str | None) -> Artifact:
        """Return an artifact that is given, or the one of that name."""
        if isinstance(given, str):
            # Loaded only here: it brings the reading side with it.
            from flightlog.apis.public.artifacts import look_up

            spec = self._spec
            return look_up(spec.home, given, type, spec.entity, spec.project)
        if not isinstance(given, Artifact):
            raise TypeError(f"an Artifact or its name is needed, not {given!r}")
        if given.is_draft() and not given.life.is_pending:
            raise ValueError(f"artifact {given.name} is a draft: log it first")
        if type not in (None, given.type):
            raise ValueError(f"artifact {given.name} is of type {given.type!r}")
        self._check_home(given)
        return given

    def log_artifact(
        self,
        artifact: Artifact,
        aliases: Collection[str] | None,
        tags: Collection[str] | None,
    ) -> None:
        """Give an artifact to the background; a logged one is declared an output."""
        found = check_aliases(aliases), list(check_tags(tags or ()))
        pending = Pending(self._spec.home, uuid.uuid4().hex, self._flush)
        if not artifact.is_draft() or artifact.life.is_pending:
            self._check_project(artifact)
            again = partial(self._log_again, artifact, _awaited(artifact))
            job = partial(again, pending.token, *found)
        else:
            event = self._event(artifact, pending.token, *found)
            self._check_type(artifact)
            artifact.life.begin(pending)
            artifact.draft.hand_over()
            job = partial(self._log_new, artifact, event, pending)

        def failed(error: Exception) -> None:
            artifact.draft.clear()
            pending.settle(error)
            self._lose(f"artifact {artifact.name}", error)

        self._submit(f"artifact {artifact.name}", Job(job, failed))

    def _event(
        self, artifact: Artifact, token: str, aliases: list[str], tags: list[str]
    ) -> ArtifactLogged:
        entries = sorted(artifact.draft.entries.values(), key=lambda entry: entry.path)
        event = ArtifactLogged(
            time=time.time(),
            name=artifact.name,
            token=token,
            type=artifact.type,
            digest=manifest_digest(entries),
            size=artifact.size,
            file_count=artifact.file_count,
            description=artifact.description,
            metadata=check_metadata(artifact.metadata),  # As it is now: it may change.
            aliases=aliases,
            tags=tags,
        )
        size = len(encode_event(event))
        if size > DESCRIPTION_SIZE_MAX:
            raise ValueError(
                f"artifact {artifact.name}: {size:,} bytes of description and metadata "
                f"are too many; at most {DESCRIPTION_SIZE_MAX:,} can be stored"
            )
        return event

    def _check_home(self, artifact: Artifact) -> None:
        root = artifact.life.home.root
        if root != self._spec.home.root:
            raise ValueError(
                f"artifact {artifact.name} lies in another home, {root}: "
                "download it and log it here"
            )

    def _check_project(self, artifact: Artifact) -> None:
        self._check_home(artifact)
        if artifact.life.is_pending:
            return  # This process's own: checked again when it is known.
        where = (self._spec.entity, self._spec.project)
        if (artifact.entity, artifact.project) != where:
            raise ValueError("A run can't log an artifact to a different project.")

    def _check_type(self, artifact: Artifact) -> None:
        name, spec = artifact.name, self._spec
        known = known_type(spec.home, spec.entity, spec.project, name)
        if known is None:
            known = self._types.get(name)
        if known not in (None, artifact.type):
            raise ValueError(
                f"artifact {name} has type {known!r} already, not {artifact.type!r}"
            )
        self._types[name] = artifact.type

    def use_artifact(self, artifact: Artifact, use_as: str | None) -> None:
        """Declare an artifact an input of the run."""
        if not isinstance(use_as, str | None):
            raise TypeError(f"use_as must be a str, not {use_as!r}")
        use_as = None if use_as is None else plain_text(use_as)

        version_of = _awaited(artifact)

        def use() -> None:
            key = version_of().key
            self._tell(
                ArtifactUsed(
                    time=time.time(),
                    entity=key.artifact.entity,
                    project=key.artifact.project,
                    name=key.artifact.name,
                    number=key.number,
                    use_as=use_as,
                )
            )

        what = f"use of {artifact.name}"
        self._submit(what, Job(use, partial(self._lose, what)))

    # Files

    def save(self, pattern: str, base: str | None, policy: str) -> list[str]:
        """Store the files that a pattern matches; return their paths."""
        if policy not in POLICIES:
            raise ValueError(f"policy {policy!r} is none of {POLICIES}")
        if pattern.startswith(_REMOTE):
            say(f"save: {pattern} is not on this machine, so nothing is saved")
            return []
        named = _named(pattern, base)
        if not named:
            say(f"save: no file matches {pattern}, so nothing is saved")
        for name, path in named.items():
            saved = _Saved(path)
            if policy != "now":
                before = self._at_end.get(name)
                saved.is_begun = before is not None and before.is_begun
                self._at_end[name] = saved
            if policy != "end":
                self._submit(f"file {name}", self._job(name, saved))
            elif not saved.is_begun:
                saved.is_begun = True
                self.prepare()
                self._begin(f"file {name}")
        return [str(path) for path in named.values()]

    def _job(self, name: str, saved: _Saved) -> Job:
        def failed(error: Exception) -> None:
            if saved.is_lost:  # It is told already, and was tried again at the end.
                self._end()
            else:
                saved.is_lost = True
                self._lose(f"file {name}", error)

        return Job(partial(self._save_file, name, saved), failed)

    def _save_file(self, name: str, saved: _Saved) -> None:
        try:
            status = os.stat(saved.path)
        except FileNotFoundError:
            if saved.stored_as is None:
                raise
            self._end()  # What was there last is stored.
            return
        found = (status.st_mtime_ns, status.st_size)
        if found == saved.stored_as:
            self._end()
            return
        staged = stage_file(saved.path, self._staging())
        with self._store.holding():
            event = keep_file(self._store, staged, name, time.time())
            saved.stored_as = found
            self._tell(event)

    def store(self, what: str, make: Callable[[BlobStore, Path], Event]) -> None:
        """Have the background make blobs of something, and record the event of it."""

        def do() -> None:
            with self._store.holding():
                self._tell(make(self._store, self._staging()))

        self._submit(what, Job(do, partial(self._lose, what)))

    # The end

    def prepare(self) -> None:
        """Be ready for an end that comes with that of the process."""
        with suppress(RuntimeError):  # It has come: what fails is told and counted.
            self._storing.prepare()

    def finish(self, outputs: "Outputs | None" = None) -> None:
        """Store what is on its way, and what was to be at the end. Idempotent.

        So are outputs that are watched; what of them is late stays the daemon's.
        """
        if self._is_over:
            return
        try:
            while self._at_end:
                name, saved = self._at_end.popitem()
                if not saved.is_begun:
                    self._begin(f"file {name}")
                self._storing.submit(self._job(name, saved))
            if outputs is not None:
                look = Job(partial(outputs.finish, self._tell), self._leave)
                self._storing.submit(look)
            left = self._storing.close(STORE_TIMEOUT_S)
            if outputs is not None and left and not outputs.is_looked_through:
                outputs.leave()
                left -= 1
                self._leave(TimeoutError(f"not done within {STORE_TIMEOUT_S:.0f} s"))
            if left:
                error = TimeoutError(f"not stored within {STORE_TIMEOUT_S:.0f} s")
                self._warn(f"{left} files or artifacts", error)
        finally:
            with self._recording:
                self._is_over = True

    # In the background

    def _log_new(
        self, artifact: Artifact, event: ArtifactLogged, pending: Pending
    ) -> None:
        draft = artifact.draft
        with self._store.holding():
            entries = [draft.entries[path] for path in sorted(draft.entries)]
            for entry in entries:
                self._keep_entry(entry, draft.sources.get(entry.path))
            data = encode_manifest(entries)
            if len(data) <= MANIFEST_INLINE_SIZE_MAX:
                event = structs.replace(event, entries=entries)
            else:
                staged = stage_bytes(data, self._staging())
                self._store.keep(staged)
                event = structs.replace(
                    event, manifest=staged.digests.sha256, manifest_size=len(data)
                )
            self._tell(event)
        draft.clear()
        pending.settle()

    def _keep_entry(self, entry: ManifestEntry, source: Source | None) -> None:
        """See to it that the bytes of an entry, if it has any, are a blob.

        Raises:
            ValueError: They were deleted, with what the entry was taken from.
            SourceUnusable: They were to stay as they are, and have changed.
        """
        if source is not None:
            self._keep(source)
        elif entry.blob is not None and not self._store.renew(entry.blob, entry.size):
            raise ValueError(f"the bytes of {entry.path!r} are not in this home")

    def _keep(self, source: Source) -> None:
        """Make the bytes of an entry a blob.

        Raises:
            SourceUnusable: It was to stay as it is, and has changed.
        """
        digests, staged = source.digests, source.staged
        if staged is None:
            assert source.original is not None
            if self._store.renew(digests.sha256, digests.size):
                return
            staged = stage_file(source.original, self._staging())
            if staged.digests != digests:
                staged.path.unlink()
                raise SourceUnusable(source.original, "changed after it was added")
        elif os.stat(staged.path).st_dev != os.stat(self._spec.home.blobs).st_dev:
            elsewhere, staged = staged, stage_file(staged.path, self._staging())
            elsewhere.path.unlink()
        self._store.keep(staged)

    def _log_again(
        self,
        artifact: Artifact,
        version_of: "Callable[[], LoggedVersion]",
        token: str,
        aliases: list[str],
        tags: list[str],
    ) -> None:
        key = version_of().key
        self._check_project(artifact)
        self._tell(
            ArtifactLogged(
                time=time.time(),
                name=key.artifact.name,
                token=token,
                existing=key.number,
                aliases=aliases,
                tags=tags,
            )
        )

    def _staging(self) -> Path:
        return staging_folder(self._spec.home.staging)

    def _tell(self, event: Event) -> None:
        with self._recording:  # Not after the run's last event.
            if self._is_over:
                raise TimeoutError("the run has ended meanwhile")
            self._record(event)

    def _submit(self, what: str, job: Job) -> None:
        self._begin(what)
        self._storing.submit(job)

    def _begin(self, what: str) -> None:
        """Owe an outcome: one that is never told is counted when the writer ends."""
        self._record(StoringBegun(time=time.time(), what=what))

    def _end(self, reason: str | None = None) -> None:
        with self._recording:
            if not self._is_over:  # What comes after the end was counted there.
                self._record(StoringEnded(time=time.time(), reason=reason))

    def _leave(self, error: Exception) -> None:
        say(f"the last look at outputs: {error}; the daemon goes on with it")

    def _lose(self, what: str, error: Exception) -> None:
        """Count what could not be stored, and say so once."""
        self._warn(what, error)
        self._end(plain_text(f"{what}: {error}"))  # A path in it may be no text.

    def _warn(self, what: str, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            say(f"{what}: {error}; this is lost and counted, training goes on")


def _awaited(artifact: Artifact) -> "Callable[[], LoggedVersion]":
    """Return what waits for a version that may be on its way, in the background."""
    # Loaded by the caller: at exit it cannot be, and whoever is forked while a thread
    # loads it would wait for that for ever.
    import flightlog.apis.public.versions  # noqa: F401

    return lambda: artifact.wait().logged


def _named(pattern: str, base: str | None) -> dict[str, Path]:
    """Return the files that a pattern matches, by what they are to be called.

    Raises:
        ValueError: One does not lie below the base, or cannot be called so.
    """
    if base is not None:
        root = Path(os.path.abspath(base))
    elif os.path.isabs(pattern):
        root = Path(pattern).parent.parent  # The last folder is kept, as in W&B.
    else:
        root = Path.cwd()
    found = {}
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(os.path.abspath(match))
        for file in walk(path, lambda path: None) if path.is_dir() else [path]:
            if not file.is_relative_to(root):
                raise ValueError(f"{file} does not lie below {root}: give a base_path")
            found[checked_path(relative_path(file, root))] = file
    return found
