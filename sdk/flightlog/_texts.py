"""Texts that values of a row leave as files, told with what they are checked by."""

import hashlib
from functools import partial
from typing import Any

from flightlog._media import FileKind, MediaFiles
from flightlog_storage.inbox import put_in_inbox

__all__ = ("left_text",)


def left_text(
    key: str, kind: FileKind, text: bytes, files: MediaFiles
) -> dict[str, Any]:
    """Leave a text as a file; return what a row says of it."""
    return {
        "path": files.leave(key, kind, partial(put_in_inbox, pieces=[text])),
        "sha256": hashlib.sha256(text).hexdigest(),
        "size": len(text),
    }
