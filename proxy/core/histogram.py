"""How long things took, counted in buckets: sums of buckets can be added, quantiles cannot."""

from bisect import bisect_left
from collections.abc import Sequence

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
    rank = q * sum(counts)
    if rank <= 0:
        return None
    below = 0
    for index, count in enumerate(counts[: len(BOUNDS_MS)]):
        if count and below + count >= rank:
            lower = BOUNDS_MS[index - 1] if index else 0
            return lower + (BOUNDS_MS[index] - lower) * (rank - below) / count
        below += count
    return float(BOUNDS_MS[-1])
