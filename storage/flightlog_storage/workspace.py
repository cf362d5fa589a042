"""A workspace: the files of a folder that are its user's work, and what is left out.

The walk reads names, sizes and ignore files, and nothing else. It follows no link.
"""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flightlog_storage.copies import read_small
from flightlog_storage.errors import SourceUnusable
from flightlog_storage.home import HOME_FOLDERS
from flightlog_storage.ignore import Rules
from flightlog_storage.staging import SCRATCH_PREFIX

__all__ = ("LEFT_OUT", "Entry", "Limits", "Request", "Skipped", "Workspace", "survey")

RULES_SIZE_MAX = 1 << 20  # Of one ignore file.
# Out unless a negated rule names them. docs/assets.md has the same list.
LEFT_OUT = b"""
.idea/
.venv/
__pycache__/
node_modules/
*.pyc

.env
.env.*
!.env.example
*.key
*.pem
*.p12
*.pfx
id_dsa
id_ecdsa
id_ed25519
id_rsa
.aws/
.gnupg/
.ssh/
.git-credentials
.netrc
.pgpass
.pypirc
credentials.json
"""
_ADVICE = "leave some out with an ignore file, or set force_snapshot=True"
_GITIGNORE = ".gitignore"
_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
_KINDS = {
    stat.S_IFIFO: "is a FIFO",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


class Entry(NamedTuple):
    """A file or a symbolic link."""

    path: str  # Below the root.
    size: int
    mode: int


class Skipped(NamedTuple):
    """Something that no rule leaves out, and that is left out all the same."""

    path: str
    why: str


class Limits(NamedTuple):
    """How much a workspace may be; None is as much as there is."""

    count_max: int | None
    size_max: int | None

    def check(self, count: int, size: int) -> None:
        """Refuse what is too much.

        Raises:
            ValueError: It is; says what.
        """
        if self.count_max is not None and count > self.count_max:
            raise ValueError(
                "code snapshot too large: too many files "
                f"(more than max_files={self.count_max:,}); {_ADVICE}"
            )
        if self.size_max is not None and size > self.size_max:
            raise ValueError(
                "code snapshot too large: total bytes exceeded "
                f"({size:,} or more; max_total_bytes={self.size_max:,}); {_ADVICE}"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a workspace. The root is a real, absolute path."""

    root: str
    ignore_file: str
    limits: Limits
    excludes: Collection[str] = ()
    never: Collection[str] = ()  # Real paths that are out whatever the rules say.


@dataclass(slots=True)
class Workspace:
    """What was found: `entries` in the order of the bytes of their paths."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    size: int = 0

    def add(self, entry: Entry, limits: Limits) -> None:
        """Take an entry up.

        Raises:
            ValueError: It is one too many, or too large.
        """
        self.entries.append(entry)
        self.size += entry.size
        limits.check(len(self.entries), self.size)

    def skip(self, path: str, error: OSError | str) -> None:
        """Leave an entry out, and say why."""
        why = error if isinstance(error, str) else error.strerror or str(error)
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        self.skipped.append(Skipped(shown, why))


class _Placed(NamedTuple):
    """The rules of an ignore file, and how much of a path leads to its folder."""

    rules: Rules
    start: int


class _Folder(NamedTuple):
    """A folder to look into, with the rules that hold there, the strongest first."""

    path: str  # Below the root, with a slash at its end; empty for the root.
    is_named: bool  # By a negated rule: it is not left out for what it is.
    custom: tuple[_Placed, ...] = ()
    git: tuple[_Placed, ...] = ()


def survey(request: Request) -> Workspace:
    """Find what belongs to a workspace.

    Raises:
        ValueError: There is more than the limits allow; or the root is a home.
        OSError: The root cannot be read.
    """
    return _Survey(request).walk()


class _Survey:
    def __init__(self, request: Request) -> None:
        self._request = request
        self._found = Workspace()
        self._never = {os.path.relpath(path, request.root) for path in request.never}
        self._excludes = _Placed(Rules(os.fsencode("\n".join(request.excludes))), 0)
        self._left_out = Rules(LEFT_OUT)

    def walk(self) -> Workspace:
        folders = [_Folder("", True)]
        while folders:
            folders += self._enter(folders.pop())
        self._found.entries.sort(key=lambda entry: os.fsencode(entry.path))
        return self._found

    def _enter(self, folder: _Folder) -> list[_Folder]:
        """Take up a folder's files; return the folders in it that are not left out."""
        try:
            with os.scandir(os.path.join(self._request.root, folder.path)) as found:
                entries = {entry.name: entry for entry in found}
        except OSError as error:
            if not folder.path:
                raise
            self._found.skip(folder.path.rstrip("/"), error)
            return []
        if entries.keys() >= HOME_FOLDERS:
            if not folder.path:
                raise ValueError(f"root {self._request.root} is a flightlog home")
            return []
        if _VIRTUAL_ENVIRONMENT in entries and not folder.is_named:
            return []
        folder = self._with_rules(folder, entries)
        below = (self._take(folder, entry) for entry in entries.values())
        return [each for each in below if each is not None]

    def _with_rules(
        self, folder: _Folder, entries: dict[str, os.DirEntry[str]]
    ) -> _Folder:
        start = len(os.fsencode(folder.path))
        custom, git = folder.custom, folder.git
        if self._request.ignore_file in entries:
            text = self._read_rules(folder.path + self._request.ignore_file)
            custom = (_Placed(Rules(text), start), *custom)
        if _GITIGNORE in entries:
            text = self._read_rules(folder.path + _GITIGNORE)
            git = (_Placed(Rules(text), start), *git)
        return folder._replace(custom=custom, git=git)

    def _read_rules(self, path: str) -> bytes:
        """Return an ignore file's text; as in git, a link is none."""
        text: bytes | None = b""
        try:
            text = read_small(Path(self._request.root, path), RULES_SIZE_MAX)
        except SourceUnusable as error:
            self._found.skip(path, f"its rules cannot be read: {error.why}")
        except OSError as error:
            self._found.skip(path, f"its rules cannot be read: {error.strerror}")
        if text is None:
            raise ValueError(f"{path} has more than {RULES_SIZE_MAX:,} bytes of rules")
        return text

    def _take(self, folder: _Folder, entry: os.DirEntry[str]) -> _Folder | None:
        path = folder.path + entry.name
        if (
            entry.name == ".git"
            or entry.name.startswith(SCRATCH_PREFIX)
            or path in self._never
        ):
            return None
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
            is_out, is_named = self._decide(folder, path, entry.name, is_folder)
            if is_out:
                return None
            os.fsencode(path).decode()
            if is_folder:
                return folder._replace(path=f"{path}/", is_named=is_named)
            self._add(path, entry.stat(follow_symlinks=False))
        except UnicodeDecodeError:
            self._found.skip(path, "its name is not UTF-8")
        except OSError as error:
            self._found.skip(path, error)
        return None

    def _decide(
        self, folder: _Folder, path: str, name: str, is_folder: bool
    ) -> tuple[bool, bool]:
        """Return whether an entry is left out, and whether a negated rule names it."""
        path_bytes, name_bytes = os.fsencode(path), os.fsencode(name)
        for rules, start in (self._excludes, *folder.custom, *folder.git):
            rule = rules.find(path_bytes[start:], name_bytes, is_folder=is_folder)
            if rule is None:
                continue
            if not rule.is_negated:
                return True, False
            if not rule.is_sweeping:
                return False, True
            break
        rule = self._left_out.find(path_bytes, name_bytes, is_folder=is_folder)
        return rule is not None and not rule.is_negated, False

    def _add(self, path: str, status: os.stat_result) -> None:
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFLNK):
            self._found.skip(path, _KINDS.get(kind, "is no file"))
            return
        entry = Entry(path, status.st_size, status.st_mode)
        self._found.add(entry, self._request.limits)
