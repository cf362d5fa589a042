"""The shipped systemd units, checked by systemd itself."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

UNITS = Path(__file__).parents[2] / "systemd"
VERIFY_TIMEOUT_S = 60

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
@pytest.mark.parametrize("scope", ["user", "system"])
def test_units_are_clean(
    scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # verify insists that the program exists; the user's name it leaves alone.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = tmp_path / "flightlogd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for source in (UNITS / scope).iterdir():
        text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", source.read_text())
        (tmp_path / source.name).write_text(text)
    units = sorted(tmp_path.glob("flightlog.*"))

    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", "--man=no", "verify", *units],
        check=False,
        capture_output=True,
        text=True,
        timeout=VERIFY_TIMEOUT_S,
    )

    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("scope", ["user", "system"])
def test_program_is_an_absolute_path(scope: str) -> None:
    service = (UNITS / scope / "flightlog.service").read_text()

    assert re.search(r"(?m)^ExecStart=(/|%h/)\S*flightlogd run( |$)", service)
    assert re.search(r"(?m)^Type=notify$", service)
