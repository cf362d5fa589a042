"""Images as values of `log()`, with what is drawn over them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from flightlog._checks import INT_MAX, check_bool, check_caption, check_int, check_path
from flightlog._images import IMAGES_TYPE, LoggedPicture, check_format
from flightlog._media import Media, MediaFiles
from flightlog._overlays import Mask, read_boxes, read_classes, read_masks
from flightlog._pictures import Picture, read_picture
from flightlog_storage.picture_layout import find_layout

__all__ = ("Image",)

_QUALITY = 90
# How many channels an array has that is to be of a mode of Pillow.
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_MODES = (*_CHANNELS, "1", "P", "CMYK", "YCbCr", "HSV", "I", "F")
_SHARED = ("width", "height", "format")  # Of a list, where all agree.


class Image(Media):
    """An image. As in W&B, but that values beyond 0 to 255 are scaled, not clipped."""

    def __init__(  # noqa: PLR0913  # As in W&B.
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        grouping: int | None = None,
        classes: Sequence[Mapping[str, Any]] | None = None,
        boxes: Mapping[str, Any] | None = None,
        masks: Mapping[str, Any] | None = None,
        file_type: str | None = None,
        normalize: bool = True,
    ) -> None:
        """Take an image; an array is copied, and a file read, when it is logged.

        Args:
            data_or_path: As that of `Run.log_image`; or another Image, of which all is
                taken but what is drawn over it.
            mode: To convert a PIL image to; of an array, which mode its channels are.
            caption: A text to show with it.
            grouping: A number that is kept.
            classes: Dicts with an `id` and a `name`, which are kept.
            boxes: Dicts with `box_data` by a name, which are kept in the row.
            masks: Dicts with `mask_data`, an array of class numbers 0 to 255, or a
                `path`, by a name; each becomes a file.
            file_type: What the daemon makes of an array: png, by default, or another
                format of `Run.log_image`.
            normalize: Whether the values of an array become brightness as those of
                `Run.log_image` do; without it they are cut to 0 to 255.

        Raises:
            TypeError: An argument has a wrong type, or `data_or_path` is no image.
            ValueError: An argument has a value that cannot be, or an array cannot be
                an image.
            FileNotFoundError: There is no file at the path.
            OSError: The file cannot be read.
        """
        check_bool("Image: normalize", normalize)
        _check_mode_name(mode)
        if grouping is not None:
            grouping = check_int("Image: grouping", grouping, -INT_MAX)
        self._caption = check_caption("Image", caption)
        self._format = check_format(
            "Image: file_type", "png" if file_type is None else file_type
        )
        self._kept = {"grouping": grouping, "classes": read_classes(classes)}
        self._boxes = read_boxes(boxes)
        self._masks: dict[str, Mask] = read_masks(masks)
        self._path: str | None = None
        self._picture: Picture
        if isinstance(data_or_path, Image):
            self._path, self._picture = data_or_path._path, data_or_path._picture
            self._caption = self._caption or data_or_path._caption
        elif isinstance(data_or_path, str | os.PathLike):
            self._path = os.path.abspath(check_path("Image file", data_or_path))
            with self._opened() as picture:
                self._picture = picture
        else:
            given = _in_mode(data_or_path, mode)
            given = given if normalize else _cut(given)
            self._picture = read_picture(given, self._format, _QUALITY)
            _check_mode(self._picture, mode)

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row; it is a file, and so are its masks."""
        with self._opened() as picture:
            found = LoggedPicture(picture, self._caption).described(key, files)
        found |= {name: value for name, value in self._kept.items() if value}
        if self._boxes:
            found["boxes"] = self._boxes
        if self._masks:
            masks = self._masks.items()
            found["masks"] = {name: mask.described(key, files) for name, mask in masks}
        return found

    def _opened(self) -> Picture:
        if self._path is None:
            return self._picture
        return read_picture(self._path, self._format, _QUALITY)

    @classmethod
    def together(cls, described: list[dict[str, Any]]) -> Any:
        """Return what stands for a list: as in W&B."""
        found: dict[str, Any] = {"_type": IMAGES_TYPE}
        for name in _SHARED:
            values = {each.get(name) for each in described}
            if len(values) == 1 and None not in values:
                found[name] = values.pop()
        found["count"] = len(described)
        found["filenames"] = [each["path"] for each in described]
        captions = [each.get("caption", "") for each in described]
        if any(captions):
            found["captions"] = captions
        for name in ("boxes", "masks"):
            drawn = [each.get(name) for each in described]
            if any(drawn):
                found[f"all_{name}"] = drawn
        return found


def _check_mode_name(mode: object) -> None:
    if not isinstance(mode, str | None):
        raise TypeError(f"Image: mode must be a str, not {mode!r}")
    if mode is not None and mode not in _MODES:
        raise ValueError(f"Image: mode {mode!r} is none of {', '.join(_MODES)}")


def _in_mode(given: Any, mode: str | None) -> Any:
    is_pillow = hasattr(given, "mode") and hasattr(given, "convert")
    return given if mode is None or not is_pillow else given.convert(mode)


def _check_mode(picture: Picture, mode: str | None) -> None:
    """Raise ValueError if an array does not have the channels of a mode."""
    pixels = picture.pixels
    if mode is None or pixels is None:
        return
    layout = find_layout(tuple(pixels.shape), "u", pixels.format)
    channels = layout.length("C")
    if channels != _CHANNELS.get(mode, channels):
        raise ValueError(
            f"Image: an array with {channels} channels is not of mode {mode!r}"
        )


def _cut(given: Any) -> Any:
    """Return an array with values from 0 to 255; anything else as it is."""
    if hasattr(given, "convert") or not hasattr(given, "shape"):
        return given
    # Late: `import flightlog` has to be light.
    import numpy as np

    from flightlog._arrays import array_of

    array = array_of(given)
    if array.dtype.kind not in "buif":
        return array  # Which is told of as no image.
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, nan=0.0)
    return array.astype(np.uint8) if array.dtype == bool else _clipped(array)


def _clipped(array: Any) -> Any:
    import numpy as np

    return array.clip(0, 255).astype(np.uint8)
