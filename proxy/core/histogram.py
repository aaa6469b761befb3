"""How long things took, counted in buckets: sums of buckets can be added, quantiles cannot."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

# Upper bounds, inclusive; what takes longer than the last counts in one bucket more. They are
# part of the tables: with other bounds, columns would have to be made and old counts divided.
BOUNDS_MS = (
    *(5, 10, 25, 50, 100, 200, 300, 500, 750, 1_000),
    *(1_500, 2_500, 4_000, 6_000, 10_000, 15_000, 30_000, 60_000),
    *(120_000, 300_000, 600_000),
)
BUCKETS = len(BOUNDS_MS) + 1


def bucket(ms: float) -> int:
    """The index of the bucket in which it counts."""
    return bisect_left(BOUNDS_MS, ms)


def columns(what: str) -> tuple[str, ...]:
    """The name of each bucket's counter."""
    bounded = (f"{what}_upto_{bound}_ms" for bound in BOUNDS_MS)
    return (*bounded, f"{what}_over_{BOUNDS_MS[-1]}_ms")


def quantile(counts: Sequence[int], q: float) -> float | None:
    """In ms, below which the share `q` of all lies, 0 < q <= 1; None where nothing was counted.

    Within a bucket all are taken to lie evenly between its bounds, as Prometheus does; beyond
    the last bound nobody knows, and it is that bound.
    """
    return quantiles(counts, (q,))[0]


def quantiles(counts: Sequence[int], shares: Sequence[float]) -> list[float | None]:
    """Several of the same."""
    below = list(accumulate(counts))
    if not below[-1]:
        return [None] * len(shares)
    return [_at(q * below[-1], counts, below) for q in shares]


def _at(rank: float, counts: Sequence[int], below: Sequence[int]) -> float:
    index = bisect_left(below, rank)
    if index >= len(BOUNDS_MS):
        return float(BOUNDS_MS[-1])
    lower = BOUNDS_MS[index - 1] if index else 0
    over = rank - (below[index] - counts[index])
    return lower + (BOUNDS_MS[index] - lower) * over / counts[index]
