"""What is drawn over an image: boxes, which a row keeps, and masks, which are files."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from flightlog._media import FileKind, MediaFiles
from flightlog._pictures import Picture, read_picture
from flightlog._sources import SourceFile
from flightlog._values import plain
from flightlog_storage.inbox import put_in_inbox

__all__ = ("Mask", "read_boxes", "read_classes", "read_masks")

_MASKS = FileKind("media/images/mask", "png")


class Mask(NamedTuple):
    """The class of each pixel, as a picture or a file, and what the classes are."""

    content: Picture | SourceFile
    class_labels: dict[str, Any] | None

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row; it is a file."""
        content = self.content
        if isinstance(content, SourceFile):
            path = content.leave(key, _MASKS, files)
        else:
            put = partial(put_in_inbox, pieces=[content.data or b""])
            path = files.leave(key, _MASKS, put, content.pixels)
        found = {"_type": "mask", "path": path}
        labels = self.class_labels
        return found | ({} if labels is None else {"class_labels": labels})


def read_classes(classes: object) -> list[Any]:
    """Return classes as a row keeps them.

    Raises:
        TypeError: They are no dicts with an `id` and a `name`.
    """
    if classes is None:
        return []
    is_list = isinstance(classes, Sequence) and not isinstance(classes, str | bytes)
    listed: list[Any] = list(classes) if is_list else [classes]  # type: ignore[call-overload]  # It is a sequence.
    for each in listed:
        if not isinstance(each, Mapping) or not {"id", "name"} <= set(each):
            raise TypeError(f"Image: classes are dicts with id and name, not {each!r}")
    return [plain("classes", each) for each in listed]


def read_boxes(boxes: object) -> dict[str, Any]:
    """Return boxes as a row keeps them.

    Raises:
        TypeError: They are not dicts with a list `box_data`, by a name.
    """
    found = {}
    for name, value in _named("boxes", boxes).items():
        data = value.get("box_data")
        if not isinstance(data, list | tuple):
            raise TypeError(f"Image: boxes[{name!r}] lacks box_data, a list of boxes")
        for box in data:
            if not isinstance(box, Mapping) or "position" not in box:
                raise TypeError(f"Image: a box is a dict with a position, not {box!r}")
        found[name] = plain(f"boxes.{name}", value)
    return found


def read_masks(masks: object) -> dict[str, Mask]:
    """Return masks, by name.

    Raises:
        TypeError: They are not dicts with `mask_data` or a `path`, by a name.
        ValueError: An array is none of HxW whole numbers from 0 to 255.
        OSError: A file cannot be read; FileNotFoundError, if it is not there.
    """
    found = {}
    for name, value in _named("masks", masks).items():
        labels = value.get("class_labels")
        kept = None if labels is None else plain(f"masks.{name}", labels)
        if "mask_data" in value:
            content = _picture(name, value["mask_data"])
        elif "path" in value:
            content = SourceFile(value["path"], "Mask file")
        else:
            raise TypeError(f"Image: masks[{name!r}] lacks mask_data, and has no path")
        found[name] = Mask(content, kept)
    return found


def _named(what: str, given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    is_named = isinstance(given, Mapping) and all(
        isinstance(name, str) and isinstance(value, Mapping)
        for name, value in given.items()
    )
    if not is_named:
        raise TypeError(f"Image: {what} must be a dict of dicts, not {given!r}")
    assert isinstance(given, Mapping)
    return given


def _picture(name: str, data: Any) -> "Picture | SourceFile":
    # Late: `import flightlog` has to be light.
    import numpy as np

    from flightlog._arrays import array_of

    array = array_of(data)
    is_whole = array.ndim == 2 and array.size and array.dtype.kind in "bui"
    if not is_whole or array.min() < 0 or array.max() > 255:
        raise ValueError(
            f"Image: mask_data of {name!r} must be an array of HxW whole numbers from "
            "0 to 255"
        )
    return read_picture(array.astype(np.uint8), "png", 90)
