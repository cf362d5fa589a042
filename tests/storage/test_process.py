import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from flightlog_storage.process import (
    Ending,
    ProcessIdentity,
    ProcessWatch,
    is_gone,
    parent_process,
    this_process,
)

ENDS = {
    "exit 0": ("pass", Ending(exit_code=0)),
    "exit 3": ("raise SystemExit(3)", Ending(exit_code=3)),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15)", Ending(signal=signal.SIGTERM)),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", Ending(signal=signal.SIGKILL)),
}


def identity_of(pid: int) -> ProcessIdentity:
    with open(f"/proc/{pid}/stat") as file:
        start_time = int(file.read().rpartition(")")[2].split()[19])
    here = this_process()
    return ProcessIdentity(pid, start_time, here.boot_id, here.pid_namespace)


def start(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-S", "-c", f"input(); {code}"], stdin=subprocess.PIPE
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """Have it end and stay a zombie."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_this_process_and_its_parent_live() -> None:
    assert this_process().is_alive()
    assert parent_process().pid == os.getppid()
    assert ProcessWatch(this_process()).ending() is None


@pytest.mark.parametrize("how", ENDS)
def test_ending_of_a_watched_process_is_known(how: str) -> None:
    code, wanted = ENDS[how]
    process = start(code)
    watch = ProcessWatch(identity_of(process.pid))
    before = watch.ending()

    end(process)

    assert (before, watch.ending()) == (None, wanted)
    process.communicate()
    assert watch.ending() in (wanted, Ending())  # An older kernel forgets it.
    watch.close()


@pytest.mark.parametrize("how", ENDS)
def test_ending_of_a_process_first_seen_dead_is_known(how: str) -> None:
    code, wanted = ENDS[how]
    process = start(code)
    identity = identity_of(process.pid)
    end(process)

    watch = ProcessWatch(identity)

    assert (identity.is_alive(), watch.ending()) == (False, wanted)
    process.communicate()
    assert watch.ending() == Ending()


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("field", "value", "alive"),
    [("start_time", 1, False), ("boot_id", "x", False), ("pid_namespace", 1, True)],
)
def test_other_process_with_this_pid_is_told_apart(
    field: str, value: object, alive: bool
) -> None:
    other = msgspec.structs.replace(this_process(), **{field: value})

    assert other.is_alive() is alive
    assert ProcessWatch(other).ending() == (None if alive else Ending())


def test_a_process_is_gone_when_it_ended_or_its_number_is_anothers() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert is_gone(child.pid, time.time()), "it is a zombie"
    child.wait()
    assert is_gone(child.pid, time.time())
    assert not is_gone(os.getpid(), time.time())
    assert is_gone(os.getpid(), time.time() - 1e9), "of an earlier boot"
