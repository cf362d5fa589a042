"""What the system tests share: homes, real processes, and waiting on conditions."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil
import pytest

from flightlog_storage.cells import History
from flightlog_storage.database import Database
from flightlog_storage.errors import HomeUnusable
from flightlog_storage.eventlog import LogReader, StoredFrame
from flightlog_storage.history import Query
from flightlog_storage.home import Home
from flightlog_storage.reader import HomeReader
from flightlog_storage.runstate import RunState, State
from flightlogd.client import ask_status

__all__ = (
    "KEY",
    "Trainer",
    "assert_whole",
    "daemon",
    "enlarge",
    "environment",
    "flightlogd",
    "folded_offset",
    "frames_in_log",
    "history",
    "is_ended",
    "is_folded",
    "is_served_by",
    "kill_all",
    "kill_daemon",
    "make_home",
    "read_rows",
    "run_state",
    "small_disk",
    "small_home",
    "start_daemon",
    "status",
    "stop_daemon",
    "stopped",
    "wait_recorded",
    "wait_until",
    "worker_pid",
)

WAIT_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.01
KEY = ("someone", "project", "run")

# Logs rows 0, 1, 2 … and says after each how many log() calls have returned: a counter
# in a shared file, whose last value outlives a SIGKILL.
TRAINER = """
import mmap, os, struct, sys, time
import flightlog
count, pause_s, counter, how = (
    int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
)
with open(counter, "r+b") as file:
    returned = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
run = flightlog.init(entity="someone", project="project", id=sys.argv[5])
print("ready", flush=True)
for n in range(count):
    run.log({"n": n, "half": n / 2})
    returned[0] = n + 1
    if pause_s:
        time.sleep(pause_s)
if how == "kill":
    os.kill(os.getpid(), 9)
print("logged", flush=True)
if how == "wait":
    sys.stdin.readline()
run.finish()
"""


def environment(home: Home) -> dict[str, str]:
    """Return what a process needs to use this home and the code under test."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    root = Path(__file__).parents[2]
    code = ":".join(str(root / name) for name in ("sdk", "storage", "daemon"))
    return kept | {
        "FLIGHTLOG_HOME": str(home.root),
        "FLIGHTLOG_SOCKET": str(home.socket),
        "FLIGHTLOG_QUIET": "1",
        "PYTHONPATH": code,
    }


def make_home(folder: Path) -> Home:
    """Return a new home in a folder."""
    home = Home(folder / "home")
    home.create()
    return home


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Have a folder be a disk of its own, of such a size, as long as this lasts."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=30)


@contextmanager
def small_home(folder: Path, size: str) -> Iterator[Home]:
    """Have a new home in a folder, on a disk of its own of such a size."""
    with small_disk(folder / "home", size):
        yield make_home(folder)


