"""docs/reliability.md says what the tests hold, and of each fault what is promised."""

import re

import pytest
from tests.faults import PAGE, Row, held, render, rows

pytestmark = pytest.mark.once

FAULTS = 65
TEXT = PAGE.read_text()
ROWS = rows(TEXT)
HELD = held()


def test_the_page_names_the_tests_that_are_there() -> None:
    assert render(TEXT, HELD) == TEXT, "python -m tests.faults writes it"


def test_every_fault_has_its_row() -> None:
    assert [row.number for row in ROWS] == list(range(1, FAULTS + 1))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault[:40])
def test_a_fault_has_a_test_or_a_reason(row: Row) -> None:
    assert row.promise
    assert row.number in HELD or "Not tested:" in row.promise


def test_every_mark_names_a_row() -> None:
    assert set(HELD) - {row.number for row in ROWS} == set()


def test_what_is_marked_is_a_test() -> None:
    marked = {test for tests in HELD.values() for test in tests}

    assert [test for test in marked if not re.match(r"test_|[A-Z]", test.name)] == []
