import logging
import threading

import pytest

from flightlogd.probe import Probe


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_reading_that_fails_is_told_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    probe = Probe("the moon", 0)

    found = [probe.read(lambda: 1), *(probe.read(lambda: 1 // 0) for _ in range(3))]

    assert found == [1, 0, 0, 0]
    assert probe.failures == 3
    assert said(caplog) == [
        "the moon: cannot be read: ZeroDivisionError("
        "'integer division or modulo by zero')"
    ]

    assert probe.read(lambda: 7) == 7
    assert probe.failures == 0
    assert said(caplog)[1:] == ["the moon: read again after 3 failures"]


def test_a_reading_that_hangs_is_not_begun_again_until_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    probe = Probe("the moon", 0, timeout_s=0.05)
    begun: list[threading.Thread] = []
    release = threading.Event()

    def hang() -> int:
        begun.append(threading.current_thread())
        release.wait()
        return 5

    assert [probe.read(hang) for _ in range(3)] == [0, 0, 0]
    assert (len(begun), probe.failures) == (1, 3)
    assert said(caplog) == ["the moon: cannot be read: no answer within 0.05 s"]

    release.set()
    begun[0].join()

    assert [probe.read(lambda: 6) for _ in range(2)] == [5, 6]
    assert said(caplog)[1:] == ["the moon: read again after 3 failures"]


def test_a_reading_that_hangs_for_ever_does_not_keep_a_process_alive() -> None:
    probe = Probe("the moon", 0, timeout_s=0.01)
    release = threading.Event()

    probe.read(lambda: int(release.wait()))

    assert probe._thread is not None
    assert probe._thread.daemon
    release.set()
    probe._thread.join()
