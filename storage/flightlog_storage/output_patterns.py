"""Output patterns: which files and folders are outputs, by their names."""

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Sequence

__all__ = ("DEFAULT_PATTERNS", "Patterns", "is_log")

_SUFFIXES = (
    *("pth", "pt", "ckpt", "onnx", "safetensors", "bin", "h5", "npy", "npz", "pkl"),
    *("log", "json", "jsonl", "txt", "csv", "yaml", "yml", "html"),
    *("png", "jpg", "jpeg", "svg", "pdf"),
)
DEFAULT_PATTERNS = (*(f"*.{suffix}" for suffix in _SUFFIXES), "*tfevents*")
_LOG_SUFFIXES = (".log", ".txt", ".jsonl", ".csv")


class Patterns:
    """Patterns as `fnmatch` has them, for paths below a folder; `*` matches `/`, too.

    One that ends in `/` is for folders. `**/` at its start may also match nothing.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        chosen = patterns or DEFAULT_PATTERNS
        self._files = _compiled(each for each in chosen if not each.endswith("/"))
        self._folders = _compiled(each for each in chosen if each.endswith("/"))

    def match_file(self, path: str) -> bool:
        return self._files is not None and self._files.match(path) is not None

    def match_folder(self, path: str) -> bool:
        """Whether a folder, whose path has no slash at its end, is an output."""
        return self._folders is not None and self._folders.match(f"{path}/") is not None


def is_log(path: str) -> bool:
    """Whether a file is one that is written bit by bit, and never is at rest."""
    name = posixpath.basename(path)
    return "tfevents" in name or name.lower().endswith(_LOG_SUFFIXES)


def _compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    chosen = list(patterns)
    chosen += [each.removeprefix("**/") for each in chosen if each.startswith("**/")]
    if not chosen:
        return None
    return re.compile("|".join(map(fnmatch.translate, chosen)))
