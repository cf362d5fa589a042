"""The recorder process put together: lock, log, socket, services, and a clean end."""

import logging
import os
import resource
import secrets
import signal
import time
from functools import partial

import anyio
import msgspec

from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.disk import DiskRoom, DiskState
from flightlog_storage.eventlog import EventLog
from flightlog_storage.home import DaemonInfo, HomeLock
from flightlog_storage.process import this_process
from flightlog_storage.protocol import TOKEN_SIZE
from flightlog_storage.scrubbing import read_scrubbing
from flightlogd.config import VERSION, DaemonConfig
from flightlogd.disk_guard import guard_disk
from flightlogd.health import Health
from flightlogd.intake import Counters, Intake
from flightlogd.listener import Listener
from flightlogd.notify import LIFE_TIMEOUT_S, notify
from flightlogd.own_log import keep_log_short
from flightlogd.recorder import Recorder
from flightlogd.supervisor import Supervisor, stop_all
from flightlogd.wakes import Durable

__all__ = ("Status", "run")

logger = logging.getLogger(__name__)


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How a daemon is; `flightlogd status --json` prints it."""

    pid: int
    materializer_pid: int | None
    materializer_restarts: int
    worker_pid: int | None = None  # Not told by daemons that had none.
    worker_restarts: int = 0
    version: str
    home: str
    socket: str
    is_accepting: bool
    uptime_s: float
    log_id: str
    end_offset: int
    durable_segment: int
    durable_position: int
    damages_found: int
    scrub_damages: int = 0  # Files at rest that are damaged, and not mended.
    active_writers: int
    disk: DiskState | None = None  # Not told by daemons that do not look.
    counters: Counters


def run(config: DaemonConfig) -> None:
    """Serve the home until SIGTERM or SIGINT.

    Raises:
        HomeLocked: Another daemon serves it.
        HomeUnusable: It cannot be used.
    """
    config.home.create()
    os.chdir("/")  # Hold on to no folder of whoever started this.
    lock = HomeLock(config.home)  # Before anything else of the home is touched.
    config.home.sync()  # Whoever made it: before anything in it is acknowledged.
    _set_limits()
    folded = read_checkpoint(config.home.state)
    log = EventLog.open(
        config.home.log,
        now_ns=time.time_ns,
        quarantine=config.home.quarantine,
        durable=(folded.log_id, folded.offset),
    )
    for damage in log.recovery:
        logger.error(
            "damage in the log: %s, byte %d: %s (events lost: %s)",
            damage.segment,
            damage.position,
            damage.why,
            "unknown" if damage.count is None else damage.count,
        )
    if config.passed_fd is None:
        config.home.create_socket_folder()
    listener = Listener(config.home.socket, config.passed_fd)
    key = secrets.token_bytes(TOKEN_SIZE)
    try:
        lock.write(DaemonInfo(this_process(), str(listener.path), VERSION, key))
        anyio.run(_serve, config, lock, log, listener, key)
    finally:
        listener.close()
        log.close()
        lock.close()


def _set_limits() -> None:
    """Have as many descriptors as may be, and no core dumps, here and in children.

    A dump would hold the environment of whoever started this, with all that is secret.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def _serve(
    config: DaemonConfig, lock: HomeLock, log: EventLog, listener: Listener, key: bytes
) -> None:
    materializer = Supervisor("materializer", "materialize", config.home.root)
    worker = Supervisor("worker", "work", config.home.root)
    processes = [materializer, worker]
    if config.metrics is not None:
        processes.append(Supervisor("metrics endpoint", "expose", config.home.root))
    room = DiskRoom(config.home, config.low_water)
    started = time.monotonic()

    def status() -> bytes:
        found = _status(config, log, listener, (materializer, worker), started, intake)
        return msgspec.json.encode(msgspec.structs.replace(found, disk=room.state))

    intake = Intake(log, status, key)

    def tell() -> None:
        durable = Durable(log.durable, log.end_offset)
        materializer.tell(durable)
        worker.tell(durable)

    recorder = Recorder(lock, listener, intake, tell)
    health = Health(config, recorder, (materializer, worker))
    async with anyio.create_task_group() as services:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            for service in (
                *(recorder.run, recorder.guard, health.run),
                *(partial(guard_disk, room), partial(keep_log_short, config.home)),
            ):
                services.start_soon(service)
            for process in processes:
                services.start_soon(process.run)
            notify(config.notify_address, "READY=1", timeout_s=LIFE_TIMEOUT_S)
            logger.info("serving %s at %s", config.home.root, listener.path)
            async for number in signals:
                logger.info("stopping on %s", signal.Signals(number).name)
                break
            notify(config.notify_address, "STOPPING=1", timeout_s=LIFE_TIMEOUT_S)
            services.cancel_scope.cancel()
    recorder.drain()
    tell()
    stop_all(processes)


def _status(
    config: DaemonConfig,
    log: EventLog,
    listener: Listener,
    processes: tuple[Supervisor, Supervisor],
    started: float,
    intake: Intake,
) -> Status:
    materializer, worker = processes
    scrubbing = read_scrubbing(config.home.scrubbing)
    return Status(
        pid=os.getpid(),
        materializer_pid=materializer.pid,
        materializer_restarts=materializer.restarts,
        worker_pid=worker.pid,
        worker_restarts=worker.restarts,
        version=VERSION,
        home=str(config.home.root),
        socket=str(listener.path),
        is_accepting=listener.is_accepting,
        uptime_s=round(time.monotonic() - started, 3),
        log_id=log.log_id.hex(),
        end_offset=log.end_offset,
        durable_segment=log.durable.segment_first_offset,
        durable_position=log.durable.position,
        damages_found=len(log.recovery),
        scrub_damages=0 if scrubbing is None else len(scrubbing.known),
        active_writers=intake.active_writers,
        counters=intake.counters,
    )
