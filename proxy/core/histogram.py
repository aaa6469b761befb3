"""How long things took, counted in buckets: sums of buckets can be added, quantiles cannot."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

# Upper bounds, inclusive; what takes longer than the last counts in one bucket more. They are
# part of the tables: with other bounds, columns would have to be made and old counts divided.
BOUNDS_MS = (
    *(5, 10, 25, 50, 100, 200, 300, 500, 750, 1_000),
    *(1_500, 2_500, 4_000, 6_000, 10_000, 15_000, 30_000, 60_000),
    *(120_000, 300_000, 600_000),
)
BUCKETS = len(BOUNDS_MS) + 1
_LOWER_MS = (0, *BOUNDS_MS)
_WIDTHS_MS = (*(upper - lower for lower, upper in pairwise(_LOWER_MS)), 0)


def bucket(ms: float) -> int:
    """The index of the bucket in which it counts."""
    return bisect_left(BOUNDS_MS, ms)


def columns(what: str) -> tuple[str, ...]:
    """The name of each bucket's counter."""
    bounded = (f"{what}_upto_{bound}_ms" for bound in BOUNDS_MS)
    return (*bounded, f"{what}_over_{BOUNDS_MS[-1]}_ms")


def quantiles(counts: Sequence[int], shares: Sequence[float]) -> list[float]:
    """In ms, below which each of these shares of all lies, 0 < share <= 1; none where nothing
    was counted.

    Within a bucket all are taken to lie evenly between its bounds, as Prometheus does; beyond
    the last bound nobody knows, and it is that bound.
    """
    below = list(accumulate(counts))
    whole = below[-1]
    found: list[float] = []
    for share in shares if whole else ():
        rank = share * whole
        index = bisect_left(below, rank)
        inside = (rank - below[index]) / counts[index] + 1
        found.append(_LOWER_MS[index] + _WIDTHS_MS[index] * inside)
    return found
