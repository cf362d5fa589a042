"""What single rules match. Whole trees are held against git in test_workspace.py."""

import subprocess
import sys

import pytest

from flightlog_storage.ignore import Rule, Rules


def is_left_out(rules: Rules, path: str) -> bool:
    """Ask about one entry, a folder if its path ends with a slash."""
    bare = path.rstrip("/").encode()
    rule = rules.find(bare, bare.rpartition(b"/")[2], is_folder=path.endswith("/"))
    return rule is not None and not rule.is_negated


@pytest.mark.parametrize(
    ("line", "matched", "not_matched"),
    [
        ("a.py", ("a.py", "x/a.py", "x/y/a.py"), ("a_py", "a.pyc", "ba.py", "A.py")),
        ("/a.py", ("a.py",), ("x/a.py",)),
        ("x/a.py", ("x/a.py",), ("y/x/a.py", "a.py")),
        ("build/", ("build/", "x/build/"), ("build", "x/build")),
        ("/build/", ("build/",), ("build", "x/build/")),
        ("*.log", ("a.log", "x/a.log", ".log"), ("a.log.txt", "log")),
        ("x/*.log", ("x/a.log",), ("x/y/a.log", "a.log")),
        ("*a*a*b", ("aab", "xaxaxb", "y/aabab"), ("ab", "aaba", "aa/b")),
        ("*a*b/c", ("ab/c", "aab/c"), ("a/b/c", "abx/c")),
        ("**/a*b/**/c", ("ab/c", "ab/x/ab/y/c", "x/ab/c"), ("c", "ab/xc", "a/b/c")),
        ("**/a/b/**/c/**", ("a/a/b/c/d", "a/b/a/b/x/c/c/"), ("a/b/c", "a/x/b/c/d")),
        ("x/**\\/y/**/z", ("x/a/y/z", "x/a/b/y/y/w/z"), ("x/y/z", "x/a/yz")),
        ("x/*/z", ("x/y/z",), ("x/z", "x/y/y/z")),
        ("**/z", ("z", "x/z", "x/y/z"), ("zz",)),
        ("x/**", ("x/y", "x/y/z", "x/y/"), ("x", "x/", "xy")),
        ("x/**/z", ("x/z", "x/y/z", "x/y/y/z"), ("x/yz", "xz")),
        ("x**z", ("xz", "xyyz", "w/xyz"), ("x/z", "x/y/z")),
        # Git's own: stars behind letters alone count as a part of their own.
        ("x/y**/z", ("x/yz", "x/y/z", "x/yq/r/z"), ("x/z",)),
        ("x/*y**/z", ("x/y/z", "x/ayb/z"), ("x/y/b/z",)),
        ("?.txt", ("a.txt",), (".txt", "ab.txt", "é.txt")),
        ("[ab].txt", ("a.txt", "b.txt"), ("c.txt", "ab.txt")),
        ("[a-c]", ("a", "b", "c"), ("d", "-")),
        ("[!a-c]", ("d",), ("a", "b")),
        ("[^a]", ("b",), ("a",)),
        ("x/a[!b]c", ("x/adc",), ("x/abc", "x/a/c")),
        ("[]-]", ("]", "-"), ("a",)),
        ("[a\\]b]", ("a", "]", "b"), ("\\",)),
        ("v[[:digit:]]", ("v1",), ("vx", "v:")),
        ("[z-a]", ("z",), ("a", "-", "m", "[z-a]")),
        ("[a", (), ("a", "[a")),
        ("[[:nonsense:]]", (), ("n", ":")),
        ("a\\", (), ("a", "a\\")),
        ("\\*", ("*",), ("a",)),
        ("\\#a", ("#a",), ("a",)),
        ("\\!a", ("!a",), ("a",)),
        ("#a", (), ("a", "#a")),
        ("!a", (), ("a", "!a")),
        ("a ", ("a",), ("a ",)),
        ("a\\ ", ("a ",), ("a",)),
        ("a\\\\ ", ("a\\",), ("a\\ ",)),
        (" a", (" a",), ("a",)),
        ("a\t", ("a\t",), ("a",)),
        ("a\r", ("a",), ("a\r",)),
        ("\ufeffa", ("a",), ()),
        ("", (), ("a",)),
        ("/", (), ("a", "a/")),
        ("a//", (), ("a", "a/")),
        ("é", ("é", "x/é"), ("e",)),
        ("a", ("x\ny/a",), ("a\n",)),
    ],
)
def test_a_line_matches_what_it_does_for_git(
    line: str, matched: tuple[str, ...], not_matched: tuple[str, ...]
) -> None:
    rules = Rules(line.encode() + b"\n")

    assert [path for path in matched if not is_left_out(rules, path)] == []
    assert [path for path in not_matched if is_left_out(rules, path)] == []


# Each would take longer than anybody lives, if every way to match were tried.
MANY = """
from flightlog_storage.ignore import Rules
for line in ("*a" * 40 + "b", "/" + "*a" * 40 + "b/c", "**/a/" * 40 + "b"):
    for path in (b"a" * 250, b"/".join([b"a"] * 2000), b"/".join([b"a" * 250] * 16)):
        name = path.rpartition(b"/")[2]
        assert Rules(line.encode()).find(path, name, is_folder=False) is None
"""


def test_rules_of_many_stars_end_in_time() -> None:
    # A process of its own, for nothing else ends what a regex is at.
    subprocess.run([sys.executable, "-c", MANY], check=True, timeout=120)


def test_the_last_rule_that_matches_counts() -> None:
    rules = Rules(b"*.log\n!keep.log\n/x/keep.log\n")

    assert is_left_out(rules, "a.log")
    assert not is_left_out(rules, "keep.log")
    assert is_left_out(rules, "x/keep.log")


def test_a_line_without_an_end_is_a_line() -> None:
    assert is_left_out(Rules(b"a\nb"), "b")


@pytest.mark.parametrize("pattern", ["*", "*/", "src/**", "*.*", ".*", "?"])
def test_a_rule_of_wildcards_alone_names_nothing(pattern: str) -> None:
    assert rule_of(pattern).is_sweeping


@pytest.mark.parametrize("pattern", ["*.py", ".env", "**/a", "[ab]*", "/x/", "*a*"])
def test_a_rule_with_letters_names_something(pattern: str) -> None:
    assert not rule_of(pattern).is_sweeping


def rule_of(pattern: str) -> Rule:
    path = pattern.strip("/").replace("[ab]", "a").replace("*", "a").replace("?", "a")
    name = path.encode().rpartition(b"/")[2]
    rule = Rules(pattern.encode()).find(path.encode(), name, is_folder=True)
    assert rule is not None
    return rule
