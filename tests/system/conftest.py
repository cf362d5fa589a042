"""What the system tests share that pytest gives: a home whose daemons are killed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.system.recovered import Recovered


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Recovered]:
    with closing(Recovered(tmp_path)) as place:
        yield place
