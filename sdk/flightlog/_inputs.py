"""Inputs: the datasets and pretrained models that a run is told of.

The caller pays for a look at names and sizes, a quarter of a second at most. What takes
longer, and every byte, is the daemon's.
"""

import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from flightlog._arguments import plain_argument
from flightlog._checks import check_bool, check_int
from flightlog._values import plain_text
from flightlog_storage.budget import refusal
from flightlog_storage.codec import encode_event
from flightlog_storage.event import AssetLogged
from flightlog_storage.home import Home
from flightlog_storage.trees import Limits, Survey, survey

__all__ = ("Given", "Saving", "make_input")

SURVEY_TIMEOUT_S = 0.25
_PATH_STARTS = ("/", "./", "../", "~")


class Saving(NamedTuple):
    """Whether the bytes are to be archived, and what they may be at most."""

    save: bool
    force_save: bool
    max_archive_bytes: int
    max_archive_files: int

    @property
    def limits(self) -> Limits:
        if self.force_save or not self.save:
            return Limits()
        return Limits(self.max_archive_bytes, self.max_archive_files)


class Given(NamedTuple):
    """What is said of an asset: a path, a URI or a dict, and texts."""

    kind: str
    name: str
    where: Any
    description: str | None = None
    context: str | None = None
    source_type: str | None = None


def make_input(given: Given, saving: Saving, home: Home) -> AssetLogged:
    """Return the event that tells of a dataset or a pretrained model.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a value that cannot be; there is nothing to save, or
            more than the limits allow.
        FileNotFoundError: What is to be saved is not there.
        OSError: It cannot be looked at.
    """
    saving = _checked(given, saving)
    uri, path = _place(given)
    if saving.save and path is None:
        raise ValueError(
            f"save=True requires {_argument(given)} to be a path on this machine, not "
            f"{given.where!r}"
        )
    found, job = (None, None) if path is None else _look(given, path, saving, home)
    event = AssetLogged(
        time=time.time(),
        kind=given.kind,
        name=plain_text(given.name),
        token=uuid.uuid4().hex,
        uri=uri,
        path=path if path is not None and os.path.exists(path) else None,
        context=_text(given.context),
        source_type=_text(given.source_type),
        description=_text(given.description),
        fingerprint=None if found is None else found.fingerprint,
        job=job,
        size_max=saving.limits.size_max,
        file_count_max=saving.limits.file_count_max,
    )
    if why := refusal(encode_event(event)):
        raise ValueError(f"log_{given.kind}: {why}")
    return event


def _checked(given: Given, saving: Saving) -> Saving:
    call = f"log_{given.kind}"
    if not isinstance(given.name, str):
        raise TypeError(f"{call}: name must be a str, not {given.name!r}")
    if not given.name:
        raise ValueError(f"{call}: name must not be empty")
    said = "context" if given.kind == "dataset" else "source_type"
    if not isinstance(getattr(given, said), str):
        raise TypeError(f"{call}: {said} must be a str, not {getattr(given, said)!r}")
    if not isinstance(given.description, str | None):
        raise TypeError(
            f"{call}: description must be a str or None, not {given.description!r}"
        )
    return _checked_saving(call, saving)


def _checked_saving(call: str, saving: Saving) -> Saving:
    switches = ("save", "force_save")
    counts = ("max_archive_bytes", "max_archive_files")
    return Saving(
        *(check_bool(f"{call}: {name}", getattr(saving, name)) for name in switches),
        *(check_int(f"{call}: {name}", getattr(saving, name), 0) for name in counts),
    )


def _place(given: Given) -> tuple[Any, str | None]:
    """Return what is said of where it is, and where on this machine it may be."""
    where = given.where
    if where is None:
        return None, None
    if isinstance(where, Mapping):
        return plain_argument(where), None
    if not isinstance(where, str | os.PathLike):
        raise TypeError(
            f"log_{given.kind}: {_argument(given)} must be a path, a URI or a dict, "
            f"not {where!r}"
        )
    text = os.fsdecode(where)
    if not text or "\0" in text or text != plain_text(text):
        raise ValueError(
            f"log_{given.kind}: {_argument(given)} {text!r} is no path and no URI"
        )
    is_path = isinstance(where, os.PathLike) or text.startswith(_PATH_STARTS)
    if "://" in text and not is_path:
        address = urlsplit(text)
        return text, unquote(address.path) if address.scheme == "file" else None
    path = os.path.abspath(os.path.expanduser(text))
    # A word that is no file may be the name of something elsewhere.
    return (path if is_path or os.path.exists(path) else text), path


def _look(
    given: Given, path: str, saving: Saving, home: Home
) -> tuple[Survey | None, str | None]:
    """Return what there is, if that can be told soon enough, and what is owed.

    Raises:
        ValueError: There is more than is allowed to be saved, or what cannot be.
        OSError: There is nothing to be saved (FileNotFoundError), or it cannot be read.
    """
    job = "archive" if saving.save else None
    tick = _clock(time.monotonic() + SURVEY_TIMEOUT_S)
    never = os.path.realpath(home.root)
    try:
        return survey(path, never, saving.limits, given.kind, tick), job
    except _OutOfTime:
        return None, job or "survey"
    except (OSError, ValueError) as error:
        if not saving.save:
            return None, None  # It may be a name of something elsewhere.
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(
                f"log_{given.kind}: save=True requires {_argument(given)} to be a path "
                f"on this machine; there is nothing at {path}"
            ) from error
        raise


class _OutOfTime(Exception):
    """It takes too long for the caller."""


def _clock(deadline: float) -> Callable[[], None]:
    def tick() -> None:
        if time.monotonic() > deadline:
            raise _OutOfTime

    return tick


def _argument(given: Given) -> str:
    return "root_or_uri" if given.kind == "dataset" else "path_or_uri"


def _text(value: str | None) -> str | None:
    return None if value is None else plain_text(value)
