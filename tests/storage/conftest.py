"""What the tests of storage share: a home with a log, read folded and not."""

from pathlib import Path

import pytest
from tests.storage.recording import Recorded, Settle


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


@pytest.fixture(params=["tail", "folded", "replayed"])
def settle(request: pytest.FixtureRequest, recorded: Recorded) -> Settle:
    """Leave the log to the reader, or fold it before it is read, or twice."""

    def fold() -> None:
        if request.param != "tail":
            recorded.fold()
        if request.param == "replayed":
            recorded.replay()

    return fold
