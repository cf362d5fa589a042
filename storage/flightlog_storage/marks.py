"""Marks: which blobs are named, for millions of them in little memory."""

from array import array
from collections.abc import Sequence

import numpy as np

__all__ = ("Marks",)

NEW_MAX = 1 << 20  # Then they are sorted in, and those that were marked before go.


class Marks:
    """A set of digests, of which the first 8 bytes are kept.

    So another digest may pass for one of them, once in billions of times: what is not
    marked is surely not named.
    """

    def __init__(self) -> None:
        self._new = array("Q")
        self._sorted = np.empty(0, np.uint64)

    def add(self, sha256: str) -> None:
        """Mark a digest, given in hexadecimal."""
        self._new.append(int(sha256[:16], 16))
        if len(self._new) >= NEW_MAX:
            self._sort()

    def unmarked(self, digests: Sequence[str]) -> list[str]:
        """Return those that are not marked, in their order."""
        self._sort()
        asked = np.array([int(each[:16], 16) for each in digests], np.uint64)
        places = np.searchsorted(self._sorted, asked)
        found = np.append(self._sorted, np.uint64(0))[places]
        is_behind = places == len(self._sorted)
        is_marked = (found == asked) & ~is_behind
        return [
            each for each, is_in in zip(digests, is_marked, strict=True) if not is_in
        ]

    def __len__(self) -> int:
        self._sort()
        return len(self._sorted)

    def _sort(self) -> None:
        if self._new:
            new = np.frombuffer(self._new, np.uint64)
            self._sorted = np.union1d(self._sorted, new)
            self._new = array("Q")
