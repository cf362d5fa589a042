import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import psutil
import pytest

from flightlogd.machine import (
    CoreTimes,
    read_core_times,
    read_counters,
    read_filling,
    read_trees,
)

# A process with a child, which say that they run and wait for a line.
PARENT = """
import subprocess, sys
code = "import sys; print('ready', flush=True); sys.stdin.readline()"
child = subprocess.Popen([sys.executable, "-c", code])
child.wait()
"""


@pytest.fixture
def parent() -> Iterator[int]:
    """A process that has one child."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    output: IO[bytes] | None = process.stdout
    assert output is not None
    assert output.readline() == b"ready\n"
    yield process.pid
    process.communicate(b"\n")


def test_cores_are_compared_with_how_they_were() -> None:
    before = CoreTimes((10.0, 10.0, 1.0), (100.0, 100.0, 50.0))
    now = CoreTimes((15.0, 10.0, 1.0, 9.0), (110.0, 120.0, 50.0, 9.0))

    assert now.usage_since(before) == {
        "cpu.0.cpu_percent": 50.0,
        "cpu.1.cpu_percent": 0,
    }
    assert now.usage_since(CoreTimes()) == {}


def test_a_core_whose_count_goes_back_is_idle_and_not_negative() -> None:
    before, now = CoreTimes((10.0,), (100.0,)), CoreTimes((9.0,), (110.0,))

    assert now.usage_since(before) == {"cpu.0.cpu_percent": 0.0}


def test_every_core_of_this_machine_is_read() -> None:
    times = read_core_times()

    assert len(times.busy) == len(times.total) == psutil.cpu_count()
    assert all(0 <= b <= t for b, t in zip(times.busy, times.total, strict=True))


def test_memory_and_disk_are_read() -> None:
    found = read_filling()

    assert list(found) == [
        *("memory_percent", "proc.memory.availableMB"),
        *("disk./.usagePercent", "disk./.usageGB"),
    ]
    assert all(value > 0 for value in found.values())


def test_disks_are_counted_and_not_their_partitions() -> None:
    found = read_counters()
    disks = {name.split(".")[1] for name in found if name.startswith("disk.")}

    assert disks <= set(os.listdir("/sys/block"))
    assert {"network.sent", "network.recv"} <= found.keys()


def test_the_processes_of_a_run_are_added_up_with_their_children(parent: int) -> None:
    (child,) = psutil.Process(parent).children()

    trees = read_trees({"both": [parent], "twice": [parent, child.pid]})
    alone = read_trees({"child": [child.pid]})["child"]

    assert trees["both"].pids == trees["twice"].pids == {parent, child.pid}
    both = trees["both"].metrics
    assert both["proc.memory.rssMB"] > alone.metrics["proc.memory.rssMB"] > 1
    assert both["proc.memory.percent"] > 0
    assert both["proc.cpu.threads"] == trees["twice"].metrics["proc.cpu.threads"] == 2
    assert trees["both"].cpu_s >= alone.cpu_s
    assert 0 < trees["both"].started_at <= alone.started_at


def test_the_time_that_a_process_has_used_is_read() -> None:
    used_s = sum(os.times()[:4])

    assert read_trees({"me": [os.getpid()]})["me"].cpu_s >= used_s > 0


def test_a_process_that_is_gone_is_left_out(parent: int) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    trees = read_trees({"some": [ended.pid, parent], "none": [ended.pid], "empty": []})

    assert list(trees) == ["some"]
    assert ended.pid not in trees["some"].pids
