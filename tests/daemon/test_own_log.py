"""daemon.log has an end."""

import os
from pathlib import Path

import pytest
from tests.system.harness import daemon, make_home, small_disk, wait_until

from flightlogd.own_log import DAEMON_LOG_SIZE_MAX, cut_log

pytestmark = pytest.mark.once

LINE = b"said\n" * 1_000


def test_a_daemon_that_has_said_too_much_begins_its_log_anew(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    home.daemon_log_before.touch()
    home.daemon_log_before.chmod(0o644)
    with daemon(home), home.daemon_log.open("ab") as other:
        while other.tell() <= DAEMON_LOG_SIZE_MAX:
            other.write(LINE)

        wait_until(lambda: "begins anew" in home.daemon_log.read_text())

        other.write(b"said after\n")
        other.flush()
        said = home.daemon_log.read_bytes()
    assert said.endswith(b"said after\n")
    assert len(said) < len(LINE)
    before = home.daemon_log_before.read_bytes()
    assert b"serving" in before
    assert before.endswith(LINE)
    assert home.daemon_log_before.stat().st_mode & 0o777 == 0o600
    home.create()  # It is a name that may lie in a home.


def test_one_that_is_short_is_left_alone(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    cut_log(home)
    home.daemon_log.write_bytes(LINE)

    cut_log(home)

    assert home.daemon_log.read_bytes() == LINE
    assert not home.daemon_log_before.exists()


def test_on_a_full_disk_it_makes_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        home = make_home(disk)
        with home.daemon_log.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, DAEMON_LOG_SIZE_MAX + 1)

        cut_log(home)

        assert home.daemon_log.stat().st_size == 0
        assert not home.daemon_log_before.exists()
