"""System metrics: what the machine does while a run runs, sampled for each run.

A sample is a row of a writer without a rank, as docs/events.md has it. The process that
is trained in has no part in this: it is looked at from outside.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import zmq
from anyio import to_thread

from flightlog_storage.codec import (
    EDITOR_RANK,
    RUN_SHAPE,
    RunKey,
    encode_definitions,
    encode_run,
    packer,
)
from flightlog_storage.database import Database
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.event import WriterId
from flightlog_storage.frame import pack_frame
from flightlog_storage.home import Home
from flightlog_storage.process import this_process
from flightlog_storage.protocol import Hello, Refused, Welcome, decode_reply, encode
from flightlog_storage.spool import SpoolOwner, read_owner
from flightlogd.connection import connect, is_answered
from flightlogd.gpus import Gpu, Gpus
from flightlogd.machine import (
    CoreTimes,
    Number,
    Tree,
    read_core_times,
    read_counters,
    read_filling,
    read_trees,
)
from flightlogd.probe import Probe

__all__ = ("SystemSampler",)

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0  # At whether runs have come; they are sampled at the look after.
UNANSWERED_MAX = 256  # Samples on their way: answers for more could find no room.
_ROW_SHAPE = 0

_Key = tuple[str, str, str]  # Entity, project, id of a run.
_Metrics = dict[str, Number]
_LEFT_OUT: _Metrics = {"samples.left_out": 1}  # The sum of it is how many were.


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is the same for all runs that are sampled at a time."""

    at: float  # By the monotonic clock.
    now: float  # In seconds since 1970.
    filling: _Metrics
    cores: _Metrics
    counters: dict[str, int]
    gpus: Mapping[int, Gpu]
    trees: Mapping[_Key, Tree]


@dataclass(slots=True)
class _Subject:
    """A run that is sampled, and the writer of its samples."""

    key: _Key
    counters: dict[str, int]  # When it was first seen.
    writer: WriterId = field(default_factory=lambda: WriterId(os.urandom(16)))
    sequence: int = 1
    is_sampled: bool = False
    cpu: tuple[float, float] | None = None  # Seconds used by the sample before, its at.

    def row(self, reading: _Reading) -> _Metrics:
        """Return the metrics of a sample, the run's own first."""
        found: _Metrics = {}
        tree = reading.trees.get(self.key)
        if tree is not None:
            found["cpu"] = self._cpu_percent(tree, reading)
            found |= tree.metrics
        found |= reading.filling
        for index, gpu in reading.gpus.items():
            is_used = tree is not None and tree.pids & gpu.users
            for prefix in ("gpu", "gpu.process") if is_used else ("gpu",):
                for name, value in gpu.metrics.items():
                    found[f"{prefix}.{index}.{name}"] = value
        for name, count in reading.counters.items():
            found[name] = max(0, count - self.counters.setdefault(name, count))
        return found | reading.cores

    def greet(self, last: int) -> None:
        """Be told up to where the recorder had everything before this sample.

        What was lost with a recorder is not sent again: the next sample is at hand.
        """
        self.sequence = last + 1 + (last + 1 == self.sequence)

    def _cpu_percent(self, tree: Tree, reading: _Reading) -> float:
        """Return the share of all cores that the run used since it was last sampled."""
        used_s, span_s = tree.cpu_s, reading.now - tree.started_at
        if self.cpu is not None:
            used_s, span_s = used_s - self.cpu[0], reading.at - self.cpu[1]
        self.cpu = (tree.cpu_s, reading.at)
        if span_s <= 0:
            return 0.0
        share = used_s / span_s / (os.cpu_count() or 1)
        return round(100.0 * min(max(share, 0.0), 1.0), 2)

    def frame(self, metrics: _Metrics, now: float) -> list[bytes]:
        """Return a sample as the recorder takes it; its step is the time."""
        names = [f"system.{name}" for name in metrics]
        pack = packer().pack
        definitions = {
            RUN_SHAPE: encode_run(RunKey(*self.key, EDITOR_RANK)),
            _ROW_SHAPE: pack((_ROW_SHAPE, names)),
        }
        row = (_ROW_SHAPE, round(now * 1e6), now, *metrics.values())
        payload = encode_definitions(definitions) + pack(row)
        return list(pack_frame(self.writer, self.sequence, 1, payload))


