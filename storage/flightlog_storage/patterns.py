"""Patterns: what $regex finds, within a limit to how long one search may take.

`re` cannot be interrupted, so `regex` searches. Its version 0 reads patterns as `re`
does, but for some characters that mean more to it: these are escaped.
"""

import math
import re
from collections.abc import Callable

__all__ = ("Search", "compile_search")

# `regex` writes out what {n} repeats. All of a pattern's n, multiplied: some 70 MB.
REPEATS_MAX = 100_000

# Braces that repeat nothing (to `regex` they allow errors), the colon of [[:alpha:]],
# and the white space that only `regex` skips in verbose patterns.
_SPECIAL = r"(?P<special>\{|(?<=\[):|[^\S \t\n\r\v\f])"
_REPEAT = r"\{(?P<least>[0-9]+)(?:,[0-9]*)?\}|\{,[0-9]*\}"
_TOKEN = re.compile(rf"\\N\{{[^}}]*\}}|\\.|{_REPEAT}|{_SPECIAL}", re.DOTALL)

# Whether the pattern is found in a text, given the seconds that the search may take;
# it raises TimeoutError.
Search = Callable[[str, float], bool]


def compile_search(pattern: str, flags: int) -> Search:
    """Return the search for a pattern of `re`, with flags of `re`.

    Raises:
        ValueError: It is no regular expression, or one that repeats too often.
    """
    import regex  # Late: who never searches for a pattern need not wait for it.

    least = [int(found["least"] or 1) for found in _TOKEN.finditer(pattern)]
    if math.prod(filter(None, least)) > REPEATS_MAX:
        raise ValueError(
            f"{pattern!r} repeats too often: all its {{n}} multiplied may make "
            f"{REPEATS_MAX:,}"
        )
    try:
        re.compile(pattern, flags)
        compiled = regex.compile(_TOKEN.sub(_escaped, pattern), flags | regex.V0)
    except (re.error, regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return lambda text, seconds: compiled.search(text, timeout=seconds) is not None


def _escaped(token: re.Match[str]) -> str:
    return rf"\{token['special']}" if token["special"] else token[0]
