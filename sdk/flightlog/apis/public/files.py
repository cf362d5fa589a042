"""Files: those of a run or of an artifact, as objects to download."""

import io
import mimetypes
import os
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from flightlog._say import say
from flightlog._storing import keep_file
from flightlog.apis.public.client import Client
from flightlog.apis.public.downloads import write_entry
from flightlog.apis.public.paginator import Paginator
from flightlog.apis.public.reading import checked, iso
from flightlog.errors import BadArgumentError, CommError, NotFoundError
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import stage_file
from flightlog_storage.errors import StorageError
from flightlog_storage.event import FileDeleted, ManifestEntry
from flightlog_storage.paths import checked_path
from flightlog_storage.runstate import RunState
from flightlog_storage.staging import staging_folder

if TYPE_CHECKING:
    from flightlog.apis.public.api import Api

__all__ = (
    "File",
    "FileOrigin",
    "Files",
    "find_files",
    "only_file",
    "run_files",
    "save_file",
    "stored_name",
)

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """Whose file it is: `path` names the run or the artifact version."""

    path: str
    run: tuple[str, str, str] | None = None  # None: an artifact's, not to be deleted.


class File:
    """A file of a run or of an artifact."""

    def __init__(
        self,
        client: Client,
        origin: FileOrigin,
        entry: ManifestEntry,
        updated_at: float,
    ) -> None:
        self.client = client
        self._origin = origin
        self._entry = entry
        self._updated_at = updated_at

    @property
    def id(self) -> str:
        """An opaque name of the file."""
        return b64encode(f"File:v1:{self._origin.path}:{self.name}".encode()).decode()

    @property
    def name(self) -> str:
        """Its path, with slashes."""
        return self._entry.path

    @property
    def url(self) -> str:
        """A `file://` URL of its bytes, or where a reference leads."""
        if self._entry.reference is not None:
            return self._entry.reference
        return self._store().path(self._entry.blob or "").as_uri()

    direct_url = url

    @property
    def size(self) -> int:
        """In bytes; 0 where it is not known."""
        return self._entry.size

    @property
    def md5(self) -> str:
        """The MD5 of its bytes, in base64."""
        return self._entry.digest

    digest = md5

    @property
    def mimetype(self) -> str:
        """As its name's extension tells."""
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    @property
    def updated_at(self) -> str:
        """When it was saved, ISO 8601, UTC."""
        return iso(self._updated_at)

    @property
    def path_uri(self) -> str:
        """What W&B says of files in S3: there are none, so a line, and nothing."""
        say("path_uri: this file is in no bucket; see url")
        return ""

    def download(
        self,
        root: str = ".",
        replace: bool = False,
        exist_ok: bool = False,
        api: "Api | None" = None,
    ) -> io.TextIOWrapper:
        """Write the file to `root/name` and open it as text, to be read.

        Args:
            root: The folder; made if it is not there.
            replace: Whether a file that is there is replaced.
            exist_ok: Whether a file that is there is opened as it is.
            api: Accepted, as W&B has it.

        Raises:
            BadArgumentError: There is a file, and neither is asked for; or the name
                leads out of the folder.
            CorruptError: The bytes are missing or damaged.
            CommError: It cannot be written.
        """
        path = Path(root) / checked(lambda: checked_path(self.name))
        if path.exists() and not replace:
            if not exist_ok:
                raise BadArgumentError(
                    "File already exists, pass replace=True to overwrite or "
                    "exist_ok=True to leave it as is and don't error."
                )
        else:
            write_entry(self._store(), self._entry, Path(root))
        try:
            return path.open(encoding="utf-8")
        except OSError as error:
            raise CommError(f"{path} cannot be opened: {error}", error) from error

    def delete(self) -> None:
        """Delete a file of a run.

        Raises:
            BadArgumentError: It is an artifact's.
            CommError: The change could not be recorded.
        """
        if self._origin.run is None:
            raise BadArgumentError("a file of an artifact cannot be deleted by itself")
        event = FileDeleted(time=time.time(), name=self.name)
        self.client.record(self._origin.run, [event])

    def _store(self) -> BlobStore:
        return BlobStore(self.client.home.blobs)

    def __repr__(self) -> str:
        return f"<File {self.name} ({self.mimetype}) {_readable(self.size)}>"


class Files(Paginator[File]):
    """The files of a run or of an artifact, by name."""


def find_files(
    origin: FileOrigin,
    find: Callable[[], list[File]],
    names: list[str] | None,
    per_page: int,
    pattern: str | None = None,
) -> Files:
    """Return the files that are asked for; read at the first use.

    Raises:
        BadArgumentError: An argument cannot be, or names and a pattern are given.
    """
    if isinstance(names, str) or (names is not None and pattern is not None):
        raise BadArgumentError("give a list of names or a pattern, not both")
    if not isinstance(pattern, str | None):
        raise BadArgumentError(f"pattern must be a str, not {pattern!r}")
    wanted = set(names or ())

    def chosen() -> list[File]:
        return [
            file
            for file in find()
            if (not wanted or file.name in wanted)
            and (pattern is None or _is_like(file.name, pattern))
        ]

    return Files(f"Files {origin.path}", chosen, per_page)


def _is_like(name: str, pattern: str) -> bool:
    """Whether a name is as a pattern of SQL's LIKE says: `%` any text, `_` one."""
    plain = "".join(f"[{each}]" if each in "*?[" else each for each in pattern)
    return fnmatchcase(name, plain.replace("%", "*").replace("_", "?"))


def _readable(size: int) -> str:
    number, unit = float(size), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.1f}{_UNITS[unit]}"


def run_files(
    client: Client, run: tuple[str, str, str], read: Callable[[], RunState]
) -> list[File]:
    """Return the files of a run whose state `read` reads."""
    origin = FileOrigin("/".join(run), run)
    return [
        File(
            client,
            origin,
            ManifestEntry(
                path=saved.name, digest=saved.digest, size=saved.size, blob=saved.blob
            ),
            saved.updated_at,
        )
        for _, saved in sorted(read().files.items())
    ]


def save_file(
    client: Client, run: tuple[str, str, str], path: object, root: object
) -> None:
    """Keep a file with a run; durable when this returns.

    Raises:
        BadArgumentError: A path is none, or cannot be a name.
        CommError: The file cannot be read, or it could not be kept.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(
        root, str | os.PathLike
    ):
        raise BadArgumentError(f"a path is needed, not {path!r} or {root!r}")
    name = checked(lambda: checked_path(stored_name(path, root)))
    home = client.home
    store = BlobStore(home.blobs)
    try:
        home.create()
        staged = stage_file(Path(path), staging_folder(home.staging))
        with store.holding():
            client.record(run, [keep_file(store, staged, name, time.time())])
    except (OSError, StorageError) as error:
        raise CommError(f"{path} cannot be kept: {error}", error) from error


def only_file(files: Files, name: str, where: str) -> File:
    """Return the one file of a search by name.

    Raises:
        NotFoundError: There is none.
    """
    for file in files:
        return file
    raise NotFoundError(f"File {name} not found in {where}")


def stored_name(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """Return what a file is called that is uploaded: its path below `root`.

    A path that leads out of it stays inside: `..` becomes `__`, and `.` becomes `_`.
    """
    relative = os.path.relpath(os.path.abspath(path), os.path.abspath(root))
    parts = Path(relative).parts
    return "/".join({".": "_", "..": "__"}.get(part, part) for part in parts)
