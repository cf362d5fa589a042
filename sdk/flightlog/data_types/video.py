"""Videos: files as they are, and arrays of frames, which the daemon makes GIFs of."""

import os
from functools import partial
from typing import Any

from flightlog._checks import check_caption, check_number
from flightlog._media import FileKind, Media, MediaFiles
from flightlog._sources import SourceFile
from flightlog_storage.inbox import put_in_inbox
from flightlog_storage.picture_layout import FRAME_RATE_MAX, find_frame_layout

__all__ = ("Video",)

FOLDER = "media/videos"
FPS = 4  # As W&B has it.
_QUALITY = 100  # A GIF has none.
# Where in a file of each format which bytes are.
_SIGNATURES = {
    "gif": (0, b"GIF8"),
    "mp4": (4, b"ftyp"),
    "webm": (0, b"\x1aE\xdf\xa3"),
    "ogg": (0, b"OggS"),
}


class Video(Media):
    """A video. As in W&B, but that arrays become GIFs only: give others as files."""

    EXTS = tuple(_SIGNATURES)

    def __init__(
        self,
        data_or_path: Any,
        caption: str | None = None,
        fps: float | None = None,
        format: str | None = None,
    ) -> None:
        """Take an array, which is copied when it is logged, or a file as it is.

        Args:
            data_or_path: A path of a gif, mp4, webm or ogg file; the bytes of one, or
                such a file, open, which is read now; or frames, as an array or tensor
                of frames x channels x H x W, or a batch of these, shown as a grid.
            caption: A text to show with it.
            fps: Frames a second, of an array, by default 4; at most 100.
            format: Of bytes, where these do not tell; of an array "gif".

        Raises:
            TypeError: It is none of these, or an argument's type is wrong.
            ValueError: Another format, an array that is no video, or too large.
            FileNotFoundError: There is no file at the path.
        """
        self._caption = check_caption("Video", caption)
        self._fps = check_number(
            "Video: fps", FPS if fps is None else fps, 0, FRAME_RATE_MAX
        )
        self._source: SourceFile | None = None
        self._data: Any = None
        self._frames: Any = None
        if format is not None:
            _check_format(format)
        if isinstance(data_or_path, str | os.PathLike):
            self._source = SourceFile(data_or_path, "Video file")
            self._format = _check_format(self._source.extension)
        elif hasattr(data_or_path, "shape"):
            self._frames = _read_frames(data_or_path, format)
            self._format = "gif"
        else:
            self._data = _read_bytes(data_or_path)
            self._format = format or _told(self._data)

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return what stands for it in a row; it is a file."""
        kind = FileKind(FOLDER, self._format)
        found: dict[str, Any] = {"_type": "video-file", "format": self._format}
        if self._source is not None:
            found["path"] = self._source.leave(key, kind, files)
        elif self._data is not None:
            put = partial(put_in_inbox, pieces=[self._data])
            found["path"] = files.leave(key, kind, put)
        else:
            found |= self._left_frames(key, kind, files)
        return found | ({} if self._caption is None else {"caption": self._caption})

    def _left_frames(
        self, key: str, kind: FileKind, files: MediaFiles
    ) -> dict[str, Any]:
        from flightlog._arrays import bytes_of, pixels_of

        array = self._frames
        pixels = pixels_of(array, "gif", _QUALITY, self._fps)
        put = partial(put_in_inbox, pieces=[bytes_of(array)])
        size = find_frame_layout(array.shape, array.dtype.kind, "gif").size
        return {
            "path": files.leave(key, kind, put, pixels),
            "width": size.width,
            "height": size.height,
        }

    @classmethod
    def together(cls, described: list[dict[str, Any]]) -> Any:
        """Return what stands for a list."""
        return {"_type": "videos", "count": len(described), "videos": described}


def _check_format(format: object) -> str:
    if not isinstance(format, str):
        raise TypeError(f"Video: format must be a str, not {format!r}")
    if format not in Video.EXTS:
        raise ValueError(f"Video: format {format!r} is none of {', '.join(Video.EXTS)}")
    return format


def _read_frames(given: Any, format: str | None) -> Any:
    # Late: `import flightlog` has to be light.
    from flightlog._arrays import array_of, check_size

    if format not in (None, "gif"):
        raise ValueError(
            f"Video: frames become a gif; give a video in {format} as a file"
        )
    array = array_of(given)
    find_frame_layout(array.shape, array.dtype.kind, "gif")
    check_size(array)
    return array


def _read_bytes(given: Any) -> bytes:
    data = given.read() if hasattr(given, "read") else given
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"Video: a path, frames, or the bytes of a file, not {type(given).__name__}"
        )
    return bytes(data)


def _told(data: bytes) -> str:
    """Return the format that the first bytes of a file tell."""
    for format, (start, mark) in _SIGNATURES.items():
        if data.startswith(mark, start):
            return format
    raise ValueError(f"Video: give the format of these bytes: {', '.join(Video.EXTS)}")
