import re
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.effort import tries

from flightlog_storage.patterns import compile_search

PLENTY_S = 60.0

ESCAPES = [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S"]
CHARACTERS = st.sampled_from(
    [*"abx1 _-/:{}<=#,&~é", r"\.", r"\[", r"\{", r"\:", "\xa0"]
)
ATOMS = st.one_of(
    CHARACTERS,
    st.sampled_from([*ESCAPES, ".", "^", "$", r"\b", r"\A", r"\Z", r"\x61", r"\u00e9"]),
    st.sampled_from([r"\N{EN DASH}", r"\101", "{e}", "{e<=1}", "{}", "[:a]", "]", "}"]),
)
SETS = st.builds(
    lambda start, inner, escape: f"[{start}{inner}{escape}]",
    st.sampled_from(["", "^", "]", "^]", "[:", "^[:", "&&", "a--", "||"]),
    st.lists(CHARACTERS | st.sampled_from(["a-f", "0-9", "[:alpha:]"]), min_size=1).map(
        "".join
    ),
    st.sampled_from(["", *ESCAPES]),
)
REPEATS = ["*", "+", "?", "{2}", "{1,2}", "{,2}", "{2,}", "{,}", "*?", "+?", "{1,2}?"]
PATTERNS = st.recursive(
    ATOMS | SETS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=5).map("".join),
        st.builds("{}|{}".format, inner, inner),
        st.builds("{}{}".format, inner, st.sampled_from(REPEATS)),
        st.builds(
            "({}{})".format,
            st.sampled_from(
                ["", "?:", "?=", "?!", "?<=", "?<!", "?i:", "?x:", "?P<n>", "?>"]
            ),
            inner,
        ),
        st.builds(r"({})\1".format, inner),
    ),
    max_leaves=8,
)
TEXTS = st.text("abAx1 _-/:{}<=#,.é\n\xa0[]", max_size=12)
FLAGS = st.sampled_from([0, re.I, re.M, re.S, re.X, re.I | re.X])


@pytest.mark.filterwarnings("ignore:Possible .* at position:FutureWarning")
@settings(max_examples=tries(600))
@given(PATTERNS, FLAGS, st.lists(TEXTS, min_size=1, max_size=5))
def test_patterns_mean_what_re_says(pattern: str, flags: int, texts: list[str]) -> None:
    try:
        compiled = re.compile(pattern, flags)
    except re.error:
        assume(False)

    search = compile_search(pattern, flags)

    for text in texts:
        assert search(text, PLENTY_S) == bool(compiled.search(text)), text


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        ("lr{e}", "lr{e}", True),
        ("lr{e}", "lx", False),
        (r"\{e}", "{e}", True),
        (r"\N{DIGIT ONE}", "1", True),
        ("[[:digit:]]", "1", False),
        ("[[:digit:]]", "d]", True),
        ("(?x) a \xa0 b", "a\xa0b", True),
        ("(?x) a \xa0 b", "ab", False),
        ("x{2}", "xx", True),
    ],
)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_what_only_regex_knows_is_not_meant(
    pattern: str, text: str, is_found: bool
) -> None:
    assert compile_search(pattern, 0)(text, PLENTY_S) is is_found


def test_a_search_ends_when_its_time_is_over() -> None:
    search = compile_search("(a|aa)+$", 0)

    with pytest.raises(TimeoutError):
        search("a" * 100 + "b", 0.01)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("a{1000}", "a" * 1000), (r"\w{8}(-\w{4}){3}-\w{12}", f"{UUID(int=1)}")],
    ids=["many", "uuid"],
)
def test_patterns_may_repeat(pattern: str, text: str) -> None:
    assert compile_search(pattern, 0)(text, PLENTY_S)


@pytest.mark.parametrize(
    "pattern", ["(a?){1000000000}", "((a{99}){99}){99}", "a{99999999}"]
)
def test_a_pattern_that_would_fill_the_memory_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="repeats too often"):
        compile_search(pattern, 0)
