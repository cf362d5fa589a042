"""What a sweep of system calls needs: at which of them, and who makes them."""

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.storage.recording import Recorded
from tests.system.harness import environment, folded_offset, wait_until

from flightlog_storage.home import Home
from flightlogd.wakes import Durable

__all__ = ("LIVES", "RUNS", "at_call", "fold_under", "recorded_runs", "sweep")

RUNS = ("a", "b")
LIVES = 3
WAIT_TIMEOUT_S = 60


def at_call(call: str, number: int, fault: str) -> list[str]:
    """Return a command that has the Nth call of a kind of what it runs go wrong.

    What that starts itself is left alone.
    """
    inject = f"inject={call}:{fault}:when={number}"
    quiet = ("-o", "/dev/null", "-f", "-b", "execve")
    return ["strace", *quiet, "-e", f"trace={call}", "-e", inject]


def sweep(calls: dict[str, int], count: int) -> list[tuple[str, int]]:
    """Return which calls are to go wrong: so many of them, or each."""
    chance = random.Random(count)
    everywhere = [(call, n) for call, most in calls.items() for n in range(1, most + 1)]
    return sorted(chance.sample(everywhere, min(count, len(everywhere))))


def recorded_runs(folder: Path) -> Recorded:
    """Return a log from which parts are made, merged and deleted."""
    recorded = Recorded(folder)
    for life in range(LIVES):
        for run in RUNS:
            writer = recorded.start(run, name=f"{run}{life}")
            recorded.rows(writer, *((life * 10 + n, n / 7) for n in range(10)))
            recorded.finish(writer)
    recorded.log.close()
    return recorded


def fold_under(home: Home, end: Durable, under: list[str]) -> tuple[int, str]:
    """Have a materializer fold all, as the recorder would.

    Returns how it ended and what it said.
    """
    read_fd, wake_fd = os.pipe()
    materializer = subprocess.Popen(
        [
            *(*under, sys.executable, "-m", "flightlogd", "materialize"),
            *("--home", str(home.root), "--wake-fd", str(read_fd)),
        ],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(read_fd,),
        text=True,
    )
    os.close(read_fd)
    os.write(wake_fd, end.pack())
    wait_until(
        lambda: materializer.poll() is not None or folded_offset(home) == end.offset
    )
    os.close(wake_fd)
    _, said = materializer.communicate(timeout=WAIT_TIMEOUT_S)
    return materializer.returncode, said
