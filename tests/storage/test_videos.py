import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from flightlog_storage.picture_layout import GRID_GAP, find_frame_layout
from flightlog_storage.videos import STILL_MAX_MS, encode_video


def encoded(array: Any, fps: float = 4) -> Image.Image:
    """Return what comes of an array, read back."""
    target = io.BytesIO()
    layout = find_frame_layout(array.shape, array.dtype.kind, "gif")
    encode_video(array, layout, fps, target)
    return Image.open(target)


def frames(video: Image.Image) -> list[Any]:
    return [np.asarray(each.convert("RGB")) for each in ImageSequence.Iterator(video)]


def steps(count: int, *shape: int) -> Any:
    """Return frames of one value each, far enough apart for any palette."""
    values = np.arange(count, dtype=np.uint8) * 20
    return values.reshape(-1, 1, 1, 1) * np.ones((1, *shape), np.uint8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_frames_come_in_order(channels: int) -> None:
    video = encoded(steps(5, channels, 8, 12)[..., :, :] | 1)

    shown = frames(video)

    assert video.size == (12, 8)
    assert video.info["loop"] == 0
    assert len(shown) == 5
    if channels < 4:
        assert [int(each[0, 0, 0]) for each in shown] == [1, 21, 41, 61, 81]


def test_a_batch_is_a_grid_of_videos() -> None:
    batch = np.stack([steps(3, 3, 8, 12), steps(3, 3, 8, 12) + 100])

    shown = frames(encoded(batch))

    assert shown[0].shape == (8, 2 * 12 + GRID_GAP, 3)
    assert [(int(each[0, 0, 0]), int(each[0, -1, 0])) for each in shown] == [
        (0, 100),
        (20, 120),
        (40, 140),
    ]


def test_brightness_is_that_of_all_frames() -> None:
    array = np.stack([np.full((1, 4, 4), level) for level in (0.0, 500.0, 1000.0)])

    assert [int(each[0, 0, 0]) for each in frames(encoded(array))] == [0, 128, 255]


@pytest.mark.parametrize(
    ("fps", "total_ms"), [(4, 1500), (30, 200), (7, 860), (0.5, 12_000), (100, 60)]
)
def test_a_video_lasts_as_long_as_its_frames(fps: float, total_ms: int) -> None:
    video = encoded(steps(6, 3, 4, 4), fps)

    durations = [each.info["duration"] for each in ImageSequence.Iterator(video)]

    assert sum(durations) == total_ms


def test_frames_that_are_equal_take_their_time() -> None:
    video = encoded(np.zeros((5, 3, 4, 4), np.uint8), 10)

    durations = [each.info["duration"] for each in ImageSequence.Iterator(video)]

    assert sum(durations) == 500


@pytest.mark.parametrize(("count", "fps"), [(3000, 4), (3, 0.001)])
def test_what_is_still_for_longer_than_a_gif_can_tell_moves_on(
    count: int, fps: float
) -> None:
    array = np.concatenate([np.zeros((count, 1, 4, 4), np.uint8), steps(2, 1, 4, 4)])

    durations = [
        each.info["duration"] for each in ImageSequence.Iterator(encoded(array, fps))
    ]

    assert durations == [STILL_MAX_MS, min(round(1000 / fps), STILL_MAX_MS)]


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((8, 12), "8x12"),
        ((5, 8, 12), "5x8x12"),
        ((5, 2, 8, 12), "1, 3 or 4 channels"),
        ((5, 8, 12, 3), "channels x H x W"),
        ((0, 3, 8, 12), "0x3"),
        ((2, 0, 3, 8, 12), "2x0"),
        ((1, 3, 8, 70_000), "too large"),
    ],
)
def test_what_can_be_no_video_is_told(shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        find_frame_layout(shape, "u", "gif")


def test_what_holds_no_numbers_is_told() -> None:
    with pytest.raises(TypeError, match="bools, ints or floats"):
        find_frame_layout((5, 3, 8, 12), "U", "gif")
