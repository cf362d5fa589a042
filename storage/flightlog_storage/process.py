"""Who a process is, whether it still lives, and how it ended."""

import fcntl
import os
import select
import struct
import time
from pathlib import Path

import msgspec

__all__ = (
    "Ending",
    "ProcessIdentity",
    "ProcessWatch",
    "is_gone",
    "parent_process",
    "this_process",
)

# ioctl of Linux 6.15 and later: what a reaped process ended with, asked of its pidfd.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO_SIZE = 64
_PIDFD_INFO_EXIT_CODE_AT = 60

CLOCK_SLACK_S = 60.0  # Clocks are set: a process may seem to be younger.
_STAT_START_TIME = 19  # Fields of /proc/PID/stat behind the command name.
_STAT_EXIT_CODE = 49


class ProcessIdentity(msgspec.Struct, frozen=True):
    """One process for good: pids are reused, this is not."""

    pid: int
    start_time: int  # Clock ticks since boot.
    boot_id: str
    pid_namespace: int

    def is_alive(self) -> bool:
        """Whether this very process runs; True when that cannot be seen from here."""
        if not self.is_of_this_boot():
            return False
        if self.pid_namespace != _pid_namespace():
            return True
        fields = _stat(self.pid)
        return fields is not None and fields[0] not in "ZX" and self._is(fields)

    def is_of_this_boot(self) -> bool:
        """Whether the machine has run without a break since; not that of another."""
        return self.boot_id == _boot_id()

    def _is(self, fields: list[str]) -> bool:
        return int(fields[_STAT_START_TIME]) == self.start_time


def is_gone(pid: int, since: float) -> bool:
    """Whether a process of this number that ran then has ended; False in doubt."""
    fields = _stat(pid)
    if fields is None:
        return _stat(os.getpid()) is not None
    started_s = int(fields[_STAT_START_TIME]) / os.sysconf("SC_CLK_TCK")
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    return fields[0] in "ZX" or time.time() - age_s > since + CLOCK_SLACK_S


class Ending(msgspec.Struct, frozen=True):
    """How a process ended; both None when nobody can tell any more."""

    exit_code: int | None = None
    signal: int | None = None


class ProcessWatch:
    """Holds on to a process so that its exit status can be had after its death."""

    def __init__(self, identity: ProcessIdentity) -> None:
        self.identity = identity
        self._pidfd = -1
        here = identity.pid_namespace == _pid_namespace()
        if here and hasattr(os, "pidfd_open") and identity.is_alive():
            try:
                self._pidfd = os.pidfd_open(identity.pid)
            except OSError:
                return
            if not identity.is_alive():  # The pid changed hands in between.
                self.close()

    def ending(self) -> Ending | None:
        """Return how the process ended, or None while it lives."""
        if self._pidfd < 0:
            if self.identity.is_alive():
                return None
            status = self._status_of_zombie()  # It was first seen after its death.
            return Ending() if status is None else _ending(status)
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(0):
            return None
        status = self._status_of_zombie()
        if status is None:
            status = self._status_of_reaped()
        return Ending() if status is None else _ending(status)

    def holds(self, path: Path) -> bool:
        """Whether the process has `path` open; True when that cannot be seen."""
        folder = f"/proc/{self.identity.pid}/fd"
        try:
            file = os.stat(path)
            return any(_is(file, f"{folder}/{fd}") for fd in os.listdir(folder))
        except OSError:
            return True

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def _status_of_zombie(self) -> int | None:
        fields = _stat(self.identity.pid)
        here = (_boot_id(), _pid_namespace())
        if here != (self.identity.boot_id, self.identity.pid_namespace):
            return None
        if fields is None or fields[0] not in "ZX" or not self.identity._is(fields):
            return None
        return int(fields[_STAT_EXIT_CODE])

    def _status_of_reaped(self) -> int | None:
        info = bytearray(_PIDFD_INFO_SIZE)
        struct.pack_into("<Q", info, 0, _PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(self._pidfd, _PIDFD_GET_INFO, info)
        except OSError:
            return None  # An older kernel.
        if not struct.unpack_from("<Q", info)[0] & _PIDFD_INFO_EXIT:
            return None
        status: int = struct.unpack_from("<i", info, _PIDFD_INFO_EXIT_CODE_AT)[0]
        return status


def _ending(status: int) -> Ending:
    if os.WIFSIGNALED(status):
        return Ending(signal=os.WTERMSIG(status))
    return Ending(exit_code=os.WEXITSTATUS(status))


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return _identity(os.getpid())


def parent_process() -> ProcessIdentity:
    """Return the identity of the calling process's parent."""
    return _identity(os.getppid())


def _identity(pid: int) -> ProcessIdentity:
    fields = _stat(pid)
    start_time = int(fields[_STAT_START_TIME]) if fields else 0
    return ProcessIdentity(pid, start_time, _boot_id(), _pid_namespace())


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def _is(file: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(file, os.stat(path))
    except OSError:
        return False  # Closed meanwhile.


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
