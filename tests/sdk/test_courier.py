"""The courier: frames brought to one daemon, and on to the next."""

from pathlib import Path

import pytest
from tests.storage.recording import Recorded
from tests.system.harness import daemon, frames_in_log, make_home

from flightlog.cli.courier import Courier
from flightlog_storage.carried import CarriedFrame
from flightlog_storage.home import Home

pytestmark = pytest.mark.once


@pytest.fixture
def frames(tmp_path: Path) -> list[CarriedFrame]:
    recorded = Recorded(tmp_path / "source")
    writer = recorded.start("run")
    recorded.rows(writer, (0, 1.0))
    return [
        CarriedFrame(item.frame, item.payload())
        for item in frames_in_log(recorded.home)
    ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


def test_the_next_daemon_has_another_key(
    home: Home, frames: list[CarriedFrame]
) -> None:
    with Courier(home) as courier:
        for frame in frames:
            with daemon(home):
                assert [*courier.deliver([frame])] == [len(frame.payload)]

    assert [item.payload() for item in frames_in_log(home)] == [
        frame.payload for frame in frames
    ]
