"""Ignore rules as git means them: the lines of an ignore file, and what they match.

Every entry of a tree is asked about by itself, in folders that are not left out, as git
does it. Paths are bytes, as in git: `?` stands for one byte. Why pathspec does not do
this: docs/decisions/0014-ignore-rules-are-ours.md.
"""

import re
import string
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ("Rule", "Rules")

_SPECIAL = re.compile(rb"[*?\[\\]")
_WITHIN = b"[^/]*"  # What stars match: something in one part of a path,
_FOLDERS = b"(?:.*/)?"  # folders above,
_ALL = b".*"  # or anything.
_LAZY = {_FOLDERS: b"(?:.*?/)??", _ALL: b".*?"}
_RANGE_END = re.compile(rb"-(?:\\(.)|([^\]\\]))", re.DOTALL)
_MEMBER = re.compile(rb"\[:([^\]]*):\]|\\(.)|([^\\])", re.DOTALL)
_CLASSES = {  # As git has them: of ASCII, and a space is none of \v and \f.
    b"alnum": string.ascii_letters + string.digits,
    b"alpha": string.ascii_letters,
    b"blank": " \t",
    b"cntrl": "".join(map(chr, (*range(32), 127))),
    b"digit": string.digits,
    b"graph": "".join(map(chr, range(33, 127))),
    b"lower": string.ascii_lowercase,
    b"print": "".join(map(chr, range(32, 127))),
    b"punct": string.punctuation,
    b"space": " \t\n\r",
    b"upper": string.ascii_uppercase,
    b"xdigit": string.hexdigits,
}


class Rule(NamedTuple):
    """One line of an ignore file."""

    pattern: bytes
    is_negated: bool
    is_for_folders: bool  # And for nothing else.
    is_for_names: bool  # It has no slash: it is held against the last part of a path.

    @property
    def is_sweeping(self) -> bool:
        """Whether it names nothing: its last part is wildcards and dots alone."""
        return not self.pattern.rpartition(b"/")[2].strip(b"*?.")


class Rules:
    """The rules of one ignore file; of those that match, the last one counts."""

    def __init__(self, text: bytes) -> None:
        rules = list(_parsed(text))[::-1]
        for_files = [rule for rule in rules if not rule.is_for_folders]
        self._for_folders = _Finder(rules)
        self._for_files = _Finder(for_files)

    def find(self, path: bytes, name: bytes, *, is_folder: bool) -> Rule | None:
        """Return the rule that decides about an entry, if one does.

        `path` starts below the folder of the ignore file, `name` is its last part.
        """
        finder = self._for_folders if is_folder else self._for_files
        return finder.find(path, name)


