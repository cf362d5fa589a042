"""The disk guard: says when the disk becomes nearly full, and when that is over."""

import logging

import anyio
from anyio import to_thread

from flightlog_storage.disk import LOOK_INTERVAL_S, DiskRoom, DiskState

__all__ = ("guard_disk",)

logger = logging.getLogger(__name__)


async def guard_disk(room: DiskRoom) -> None:
    """Look at the disk, again and again, until cancelled."""
    was_low = False
    while True:
        state = await to_thread.run_sync(room.look)
        if state.is_low != was_low:
            _tell(state)
        was_low = state.is_low
        await anyio.sleep(LOOK_INTERVAL_S)


def _tell(state: DiskState) -> None:
    if state.is_low:
        logger.warning(
            "the disk of %s is nearly full: %s bytes free, less than %s: archives and "
            "outputs wait, system metrics are left out",
            state.folder,
            f"{state.free:,}",
            f"{state.low_water:,}",
        )
    else:
        logger.warning(
            "the disk has room again: %s bytes free; nothing waits", f"{state.free:,}"
        )
