import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flightlog_storage.staging import (
    FOREIGN_SCRATCH_AGE_S,
    SCRATCH_PREFIX,
    scratch_folder,
    staging_folder,
    sweep_staging,
)

STAGE = """
import os, signal, sys
from pathlib import Path
from flightlog_storage.staging import staging_folder
folder = staging_folder(Path(sys.argv[1]))
(folder / "half").write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""

SCRATCH = """
import os, signal, sys
from pathlib import Path
from flightlog_storage.staging import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_bytes(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_has_one_folder(tmp_path: Path) -> None:
    folder = staging_folder(tmp_path / "staging")

    assert folder.is_dir()
    assert staging_folder(tmp_path / "staging") == folder


def test_what_the_dead_left_is_swept_and_no_more(tmp_path: Path) -> None:
    own = staging_folder(tmp_path)
    (tmp_path / "foreign").mkdir()
    done = subprocess.run([sys.executable, "-c", STAGE, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3

    count = sweep_staging(tmp_path)

    assert count == 1
    assert sorted(os.listdir(tmp_path)) == sorted([own.name, "foreign"])


def test_there_may_be_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep_staging(tmp_path / "none") == 0


def test_a_scratch_folder_is_gone_afterwards_also_after_an_error(
    tmp_path: Path,
) -> None:
    def fail() -> None:
        with scratch_folder(tmp_path) as folder:
            (folder / "half").write_bytes(b"x")
            assert folder.stat().st_mode & 0o777 == 0o700
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert os.listdir(tmp_path) == []


def test_scratch_folders_of_the_dead_go_and_all_else_stays(tmp_path: Path) -> None:
    kept = ("2024-11-23-results", f"{SCRATCH_PREFIX}mine", "a.py")
    for name in kept:
        (tmp_path / name).mkdir()
    done = subprocess.run([sys.executable, "-c", SCRATCH, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 4

    with scratch_folder(tmp_path) as living, scratch_folder(tmp_path) as own:
        assert sorted(os.listdir(tmp_path)) == sorted([*kept, living.name, own.name])


def test_what_may_be_another_machines_stays_for_a_day(tmp_path: Path) -> None:
    foreign = tmp_path / f"{SCRATCH_PREFIX}{'0' * 32}-1-1-1-another-boot"
    foreign.mkdir()

    with scratch_folder(tmp_path):
        assert foreign.exists()
    at = foreign.stat().st_mtime - FOREIGN_SCRATCH_AGE_S - 60
    os.utime(foreign, (at, at))
    with scratch_folder(tmp_path):
        assert not foreign.exists()
