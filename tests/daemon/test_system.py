"""The sampler, with its clock given, beside a daemon that takes no samples itself."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.daemon.nvml import Nvml
from tests.system.harness import (
    Trainer,
    make_home,
    run_state,
    start_daemon,
    status,
    stop_daemon,
    wait_until,
)

import flightlog
from flightlog.apis.public import Run
from flightlog_storage.database import Database
from flightlog_storage.disk import DiskRoom
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.home import Home
from flightlog_storage.process import this_process
from flightlog_storage.spool import SpoolOwner, read_owner
from flightlogd import system
from flightlogd.machine import Tree, read_core_times
from flightlogd.system import SystemSampler

OFF = {"FLIGHTLOG_SYSTEM_INTERVAL_S": "0"}
INTERVAL_S = 15.0


@dataclass
class Trained:
    """A process that logs into a run, and what is recorded of that run."""

    home: Home
    name: str
    process: Trainer

    def is_active(self) -> bool:
        try:
            with Database.open_reader(self.home.state) as database:
                return database.is_active("someone", "project", self.name)
        except HomeUnusable:
            return False  # Not made yet.

    def run(self) -> Run:
        return flightlog.Api(home=self.home.root).run(f"someone/project/{self.name}")

    def samples(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run().history(stream="system", pandas=False)
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = make_home(tmp_path_factory.mktemp("sampled"))
    process = start_daemon(home, environ=OFF)
    yield home
    stop_daemon(process)


@pytest.fixture
def trained(home: Home) -> Iterator[Trained]:
    with training(home) as trained:
        yield trained


@contextmanager
def training(home: Home) -> Iterator[Trained]:
    name = os.urandom(4).hex()
    trained = Trained(home, name, Trainer(home, 3, how="wait", run=name))
    try:
        wait_until(trained.is_active)
        yield trained
    finally:
        trained.process.close()
        wait_until(lambda: not trained.is_active())


def writers_of(trained: Trained) -> list[object]:
    state = run_state(trained.home, trained.name)
    return [] if state is None else list(state.writers)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("flightlogd")]


@pytest.fixture
def nvml() -> Nvml:
    """A driver that is not there, until a test says otherwise."""
    nvml = Nvml()
    nvml.problem = Nvml.NVMLError_LibraryNotFound()
    return nvml


@pytest.fixture
def sampler(home: Home, nvml: Nvml) -> Iterator[SystemSampler]:
    sampler = SystemSampler(home, INTERVAL_S, DiskRoom(home, 0), nvml)
    yield sampler
    sampler.close()


def test_a_run_is_met_then_sampled_and_then_at_each_interval(
    home: Home, trained: Trained, sampler: SystemSampler
) -> None:
    counts = []

    for at in (100.0, 101.0, 102.0, 114.9, 116.0, 117.0, 130.9, 131.0):
        sampler.look(at)
        counts.append(len(trained.samples()))

    assert counts == [0, 1, 1, 1, 2, 2, 2, 3]


def test_a_sample_has_the_machine_and_the_processes_of_the_run(
    home: Home, trained: Trained, sampler: SystemSampler
) -> None:
    sampler.look(0.0)
    before = read_core_times()
    wait_until(lambda: read_core_times() != before)
    sampler.look(1.0)

    (row,) = trained.samples()
    cores = {f"system.cpu.{n}.cpu_percent" for n in range(psutil.cpu_count() or 1)}

    assert row.keys() >= {
        *("_timestamp", "_runtime", "_wandb", "system.cpu"),
        *("system.memory_percent", "system.proc.cpu.threads"),
        *("system.proc.memory.rssMB", "system.proc.memory.percent"),
        *("system.proc.memory.availableMB", "system.disk./.usagePercent"),
        *("system.disk./.usageGB", "system.network.sent", "system.network.recv"),
    }
    assert not cores.isdisjoint(row)
    assert row["_wandb"] is True
    assert row["system.proc.memory.rssMB"] > 5
    assert not any("gpu" in name for name in row)
    latest = {key: value for key, value in row.items() if key[0] != "_"}
    assert trained.run().system_metrics == latest


def test_gpus_are_in_the_sample_and_once_more_where_the_run_uses_them(
    home: Home, trained: Trained, sampler: SystemSampler, nvml: Nvml
) -> None:
    nvml.problem, nvml.users = None, {0: [trained.process.process.pid], 1: [1]}
    sampler.look(0.0)
    sampler.look(1.0)

    (row,) = trained.samples()

    assert (row["system.gpu.0.gpu"], row["system.gpu.process.0.gpu"]) == (97, 97)
    assert row["system.gpu.1.temp"] == 61
    assert not any(name.startswith("system.gpu.process.1.") for name in row)


def test_a_clock_that_stood_still_brings_one_sample_and_no_burst(
    home: Home, trained: Trained, sampler: SystemSampler
) -> None:

    for at in (0.0, 1.0, 1e6, 1e6 + 1, 1e6 + 2):
        sampler.look(at)

    assert len(trained.samples()) == 2


def test_a_run_that_has_ended_is_sampled_no_more(
    home: Home, trained: Trained, sampler: SystemSampler
) -> None:
    sampler.look(0.0)
    sampler.look(1.0)
    trained.process.go_on()
    trained.process.wait()
    wait_until(lambda: not trained.is_active())
    before = status(home)["end_offset"]

    for at in (20.0, 40.0, 41.0):
        sampler.look(at)

    assert status(home)["end_offset"] == before
    assert len(trained.samples()) == 1


def test_where_nothing_runs_nothing_is_recorded(
    home: Home, sampler: SystemSampler
) -> None:
    before = status(home)["end_offset"]

    for at in (0.0, 1.0, 20.0, 40.0):
        sampler.look(at)

    assert status(home)["end_offset"] == before
    assert sampler.failures == 0


def test_a_deleted_run_is_sampled_no_more_and_leaves_no_dead_letter(
    home: Home, trained: Trained, sampler: SystemSampler
) -> None:
    trained.run().delete()
    wait_until(lambda: not trained.is_active())
    before = status(home)["end_offset"]

    for at in (0.0, 1.0, 20.0):
        sampler.look(at)

    assert status(home)["end_offset"] == before


def test_a_run_that_the_log_does_not_have_yet_is_waited_for(
    home: Home,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    sampler: SystemSampler,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Database, "is_active", lambda *_: False)
        sampler.look(0.0)
        sampler.look(1.0)
    assert trained.samples() == []

    sampler.look(2.0)
    sampler.look(16.0)

    assert len(trained.samples()) == 2


def test_a_gpu_that_fails_takes_nothing_else_from_the_sample(
    trained: Trained,
    sampler: SystemSampler,
    nvml: Nvml,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nvml.problem, nvml.lost = None, {0}

    for at in (0.0, 1.0, 16.0, 31.0):
        sampler.look(at)

    assert len(trained.samples()) == 3
    last = trained.samples()[-1]
    assert (last["system.gpu.1.temp"], "system.gpu.0.temp" in last) == (61, False)
    assert last["system.memory_percent"] > 0
    assert said(caplog) == ["GPU 0: cannot be read: NVMLError('GPU is lost')"]


def test_a_driver_that_fails_takes_nothing_else_from_the_sample(
    trained: Trained,
    sampler: SystemSampler,
    nvml: Nvml,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nvml.problem = Nvml.NVMLError("unknown")

    for at in (0.0, 1.0, 16.0):
        sampler.look(at)

    assert [row["system.cpu"] >= 0 for row in trained.samples()] == [True, True]
    assert said(caplog) == ["GPUs: cannot be read: NVMLError('unknown')"]


def test_where_nothing_can_be_read_nothing_is_recorded(
    home: Home,
    trained: Trained,
    sampler: SystemSampler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not to be read")

    for name in ("core_times", "counters", "filling", "trees"):
        monkeypatch.setattr(system, f"read_{name}", refuse)
    before = status(home)["end_offset"]

    for at in (0.0, 1.0, 16.0):
        sampler.look(at)

    assert status(home)["end_offset"] == before
    assert sampler.failures == 0


def test_the_share_of_a_run_is_of_all_cores_since_the_sample_before(
    trained: Trained, sampler: SystemSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    cores = os.cpu_count() or 1
    used_s = iter((0.0, 5.0 * cores, 1000.0 * cores, 0.0))
    monkeypatch.setattr(
        system,
        "read_trees",
        lambda roots: {k: Tree(frozenset({1}), next(used_s), 0.0, {}) for k in roots},
    )

    for at in (0.0, 0.5, 20.5, 40.5, 60.5):
        sampler.look(at)

    assert [row["system.cpu"] for row in trained.samples()] == [0.0, 25.0, 100.0, 0.0]


def test_what_psutil_cannot_read_takes_nothing_else_from_the_sample(
    home: Home,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sampler: SystemSampler,
) -> None:
    def refuse() -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_io_counters", refuse)

    for at in (0.0, 1.0, 16.0):
        sampler.look(at)

    rows = trained.samples()
    assert [row["system.cpu"] >= 0 for row in rows] == [True, True]
    assert not any("network" in name for name in rows[0])
    assert [line.partition(":")[0] for line in said(caplog)] == ["network and disks"]


def test_samples_that_no_recorder_takes_are_lost_which_is_told_once_and_heals(
    home: Home,
    trained: Trained,
    sampler: SystemSampler,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    info = home.daemon()
    assert info is not None
    for at in (0.0, 1.0, 16.0):
        sampler.look(at)
    os.killpg(info.process.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr("flightlogd.connection.REPLY_TIMEOUT_S", 0.2)
        for at in (31.0, 32.0, 46.0):
            sampler.look(at)
    assert sampler.failures == 2

    os.killpg(info.process.pid, signal.SIGCONT)
    for at in (61.0, 76.0):
        sampler.look(at)

    assert len(trained.samples()) == 4
    assert said(caplog) == [
        "system metrics cannot be recorded: "
        "TimeoutError('the recorder does not answer')",
        "system metrics again, after 2 failures",
    ]
    with Database.open_reader(home.state) as database:
        assert (database.gaps(), database.dead_letters()) == ([], [])


def test_a_sample_that_a_nearly_full_disk_costs_is_said_to_be_left_out(
    home: Home, trained: Trained, sampler: SystemSampler
) -> None:
    sampler._room = DiskRoom(home, 1 << 62)
    for at in (0.0, 1.0, 2.0, 16.0):
        sampler.look(at)
    sampler._room = DiskRoom(home, 0)
    sampler.look(31.0)

    *left_out, last = trained.samples()
    for row in left_out:
        found = {key for key in row if key.startswith("system.")}
        assert found == {"system.samples.left_out"}
        assert row["system.samples.left_out"] == 1
    assert len(left_out) == 2
    assert {"system.memory_percent", "system.cpu"} <= last.keys()


def test_processes_of_one_run_share_its_samples(
    home: Home, trained: Trained, sampler: SystemSampler, nvml: Nvml
) -> None:
    other = Trainer(home, 3, how="wait", run=trained.name)
    wait_until(lambda: len(writers_of(trained)) == 2)
    pids = [trained.process.process.pid, other.process.pid]
    nvml.problem, nvml.users = None, {i: [pid] for i, pid in enumerate(pids)}

    sampler.look(0.0)
    sampler.look(1.0)

    (row,) = trained.samples()
    alone = psutil.Process(pids[0]).memory_info().rss / (1 << 20)
    assert row["system.proc.memory.rssMB"] > 1.5 * alone
    assert {"system.gpu.process.0.temp", "system.gpu.process.1.temp"} <= row.keys()
    other.close()


@pytest.mark.parametrize("unanswered_max", [1, 2])
def test_every_run_has_its_own_sample_of_one_reading(
    home: Home,
    trained: Trained,
    sampler: SystemSampler,
    monkeypatch: pytest.MonkeyPatch,
    unanswered_max: int,
) -> None:
    monkeypatch.setattr(system, "UNANSWERED_MAX", unanswered_max)
    with training(home) as other:
        for at in (0.0, 1.0, 16.0):
            sampler.look(at)

        times, others = (
            [row["_timestamp"] for row in each.samples()] for each in (trained, other)
        )

    assert len(times) == 2
    assert times == others


def test_processes_that_cannot_be_seen_from_here_have_no_figures(
    home: Home,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    sampler: SystemSampler,
) -> None:
    def elsewhere(folder: Path) -> SpoolOwner | None:
        found = read_owner(folder)
        if found is None:
            return None
        here = found.process
        there = type(here)(here.pid, here.start_time, here.boot_id, 1)
        return SpoolOwner(found.writer, there, found.run)

    monkeypatch.setattr(system, "read_owner", elsewhere)
    sampler.look(0.0)
    sampler.look(1.0)

    (row,) = trained.samples()

    assert row["system.memory_percent"] > 0
    assert {"system.cpu", "system.proc.cpu.threads"}.isdisjoint(row)


def test_network_and_disks_are_counted_from_when_the_run_came(
    home: Home,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    sampler: SystemSampler,
) -> None:
    counts = iter((100, 130, 190))
    monkeypatch.setattr(system, "read_counters", lambda: {"network.sent": next(counts)})

    for at in (0.0, 1.0, 16.0):
        sampler.look(at)

    assert [row["system.network.sent"] for row in trained.samples()] == [30, 90]


def test_an_interval_of_zero_takes_no_samples(home: Home) -> None:
    asyncio.run(SystemSampler(home, 0.0, DiskRoom(home, 0)).run())  # Returns at once.


def test_a_sampler_that_is_to_stop_waits_for_no_answer(
    home: Home,
    trained: Trained,
    caplog: pytest.LogCaptureFixture,
    sampler: SystemSampler,
) -> None:
    sampler.look(0.0)
    sampler.stop()

    sampler.look(1.0)

    assert trained.samples() == []
    assert said(caplog) == []
    assert this_process().pid == os.getpid()
