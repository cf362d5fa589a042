"""What `log_config()` is told: arguments, more, and the files that they came from."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flightlog._arguments import as_arguments, plain_argument
from flightlog._checks import check_path
from flightlog._inbox import Inbox
from flightlog._sources import opened_source
from flightlog._values import plain_text
from flightlog_storage.budget import refusal
from flightlog_storage.codec import encode_event
from flightlog_storage.event import ConfigLogged, Event
from flightlog_storage.inbox import copy_into_inbox
from flightlog_storage.paths import checked_path

if TYPE_CHECKING:
    from flightlog._recording import Recording

__all__ = ("ConfigFile", "GivenConfig", "read_config")

FOLDER = "config"


class ConfigFile(NamedTuple):
    """An open file with a part of a config, and its path among the run's files."""

    source: int
    name: str


class GivenConfig(NamedTuple):
    """What is to be recorded."""

    event: ConfigLogged
    files: list[ConfigFile]

    def events(self, recording: "Recording", inbox: Inbox) -> Iterator[Event]:
        """Yield what is to be recorded; the files are copied."""
        for file in self.files:
            put = partial(copy_into_inbox, source=file.source)
            left = inbox.leave(recording, file.name, put)
            if left is not None:
                yield left.request()
        if self.event.changes:
            yield self.event


@contextmanager
def read_config(args: Any, extra: Any, config_files: Any) -> Iterator[GivenConfig]:
    """Give what `log_config()` got, with its files open.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: It is too large, or a path leads to no regular file.
        OSError: A file is not there (FileNotFoundError), or cannot be read.
    """
    changes: dict[str, Any] = {}
    if args is not None:
        changes["args"] = plain_argument(as_arguments(args))
    if extra is not None:
        changes["extra"] = plain_argument(extra)
    paths = [] if config_files is None else _paths(config_files)
    if config_files is not None:
        changes["config_files"] = [plain_text(path) for path in paths]
    event = ConfigLogged(time=time.time(), changes=changes)
    if why := refusal(encode_event(event)):
        raise ValueError(f"log_config: {why}: give files as config_files")
    with ExitStack() as stack:
        sources = [
            stack.enter_context(opened_source(path, "Config file")) for path in paths
        ]
        names = _names(paths)
        files = [ConfigFile(*each) for each in zip(sources, names, strict=True)]
        yield GivenConfig(event, files)


def _paths(given: object) -> list[str]:
    """Return paths given as a list; a single one is a list of it."""
    listed = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(listed, Iterable) or isinstance(listed, bytes | Mapping):
        raise TypeError(f"log_config: config_files must be paths, not {given!r}")
    what = "log_config: each of config_files"
    return [str(Path(check_path(what, path))) for path in listed]


def _names(paths: list[str]) -> list[str]:
    """Return what the files will be called: each differently, if they are not equal."""
    found: dict[str, str] = {}  # The path by the name.
    names = []
    for path in paths:
        base = plain_text(Path(path).name)
        stem, suffix = os.path.splitext(base)
        name, count = base, 1
        while found.setdefault(name, path) != path:
            count += 1
            name = f"{stem}_{count}{suffix}"
        names.append(checked_path(f"{FOLDER}/{name}"))
    return names
