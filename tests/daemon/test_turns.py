"""Whose turn it is, of processes of one kind."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from tests.system.harness import make_home, wait_until

from flightlogd.turns import INTERVAL_S, take_turn

pytestmark = pytest.mark.once


@pytest.mark.parametrize("kind", ["materialize", "work"])
def test_one_whose_recorder_dies_does_not_wait_for_a_predecessor(
    tmp_path: Path, kind: str
) -> None:
    home = make_home(tmp_path)
    name = {"materialize": "materializer.lock", "work": "worker.lock"}[kind]
    with open(home.root / name, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        read_fd, write_fd = os.pipe()
        os.write(write_fd, b"a word that nobody reads any more")
        waiting = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "flightlogd", kind),
                *("--home", str(home.root), "--wake-fd", str(read_fd)),
            ],
            pass_fds=[read_fd],
        )
        os.close(read_fd)
        wait_until(lambda: _has_open(waiting.pid, home.root / name))
        assert waiting.poll() is None

        os.close(write_fd)

        try:
            assert waiting.wait(60) == 0
        finally:
            waiting.kill()
            waiting.wait()


def test_a_word_of_the_recorder_is_not_its_end(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"a word")
    with open(tmp_path / "lock", "w") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)

        turn = pool.submit(take_turn, tmp_path / "lock", read_fd)
        done, _ = wait([turn], timeout=10 * INTERVAL_S)
        fcntl.flock(held, fcntl.LOCK_UN)

        assert not done
        assert turn.result(60)
    os.close(read_fd)
    os.close(write_fd)


def _has_open(pid: int, path: Path) -> bool:
    folder = Path(f"/proc/{pid}/fd")
    return any(fd.exists() and fd.samefile(path) for fd in folder.iterdir())
