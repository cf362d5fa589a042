"""Pictures: arrays of pixels as image files."""

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flightlog_storage.picture_layout import FORMATS, GRID_GAP, Layout

__all__ = ("ValueRange", "as_bytes", "encode_picture", "tiled", "value_range")

_DEEP = ("PNG", "TIFF")  # Formats for 16 bits a pixel.
_OPAQUE = ("JPEG", "BMP")
_CHUNK_VALUES = 1 << 16  # Scaled at once, in 64 bits each.


class ValueRange(NamedTuple):
    """Which values are black and white."""

    low: float
    high: float


def encode_picture(
    array: NDArray[Any], layout: Layout, format: str, quality: int, target: IO[bytes]
) -> None:
    """Write an array as an image file.

    Floats from 0 to 1 are scaled to 255, those from -1 to 1 with any below 0 as well;
    ints and floats from 0 to 255 stay as they are; from what goes beyond, the lowest
    becomes 0 and the highest 255. NaN is 0. Bools are black and white. Of unsigned
    ints of 16 bits without channels PNG and TIFF keep all.

    Raises:
        OSError: The target cannot be written.
    """
    name = FORMATS[format][0]
    # The name of the array is given up: where the numbers are floats, it is the largest
    # thing in memory, and not needed beside what comes of it.
    array = _shown(array, layout, is_deep=name in _DEEP)
    image = Image.fromarray(tiled(array, layout))
    del array
    if name in _OPAQUE:
        image = _on_white(image)
    image.save(target, format=name, quality=quality)


def _shown(array: NDArray[Any], layout: Layout, *, is_deep: bool) -> NDArray[Any]:
    """Return the values that the image file is to have."""
    is_gray = layout.length("C") == 1
    if is_deep and is_gray and array.dtype == np.uint16:
        return array
    return as_bytes(array, value_range(array))


def tiled(array: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Return one HxW or HxWxC array: the image, or the grid of a batch."""
    axes = layout.axes
    if "C" in axes and axes[-1] != "C":
        array = np.moveaxis(array, -3, -1)
    if "C" in axes and array.shape[-1] == 1:
        array = array[..., 0]
    if "N" not in axes:
        return np.ascontiguousarray(array)
    size = layout.size
    grid = np.zeros((size.height, size.width, *array.shape[3:]), array.dtype)
    height, width = array.shape[1:3]
    for place, tile in enumerate(array):
        row, column = divmod(place, layout.columns)
        top, left = row * (height + GRID_GAP), column * (width + GRID_GAP)
        grid[top : top + height, left : left + width] = tile
    return grid


def value_range(array: NDArray[Any]) -> ValueRange:
    """Return which values of an array are black and white."""
    if array.dtype in (np.bool_, np.uint8):
        return ValueRange(0.0, 1.0 if array.dtype == np.bool_ else 255.0)
    found = [each for chunk in _chunks(array) for each in _extremes(chunk)]
    low, high = (min(found), max(found)) if found else (0.0, 0.0)
    if array.dtype.kind == "f" and low >= -1 and high <= 1:
        return ValueRange(-1.0 if low < 0 else 0.0, 1.0)
    if low >= 0 and high <= 255:
        return ValueRange(0.0, 255.0)
    return ValueRange(low, high)


def as_bytes(array: NDArray[Any], known: ValueRange) -> NDArray[np.uint8]:
    """Return an array with 0 for what is black and 255 for what is white."""
    if array.dtype == np.uint8:
        return array
    result = np.empty(array.shape, np.uint8)
    with np.errstate(all="ignore"):
        for chunk, target in zip(_chunks(array), _chunks(result), strict=True):
            target[:] = _scaled(chunk.astype(np.float64), known)
    return result


def _chunks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield what has few bytes also in 64 bits a value; of one that is not in C's
    order, copies.
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK_VALUES):
        yield flat[start : start + _CHUNK_VALUES]


def _extremes(chunk: NDArray[Any]) -> tuple[float, ...]:
    if chunk.dtype.kind == "f":
        chunk = chunk[np.isfinite(chunk)]
    return (float(chunk.min()), float(chunk.max())) if chunk.size else ()


def _scaled(numbers: NDArray[np.float64], known: ValueRange) -> NDArray[np.float64]:
    # Of halves, for the span of all numbers is itself none.
    span = known.high / 2 - known.low / 2
    numbers *= 0.5
    numbers -= known.low / 2
    if span:
        numbers /= span
    else:
        numbers *= 0
    np.nan_to_num(numbers, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    np.clip(numbers, 0, 1, out=numbers)
    numbers *= 255
    return np.rint(numbers, out=numbers)


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image without transparency: what shows through is white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    white = Image.new(image.mode, image.size, "white")
    return Image.alpha_composite(white.convert("RGBA"), image.convert("RGBA")).convert(
        "L" if image.mode == "LA" else "RGB"
    )
