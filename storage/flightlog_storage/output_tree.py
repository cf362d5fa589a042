"""The outputs there are now: files and folders below the folders that are watched.

No link is followed to where nobody watches, and nothing but files is opened.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from flightlog_storage.output_patterns import Patterns
from flightlog_storage.staging import SCRATCH_PREFIX
from flightlog_storage.trees import Scandir, leaves

__all__ = ("Candidate", "candidates", "look_at_folder", "seen_of_file")

_Skip = Callable[[str, OSError | str], None]


class Candidate(NamedTuple):
    """A file or folder at `path` that is an output; a link's bytes are at `source`."""

    path: str
    source: str
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def candidates(
    dirs: list[str],
    patterns: Patterns,
    never: str,
    skip: _Skip,
    tick: Callable[[], object],
    scandir: Scandir,
) -> Iterator[Candidate]:
    """Yield what is an output now, each once, in no order.

    What a folder holds that is an output is not an output by itself.

    Args:
        dirs: Where to look.
        patterns: What is an output, by its path below one of these.
        never: A folder that is left out, silently.
        skip: Told of what is left out, and why.
        tick: Called for each name; what it raises ends this.
        scandir: Lists a folder that is looked into.
    """
    # The outer ones first: what these yield whole is not looked into.
    roots = sorted({os.path.realpath(each) for each in dirs}, key=len)
    walk = _Walk(roots, patterns, never, skip, tick, scandir)
    found: set[str] = set()
    for root in roots:
        if _is_ours(root, never):
            skip(root, "belongs to flightlog")
            continue
        is_shared = any(_is_within(root, other) for other in roots if other != root)
        is_shared |= any(_is_within(other, root) for other in roots if other != root)
        if is_shared and any(_is_within(root, folder) for folder in found):
            continue
        for candidate in walk.below(root):
            if not is_shared:
                yield candidate
            elif candidate.path not in found:
                found.add(candidate.path)
                yield candidate


def _is_ours(root: str, never: str) -> bool:
    """Whether a folder is the home, or in it and none of a run's own."""
    return _is_within(root, never) and not _is_within(root, f"{never}/files")


class _Walk:
    """A look at the files below a root."""

    def __init__(
        self,
        roots: list[str],
        patterns: Patterns,
        never: str,
        skip: _Skip,
        tick: Callable[[], object],
        scandir: Scandir,
    ) -> None:
        self._roots = roots
        self._patterns = patterns
        self._never = never
        self._skip = skip
        self._tick = tick
        self._scandir = scandir

    def below(self, root: str) -> Iterator[Candidate]:
        folders = [""]
        while folders:
            below = folders.pop()
            try:
                with self._scandir(os.path.join(root, below)) as entries:
                    for entry in entries:
                        self._tick()
                        path = below + entry.name
                        if self._is_to_enter(path, entry):
                            folders.append(f"{path}/")
                        elif (found := self._candidate(path, entry)) is not None:
                            yield found
            except OSError as error:
                if not below or not isinstance(error, FileNotFoundError):
                    self._skip(os.path.join(root, below).rstrip("/"), error)

    def _is_to_enter(self, path: str, entry: "os.DirEntry[str]") -> bool:
        return entry.is_dir(follow_symlinks=False) and not (
            entry.path == self._never
            or entry.name.startswith(SCRATCH_PREFIX)
            or self._patterns.match_folder(path)
        )

    def _candidate(self, path: str, entry: "os.DirEntry[str]") -> Candidate | None:
        is_file = self._patterns.match_file(path)
        is_folder = self._patterns.match_folder(path)
        if entry.path == self._never or not (is_file or is_folder):
            return None
        try:
            source = self._source(entry)
            status = os.stat(source, follow_symlinks=False)
        except FileNotFoundError as error:
            if entry.is_symlink():
                self._skip(entry.path, "is a link that leads nowhere")
            elif os.path.lexists(entry.path):
                self._skip(entry.path, error)
            return None
        except (OSError, ValueError) as error:
            why = error if isinstance(error, OSError) else str(error)
            self._skip(entry.path, why)
            return None
        if stat.S_ISDIR(status.st_mode):
            wanted = is_folder
        else:
            wanted = is_file
            if wanted and not stat.S_ISREG(status.st_mode):
                self._skip(entry.path, "is no regular file")
                return None
        return Candidate(entry.path, source, status) if wanted else None

    def _source(self, entry: "os.DirEntry[str]") -> str:
        """Return where the bytes of an output are.

        Raises:
            ValueError: Its name is no text; or it is a link that leads to where nobody
                watches.
            OSError: It cannot be looked at.
        """
        try:
            entry.path.encode()
        except UnicodeEncodeError as error:
            raise ValueError("has a name that is not valid Unicode") from error
        if not entry.is_symlink():
            return entry.path
        source = os.path.realpath(entry.path, strict=True)
        if not any(_is_within(source, root) for root in self._roots):
            raise ValueError("is a link that leads out of the folders that are watched")
        return source


def look_at_folder(
    path: str, never: str, tick: Callable[[], object], scandir: Scandir
) -> tuple[str, float]:
    """Return what is seen of a folder's files, and the newest time of one.

    Raises:
        OSError: Something in it cannot be looked at.
    """
    newest = os.stat(path).st_mtime
    count = size = total = 0

    def skip(_: str, error: OSError | str) -> None:
        if isinstance(error, OSError):
            raise error

    for leaf in leaves(path, never, skip, tick, scandir):
        text = f"{leaf.path}\0{seen_of_file(leaf.status)}"
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        total += int.from_bytes(digest, "big")  # A sum, for they come in no order.
        newest = max(newest, leaf.status.st_mtime)
        size += leaf.size
        count += 1
    return f"{count}:{size}:{total % (1 << 128):032x}", newest


def seen_of_file(status: os.stat_result) -> str:
    """Return what changes whenever somebody writes to a file, or puts one there."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
