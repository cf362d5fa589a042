"""The daemon of a home: whether it answers, and does what it is there for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from shlex import quote

import msgspec

from flightlog.cli.findings import Advice
from flightlog.cli.output import sized
from flightlog_storage.checkpoint import read_checkpoint
from flightlog_storage.disk import DiskState
from flightlog_storage.home import DaemonInfo, Home
from flightlog_storage.logreader import LogPosition, LogReader, StoredFrame

__all__ = ("DaemonStatus", "ask_daemon", "check_daemon", "is_served")

ASK_TIMEOUT_S = 60.0
BEHIND_S = 60.0  # What was recorded so long ago is folded, or something is wrong.


class DaemonStatus(msgspec.Struct, frozen=True):
    """What of a daemon's word on itself matters here."""

    pid: int
    version: str
    is_accepting: bool
    materializer_restarts: int
    worker_restarts: int = 0
    disk: DiskState | None = None


class _Answer(msgspec.Struct, frozen=True):
    data: DaemonStatus


def ask_daemon(home: Home) -> DaemonStatus | None:
    """Return what the daemon of a home says of itself; None where none answers."""
    if not is_served(home):
        return None
    command = [sys.executable, "-P", "-m", "flightlogd", "status", "--json"]
    with suppress(subprocess.TimeoutExpired, msgspec.MsgspecError):
        done = subprocess.run(
            [*command, "--home", str(home.root)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=ASK_TIMEOUT_S,
        )
        return msgspec.json.decode(done.stdout, type=_Answer).data
    return None


def is_served(home: Home) -> bool:
    """Whether the process lives that last served a home."""
    info = home.daemon()
    return info is not None and info.process.is_alive()


def check_daemon(
    home: Home, status: DaemonStatus | None, now: float
) -> Iterator[Advice]:
    """Yield what is wrong with the daemon; that there is none is no fault."""
    info = home.daemon()
    if info is None:
        if home.lock.exists() and home.lock.stat().st_size:
            yield Advice(
                where="daemon.lock",
                what="it does not say which process serves the home",
                why="those who log, and flightlogd stop, may not find the daemon",
                cure=f"end the daemon, if one runs, then {_flightlogd('start', home)}",
            )
    elif status is None and info.process.is_alive():
        yield _mute(home, info)
    elif status is not None:
        yield from _of_status(home, status)
        yield from _unfolded(home, now)


def _mute(home: Home, info: DaemonInfo) -> Advice:
    pid = info.process.pid
    return Advice(
        where="daemon",
        what=f"process {pid} serves the home and does not answer",
        why="what is logged waits in spools, which grow",
        cure=f"{_flightlogd('stop', home)}, or kill -9 {pid} if it does not end; "
        "nothing is lost by that, and whoever trains starts the next one",
    )


def _of_status(home: Home, status: DaemonStatus) -> Iterator[Advice]:
    ours = version("flightlog")
    if status.version != ours:
        yield Advice(
            where="daemon",
            what=f"version {status.version} runs, and {ours} is installed",
            why="the daemon keeps the code that it was started with",
            cure=f"{_flightlogd('stop', home)}; the next one is of this version",
        )
    if not status.is_accepting:
        yield Advice(
            where="daemon",
            what="it takes no new connections, for its descriptors run short",
            why="what further processes log waits in their spools",
            cure="raise its limit (ulimit -n, LimitNOFILE), then "
            + _flightlogd("stop", home),
        )
    if status.disk is not None and status.disk.is_low:
        yield Advice(
            where="home",
            what=f"{sized(status.disk.free)} are free on the disk of "
            f"{status.disk.folder}, less than its low-water mark, "
            f"{sized(status.disk.low_water)}",
            why="archives and outputs wait, and system metrics are left out",
            cure=f"flightlog gc --home {quote(str(home.root))}, or make room",
        )
    restarts = {
        "materializer": status.materializer_restarts,
        "worker": status.worker_restarts,
    }
    for name, count in restarts.items():
        if count:
            yield Advice(
                where="daemon",
                what=f"its {name} ended {count:,} times, and was started again",
                why="no event is lost, but states, histories or files may be late",
                cure=f"report what {quote(str(home.daemon_log))} says of it; "
                f"{_flightlogd('stop', home)} begins the count anew",
            )


def _unfolded(home: Home, now: float) -> Iterator[Advice]:
    """Tell where the log is not folded, and whether that goes on or stands still."""
    since = _unfolded_since(home)
    if since is None or now - since < BEHIND_S:
        return
    is_folding = now - _folded_at(home) < BEHIND_S
    yield Advice(
        where="log",
        what=f"what was recorded {now - since:,.0f} s ago is not folded, "
        + ("which goes on" if is_folding else "and nothing is"),
        why="nothing is lost, but each reader folds the rest by itself, which is slow",
        cure="wait"
        if is_folding
        else f"see {quote(str(home.daemon_log))}, then {_flightlogd('stop', home)}",
        is_note=is_folding,
    )


def _unfolded_since(home: Home) -> float | None:
    """Return when the first event was recorded that is not folded."""
    folded = read_checkpoint(home.state)
    place = LogPosition(folded.segment_first_offset, folded.position)
    for item in LogReader(home.log).read(place if folded.log_id else None):
        if isinstance(item, StoredFrame):
            return item.frame.received_ns / 1e9
    return None


def _folded_at(home: Home) -> float:
    """Return when something was last committed."""
    times = [0.0]
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            times.append(os.stat(f"{home.state}{suffix}").st_mtime)
    return max(times)


def _flightlogd(command: str, home: Home) -> str:
    return f"flightlogd {command} --home {quote(str(home.root))}"
