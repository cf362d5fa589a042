"""Arrow arrays made of numpy arrays and of strings, and back.

`pyarrow.array` and `to_numpy` would do, but they import pandas where that is
installed: almost a second, and memory that the daemon has no use for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ("arrow_of", "numpy_of", "strings_of")


def arrow_of(
    numbers: "NDArray[Any]",
    type_: pa.DataType | None = None,
    absent: "NDArray[np.bool_] | None" = None,
) -> pa.Array:
    """Return numbers or booleans as Arrow sees them, null where `absent`."""
    if numbers.dtype == np.bool_:
        data = np.packbits(numbers, bitorder="little")
    else:
        data = np.ascontiguousarray(numbers)
    validity = None if absent is None else _bits(~absent)
    return pa.Array.from_buffers(
        type_ or pa.from_numpy_dtype(numbers.dtype),
        len(numbers),
        [validity, pa.py_buffer(data)],
    )


def numpy_of(array: pa.Array, dtype: type[np.generic]) -> "NDArray[Any]":
    """Return an array's numbers, which are `dtype`s and never null, without a copy."""
    start = array.offset * np.dtype(dtype).itemsize
    return np.frombuffer(array.buffers()[1], dtype, len(array), start)


def strings_of(texts: Sequence[str | None]) -> pa.LargeStringArray:
    """Return strings, and null for None."""
    encoded = [(text or "").encode(errors="backslashreplace") for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(list(map(len, encoded)), out=offsets[1:])
    present = np.array([text is not None for text in texts], np.bool_)
    return pa.LargeStringArray.from_buffers(
        len(texts),
        pa.py_buffer(offsets),
        pa.py_buffer(b"".join(encoded)),
        None if present.all() else _bits(present),
    )


def _bits(present: "NDArray[np.bool_]") -> pa.Buffer:
    return pa.py_buffer(np.packbits(present, bitorder="little"))
