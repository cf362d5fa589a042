"""Images of a run that is read back: what stands for them in rows, and their bytes."""

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from flightlog._checks import check_path
from flightlog._daemon import DaemonStarter, find_socket
from flightlog._images import IMAGE_TYPE, IMAGES_TYPE
from flightlog.apis.public.client import Client
from flightlog.apis.public.downloads import write_entry
from flightlog.apis.public.reading import checked, reading
from flightlog.apis.public.waiting import watch_home
from flightlog.errors import BadArgumentError, CommError, CorruptError, NotFoundError
from flightlog_storage.blobs import BlobStore
from flightlog_storage.errors import CorruptData
from flightlog_storage.event import Kind, ManifestEntry
from flightlog_storage.paths import checked_path
from flightlog_storage.runfiles import SavedFile
from flightlog_storage.runstate import RunState

__all__ = ("Image", "find_images")

MADE_TIMEOUT_S = 30.0  # For the daemon to encode an image that was just logged.
LOOK_INTERVAL_S = 0.5
_TYPES = (f'"{IMAGE_TYPE}"', f'"{IMAGES_TYPE}"')  # As they stand in a column.
_SHARED = ("format", "width", "height")  # Of a list.
_Run = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Described:
    """What a row says of an image."""

    key: str
    step: int
    rank: int
    values: dict[str, Any]


class Image:
    """An image that a run logged."""

    def __init__(
        self, client: Client, read: Callable[[bool], RunState], found: _Described
    ) -> None:
        self._client = client
        self._read = read
        self._found = found

    @property
    def key(self) -> str:
        """What it was called."""
        return self._found.key

    @property
    def step(self) -> int:
        return self._found.step

    @property
    def rank(self) -> int:
        """Of the process that logged it."""
        return self._found.rank

    @property
    def path(self) -> str:
        """Its path among the run's files."""
        return str(self._found.values.get("path", ""))

    @property
    def caption(self) -> str | None:
        return self._text("caption")

    @property
    def format(self) -> str | None:
        """Such as "png"; that of the bytes, where they were given as they are."""
        return self._text("format")

    @property
    def width(self) -> int:
        """In pixels; read from the file where the row does not say.

        Raises:
            CommError: As `open()`.
        """
        return self._size[0]

    @property
    def height(self) -> int:
        """In pixels, as `width`."""
        return self._size[1]

    def open(self) -> BinaryIO:
        """Return the encoded image, open for reading, its bytes checked.

        The daemon may not have encoded it yet: then this waits for it, at most 30 s.

        Raises:
            NotFoundError: It is lost, or was deleted.
            CorruptError: Its bytes are missing or damaged.
            CommError: It is not made in time, or cannot be read.
        """
        store = BlobStore(self._client.home.blobs)
        try:
            return reading(lambda: store.open_verified(self._file().blob))
        except CommError as error:
            if isinstance(error.exc, CorruptData):
                raise CorruptError(f"{self.path}: {error.exc}", error.exc) from error
            raise

    def download(self, path: "str | Path") -> Path:
        """Write the image to a file, and return its path.

        Args:
            path: The file, which is replaced; or a folder that is there, in which it
                is called as it is among the run's files.

        Raises:
            BadArgumentError: `path` is no path.
            NotFoundError: It is lost, or was deleted.
            CorruptError: Its bytes are missing or damaged.
            CommError: It is not made in time, or cannot be written.
        """
        target = Path(checked(lambda: check_path("path", path)))
        if os.path.isdir(target):
            target = target / checked(lambda: checked_path(self.path))
        file = self._file()
        entry = ManifestEntry(
            path=checked(lambda: checked_path(target.name)),
            digest=file.digest,
            size=file.size,
            blob=file.blob,
        )
        write_entry(BlobStore(self._client.home.blobs), entry, target.parent)
        return target

    @cached_property
    def _size(self) -> tuple[int, int]:
        values = self._found.values
        known = values.get("width"), values.get("height")
        if isinstance(known[0], int) and isinstance(known[1], int):
            return known[0], known[1]
        # Late: mostly, it is not needed.
        from PIL import Image as pillow
        from PIL import UnidentifiedImageError

        with self.open() as file:
            try:
                with pillow.open(file) as image:
                    return image.size
            except (UnidentifiedImageError, OSError) as error:
                raise CommError(f"{self.path} is no image: {error}", error) from error

    def _file(self) -> SavedFile:
        """Return the file, once the daemon has made it."""
        known = self._read(False).files.get(self.path)
        if known is not None:  # There may be thousands: not all is read anew for each.
            return known
        home = self._client.home
        deadline = time.monotonic() + MADE_TIMEOUT_S
        starter = DaemonStarter(home)
        with watch_home(home) as watch:
            while True:
                state = self._read(True)
                if self.path in state.files:
                    return state.files[self.path]
                if all(owed.name != self.path for owed in state.owed.values()):
                    raise NotFoundError(f"{self.path} is lost, or was deleted")
                if not home.is_writable:
                    why = "is not made, and its home cannot be written"
                    raise CommError(f"{self.path} {why}", PermissionError(why))
                if time.monotonic() > deadline:
                    message = f"{self.path} is not made after {MADE_TIMEOUT_S:.0f} s"
                    raise CommError(message, TimeoutError(message))
                if find_socket(home) is None:
                    starter.start(time.monotonic())
                watch.wait(LOOK_INTERVAL_S)

    def _text(self, name: str) -> str | None:
        value = self._found.values.get(name)
        return value if isinstance(value, str) else None

    def __repr__(self) -> str:
        return f"<Image {self.key!r} of step {self.step} ({self.path})>"


def find_images(
    client: Client, run: _Run, read: Callable[[bool], RunState], key: object
) -> list[Image]:
    """Return the images of a run, or those of a key, by step.

    Raises:
        BadArgumentError: `key` is no str and not None.
        NotFoundError: There is no such run any more.
    """
    if not isinstance(key, str | None):
        raise BadArgumentError(f"key must be a str or None, not {key!r}")
    history = reading(lambda: client.reader.open_history(run))
    if history is None:
        raise NotFoundError(f"Could not find run <Run {'/'.join(run)} (not found)>")
    found = []
    with history:
        keys = [each for each in history.keys_with(Kind.JSON) if key in (None, each)]
        columns = history.columns(keys, with_time=False)
        for column in reading(lambda: list(columns)):
            texts = column.texts.to_pylist() if column.texts is not None else []
            for step, text in zip(column.steps.tolist(), texts, strict=bool(texts)):
                if text is not None and any(each in text for each in _TYPES):
                    found += [
                        _Described(column.key, step, column.rank, values)
                        for values in _images_in(json.loads(text))
                    ]
    found.sort(key=lambda each: (each.step, each.key, each.rank))
    return [Image(client, read, each) for each in found]


def _images_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield what is said of each image in a value of a row."""
    match value:
        case {"_type": "image-file"}:
            yield value
        case {"_type": "images/separated", "filenames": [*paths]}:
            yield from _listed(value, paths)
        case [*items]:
            for item in items:
                yield from _images_in(item)


def _listed(value: dict[str, Any], paths: list[Any]) -> Iterator[dict[str, Any]]:
    shared = {name: value[name] for name in _SHARED if name in value}
    captions = value.get("captions") or [None] * len(paths)
    for path, caption in zip(paths, captions, strict=False):
        yield shared | {"path": path, "caption": caption or None}
