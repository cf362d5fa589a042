"""Videos: arrays of frames as animated GIFs."""

from collections.abc import Iterator
from itertools import pairwise
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flightlog_storage.picture_layout import Layout
from flightlog_storage.pictures import as_bytes, tiled, value_range

__all__ = ("STILL_MAX_MS", "encode_video")

_TICKS_A_SECOND = 100  # As a GIF counts time.
_TICK_MS = 10
STILL_MAX_MS = 65_535 * _TICK_MS  # How long one picture of a GIF can be shown.


def encode_video(
    array: NDArray[Any], layout: Layout, fps: float, target: IO[bytes]
) -> None:
    """Write an array as a GIF that plays without end.

    Values become brightness as those of an image do, by the range of all frames. What
    stays the same for longer than a GIF can tell moves on after `STILL_MAX_MS`.

    Args:
        array: Of frames x channels x H x W, or a batch of such.
        layout: Of one frame.
        fps: Frames a second, at most `FRAME_RATE_MAX`.
        target: Where to write.

    Raises:
        OSError: The target cannot be written.
    """
    frames = array if layout.axes == "CHW" else array.swapaxes(0, 1)
    images = _images(frames, layout, fps)
    next(images).save(target, format="GIF", save_all=True, append_images=images, loop=0)


def _images(frames: NDArray[Any], layout: Layout, fps: float) -> Iterator[Image.Image]:
    known = value_range(frames)
    before, still_ms = None, 0
    for frame, shown_ms in zip(frames, _durations_ms(len(frames), fps), strict=True):
        shown = tiled(as_bytes(np.ascontiguousarray(frame), known), layout)
        # Pillow makes one picture of equal ones, which is shown as long as all of them.
        if before is None or not np.array_equal(before, shown):
            before, still_ms = shown, 0
        image = Image.fromarray(shown)
        image.info["duration"] = min(shown_ms, STILL_MAX_MS - still_ms)
        still_ms += image.info["duration"]
        yield image


def _durations_ms(count: int, fps: float) -> list[int]:
    """Return how long each frame is shown: no rounding adds up."""
    ends = [round(_TICKS_A_SECOND * number / fps) for number in range(count + 1)]
    return [_TICK_MS * (end - start) for start, end in pairwise(ends)]
