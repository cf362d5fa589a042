import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flightlogd.config import SYSTEM_INTERVAL_S, read_config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 15.0), ("30", 30.0), ("0.5", 0.5), ("0.01", 0.1), ("0", 0.0), ("0.0", 0.0)],
)
def test_the_interval_of_samples_is_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
    seconds: float,
) -> None:
    monkeypatch.setenv("FLIGHTLOG_SYSTEM_INTERVAL_S", text)

    assert read_config(str(tmp_path)).system_interval_s == seconds
    assert caplog.records == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 604_800.0), ("3600", 3600.0), ("0.01", 0.1), ("0", 0.0)]
)
def test_the_interval_of_passes_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setenv("FLIGHTLOG_SCRUB_INTERVAL_S", text)

    assert read_config(str(tmp_path)).scrub_interval_s == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("90d", 7_776_000.0), ("24h", 86_400.0)]
)
def test_how_long_runs_are_kept_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, seconds: float | None
) -> None:
    monkeypatch.setenv("FLIGHTLOG_RETAIN", text)

    assert read_config(str(tmp_path)).retain_s == seconds


@pytest.mark.parametrize("text", ["90", "0d", "23h", "for ever", "-1d"])
def test_a_retention_that_may_be_a_slip_deletes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    monkeypatch.setenv("FLIGHTLOG_RETAIN", text)

    assert read_config(str(tmp_path)).retain_s is None
    assert "no run is deleted for its age" in caplog.text


@pytest.mark.parametrize("text", ["often", "-1", "nan", "inf"])
def test_a_wrong_interval_is_told_and_keeps_no_daemon_down(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("FLIGHTLOG_SYSTEM_INTERVAL_S", text)

    assert read_config(str(tmp_path)).system_interval_s == SYSTEM_INTERVAL_S
    assert [record.getMessage() for record in caplog.records] == [
        f"FLIGHTLOG_SYSTEM_INTERVAL_S is no number of seconds: {text!r}"
    ]


@pytest.mark.parametrize(
    ("text", "size"), [("", None), ("0", 0), ("2GiB", 2 << 30), ("500m", 500 << 20)]
)
def test_the_low_water_mark_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, size: int | None
) -> None:
    monkeypatch.setenv("FLIGHTLOG_LOW_WATER", text)

    assert read_config(str(tmp_path)).low_water == size


def test_a_wrong_low_water_mark_is_told_and_keeps_no_daemon_down(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("FLIGHTLOG_LOW_WATER", "much")

    assert read_config(str(tmp_path)).low_water is None
    assert [record.getMessage() for record in caplog.records] == [
        "FLIGHTLOG_LOW_WATER is no size: 'much'"
    ]


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("30000000", "own", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
    ids=str,
)
def test_a_watchdog_counts_that_is_meant_for_this_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    usec: str | None,
    pid: str | None,
    seconds: float | None,
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)

    assert read_config(str(tmp_path)).watchdog_s == seconds


def test_the_recorder_loads_nothing_large() -> None:
    large = ("numpy", "pyarrow")
    code = (
        f"import sys, flightlogd.main; sys.exit(any(m in sys.modules for m in {large}))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
