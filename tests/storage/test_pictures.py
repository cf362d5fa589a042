import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.effort import tries

from flightlog_storage.picture_layout import FORMATS, GRID_GAP, find_layout
from flightlog_storage.pictures import encode_picture


def encoded(array: Any, format: str = "png", quality: int = 90) -> Image.Image:
    """Return what comes of an array, read back."""
    target = io.BytesIO()
    layout = find_layout(array.shape, array.dtype.kind, format)
    encode_picture(array, layout, format, quality, target)
    image = Image.open(target)
    assert (image.width, image.height) == (layout.size.width, layout.size.height)
    return image


def pixels(array: Any, format: str = "png") -> Any:
    return np.asarray(encoded(array, format))


GRAY = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((6, 8), "HW"),
        ((6, 8, 1), "HWC"),
        ((6, 8, 2), "HWC"),
        ((6, 8, 3), "HWC"),
        ((6, 8, 4), "HWC"),
        ((1, 6, 8), "CHW"),
        ((3, 6, 8), "CHW"),
        ((4, 6, 8), "CHW"),
        ((3, 6, 3), "HWC"),
        ((5, 6, 8), "NHW"),
        ((5, 6, 8, 3), "NHWC"),
        ((5, 3, 6, 8), "NCHW"),
        ((5, 1, 6, 8), "NCHW"),
    ],
)
def test_axes_follow_from_the_shape(shape: tuple[int, ...], axes: str) -> None:
    assert find_layout(shape, "u", "png").axes == axes


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((), r"\(\)"),
        ((8,), "shape 8"),
        ((0, 8), "0x8"),
        ((6, 8, 0), "6x8x0"),
        ((2, 5, 6, 8), "channels"),
        ((1, 2, 3, 4, 3), "1x2x3x4x3"),
        ((70_000, 2), "2x70000"),
    ],
)
def test_what_can_be_no_image_is_told(shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        find_layout(shape, "u", "jpeg")


@pytest.mark.parametrize("kind", "cOSUVMm")
def test_what_holds_no_numbers_is_told(kind: str) -> None:
    with pytest.raises(TypeError, match="bools, ints or floats"):
        find_layout((6, 8), kind, "png")


def test_bytes_stay_as_they_are() -> None:
    assert np.array_equal(pixels(GRAY), GRAY)
    assert np.array_equal(pixels(COLOUR), COLOUR)
    assert np.array_equal(pixels(GRAY[..., None]), GRAY)
    assert np.array_equal(pixels(np.moveaxis(COLOUR, -1, 0)), COLOUR)
    alpha = np.dstack([COLOUR, GRAY])
    assert np.array_equal(pixels(alpha), alpha)
    assert np.array_equal(pixels(alpha[..., :2]), alpha[..., :2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 128.0, 255.0]]), [0, 128, 255]),
        (np.array([[-10.0, 0.0, 10.0]]), [0, 128, 255]),
        (np.array([[0.0, 510.0]]), [0, 255]),
        (np.array([[0, 1, 200]]), [0, 1, 200]),
        (np.array([[-5, 5]]), [0, 255]),
        (np.array([[0, 1000]], np.int16), [0, 255]),
        (np.array([[np.nan, 0.0, 1.0]]), [0, 0, 255]),
        (np.array([[np.inf, -np.inf, 0.5]]), [255, 0, 128]),
        (np.array([[np.nan, np.nan]]), [0, 0]),
        (np.array([[7.0, 7.0]]), [7, 7]),
        (np.array([[0.5, 1.0]], np.float16), [128, 255]),
        (np.array([[0.0, 1.0]], ">f4"), [0, 255]),
        (np.array([[0, 2**63]], np.uint64), [0, 255]),
    ],
)
def test_numbers_become_bytes(values: Any, expected: list[int]) -> None:
    assert pixels(values).astype(int).tolist() == [expected]


def test_a_bool_image_is_black_and_white_in_any_layout() -> None:
    mask = np.eye(5, dtype=bool)

    assert np.array_equal(pixels(mask), mask * 255)
    assert np.array_equal(pixels(np.stack([mask] * 3)), np.dstack([mask * 255] * 3))


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bits_are_kept_where_the_format_can(format: str) -> None:
    deep = np.array([[0, 1, 65_535]], np.uint16)

    assert np.array_equal(pixels(deep, format), deep)


def test_a_batch_is_a_grid() -> None:
    batch = np.stack([np.full((4, 6, 3), n, np.uint8) for n in (10, 20, 30)])

    grid = pixels(batch)

    assert grid.shape == (2 * 4 + GRID_GAP, 2 * 6 + GRID_GAP, 3)
    assert grid[0, 0, 0] == 10
    assert grid[0, -1, 0] == 20
    assert grid[-1, 0, 0] == 30
    assert grid[-1, -1, 0] == 0, "no fourth"


WORDS = ["png", "jpeg", "jpg", "webp", "gif", "bmp", "tiff"]  # As users know them.


@pytest.mark.parametrize("format", WORDS)
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_every_format_takes_every_number_of_channels(
    format: str, channels: int | None
) -> None:
    shape = (16, 16) if channels is None else (16, 16, channels)
    image = encoded(np.full(shape, 200, np.uint8), format)

    image.load()

    assert image.format == FORMATS[format][0]


def test_what_shows_through_is_white_where_there_is_no_transparency() -> None:
    clear = np.zeros((16, 16, 4), np.uint8)

    assert pixels(clear, "jpeg").min() == 255


def test_quality_changes_what_a_lossy_format_keeps() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    sizes = []
    for quality in (5, 95):
        target = io.BytesIO()
        layout = find_layout(noise.shape, "u", "jpeg")
        encode_picture(noise, layout, "jpeg", quality, target)
        sizes.append(target.tell())

    assert sizes[0] < sizes[1] / 2


@settings(max_examples=tries(150))
@given(
    st.sampled_from(
        ["?", "u1", "i1", "u2", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">i4"]
    ),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.integers(0, 2**32),
)
def test_any_array_that_is_taken_is_encoded(
    dtype: str, shape: list[int], seed: int
) -> None:
    data = np.random.default_rng(seed).bytes(int(np.prod(shape)) * 8)
    array = np.frombuffer(data, dtype, int(np.prod(shape))).reshape(shape)
    if dtype == "?":
        array = np.frombuffer(data, "u1", int(np.prod(shape))).reshape(shape) > 127
    try:
        find_layout(array.shape, array.dtype.kind, "png")
    except ValueError:
        return

    encoded(array).load()


def test_encoding_takes_little_memory_beside_the_array() -> None:
    array = np.linspace(-1, 1, 1 << 21, dtype=np.float32).reshape(1024, 2048)
    layout = find_layout(array.shape, "f", "png")
    tracemalloc.start()
    try:
        encode_picture(array, layout, "png", 90, io.BytesIO())
        _, peak_size = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_size < array.nbytes


def test_scaling_in_pieces_changes_nothing() -> None:
    array = np.random.default_rng(0).normal(size=(300, 700)) * 1000
    low, high = array.min(), array.max()

    expected = np.rint((array - low) / (high - low) * 255)

    assert np.abs(pixels(array).astype(int) - expected).max() <= 1
