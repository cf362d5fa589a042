import pytest

from flightlog_storage.paths import (
    COMPONENT_SIZE_MAX,
    PATH_SIZE_MAX,
    checked_path,
    clashing_path,
)

LONG = "/".join(["d" * 100] * (PATH_SIZE_MAX // 101 + 1))
BAD = [
    "",
    "/",
    "/etc/passwd",
    "//a",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/../../b",
    ".",
    "./a",
    "a//b",
    "a/",
    "a\0b",
    "\udcff",
    "x" * (COMPONENT_SIZE_MAX + 1),
    "é" * (COMPONENT_SIZE_MAX // 2 + 1),
    LONG,
]


@pytest.mark.fault(45)
@pytest.mark.parametrize("path", BAD)
def test_what_is_no_file_in_its_folder_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        checked_path(path)


@pytest.mark.parametrize("path", [None, 3, b"a", ["a"]])
def test_what_is_no_text_is_refused(path: object) -> None:
    with pytest.raises(TypeError):
        checked_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b",
        "...",
        "a..b",
        " ",
        "a\\b",
        "ü/文",
        "x" * COMPONENT_SIZE_MAX,
        "~",
        "-",
    ],
)
def test_what_a_file_can_be_called_is_kept(path: str) -> None:
    assert checked_path(path) == path


def test_a_file_cannot_lie_below_a_file() -> None:
    assert clashing_path("a", ["b", "a/b"]) == "a/b"
    assert clashing_path("a/b/c", ["a/b"]) == "a/b"
    assert clashing_path("a", ["ab", "a", "b/a"]) is None
