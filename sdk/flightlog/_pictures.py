"""Pictures: what a user gives as an image, as bytes or as an array of pixels."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flightlog._sources import open_source
from flightlog_storage.event import Pixels
from flightlog_storage.picture_layout import FORMATS, find_layout

__all__ = ("Picture", "read_picture")

_HEAD_SIZE = 16
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
)
# Modes of Pillow whose arrays are what they look like; others are converted.
_PLAIN_MODES = frozenset(("1", "L", "LA", "RGB", "RGBA", "I", "I;16", "F"))


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be stored: `data`, or the open file `source`, until it is closed.

    Without `pixels` the bytes are an image file and stay as they are.
    """

    extension: str
    data: bytes | memoryview | None = None
    source: int | None = None
    pixels: Pixels | None = None
    width: int | None = None
    height: int | None = None

    def __enter__(self) -> "Picture":
        return self

    def __exit__(self, *_: object) -> None:
        if self.source is not None:
            os.close(self.source)


def read_picture(image: Any, format: str, quality: int) -> Picture:
    """Return what a user gave as an image, to be closed.

    Raises:
        TypeError: It is nothing that can be an image.
        ValueError: It is an array that cannot be one, or one that is too large.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        data = memoryview(image)
        if not len(data):
            raise ValueError("an image file has bytes, and none are given")
        head = bytes(data[:_HEAD_SIZE])
        return Picture(_extension(head) or format, data)
    if isinstance(image, str | os.PathLike):
        return _read_file(image, format)
    if hasattr(image, "savefig") or hasattr(getattr(image, "figure", None), "savefig"):
        figure = image if hasattr(image, "savefig") else image.figure
        return _drawn(figure.savefig, format)
    if hasattr(image, "mode") and hasattr(image, "convert"):
        return _read_array(_array_of_pillow(image), format, quality)
    if hasattr(image, "shape") or hasattr(image, "__array__"):
        from flightlog._arrays import array_of  # Late: it loads NumPy.

        return _read_array(array_of(image), format, quality)
    if hasattr(image, "save"):
        return _drawn(image.save, FORMATS[format][0])
    raise TypeError(
        "an image is a PIL image, an array or tensor, a matplotlib figure, the bytes "
        f"of an image file or a path to one, not {type(image).__qualname__}"
    )


def _read_file(path: "str | os.PathLike[str]", format: str) -> Picture:
    source = open_source(path, "Image file")
    try:
        extension = _extension(os.pread(source, _HEAD_SIZE, 0))
    except BaseException:
        os.close(source)
        raise
    suffix = os.path.splitext(os.fspath(path))[1][1:].lower()
    named = suffix if suffix.isalnum() and suffix.isascii() else format
    return Picture(extension or named, source=source)


def _extension(head: bytes) -> str | None:
    """Return what the first bytes of an image file tell of its format."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:12] in (b"ftypavif", b"ftypheic"):
        return head[8:12].decode()
    found = (name for start, name in _SIGNATURES if head.startswith(start))
    return next(found, None)


def _drawn(draw: Callable[..., object], format: str) -> Picture:
    """Return what an object draws: that has to happen now, for it may change."""
    buffer = io.BytesIO()
    draw(buffer, format=format)
    data = buffer.getbuffer()
    return Picture(_extension(bytes(data[:_HEAD_SIZE])) or format.lower(), data)


def _array_of_pillow(image: Any) -> Any:
    import numpy as np  # Late: `import flightlog` has to be light.

    if image.mode not in _PLAIN_MODES:
        has_alpha = "A" in image.mode or "transparency" in getattr(image, "info", {})
        image = image.convert("RGBA" if has_alpha else "RGB")
    return np.asarray(image)


def _read_array(array: Any, format: str, quality: int) -> Picture:
    from flightlog._arrays import bytes_of, pixels_of

    layout = find_layout(array.shape, array.dtype.kind, format)
    pixels = pixels_of(array, format, quality)
    size = layout.size
    return Picture(format, bytes_of(array), None, pixels, size.width, size.height)
