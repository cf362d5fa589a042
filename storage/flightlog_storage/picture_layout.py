"""Layouts: what the axes of an array mean that is to be an image or a video.

Decided here, once: whoever logs the array learns at the call whether it can be an
image, and whoever encodes it later does as was said. Loads nothing.
"""

import math
from dataclasses import dataclass

__all__ = (
    "FORMATS",
    "FRAME_RATE_MAX",
    "RAW_SIZE_MAX",
    "Layout",
    "PictureSize",
    "find_frame_layout",
    "find_layout",
)

RAW_SIZE_MAX = 1 << 30
FRAME_RATE_MAX = 100.0  # A GIF counts time in hundredths of a second.
GRID_GAP = 2  # Pixels between the images of a batch.
_CHANNELS_MAX = 4
_FRAME_CHANNELS = (1, 3, 4)

# The words users know, what Pillow calls each, and how long a side it allows.
FORMATS = {
    "png": ("PNG", 1 << 24),
    "jpeg": ("JPEG", 65_500),
    "jpg": ("JPEG", 65_500),
    "webp": ("WEBP", 16_383),
    "gif": ("GIF", 65_535),
    "bmp": ("BMP", 1 << 24),
    "tiff": ("TIFF", 1 << 24),
}


@dataclass(frozen=True, slots=True)
class PictureSize:
    """Of an image, in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What the axes of an array are: "HW", "HWC", "CHW", and with "N" those of many."""

    axes: str
    shape: tuple[int, ...]

    def length(self, axis: str) -> int:
        """Return how long an axis is; 1 if the array has none of this name."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def columns(self) -> int:
        """Of the grid that a batch is shown as."""
        return math.ceil(math.sqrt(self.length("N")))

    @property
    def size(self) -> PictureSize:
        rows = -(-self.length("N") // self.columns)
        return PictureSize(
            self.columns * (self.length("W") + GRID_GAP) - GRID_GAP,
            rows * (self.length("H") + GRID_GAP) - GRID_GAP,
        )


def find_layout(shape: tuple[int, ...], kind: str, format: str) -> Layout:
    """Return what the axes of an array are.

    Args:
        shape: Of the array: HxW, HxWxC, CxHxW with 1 to 4 channels, or a batch of
            these: NxHxW, NxHxWxC, NxCxHxW.
        kind: The letter that NumPy has for its type.
        format: One of `FORMATS`.

    Raises:
        TypeError: It holds no numbers.
        ValueError: It can be no image, or none of this format.
    """
    shown = "x".join(map(str, shape))
    if 0 in shape or not 2 <= len(shape) <= 4:
        raise ValueError(
            f"an array of shape {shown or '()'} is no image: HxW, HxWxC, CxHxW with "
            "1 to 4 channels, or a batch of these is one"
        )
    axes = _axes(shape)
    if axes is None:
        raise ValueError(
            f"no axis of {shown} is the channels: 1 to 4, last or before HxW"
        )
    layout = Layout(axes, shape)
    _check_layout(layout, kind, format)
    return layout


def find_frame_layout(shape: tuple[int, ...], kind: str, format: str) -> Layout:
    """Return what the axes of one frame of a video are.

    Args:
        shape: Of the video: TxCxHxW with 1, 3 or 4 channels, or a batch of these,
            NxTxCxHxW, which is shown as a grid.
        kind: The letter that NumPy has for its type.
        format: One of `FORMATS`.

    Raises:
        TypeError: It holds no numbers.
        ValueError: It can be no video, or its frames are too large.
    """
    if 0 in shape or len(shape) not in (4, 5) or shape[-3] not in _FRAME_CHANNELS:
        shown = "x".join(map(str, shape)) or "()"
        raise ValueError(
            f"an array of shape {shown} is no video: frames x channels x H x W, with "
            "1, 3 or 4 channels, or a batch of these is one"
        )
    layout = Layout("CHW" if len(shape) == 4 else "NCHW", (*shape[:-4], *shape[-3:]))
    _check_layout(layout, kind, format)
    return layout


def _check_layout(layout: Layout, kind: str, format: str) -> None:
    if kind not in "buif":
        raise TypeError("an image is an array of bools, ints or floats")
    longest = max(layout.size.width, layout.size.height)
    if longest > FORMATS[format][1]:
        raise ValueError(
            f"an image of {layout.size.width}x{layout.size.height} is too large for "
            f"{format}: at most {FORMATS[format][1]:,} pixels a side"
        )


def _axes(shape: tuple[int, ...]) -> str | None:
    if len(shape) == 2:
        return "HW"
    batch = "N" * (len(shape) - 3)
    if shape[-1] <= _CHANNELS_MAX:
        return batch + "HWC"
    if shape[-3] <= _CHANNELS_MAX:
        return batch + "CHW"
    return None if batch else "NHW"
