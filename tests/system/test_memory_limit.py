"""A daemon in a cgroup with too little memory: the kernel kills, nothing is lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.system.harness import (
    Trainer,
    assert_whole,
    daemon,
    folded_offset,
    make_home,
    status,
    wait_until,
    worker_pid,
)

from flightlog_storage.home import Home

pytestmark = pytest.mark.once

HELPERS = ("materializer", "worker")
ROWS = 200_000
TOO_LITTLE = 56 << 20  # For the greedy.
ROOM = 4 << 20  # More than they take at rest, less than it takes to fold all rows.
ENOUGH = 2 << 30  # As the units say.
# Of version 2, and of version 1, by what tells how much is used.
LIMITS = {
    "memory.current": Path("/sys/fs/cgroup/memory.max"),
    "memory.usage_in_bytes": Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def limit() -> Iterator[Path]:
    """Return the file that limits the memory of a new cgroup, too much so."""
    limit = next(filter(None, map(make_group, LIMITS.values())), None)
    if limit is None:
        pytest.skip("no cgroup with a limit of memory can be made here")
    try:
        greedy = [sys.executable, "-c", f"b'x' * {4 * TOO_LITTLE}"]
        done = subprocess.run(greedy, preexec_fn=partial(enter, limit), check=False)
        if done.returncode != -signal.SIGKILL:
            pytest.skip("the limit of a cgroup's memory has no effect here")
        yield limit
        wait_until(lambda: not limit.with_name("cgroup.procs").read_text())
    finally:
        limit.parent.rmdir()


def enter(limit: Path) -> None:
    """Have this process be of a cgroup."""
    limit.with_name("cgroup.procs").write_text(f"{os.getpid()}")


def used(limit: Path) -> int:
    """Return how much the processes of a cgroup take."""
    for name in LIMITS:
        if (tells := limit.with_name(name)).exists():
            return int(tells.read_text())
    raise AssertionError("it has a limit")


def make_group(limit: Path) -> Path | None:
    """Make a cgroup below the one that has this file."""
    group = limit.parent / f"flightlog-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        with (group / limit.name).open("r+") as file:
            file.write(f"{TOO_LITTLE}")
    except OSError:
        group.rmdir()
        return None
    return group / limit.name


def restarts(home: Home) -> int:
    """Return how often the kernel, by its choice, has ended materializer or worker."""
    found = status(home)
    return int(sum(found.get(f"{name}_restarts", 0) for name in HELPERS))


@pytest.mark.fault(39)
def test_where_memory_is_limited_the_recorder_goes_on(home: Home, limit: Path) -> None:
    limit.write_text(str(ENOUGH))
    with daemon(home, preexec=partial(enter, limit)) as recorder:
        worker_pid(home)  # All three are there.
        limit.write_text(str(used(limit) + ROOM))
        trainer = Trainer(home, ROWS)
        wait_until(lambda: restarts(home))
        assert_whole(home, trainer, ROWS)  # Readers fold it themselves.
        assert recorder.poll() is None

        limit.write_text(str(ENOUGH))
        wait_until(lambda: folded_offset(home) == status(home)["end_offset"])
