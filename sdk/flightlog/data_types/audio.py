"""Sounds: files as they are, and arrays of samples as WAV files."""

import os
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

from flightlog._checks import check_caption, check_number
from flightlog._media import FileKind, Media, MediaFiles
from flightlog._sources import SourceFile
from flightlog_storage.inbox import put_in_inbox

__all__ = ("Audio",)

FOLDER = "media/audio"
RATE_MAX = 2**31 - 1
CHANNELS_MAX = 64
_CHUNK_SAMPLES = 1 << 15  # Converted at once: what a cache holds.
_LOUDEST = 32_767
_HEADER = struct.Struct("<4sI4s 4sIHHIIHH 4sI")
_PCM = 1


class Audio(Media):
    """A sound. As in W&B."""

    def __init__(
        self,
        data_or_path: Any,
        sample_rate: float | None = None,
        caption: str | None = None,
    ) -> None:
        """Take an array, which is copied when it is logged, or a file as it is.

        Args:
            data_or_path: A path; or samples, as an array or tensor of one axis, or of
                samples x channels. Floats from -1 to 1 become 16 bits; uint8, int16 and
                int32 stay.
            sample_rate: Samples a second; of an array, required.
            caption: A text to show with it.

        Raises:
            TypeError: It is neither, or other samples; or another argument's type.
            ValueError: An array without `sample_rate`, of other axes, empty or too
                large; a rate that cannot be.
            FileNotFoundError: There is no file at the path.
        """
        self._caption = check_caption("Audio", caption)
        self._rate = 0
        if sample_rate is not None:
            rate = check_number("Audio: sample_rate", sample_rate, 0, RATE_MAX)
            self._rate = max(1, round(rate))
        self._source: SourceFile | None = None
        self._samples: Any = None
        if isinstance(data_or_path, str | os.PathLike):
            self._source = SourceFile(data_or_path, "Audio file")
        else:
            self._samples = _read(data_or_path)
            if not self._rate:
                raise ValueError("Audio: sample_rate is required of samples")

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row; it is a file."""
        found: dict[str, Any] = {"_type": "audio-file"}
        if self._source is not None:
            kind = FileKind(FOLDER, self._source.extension or "bin")
            found["path"] = self._source.leave(key, kind, files)
        else:
            put = partial(put_in_inbox, pieces=_wav(self._samples, self._rate))
            found["path"] = files.leave(key, FileKind(FOLDER, "wav"), put)
            found["sample_rate"] = self._rate
            found["duration"] = len(self._samples) / self._rate
        return found | ({} if self._caption is None else {"caption": self._caption})

    @classmethod
    def together(cls, described: list[dict[str, Any]]) -> Any:
        """Return what stands for a list."""
        return {"_type": "audio", "count": len(described), "audio": described}


def _read(given: Any) -> Any:
    """Return samples x channels."""
    # Late: `import flightlog` has to be light.
    from flightlog._arrays import array_of, check_size

    if not isinstance(given, list | tuple) and not hasattr(given, "shape"):
        raise TypeError(f"Audio: a path or samples, not {type(given).__name__}")
    samples = array_of(given)
    kind, size = samples.dtype.kind, samples.dtype.itemsize
    if kind != "f" and (kind, size) not in (("u", 1), ("i", 2), ("i", 4)):
        raise TypeError(
            "Audio: samples are floats from -1 to 1, uint8, int16 or int32, not "
            f"{samples.dtype}"
        )
    if samples.ndim == 1:
        samples = samples[:, None]
    shown = "x".join(map(str, samples.shape)) or "()"
    if samples.ndim != 2 or 0 in samples.shape or samples.shape[1] > CHANNELS_MAX:
        raise ValueError(
            f"Audio: an array of shape {shown} is no sound: samples, or samples x "
            f"channels, at most {CHANNELS_MAX}"
        )
    check_size(samples)
    return samples


def _wav(samples: Any, rate: int) -> Iterator[bytes | memoryview]:
    count, channels = samples.shape
    width = 2 if samples.dtype.kind == "f" else samples.dtype.itemsize
    size = count * channels * width
    padding = size % 2
    yield _HEADER.pack(
        b"RIFF",
        _HEADER.size - 8 + size + padding,
        b"WAVE",
        b"fmt ",
        16,
        _PCM,
        channels,
        rate,
        min(rate * channels * width, 2**32 - 1),
        channels * width,
        8 * width,
        b"data",
        size,
    )
    step = max(1, _CHUNK_SAMPLES // channels)
    for start in range(0, count, step):
        yield _little(samples[start : start + step])
    yield bytes(padding)


def _little(samples: Any) -> memoryview:
    """Return samples as a WAV file has them."""
    import numpy as np

    if samples.dtype.kind == "f":
        scaled = samples.astype(np.float32)
        np.nan_to_num(scaled, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(scaled, -1.0, 1.0, out=scaled)
        scaled *= _LOUDEST
        samples = np.rint(scaled, out=scaled).astype("<i2")
    little = np.ascontiguousarray(samples, samples.dtype.newbyteorder("<"))
    view: memoryview = little.reshape(-1).view(np.uint8).data
    return view
