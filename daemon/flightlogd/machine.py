"""The machine and its processes as psutil sees them, under W&B's names of metrics."""

import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import psutil

__all__ = (
    "CoreTimes",
    "Number",
    "Tree",
    "read_core_times",
    "read_counters",
    "read_filling",
    "read_trees",
)

Number = int | float
MIB = 1 << 20
GIB = 1 << 30

_Run = TypeVar("_Run", bound=Hashable)


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """How long each core was busy since boot, and how long it is up, in seconds."""

    busy: tuple[float, ...] = ()
    total: tuple[float, ...] = ()

    def usage_since(self, before: "CoreTimes") -> dict[str, Number]:
        """Return how busy each core was meanwhile."""
        found: dict[str, Number] = {}
        for core, (busy, total) in enumerate(zip(self.busy, self.total, strict=True)):
            if core < len(before.total) and total > before.total[core]:
                share = (busy - before.busy[core]) / (total - before.total[core])
                percent = round(100.0 * min(max(share, 0.0), 1.0), 2)
                found[f"cpu.{core}.cpu_percent"] = percent
        return found


def read_core_times() -> CoreTimes:
    """Return the times of all cores of the machine."""
    busy, total = [], []
    for times in psutil.cpu_times(percpu=True):
        # A guest's time is in its user's already.
        all_s = sum(times) - times.guest - times.guest_nice
        busy.append(all_s - times.idle - times.iowait)
        total.append(all_s)
    return CoreTimes(tuple(busy), tuple(total))


def read_filling() -> dict[str, Number]:
    """Return how full the memory is and the disk of the root folder."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return {
        "memory_percent": memory.percent,
        "proc.memory.availableMB": round(memory.available / MIB, 2),
        "disk./.usagePercent": disk.percent,
        "disk./.usageGB": round(disk.used / GIB, 3),
    }


def read_counters() -> dict[str, int]:
    """Return the bytes that went through the network and each disk since boot."""
    network = psutil.net_io_counters()
    found = {}
    if network is not None:
        found = {"network.sent": network.bytes_sent, "network.recv": network.bytes_recv}
    for name, disk in psutil.disk_io_counters(perdisk=True).items():
        is_used = disk.read_bytes or disk.write_bytes  # There are many loop devices.
        if is_used and os.path.exists(f"/sys/block/{name}"):  # No partition.
            found[f"disk.{name}.in"] = disk.read_bytes
            found[f"disk.{name}.out"] = disk.write_bytes
    return found


@dataclass(frozen=True, slots=True)
class Tree:
    """A run's processes and all that descend from them, added up."""

    pids: frozenset[int]
    cpu_s: float  # Used since they began, by children that ended as well.
    started_at: float  # When the first of them began, in seconds since 1970.
    metrics: Mapping[str, Number]  # Without their share of the processor.


def read_trees(roots: Mapping[_Run, Iterable[int]]) -> dict[_Run, Tree]:
    """Return the processes of each run, given those that log into it."""
    children: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process.pid)
    memory = psutil.virtual_memory().total
    found = {run: _tree(pids, children, memory) for run, pids in roots.items()}
    return {run: tree for run, tree in found.items() if tree.pids}


def _tree(roots: Iterable[int], children: Mapping[int, list[int]], memory: int) -> Tree:
    waiting = list(roots)
    pids: set[int] = set()
    cpu_s, threads, rss, started_at = 0.0, 0, 0, []
    while waiting:
        pid = waiting.pop()
        if pid in pids:
            continue  # A fork that logs is also a child.
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                cpu_s += sum(process.cpu_times()[:4])
                threads += process.num_threads()
                rss += process.memory_info().rss
                started_at.append(process.create_time())
        except psutil.Error:
            continue  # It has ended meanwhile, or is not to be seen.
        pids.add(pid)
        waiting += children.get(pid, ())
    metrics: dict[str, Number] = {
        "proc.cpu.threads": threads,
        "proc.memory.rssMB": round(rss / MIB, 2),
        "proc.memory.percent": round(100.0 * rss / memory, 2),
    }
    return Tree(frozenset(pids), cpu_s, min(started_at, default=0.0), metrics)