class SystemSampler:
    """Samples the machine for all runs with a live writer on it."""

    def __init__(
        self, home: Home, interval_s: float, room: DiskRoom, nvml: Any = None
    ) -> None:
        """`nvml` stands in for the library that knows GPUs; an interval of 0 is off.

        While the disk has no `room` each sample is only said to be left out.
        """
        self._home = home
        self._interval_s = interval_s
        self._room = room
        self._owners: dict[str, SpoolOwner] = {}
        self._subjects: dict[_Key, _Subject] = {}
        self._next_at = 0.0
        self._core_times = CoreTimes()
        self._gpus = Gpus(nvml)
        self._filling = Probe[_Metrics]("memory and disk", {})
        self._cores = Probe("cores", CoreTimes())
        self._counters = Probe[dict[str, int]]("network and disks", {})
        self._processes = Probe[dict[_Key, Tree]]("processes", {})
        self._gpu_count = Probe("GPUs", 0)
        self._each_gpu: dict[int, Probe[Gpu | None]] = {}
        self._stopping = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.failures = 0  # Since samples were last recorded.

    async def run(self) -> None:
        """Sample until cancelled."""
        try:
            while self._interval_s:
                await to_thread.run_sync(self.look, time.monotonic())
                await anyio.sleep(min(LOOK_INTERVAL_S, self._interval_s))
        finally:
            self.close()

    def stop(self) -> None:
        """Have a look end soon, from another thread: nobody answers any more."""
        self._stopping.set()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def look(self, at: float) -> None:
        """Sample the runs whose time has come; `at` is by the monotonic clock.

        What goes wrong is told once and counted: no other service ends by it.
        """
        try:
            due = self._due(at)
            if due and not self._stopping.is_set():
                self._sample(due, at)
        except Exception as error:  # noqa: BLE001  # The end of the service; it is told.
            if not self.failures and not self._stopping.is_set():
                logger.warning("system metrics cannot be recorded: %r", error)
            self.failures += 1

    def _due(self, at: float) -> dict[_Key, list[SpoolOwner]]:
        """Return the runs to sample now, with those who log into them."""
        live = self._live()
        for key in self._subjects.keys() - live.keys():
            del self._subjects[key]
        known = dict(self._subjects)
        self._meet(live.keys() - known.keys())
        if known and at >= self._next_at:
            # What was due while clock or machine stood still is one sample.
            self._next_at = at + self._interval_s
        elif self.failures:
            return {}
        else:
            known = {k: each for k, each in known.items() if not each.is_sampled}
        return self._active({key: live[key] for key in known})

    def _live(self) -> dict[_Key, list[SpoolOwner]]:
        """Return the runs that have a spool."""
        names = [n for n in os.listdir(self._home.spool) if not n.startswith(".")]
        owners: dict[str, SpoolOwner] = {}
        for name in names:
            owner = self._owners.get(name) or read_owner(self._home.spool / name)
            if owner is not None and owner.run.rank != EDITOR_RANK:
                owners[name] = owner
        self._owners = owners
        live: dict[_Key, list[SpoolOwner]] = {}
        for owner in owners.values():
            live.setdefault(owner.run[:3], []).append(owner)
        return live

    def _meet(self, keys: Iterable[_Key]) -> None:
        """Note how things are as runs come: their first samples compare with that."""
        keys = set(keys)
        if not keys:
            return
        if not self._subjects:
            self._core_times = self._cores.read(read_core_times)
        counters = self._counters.read(read_counters)
        for key in keys:
            self._subjects[key] = _Subject(key, dict(counters))

    def _active(
        self, runs: dict[_Key, list[SpoolOwner]]
    ) -> dict[_Key, list[SpoolOwner]]:
        """Return those that are recorded as active, with those writers that live."""
        if not runs:
            return {}
        try:
            with Database.open_reader(self._home.state) as database:
                found = {
                    key: [owner for owner in owners if owner.process.is_alive()]
                    for key, owners in runs.items()
                    if database.is_active(*key)
                }
        except HomeUnusable:
            return {}  # Nothing is folded yet.
        return {key: owners for key, owners in found.items() if owners}

    def _sample(self, due: dict[_Key, list[SpoolOwner]], at: float) -> None:
        """Record one sample of the machine for each of these runs."""
        reading = None if self._room.is_low else self._read(due, at)
        now = time.time() if reading is None else reading.now
        rows = []
        for key in due:
            subject = self._subjects[key]
            if row := _LEFT_OUT if reading is None else subject.row(reading):
                rows.append((subject, row))
            subject.is_sampled = True
        for start in range(0, len(rows), UNANSWERED_MAX):
            self._send(rows[start : start + UNANSWERED_MAX], now)
        if self.failures:
            logger.info("system metrics again, after %d failures", self.failures)
            self.failures = 0

    def _read(self, due: dict[_Key, list[SpoolOwner]], at: float) -> _Reading:
        here = this_process().pid_namespace
        roots = {
            key: [o.process.pid for o in owners if o.process.pid_namespace == here]
            for key, owners in due.items()
        }
        before, self._core_times = self._core_times, self._cores.read(read_core_times)
        return _Reading(
            at,
            time.time(),
            self._filling.read(read_filling),
            self._core_times.usage_since(before),
            self._counters.read(read_counters),
            self._read_gpus(),
            self._processes.read(lambda: read_trees(roots)),
        )

    def _read_gpus(self) -> dict[int, Gpu]:
        """Return the GPUs that can be read: one that hangs takes nothing of others."""
        found = {}
        for index in range(self._gpu_count.read(self._gpus.count)):
            probe = self._each_gpu.setdefault(index, Probe(f"GPU {index}", None))
            gpu = probe.read(partial(self._gpus.read, index))
            if gpu is not None:
                found[index] = gpu
        return found

    def _send(self, rows: list[tuple[_Subject, _Metrics]], now: float) -> None:
        """Have the recorder make rows durable.

        Raises:
            OSError: It does not answer, or refuses.
        """
        key = self._home.key
        with connect(self._context, self._home) as socket:
            for subject, row in rows:
                socket.send(encode(Hello(subject.writer, key)))
                socket.send_multipart(subject.frame(row, now))
            # A last greeting: what was said before it is durable when it is answered.
            socket.send(encode(Hello(rows[-1][0].writer, key)))
            for subject, _ in rows:
                subject.greet(self._welcome(socket))
            self._welcome(socket)

    def _welcome(self, socket: "zmq.Socket[bytes]") -> int:
        """Return the last sequence of the next writer that is welcomed."""
        while is_answered(socket, self._stopping):
            match decode_reply(socket.recv()):
                case Welcome(last=last):
                    return last
                case Refused(reason=reason):
                    raise ConnectionRefusedError(reason)
        raise TimeoutError("the recorder does not answer")
