"""The examples run as a newcomer runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flightlog

ROOT = Path(__file__).parent.parent.parent


def test_digits_is_logged_and_read_back(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    home = tmp_path / "home"
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "examples/digits.py")],
            capture_output=True,
            text=True,
            env=os.environ | {"FLIGHTLOG_HOME": str(home)},
            cwd=tmp_path,
            timeout=120,
            check=True,
        )
        (run,) = flightlog.Api(home=home).runs()

        assert (run.state, run.lastHistoryStep) == ("finished", 299)
        assert len(list(run.scan_history())) == 300
        rows = re.findall(r"(?m)^ +\d+( +\d+\.\d{4}){4}$", done.stdout)
        assert len(rows) == 10
        assert str(home) in done.stdout
        assert "val/accuracy" in run.summary
        assert run.summary["val/accuracy"] > 0.9
    finally:
        subprocess.run(
            [sys.executable, "-m", "flightlogd", "stop", "--home", str(home)],
            check=True,
            timeout=60,
        )
