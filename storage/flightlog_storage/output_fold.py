"""The fold of outputs: which watches are open, and what was archived.

What is said twice, or by two who looked at the same time, has its effect once.
"""

from flightlog_storage.assets import Output, asset_of_output
from flightlog_storage.event import (
    ROLLING,
    OutputArchived,
    OutputEvent,
    OutputsWatchStarted,
    OutputsWatchStopped,
    WriterId,
)
from flightlog_storage.fold import count_lost
from flightlog_storage.runstate import RunState
from flightlog_storage.watches import Watch

__all__ = ("change_outputs",)


def change_outputs(state: RunState, writer: WriterId, event: OutputEvent) -> None:
    """Change watches and outputs to those that follow from one more event."""
    match event:
        case OutputsWatchStarted(token=token):
            watch = Watch(token, writer, event.interval_s, event.looking)
            state.watches[token] = watch
            state.changes.watches[token] = None
        case OutputsWatchStopped(token=token):
            if state.watches.pop(token, None) is not None:
                state.changes.watches[token] = None
                count_lost(state, event.failed)
        case OutputArchived():
            _archive(state, event)


def _archive(state: RunState, event: OutputArchived) -> None:
    last = state.last_outputs.get(event.key)
    if last is not None and last.fingerprint == event.fingerprint:
        return
    is_late = last is not None and _is_late(event, last.output)
    if is_late and event.mode == ROLLING:
        return
    if is_late:  # It was there once, and is a version; but not what was there last.
        asset = asset_of_output(event, serial=0)
    else:
        state.output_serial += 1
        asset = asset_of_output(event, state.output_serial)
        state.last_outputs[event.key] = asset
    state.assets[asset.token] = asset
    state.changes.assets[asset.token] = None


def _is_late(event: OutputArchived, last: Output | None) -> bool:
    """Whether something newer was archived before this could be told."""
    return (
        last is not None
        and event.boot == last.boot
        and event.looked_ns < last.looked_ns
    )
