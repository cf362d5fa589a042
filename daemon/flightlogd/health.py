"""Health: what the service manager is told, as long as the daemon does its work.

The watchdog is fed from the recorder's own loop, and only while that gets on: while the
disk answers, and each other process runs or is about to be started again.
"""

from collections.abc import Sequence

import anyio

from flightlogd.config import DaemonConfig
from flightlogd.notify import notify
from flightlogd.recorder import Recorder
from flightlogd.supervisor import Supervisor

__all__ = ("Health",)

INTERVAL_S = 10.0  # Between two words where no watchdog asks for more.
PINGS = 3  # Within the time that the watchdog gives.


class Health:
    """The service that feeds the watchdog."""

    def __init__(
        self,
        config: DaemonConfig,
        recorder: Recorder,
        processes: Sequence[Supervisor],
    ) -> None:
        self._address = config.notify_address
        self._recorder = recorder
        self._processes = processes
        self._patience_s = config.watchdog_s or INTERVAL_S
        self._interval_s = min(INTERVAL_S, self._patience_s / PINGS)

    async def run(self) -> None:
        """Tell how it goes until cancelled."""
        while True:
            await anyio.sleep(self._interval_s)
            trouble = self.trouble()
            if trouble:
                notify(self._address, f"STATUS={trouble}")
            else:
                notify(self._address, "WATCHDOG=1", f"STATUS={self._recorder.state()}")

    def trouble(self) -> str | None:
        """Return what only a restart may mend, if anything."""
        if self._recorder.silence_s > self._patience_s:
            return f"no batch was done for {self._recorder.silence_s:.0f} s"
        for process in self._processes:
            if not process.is_kept:
                return f"the {process.name} is neither running nor started again"
        return None
