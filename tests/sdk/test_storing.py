"""The thread that stores, and waiting for what it does."""

import threading
from functools import partial
from pathlib import Path

import pytest

from flightlog import CommError
from flightlog._storing import Job, Pending, Storing
from flightlog_storage.home import Home


def pending(*, durable: bool = True) -> Pending:
    return Pending(Home(Path("none")), "token", lambda timeout_s: durable)


def test_jobs_are_done_in_order_and_failures_are_told() -> None:
    done: list[object] = []
    storing = Storing()

    def fail() -> None:
        raise OSError("full")

    for number in range(3):
        storing.submit(Job(partial(done.append, number), done.append))
    storing.submit(Job(fail, lambda error: done.append(str(error))))
    storing.submit(Job(lambda: done.append("after"), done.append))

    assert storing.close(timeout_s=30.0) == 0
    assert done == [0, 1, 2, "full", "after"]


def test_the_end_does_not_wait_for_ever() -> None:
    release = threading.Event()
    storing = Storing()
    storing.submit(Job(partial(release.wait, None), lambda error: None))
    storing.submit(Job(lambda: None, lambda error: None))

    left = storing.close(timeout_s=0.01)

    release.set()
    assert left == 2
    assert storing.close(timeout_s=30.0) == 0


def test_what_comes_after_the_end_fails() -> None:
    failed: list[Exception] = []
    storing = Storing()
    storing.close(timeout_s=0.0)

    storing.submit(Job(lambda: None, failed.append))

    assert [str(error) for error in failed] == ["the run is ending"]


def test_without_jobs_there_is_no_thread() -> None:
    before = threading.active_count()

    assert Storing().close(timeout_s=0.0) == 0
    assert threading.active_count() == before


def test_a_wait_ends_when_it_is_recorded_and_durable() -> None:
    found = pending()
    found.settle()

    found.wait(None)


@pytest.mark.parametrize("durable", [True, False])
def test_a_wait_may_give_up(durable: bool) -> None:
    found = pending(durable=durable)
    if not durable:
        found.settle()

    with pytest.raises(CommError, match=r"not logged after 0\.01 s") as caught:
        found.wait(0.01)
    assert isinstance(caught.value.exc, TimeoutError)


def test_a_wait_for_ever_ends_with_the_run() -> None:
    found = pending(durable=False)
    found.settle()

    with pytest.raises(CommError, match="not logged yet, and its run has ended"):
        found.wait(None)


def test_a_wait_tells_what_went_wrong() -> None:
    found = pending()
    error = OSError("no space")
    found.settle(error)

    with pytest.raises(CommError, match="no space") as caught:
        found.wait(None)
    assert caught.value.exc is error
