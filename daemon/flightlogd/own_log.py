"""The daemon's own log: what it says where no service manager keeps it, cut in time."""

import logging
import os
import shutil
from contextlib import suppress

import anyio
from anyio import to_thread

from flightlog_storage.home import Home

__all__ = ("cut_log", "keep_log_short")

logger = logging.getLogger(__name__)

DAEMON_LOG_SIZE_MAX = 16 << 20
LOOK_INTERVAL_S = 10.0


async def keep_log_short(home: Home) -> None:
    """Look at how long it is, again and again, until cancelled."""
    while True:
        await to_thread.run_sync(cut_log, home)
        await anyio.sleep(LOOK_INTERVAL_S)


def cut_log(home: Home) -> None:
    """Begin it anew when it is too long; the latest is kept under a second name.

    All who write into it append to the same file, so that stays where it is.
    """
    path, kept = home.daemon_log, home.daemon_log_before
    with suppress(FileNotFoundError):
        if path.stat().st_size <= DAEMON_LOG_SIZE_MAX:
            return
        try:
            kept.unlink(missing_ok=True)
            kept.touch(mode=0o600)
            shutil.copyfile(path, kept)
        except OSError:  # A full disk, which this is a part of.
            kept.unlink(missing_ok=True)
        os.truncate(path, 0)
        logger.info("%s was too long and begins anew", path.name)
