"""Changes from outside a run, through a real daemon."""

import threading
from pathlib import Path

import pytest
from tests.sdk.conftest import Lab
from tests.system.harness import wait_until

import flightlog
from flightlog.apis.public.editing import record
from flightlog_storage.event import RunCreated, TagsChanged
from flightlog_storage.home import Home


def test_what_is_recorded_is_seen_by_the_next_reader(lab: Lab) -> None:
    home = Home(lab.home)

    record(home, ("someone", "p", "made"), [RunCreated(time=1.0, state="pending")])
    record(home, ("someone", "p", "made"), [TagsChanged(time=1.0, tags=["t"])])

    run = flightlog.Api(home=lab.home).run("someone/p/made")
    assert (run.state, run.tags) == ("pending", ["t"])


def test_an_editor_leaves_nothing_behind(lab: Lab) -> None:
    home = Home(lab.home)
    before = threading.active_count()

    record(home, ("someone", "p", "left"), [RunCreated(time=1.0)])

    wait_until(lambda: list(home.spool.iterdir()) == [])
    wait_until(lambda: threading.active_count() == before)


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = Home(tmp_path / "file" / "home")

    with pytest.raises(flightlog.CommError, match="cannot be written"):
        record(home, ("e", "p", "r"), [RunCreated(time=1.0)])
