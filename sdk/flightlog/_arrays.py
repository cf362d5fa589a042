"""Arrays and tensors of any library, as NumPy's; loaded where one is given."""

from typing import Any

import numpy as np

from flightlog_storage.event import Pixels
from flightlog_storage.picture_layout import RAW_SIZE_MAX

__all__ = ("array_of", "bytes_of", "check_size", "pixels_of")


def array_of(given: Any) -> Any:
    """Return what looks like an array as one; of a tensor, its values."""
    if hasattr(given, "detach"):  # A tensor of torch.
        given = given.detach().cpu()
        if not hasattr(np, str(given.dtype).removeprefix("torch.")):
            given = given.float()  # bfloat16 and the like.
    array = np.asarray(given)
    if array.dtype.kind == "V" and "float" in array.dtype.name:
        return array.astype(np.float32)  # bfloat16 and the like, of jax.
    return array


def check_size(array: Any) -> None:
    """Raise ValueError if an array has too many bytes for one file."""
    if array.nbytes > RAW_SIZE_MAX:
        raise ValueError(
            f"an array of {array.nbytes:,} bytes is too large for one file: at most "
            f"{RAW_SIZE_MAX:,}"
        )


def pixels_of(
    array: Any, format: str, quality: int, fps: float | None = None
) -> Pixels:
    """Return what the daemon needs to know of an array's bytes to encode them."""
    return Pixels(
        dtype=array.dtype.str,
        shape=list(array.shape),
        format=format,
        quality=quality,
        fps=fps,
    )


def bytes_of(array: Any) -> memoryview:
    """Return an array's bytes, row by row; a view of it, if they lie so.

    Raises:
        ValueError: As `check_size`.
    """
    check_size(array)
    # As bytes: a view of a float array could not be cast in every byte order.
    view: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return view