class _Finder:
    """Finds the first of some rules that matches, with one regex for all of a kind."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        self._by_name, self._name_places = self._compiled(is_for_names=True)
        self._by_path, self._path_places = self._compiled(is_for_names=False)

    def find(self, path: bytes, name: bytes) -> Rule | None:
        place = len(self._rules)
        if self._by_name is not None and (found := self._by_name.fullmatch(name)):
            place = self._name_places[_group(found)]
        if self._by_path is not None and (found := self._by_path.fullmatch(path)):
            place = min(place, self._path_places[_group(found)])
        return self._rules[place] if place < len(self._rules) else None

    def _compiled(
        self, *, is_for_names: bool
    ) -> tuple[re.Pattern[bytes] | None, list[int]]:
        """Return the rules as alternatives, each told by a group, and their places."""
        places, alternatives = [], []
        for place, rule in enumerate(self._rules):
            if rule.is_for_names == is_for_names:
                regex = _regex(rule)
                if regex is not None:
                    places.append(place)
                    alternatives.append(regex + b"()")
        if not places:
            return None, []
        return re.compile(b"|".join(alternatives), re.DOTALL), places


def _group(found: re.Match[bytes]) -> int:
    assert found.lastindex is not None  # Each alternative has a group.
    return found.lastindex - 1


def _parsed(text: bytes) -> Iterator[Rule]:
    for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if line.startswith(b"#"):
            continue
        pattern = _trimmed(line.removesuffix(b"\r"))
        is_negated = pattern.startswith(b"!")
        if is_negated:
            pattern = pattern[1:]
        is_for_folders = pattern.endswith(b"/")
        if is_for_folders:
            pattern = pattern[:-1]
        is_for_names = b"/" not in pattern
        pattern = pattern.removeprefix(b"/")
        if pattern:
            yield Rule(pattern, is_negated, is_for_folders, is_for_names)


def _trimmed(line: bytes) -> bytes:
    """Return a line without the spaces at its end; a backslash keeps one."""
    kept = line.rstrip(b" ")
    slashes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + 1] if slashes % 2 else kept


def _regex(rule: Rule) -> bytes | None:
    """Return a regex that matches what a rule does; None if that is nothing.

    It takes a time that grows with pattern and path, not with their powers: what is
    between two stars is held where it is found first, for wherever the rest can be
    found from later on, it can be found from there. That is so because the last part
    of a group ends where a part of the path does, and a star that crosses slashes
    follows a slash, or is the first of all.
    """
    tokens = _tokens(rule)
    if tokens is None:
        return None
    groups = _split(tokens, (_FOLDERS, _ALL))
    regex = [_group_regex(groups[0][1])]
    for star, group in groups[1:-1]:
        found = _group_regex(group)
        regex.append(b"(?>%s%s)" % (_LAZY[star], found))
    for star, group in groups[1:][-1:]:
        regex.append(star + _group_regex(group))
    return b"".join(regex)


def _group_regex(tokens: list[bytes]) -> bytes:
    """Return the regex of tokens between two stars that cross slashes."""
    regex = []
    for slash, part in _split(tokens, (b"/",)):
        (_, first), *others = _split(part, (_WITHIN,))
        regex += [slash, *first]
        regex += [b"(?>[^/]*?%s)" % b"".join(each) for _, each in others[:-1]]
        regex += [_WITHIN + b"".join(each) for _, each in others[-1:]]
    return b"".join(regex)


def _split(
    tokens: list[bytes], marks: tuple[bytes, ...]
) -> list[tuple[bytes, list[bytes]]]:
    """Return what lies between some tokens, with the one before it."""
    found: list[tuple[bytes, list[bytes]]] = [(b"", [])]
    for token in tokens:
        if token in marks:
            found.append((token, []))
        else:
            found[-1][1].append(token)
    return found


def _tokens(rule: Rule) -> list[bytes] | None:
    """Return a regex for each star, and each byte that a rule matches."""
    pattern, parts, at = rule.pattern, [], 0
    while at < len(pattern):
        match pattern[at : at + 1]:
            case b"*":
                part, at = _stars(rule, at)
            case b"?":
                part, at = b"[^/]", at + 1
            case b"[":
                found = _bracket(pattern, at + 1)
                if found is None:
                    return None
                part, at = found
            case b"\\":
                if at + 1 == len(pattern):
                    return None
                part, at = re.escape(pattern[at + 1 : at + 2]), at + 2
            case char:
                part, at = re.escape(char), at + 1
        parts.append(part)
    return parts


def _stars(rule: Rule, start: int) -> tuple[bytes, int]:
    """Return the regex of the stars from `start` on, and where they end."""
    pattern, end = rule.pattern, start
    while pattern[end : end + 1] == b"*":
        end += 1
    rest = pattern[end:]
    # Git compares what comes before the first special character by itself, so stars
    # behind it are at a beginning, too.
    begins = pattern[:start].endswith(b"/") or not _SPECIAL.search(pattern[:start])
    is_part = begins and (not rest or rest.startswith((b"/", b"\\/")))
    if rule.is_for_names or end - start == 1 or not is_part:
        return _WITHIN, end
    if rest.startswith(b"/"):
        return _FOLDERS, end + 1
    return _ALL, end


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """Return the regex of a set, from behind its `[`, and where it ends, if it does."""
    is_negated = pattern[at : at + 1] in (b"!", b"^")
    found = _members(pattern, at + is_negated)
    if found is None:
        return None
    members, end = found
    if is_negated:
        members = set(range(256)) - members
    members.discard(ord("/"))
    body = b"".join(rb"\x%02x" % member for member in sorted(members))
    return (b"[%s]" % body if members else b"(?!)"), end


def _members(pattern: bytes, at: int) -> tuple[set[int], int] | None:
    """Return what is in a set, and where it ends; None if it does not, or is none."""
    members: set[int] = set()
    previous = 0  # What a range may begin with.
    start = at
    while pattern[at : at + 1] != b"]" or at == start:
        found = _RANGE_END.match(pattern, at) if previous else None
        if found:
            members.update(range(previous, ord(found[1] or found[2]) + 1))
            previous = 0
        elif (found := _MEMBER.match(pattern, at)) and found[1] is None:
            previous = ord(found[2] or found[3])
            members.add(previous)
        elif found and found[1] in _CLASSES:
            members.update(map(ord, _CLASSES[found[1]]))
            previous = 0
        else:
            return None
        at = found.end()
    return members, at + 1
