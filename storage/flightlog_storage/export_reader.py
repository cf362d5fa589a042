"""Reading an export, which is untrusted: nothing is taken for granted or on trust.

A member is known by a name that the format allows, and read within the size that the
manifest says. What is read is compared with its sha256 when the end is reached.
"""

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

import msgspec

from flightlog_storage.artifact_state import RunName
from flightlog_storage.carried import CarriedFrame, read_frames
from flightlog_storage.errors import CorruptData, ExportUnusable
from flightlog_storage.export_format import (
    BLOB_PREFIX,
    FORMAT,
    FRAMES,
    MANIFEST,
    MANIFEST_SIZE_MAX,
    MEMBERS_MAX,
    VERSION,
    Manifest,
    Member,
    blob_of,
)

__all__ = ("ExportReader", "MemberStream")

_ENCRYPTED = 0x1
# What zipfile raises for archives that are damaged, or made to hurt.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,  # Of a seek to before the start, for one.
    OverflowError,
    ValueError,
)


class MemberStream:
    """A member while it is read: no more than it may have, and checked at its end."""

    def __init__(self, path: Path, name: str, file: IO[bytes], member: Member) -> None:
        self._path = path
        self._name = name
        self._file = file
        self._member = member
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, as many as were asked for but for the end.

        Raises:
            ExportUnusable: It is damaged, or not what the manifest says.
        """
        try:
            data = self._file.read(size)
        except _DAMAGED as error:
            raise self._unusable(f"is damaged: {error}") from error
        self._size += len(data)
        if self._size > self._member.size:
            raise self._unusable("has more bytes than the manifest says")
        self._digest.update(data)
        if len(data) < size:
            self._check()
        return data

    def _check(self) -> None:
        if self._size != self._member.size:
            raise self._unusable("has fewer bytes than the manifest says")
        if self._digest.hexdigest() != self._member.sha256:
            raise self._unusable("has other bytes than the manifest says")

    def _unusable(self, why: str) -> ExportUnusable:
        return ExportUnusable(self._path, f"{self._name} {why}")


class ExportReader:
    """An export that is open; its members, names and sizes are as they may be."""

    def __init__(self, path: Path, size_max: int) -> None:
        """Open an export that unpacks to `size_max` bytes at most.

        Raises:
            ExportUnusable: It is none, or more than it may be.
            OSError: It cannot be read.
        """
        self.path = path
        # Not blocked by a pipe that nobody writes to.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags), "rb")
        try:
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                raise ExportUnusable(path, "is no regular file")
            self._archive = zipfile.ZipFile(self._file)
            self._members = self._listed()
            self.manifest = self._manifest()
            self._check(size_max)
        except _DAMAGED as error:
            self._file.close()
            raise ExportUnusable(path, f"is no export: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()
        self._file.close()

    @property
    def runs(self) -> frozenset[RunName]:
        """The runs in it."""
        return frozenset(run.name for run in self.manifest.runs)

    @property
    def size(self) -> int:
        """How many bytes it is, unpacked, without the manifest."""
        return self.manifest.frames.size + sum(self.manifest.blobs.values())

    def frames(self) -> Iterator[tuple[RunName, CarriedFrame]]:
        """Yield the frames with their runs, each checked, from the start.

        Raises:
            ExportUnusable: They are not what they are said to be.
        """
        with self._opened(FRAMES, self.manifest.frames) as stream:
            try:
                yield from read_frames(stream, self.runs)
            except CorruptData as error:
                raise ExportUnusable(self.path, str(error)) from error

    @contextmanager
    def blob(self, sha256: str) -> Iterator[MemberStream]:
        """Open a blob.

        Raises:
            ExportUnusable: It is damaged.
        """
        member = Member(self.manifest.blobs[sha256], sha256)
        with self._opened(BLOB_PREFIX + sha256, member) as stream:
            yield stream

    @contextmanager
    def _opened(self, name: str, member: Member) -> Iterator[MemberStream]:
        try:
            file = self._archive.open(self._members[name])
        except _DAMAGED as error:
            raise ExportUnusable(self.path, f"{name} is damaged: {error}") from error
        with file:
            yield MemberStream(self.path, name, file, member)

    def _listed(self) -> dict[str, zipfile.ZipInfo]:
        """Return the members by name, if an export may have them."""
        members = self._archive.infolist()
        if len(members) > MEMBERS_MAX:
            raise ExportUnusable(self.path, f"has more than {MEMBERS_MAX:,} members")
        listed: dict[str, zipfile.ZipInfo] = {}
        for info in members:
            why = _strange(info)
            if why is not None:
                raise ExportUnusable(self.path, why)
            if info.filename in listed:
                raise ExportUnusable(self.path, f"has two members {info.filename}")
            listed[info.filename] = info
        for name in (MANIFEST, FRAMES):
            if name not in listed:
                raise ExportUnusable(self.path, f"is no export: it has no {name}")
        return listed

    def _manifest(self) -> Manifest:
        info = self._members[MANIFEST]
        if info.file_size > MANIFEST_SIZE_MAX:
            raise ExportUnusable(self.path, f"{MANIFEST} is too large")
        with self._archive.open(info) as file:
            data = file.read(MANIFEST_SIZE_MAX + 1)
        try:
            head = msgspec.json.decode(data, type=dict[str, object])
            if head.get("format") != FORMAT:
                raise ExportUnusable(self.path, "is no export of flightlog")
            if head.get("version") != VERSION:
                why = f"has version {head.get('version')}; this reads {VERSION}"
                raise ExportUnusable(self.path, f"{why}: upgrade flightlog")
            return msgspec.convert(head, Manifest)
        except msgspec.MsgspecError as error:
            raise ExportUnusable(self.path, f"{MANIFEST}: {error}") from error

    def _check(self, size_max: int) -> None:
        """Compare members and manifest, and their sizes with what is allowed."""
        manifest = self.manifest
        blobs = {blob for name in self._members if (blob := blob_of(name))}
        sizes = {BLOB_PREFIX + blob: size for blob, size in manifest.blobs.items()}
        sizes[FRAMES] = manifest.frames.size
        packed = sum(info.compress_size for info in self._members.values())
        wrong = {
            "names no runs, or one twice": not manifest.runs
            or len(self.runs) != len(manifest.runs),
            "names a run without an entity, a project or an id": not all(
                all(name) for name in self.runs
            ),
            "has other blobs than its manifest says": blobs != manifest.blobs.keys(),
            "has members of other sizes than its manifest says": any(
                self._members[name].file_size != size
                for name, size in sizes.items()
                if name in self._members
            ),
            "has members that lie in one another": packed > self.path.stat().st_size,
            f"unpacks to {self.size:,} bytes; allowed are {size_max:,} (--max-size)": (
                self.size > size_max
            ),
        }
        for why, is_so in wrong.items():
            if is_so:
                raise ExportUnusable(self.path, why)


def _strange(info: zipfile.ZipInfo) -> str | None:
    """Return why a member is none of an export, if it is not."""
    name = info.orig_filename  # As it is written, not as zipfile would have it.
    is_blob = blob_of(name) is not None
    if name != info.filename or not (is_blob or name in (MANIFEST, FRAMES)):
        return f"has a member {name!r:.100}"
    if info.flag_bits & _ENCRYPTED:
        return f"{name} is encrypted"
    is_stored = info.compress_type == zipfile.ZIP_STORED
    if not is_stored and (is_blob or info.compress_type != zipfile.ZIP_DEFLATED):
        return f"{name} is compressed in a way that is not allowed for it"
    return None
