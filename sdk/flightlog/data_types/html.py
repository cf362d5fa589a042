"""HTML, as a file of the run."""

import os
from typing import Any

from flightlog._checks import check_bool
from flightlog._media import FileKind, Media, MediaFiles
from flightlog._sources import SourceFile
from flightlog._texts import left_text
from flightlog._values import plain_text

__all__ = ("Html",)

_KIND = FileKind("media/html", "html")


class Html(Media):
    """A text in HTML. As in W&B, but that nothing is added to it."""

    def __init__(
        self, data: Any, inject: bool = True, data_is_not_path: bool = False
    ) -> None:
        """Take a text, a file or a path.

        Args:
            data: The text; a path of a file, which is kept as it is; or an open file,
                which is read now, from its start.
            inject: Accepted, as W&B has it: there a link to a style sheet is added.
            data_is_not_path: Whether a str is a text, also if it is the path of a file.

        Raises:
            TypeError: It is none of these.
            FileNotFoundError: There is no file at a path that is no str.
            ValueError: There is something else than a file.
        """
        check_bool("Html: inject", inject)
        check_bool("Html: data_is_not_path", data_is_not_path)
        is_path = (
            isinstance(data, str) and not data_is_not_path and os.path.exists(data)
        )
        self._source: SourceFile | None = None
        self._text = b""
        if is_path or isinstance(data, os.PathLike):
            self._source = SourceFile(data, "HTML file")
        else:
            self._text = _read(data)

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row; its text is a file."""
        found: dict[str, Any] = {"_type": "html-file"}
        if self._source is not None:
            return found | {"path": self._source.leave(key, _KIND, files)}
        return found | left_text(key, _KIND, self._text, files)

    @classmethod
    def together(cls, described: list[dict[str, Any]]) -> Any:
        """Return what stands for a list."""
        return {"_type": "html", "count": len(described), "html": described}


def _read(data: Any) -> bytes:
    if hasattr(data, "read"):
        if hasattr(data, "seek"):
            data.seek(0)
        data = data.read()
    if isinstance(data, bytes):
        return data
    if not isinstance(data, str):
        raise TypeError(
            "Html: data must be a text, a path or an open file, not "
            f"{type(data).__name__}"
        )
    return plain_text(data).encode()
