import pytest

from flightlog_storage.terminal import plain, safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\n\nc\n", "a\tb\n\nc\n"),
        ("\x1b[2J\r\n\x9b1m", "\\x1b[2J\\r\n\\x9b1m"),
        ("right\u202eto left\u2028", "right\\u202eto left\\u2028"),
        ("žluť 👩‍🔬", "žluť 👩‍🔬"),
        ("", ""),
    ],
)
def test_lines_and_tabs_alone_steer(text: str, shown: str) -> None:
    assert safe(text) == shown
    assert plain(text) == shown.replace("\n", "\\n").replace("\t", "\\t")
