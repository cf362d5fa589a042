"""The materializer as a process, where the system has less than it hopes for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sdk.conftest import Lab

# In a user namespace of its own, where nobody may have an inotify.
WITHOUT_INOTIFY = "echo 0 > /proc/sys/user/max_inotify_instances && exec "
FEIGNED = ("unshare", "-Ur", "sh", "-c")


def can_feign() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*FEIGNED, WITHOUT_INOTIFY + "true"]
    return not subprocess.run(command, check=False, capture_output=True).returncode


@pytest.mark.skipif(not can_feign(), reason="needs user namespaces")
def test_without_inotify_spools_are_adopted_all_the_same(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "home")
    start = f"{sys.executable} -m flightlogd start --home {lab.home}"
    command = [*FEIGNED, WITHOUT_INOTIFY + start]
    subprocess.run(command, env=lab.environ, check=True, capture_output=True)

    try:
        lab.execute(
            """
            import os, flightlog
            run = flightlog.init(id="killed")
            run.log({"a": 1})
            os.kill(os.getpid(), 9)
            """
        )

        assert lab.ended("killed").state == "crashed"
        assert "no inotify" in (lab.home / "daemon.log").read_text()
    finally:
        lab.stop()
