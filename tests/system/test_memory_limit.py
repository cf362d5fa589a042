"""A daemon in a cgroup with too little memory: the kernel kills, nothing is lost."""

import os
from collections.abc import Iterator
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
)

from flightlog_storage.home import Home

ROWS = 200_000
TOO_LITTLE = 44 << 20  # Enough for a recorder, not for all three.
ENOUGH = 2 << 30  # As the units say.
# Of version 2, and of version 1.
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def limit() -> Iterator[Path]:
    """Return the file of a new cgroup that limits its memory."""
    limit = next(filter(None, map(make_group, LIMITS)), None)
    if limit is None:
        pytest.skip("no cgroup with a limit of memory can be made here")
    yield limit
    wait_until(lambda: not limit.with_name("cgroup.procs").read_text())
    limit.parent.rmdir()


def make_group(limit: Path) -> Path | None:
    """Make a cgroup below the one that has this file."""
    group = limit.parent / f"flightlog-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    if not (group / limit.name).exists():
        group.rmdir()
        return None
    return group / limit.name


def restarts(home: Home) -> int:
    """Return how often the kernel, by its choice, has ended materializer or worker."""
    found = status(home)
    return int(found["materializer_restarts"] + found["worker_restarts"])


@pytest.mark.fault(39)
def test_where_memory_is_limited_the_recorder_goes_on(home: Home, limit: Path) -> None:
    limit.write_text(str(TOO_LITTLE))
    group = limit.with_name("cgroup.procs")

    with daemon(home, preexec=lambda: group.write_text(str(os.getpid()))) as recorder:
        trainer = Trainer(home, ROWS)
        wait_until(lambda: restarts(home) >= 3)
        assert_whole(home, trainer, ROWS)  # Readers fold it themselves.
        assert recorder.poll() is None

        limit.write_text(str(ENOUGH))
        wait_until(lambda: folded_offset(home) == status(home)["end_offset"])
