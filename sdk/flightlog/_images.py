"""Images as values of a row, and what `log_image()` is told of one."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from flightlog._checks import check_caption, check_int
from flightlog._media import FileKind, Media, MediaFiles
from flightlog._pictures import Picture
from flightlog._values import plain_text
from flightlog_storage.inbox import copy_into_inbox, put_in_inbox
from flightlog_storage.picture_layout import FORMATS

__all__ = (
    "IMAGES_TYPE",
    "IMAGE_TYPE",
    "ImageOptions",
    "LoggedPicture",
    "check_format",
    "checked_options",
)

# The `_type` of an image in a row, and of a list of them, as in W&B.
IMAGE_TYPE = "image-file"
IMAGES_TYPE = "images/separated"
FOLDER = "media/images"


class LoggedPicture(Media):
    """A picture, as a value of a row."""

    def __init__(self, picture: Picture, caption: str | None) -> None:
        self._picture = picture
        self._caption = caption

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row: as in W&B."""
        picture = self._picture
        kind = FileKind(FOLDER, picture.extension)
        put = partial(_put, picture=picture)
        found: dict[str, Any] = {
            "_type": IMAGE_TYPE,
            "path": files.leave(key, kind, put, picture.pixels),
            "format": picture.extension,
            "width": picture.width,
            "height": picture.height,
            "caption": self._caption,
        }
        return {name: value for name, value in found.items() if value is not None}


class ImageOptions(NamedTuple):
    """How an image is to be stored, checked."""

    key: str
    caption: str | None
    format: str
    quality: int


def checked_options(
    key: object, caption: object, format: object, quality: object
) -> ImageOptions:
    """Return the options of an image.

    Raises:
        TypeError: One is of a wrong type.
        ValueError: One has a value that cannot be.
    """
    if not isinstance(key, str):
        raise TypeError(f"log_image: key must be a str, not {key!r}")
    if not key:
        raise ValueError("log_image: key must not be empty")
    caption = check_caption("log_image", caption)
    format = check_format("log_image: format", format)
    quality = check_int("log_image: quality", quality, 1, 100)
    return ImageOptions(plain_text(key), caption, format, quality)


def check_format(what: str, format: object) -> str:
    """Return a format of images that can be encoded, in small letters.

    Raises:
        TypeError: It is no str.
        ValueError: It is none.
    """
    if not isinstance(format, str):
        raise TypeError(f"{what} must be a str, not {format!r}")
    if format.lower() not in FORMATS:
        raise ValueError(f"{what} {format!r} is none of {', '.join(FORMATS)}")
    return format.lower()


def _put(path: Path, picture: Picture) -> int:
    if picture.source is not None:
        return copy_into_inbox(path, picture.source)
    assert picture.data is not None
    return put_in_inbox(path, [picture.data])
