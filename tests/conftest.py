"""What all tests have: a count of what they try, summed over pytest's processes."""

import signal
from collections import Counter

import pytest
from tests import counts

TRIED = "tried"
_total: Counter[str] = Counter()

# A shell has what it runs in the background ignore Ctrl-C, and so what that starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties += [(TRIED, counted) for counted in counts.take()]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "teardown":
        return
    for name, counted in report.user_properties:
        if name == TRIED and isinstance(counted, tuple | list):
            _total[str(counted[0])] += int(counted[1])


# Quoted: older versions of pytest have no such name.
def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    counts.write(_total)
    if _total:
        terminalreporter.section("tried")
        for line in counts.lines(_total):
            terminalreporter.write_line(line)
