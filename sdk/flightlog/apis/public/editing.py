"""Changes to a run from outside: events of a writer that is no process of the run."""

import time
from collections.abc import Sequence

from flightlog._daemon import DaemonStarter, find_socket
from flightlog._recording import Recording
from flightlog.apis.public.reading import reading
from flightlog.apis.public.waiting import watch_home
from flightlog.errors import BadArgumentError, CommError
from flightlog_storage.artifact_state import RunName
from flightlog_storage.budget import refusal
from flightlog_storage.codec import EDITOR_RANK, RunKey, encode_event
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import Event
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader, is_recorded

__all__ = ("DURABLE_TIMEOUT_S", "record", "wait_for_start")

DURABLE_TIMEOUT_S = 15.0  # For a daemon to start and to take the events.
LOOK_INTERVAL_S = 0.25


def wait_for_start(reader: HomeReader, home: Home, run: RunName) -> None:
    """Wait until the log has the start of a run that is there.

    What an editor says before that would be said of no run: its writer's spool, which
    readers see already, comes behind it.

    Raises:
        CommError: No daemon takes the spool in time.
    """
    deadline = time.monotonic() + DURABLE_TIMEOUT_S
    starter = DaemonStarter(home)
    with watch_home(home) as watch:
        while not _is_recorded(reader, run):
            if find_socket(home) is None:
                starter.start(time.monotonic())
            if time.monotonic() > deadline:
                raise CommError(
                    "the run is in a spool only, and no daemon recorded it within "
                    f"{DURABLE_TIMEOUT_S:.0f} s: nothing was changed"
                )
            watch.wait(LOOK_INTERVAL_S)


def _is_recorded(reader: HomeReader, run: RunName) -> bool:
    state = reading(lambda: reader.state(run))
    return state is None or is_recorded(state)


def _check_sizes(events: Sequence[Event]) -> None:
    for event in events:
        if why := refusal(encode_event(event)):
            raise BadArgumentError(
                f"{type(event).__name__}: {why}: nothing was changed"
            )


def record(home: Home, run: tuple[str, str, str], events: Sequence[Event]) -> None:
    """Record events about a run (entity, project, id); durable when this returns.

    The next reader, in any process, sees them.

    Raises:
        CommError: They cannot be recorded: the home cannot be written, or no daemon
            takes them in time. In the second case they may be recorded later.
        BadArgumentError: An event is too large; nothing is recorded.
    """
    if not events:
        return
    _check_sizes(events)
    try:
        home.create()
        recording = Recording(home, RunKey(*run, EDITOR_RANK), forked=False)
    except (OSError, HomeUnusable) as error:
        raise CommError(
            f"home {home.root} cannot be written: {error}", error
        ) from error
    try:
        for event in events:
            recording.record(event)
    finally:
        recording.start()
        is_durable = recording.finish(None, DURABLE_TIMEOUT_S)
    if recording.dropped_count:
        raise CommError(f"home {home.root} cannot be written: its disk refused")
    if not is_durable:
        raise CommError(
            f"no daemon recorded this within {DURABLE_TIMEOUT_S:.0f} s; it is kept in "
            f"{recording.folder} and will follow"
        )
