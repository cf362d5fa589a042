"""What `scan_outputs_once()` and `watch_outputs()` are given, checked."""

import math
import os
from numbers import Real
from typing import NamedTuple

from flightlog._checks import check_int, check_path
from flightlog_storage.event import ROLLING, VERSIONS, Looking

__all__ = ("GivenOutputs", "check_interval", "make_looking")

OUTPUT_ARGUMENTS_MAX = 1000  # Folders, or patterns.
LOOKS_MAX = 2**31
INTERVAL_MIN_S = 0.01  # Below it, the daemon would do nothing else.
INTERVAL_MAX_S = 10**9  # As long as a thread can wait anywhere, and a life.
_MODES = {ROLLING: ROLLING, VERSIONS: VERSIONS, "versions": VERSIONS}


class GivenOutputs(NamedTuple):
    """The arguments that both calls have, as they were given."""

    output_dirs: object
    patterns: object
    stable_required: object
    min_age_sec: object
    mode: object
    log_snapshot_interval_sec: object
    state_gc_after_sec: object


def make_looking(call: str, given: GivenOutputs, root: str) -> Looking:
    """Return what is to be looked for; folders are where they are now.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a value that cannot be.
    """
    looks = check_int(f"{call}: stable_required", given.stable_required, 0, LOOKS_MAX)
    if not isinstance(given.mode, str):
        raise TypeError(f"{call}: mode must be a str, not {given.mode!r}")
    if given.mode not in _MODES:
        raise ValueError(
            f"{call}: mode must be {ROLLING!r} or {VERSIONS!r}, not {given.mode!r}"
        )
    forget_after = given.state_gc_after_sec
    return Looking(
        dirs=_dirs(call, given.output_dirs),
        root=root,
        patterns=_patterns(call, given.patterns),
        stable_required=looks,
        min_age_s=_seconds(call, "min_age_sec", given.min_age_sec),
        mode=_MODES[given.mode],
        log_interval_s=_seconds(
            call, "log_snapshot_interval_sec", given.log_snapshot_interval_sec
        ),
        forget_after_s=(
            0.0
            if forget_after is None
            else _seconds(call, "state_gc_after_sec", forget_after)
        ),
    )


def check_interval(call: str, interval_sec: object) -> float:
    """Return how often to look, in seconds.

    Raises:
        TypeError: It is no number.
        ValueError: It is one at which nobody can look.
    """
    interval_s = _seconds(call, "interval_sec", interval_sec)
    if not INTERVAL_MIN_S <= interval_s <= INTERVAL_MAX_S:
        raise ValueError(
            f"{call}: interval_sec must be from {INTERVAL_MIN_S} to "
            f"{INTERVAL_MAX_S:,} seconds, not {interval_sec!r}"
        )
    return interval_s


def _seconds(call: str, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{call}: {what} must be a number of seconds, not {value!r}")
    found = float(value)
    if not math.isfinite(found) or found < 0:
        raise ValueError(f"{call}: {what} must be finite and not negative: {value!r}")
    return found


def _dirs(call: str, given: object) -> list[str]:
    if isinstance(given, str | os.PathLike):
        given = [given]
    if not isinstance(given, list | tuple | set | frozenset):
        raise TypeError(
            f"{call}: output_dirs must be a folder or a list of folders, not {given!r}"
        )
    if not given:
        raise ValueError(f"{call}: output_dirs must name a folder, and is empty")
    _check_count(call, "output_dirs", len(given))
    return list(dict.fromkeys(_dir(call, each) for each in given))


def _check_count(call: str, what: str, count: int) -> None:
    if count > OUTPUT_ARGUMENTS_MAX:
        raise ValueError(
            f"{call}: {what} has {count:,} entries; at most {OUTPUT_ARGUMENTS_MAX:,} "
            "are allowed"
        )


def _dir(call: str, given: object) -> str:
    path = check_path(f"{call}: each of output_dirs", given)
    _check_text(call, "output_dirs", path)
    return os.path.abspath(os.path.expanduser(path))


def _patterns(call: str, given: object) -> list[str]:
    if given is None:
        return []
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list | tuple | set | frozenset):
        raise TypeError(
            f"{call}: patterns must be a list of str or None, not {given!r}"
        )
    _check_count(call, "patterns", len(given))
    return [_pattern(call, each) for each in given]


def _pattern(call: str, given: object) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{call}: each of patterns must be a str, not {given!r}")
    pattern = given
    while pattern.startswith("./"):
        pattern = pattern[2:]
    if not pattern or pattern[0] == "/" or "/../" in f"/{pattern}/" or "\0" in pattern:
        raise ValueError(
            f"{call}: pattern {given!r} matches nothing: patterns are for paths below "
            'the folders, such as "*.pt" or "checkpoint-*/"'
        )
    _check_text(call, "patterns", pattern)
    return pattern


def _check_text(call: str, what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{call}: {what}: {text!r} is not valid Unicode") from error