def wait_until(
    condition: Callable[[], Any], timeout_s: float = WAIT_TIMEOUT_S, what: str = ""
) -> Any:
    """Return the condition's first true value; fail when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain {what}"
        select.select([], [], [], POLL_INTERVAL_S)


def enlarge(folder: Path) -> None:
    """Give a small disk room."""
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True, timeout=30)


# --- the daemon ---


def flightlogd(
    home: Home, *arguments: str, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command of the daemon to its end."""
    return subprocess.run(
        [sys.executable, "-m", "flightlogd", *arguments, "--home", str(home.root)],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def start_daemon(
    home: Home,
    *,
    preexec: Callable[[], None] | None = None,
    wait: bool = True,
    environ: dict[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a daemon in a process group of its own; by default, wait for its answer.

    `prefix` is a command that runs it.
    """
    home.daemon_log.touch(mode=0o600)
    with open(home.daemon_log, "ab") as output:
        process = subprocess.Popen(
            [
                *(*prefix, sys.executable, "-m", "flightlogd", "run"),
                *("--home", str(home.root)),
            ],
            env=environment(home) | (environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=preexec,
        )
    if wait:
        wait_until(
            lambda: process.poll() is not None or is_served_by(home, process.pid),
            what=home.daemon_log.read_text(),
        )
    return process


def is_served_by(home: Home, pid: int) -> bool:
    info = home.daemon()
    return info is not None and info.process.pid == pid and bool(status(home))


@contextmanager
def daemon(home: Home, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the home as long as the context lasts."""
    process = start_daemon(home, **options)
    try:
        yield process
    finally:
        stop_daemon(process)


def stop_daemon(process: "subprocess.Popen[bytes]") -> int:
    """End a daemon in order and return its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(WAIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_daemon(process)
        raise


def kill_daemon(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL recorder and materializer at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def kill_all(home: Home) -> None:
    """SIGKILL all daemons of a home, also one that a trainer has only just started."""
    while found := [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"flightlogd", str(home.root)} <= {*(process.info["cmdline"] or ())}
    ]:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Have processes stand still as long as the context lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def status(home: Home) -> dict[str, Any]:
    """Return what the daemon says of itself, or {} when none answers."""
    answer = ask_status(home, timeout_s=2.0)
    if answer is None:
        return {}
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found


def folded_offset(home: Home) -> int:
    """Return up to where the materializer has folded the log."""
    try:
        with Database.open_reader(home.state) as database:
            return database.checkpoint().offset
    except HomeUnusable:
        return 0  # Not made yet.


def is_folded(home: Home) -> bool:
    """Whether the materializer has come to the end of the log."""
    return bool(folded_offset(home) == status(home)["end_offset"])


def wait_recorded(home: Home, timeout_s: float = WAIT_TIMEOUT_S) -> None:
    """Wait until no spool is left: all that was logged is in the log.

    One whose writer died before it began has nothing, and goes in a minute.
    """
    begun = home.spool.glob
    wait_until(lambda: not any(begun("[!.]*")), timeout_s, "for the spools to go")


def worker_pid(home: Home) -> int:
    """Wait for a worker that is at work."""
    wait_until((home.root / "worker.lock").exists)
    return int(wait_until(lambda: status(home).get("worker_pid")))


def is_ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# --- a trainer ---


class Trainer:
    """A process that logs rows, and tells how many of its calls returned."""

    def __init__(
        self,
        home: Home,
        count: int,
        pause_s: float = 0.0,
        how: str = "finish",
        run: str = KEY[2],
        prefix: Sequence[str] = (),
    ) -> None:
        self._counter = home.root.parent / f"returned-{run}-{time.monotonic_ns()}"
        self._counter.write_bytes(bytes(8))
        self.process = subprocess.Popen(
            [
                *(*prefix, sys.executable, "-c", TRAINER, str(count), str(pause_s)),
                *(str(self._counter), how, run),
            ],
            env=environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )

    @property
    def returned(self) -> int:
        """How many calls of log() have returned."""
        return int.from_bytes(self._counter.read_bytes(), "little")

    def wait_for(self, count: int) -> None:
        """Wait until so many calls have returned."""
        wait_until(lambda: self.returned >= count)

    def expect(self, word: str) -> None:
        """Wait until the trainer says a word."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_TIMEOUT_S)
        assert ready, f"the trainer did not say {word!r}"
        assert _line(self.process.stdout) == word

    def go_on(self) -> None:
        """Let a trainer that waits before finish() go on."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int:
        """Return the exit status when it has ended."""
        try:
            return self.process.wait(2 * WAIT_TIMEOUT_S)
        finally:
            self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def _line(stream: IO[bytes]) -> str:
    return stream.readline().decode().strip()


# --- what can be read ---


def run_state(home: Home, run: str = KEY[2]) -> RunState | None:
    return HomeReader(home).state((*KEY[:2], run))


def history(home: Home, run: str = KEY[2]) -> History | None:
    return HomeReader(home).history((*KEY[:2], run), Query())


def read_rows(home: Home, run: str = KEY[2]) -> list[tuple[int, int]]:
    """Return (step, n) of each row of a run."""
    found = history(home, run)
    return [] if found is None else [(r["_step"], r["n"]) for r in found.to_dicts()]


def assert_whole(home: Home, trainer: Trainer, rows: int) -> None:
    """Check that a trainer's rows are there, once, in a log without damage."""
    assert trainer.wait() == 0
    wait_recorded(home)
    assert read_rows(home) == [(n, n) for n in range(rows)]
    state = run_state(home)
    assert state is not None
    assert (state.state, state.lost_count) == (State.FINISHED, 0)
    frames_in_log(home)


def frames_in_log(home: Home) -> list[StoredFrame]:
    """Return the frames of the log; damage fails the test."""
    items = list(LogReader(home.log).read())
    assert all(isinstance(item, StoredFrame) for item in items), items
    return [item for item in items if isinstance(item, StoredFrame)]
