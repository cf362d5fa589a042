"""Histograms: values counted in bins, in the row itself."""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from flightlog._checks import check_int
from flightlog._media import Media, MediaFiles

__all__ = ("Histogram",)

_FINITE_MAX = 1e300  # Beyond it there is no distance between two values.


class Histogram(Media):
    """How often values fall into bins. As in W&B, but that NaN and infinities are left
    out of the bins and counted by `not_finite`.
    """

    MAX_LENGTH = 512

    def __init__(
        self,
        sequence: Any = None,
        np_histogram: tuple[Any, Any] | None = None,
        num_bins: int = 64,
    ) -> None:
        """Count what is in `sequence`, or take what `numpy.histogram` has counted.

        Args:
            sequence: Numbers: a list, an array or a tensor of any shape.
            np_histogram: The counts, and the edges of the bins, one more.
            num_bins: Into how many bins of equal width, 1 to 512.

        Raises:
            TypeError: Neither is given, or one holds no numbers.
            ValueError: The number of bins is none of 1 to 512; or `np_histogram` is not
                as many counts and one more edges.
        """
        self.not_finite = 0
        if np_histogram is not None:
            self.histogram, self.bins = _read(np_histogram)
        elif sequence is not None:
            self.histogram, self.bins = self._count(
                sequence, _bins("num_bins", num_bins)
            )
        else:
            raise TypeError("Histogram: give a sequence of numbers, or np_histogram")
        _bins("counts in np_histogram", len(self.histogram))

    def _count(self, sequence: Any, bin_count: int) -> tuple[list[Any], list[Any]]:
        # Late: `import flightlog` has to be light.
        import numpy as np

        from flightlog._arrays import array_of

        values = array_of(sequence)
        if values.dtype.kind not in "buif":
            raise TypeError(
                "Histogram: sequence must hold numbers, not values of type "
                f"{values.dtype}"
            )
        values = values.astype(np.float64, copy=False)
        finite = values[np.abs(values) <= _FINITE_MAX]
        self.not_finite = values.size - finite.size
        span = _span(finite, bin_count) if finite.size else (0.0, 1.0)
        counts, edges = np.histogram(finite, bins=bin_count, range=span)
        return counts.tolist(), edges.tolist()

    def described(self, key: str, files: MediaFiles) -> dict[str, Any]:
        """Return it as it stands in a row."""
        found = {"_type": "histogram", "values": self.histogram, "bins": self.bins}
        return found | ({"not_finite": self.not_finite} if self.not_finite else {})


def _span(finite: Any, bin_count: int) -> tuple[float, float]:
    """Return from where to where the bins are, with an edge between any two of them."""
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        low, high = low - 0.5, high + 0.5  # As NumPy does.
    narrowest = 4 * bin_count * math.ulp(max(abs(low), abs(high)))
    if high - low < narrowest:
        return low - narrowest, high + narrowest
    return low, high


def _bins(what: str, count: object) -> int:
    return check_int(f"Histogram: {what}", count, 1, Histogram.MAX_LENGTH)


def _read(given: Any) -> tuple[list[Any], list[Any]]:
    if not isinstance(given, Sequence) or len(given) != 2:
        raise ValueError("Histogram: np_histogram must be (counts, edges)")
    counts, edges = (_numbers(each) for each in given)
    if len(edges) != len(counts) + 1:
        raise ValueError(
            f"Histogram: {len(counts)} counts have {len(counts) + 1} edges, "
            f"not {len(edges)}"
        )
    if any(count < 0 for count in counts) or not all(
        map(operator.le, edges, edges[1:])
    ):
        raise ValueError(
            "Histogram: np_histogram must have no counts below 0, and edges that grow"
        )
    return counts, edges


def _numbers(given: Any) -> list[Any]:
    listed = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(listed, Iterable):
        raise TypeError(f"Histogram: np_histogram must hold lists, not {given!r}")
    listed = list(listed)
    for each in listed:
        if isinstance(each, bool) or not isinstance(each, int | float):
            raise TypeError(f"Histogram: np_histogram must hold numbers, not {each!r}")
    return listed
