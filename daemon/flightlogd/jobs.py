"""Jobs: files that are owed are made of what lies in the inbox."""

import io
import os
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import Digests, Staged, hash_file, stage_bytes
from flightlog_storage.event import FileSaved, Pixels
from flightlog_storage.home import Home
from flightlog_storage.inbox import check_inbox, inbox_path
from flightlog_storage.picture_layout import (
    FORMATS,
    FRAME_RATE_MAX,
    find_frame_layout,
    find_layout,
)
from flightlog_storage.pictures import encode_picture
from flightlog_storage.runfiles import OwedFile
from flightlog_storage.staging import staging_folder
from flightlog_storage.videos import encode_video

__all__ = ("JobFailed", "make_file")


class JobFailed(Exception):
    """A job cannot be done, now or ever."""


def make_file(home: Home, owed: OwedFile) -> FileSaved:
    """Make a file that is owed a blob, durably; what lies in the inbox stays.

    Raises:
        JobFailed: It can never be made.
        OSError: The disk refuses; it may be made later.
    """
    problem = check_inbox(home.inbox, owed.token, owed.size)
    if problem is not None:
        raise JobFailed(problem)
    path = inbox_path(home.inbox, owed.token)
    staging = staging_folder(home.staging)
    if owed.pixels is None:
        staged = _linked(path, staging)
    else:
        staged = stage_bytes(_encoded(path, owed.pixels), staging)
    BlobStore(home.blobs).keep(staged)
    found: Digests = staged.digests
    return FileSaved(
        time=time.time(),
        name=owed.name,
        token=owed.token,
        blob=found.sha256,
        digest=found.md5,
        size=found.size,
    )


def _linked(path: Path, staging: Path) -> Staged:
    """Return the file under a second name: the first is needed if this is repeated."""
    second = staging / path.name
    second.unlink(missing_ok=True)
    os.link(path, second)
    return Staged(second, hash_file(second))


def _encoded(path: Path, pixels: Pixels) -> bytes:
    target = io.BytesIO()
    try:
        _encode(path, pixels, target)
    except OSError as error:
        if error.errno is not None:
            raise  # The disk's; an encoder's has no number.
        raise JobFailed(str(error)) from error
    except (TypeError, ValueError, MemoryError, OverflowError) as error:
        raise JobFailed(repr(error)) from error
    return target.getvalue()


def _encode(path: Path, pixels: Pixels, target: IO[bytes]) -> None:
    dtype, shape = np.dtype(pixels.dtype), tuple(pixels.shape)
    format, fps = pixels.format, pixels.fps
    # The arrays have no name here, so that those who encode can let go of them.
    if fps is not None:
        if format != "gif" or not 0 < fps <= FRAME_RATE_MAX:
            raise ValueError(f"{format} of {fps} frames a second is no video")
        layout = find_frame_layout(shape, dtype.kind, format)
        encode_video(_array(path, dtype, shape), layout, fps, target)
    elif format in FORMATS:
        layout = find_layout(shape, dtype.kind, format)
        encode_picture(
            _array(path, dtype, shape), layout, format, pixels.quality, target
        )
    else:
        raise ValueError(f"{format!r} is no format of images")


def _array(path: Path, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.fromfile(path, dtype).reshape(shape)
