"""What a run is called when nobody named it, and its code among its files."""

import zlib

__all__ = ("CODE_FILE", "default_name")

CODE_FILE = "code/snapshot.zip"

_ADJECTIVES = (
    "amber", "brave", "bright", "calm", "clear", "crisp", "daring", "deep", "eager",
    "fair", "fleet", "gentle", "golden", "grand", "keen", "light", "lively", "lucid",
    "mellow", "merry", "noble", "polar", "proud", "quick", "quiet", "rapid", "silver",
    "smooth", "solar", "steady", "swift", "vivid",
)  # fmt: skip
_NOUNS = (
    "albatross", "arrow", "breeze", "comet", "condor", "crane", "eagle", "falcon",
    "finch", "glider", "gull", "harrier", "hawk", "heron", "horizon", "jay", "kestrel",
    "kite", "lark", "martin", "meteor", "osprey", "otter", "owl", "petrel", "plover",
    "raven", "robin", "sparrow", "starling", "swallow", "tern",
)  # fmt: skip


def default_name(run: str) -> str:
    """Return a name for people, the same for the same run id on every machine."""
    number = zlib.crc32(run.encode())
    adjective = _ADJECTIVES[number % len(_ADJECTIVES)]
    noun = _NOUNS[number // len(_ADJECTIVES) % len(_NOUNS)]
    return f"{adjective}-{noun}-{number // 1024 % 1000}"
