import itertools
import random

import pytest

from proxy.core import histogram
from proxy.core.histogram import BOUNDS_MS, BUCKETS, bucket, quantiles


def counted(*values_ms):
    counts = [0] * BUCKETS
    for ms in values_ms:
        counts[bucket(ms)] += 1
    return counts


@pytest.mark.parametrize(
    "ms, expected",
    [(0, 0), (5, 0), (5.1, 1), (6, 1), (10, 1), (600_000, BUCKETS - 2), (600_001, BUCKETS - 1)],
)
def test_a_bound_belongs_to_the_bucket_it_ends(ms, expected):
    assert bucket(ms) == expected


def test_each_bucket_has_a_name_of_its_own():
    names = histogram.columns("latency")
    assert len(set(names)) == BUCKETS
    assert (names[0], names[-1]) == ("latency_upto_5_ms", "latency_over_600000_ms")


def test_of_nothing_there_is_no_quantile():
    assert quantiles([0] * BUCKETS, (0.5,)) == []


@pytest.mark.parametrize(
    "values_ms, q, expected",
    [
        ([80], 1.0, 100),
        ([80], 0.5, 75),  # half way between 50 and 100
        ([3], 0.5, 2.5),
        ([80, 80, 400, 400], 0.5, 100),
        ([80, 80, 400, 400], 0.75, 400),
        ([80, 80, 400, 400], 0.99, 496),
        ([10**9], 0.5, 600_000),  # more than the last bound nobody knows
    ],
)
def test_within_a_bucket_all_lie_evenly(values_ms, q, expected):
    assert quantiles(counted(*values_ms), (q,)) == [pytest.approx(expected)]


def test_a_quantile_lies_in_the_bucket_of_the_true_one():
    chance = random.Random(3)
    values = sorted(chance.lognormvariate(7, 1.2) for _ in range(5000))
    for q in (0.5, 0.9, 0.99):
        (found,) = quantiles(counted(*values), (q,))
        assert bucket(found) == bucket(values[int(q * len(values))])


def test_bounds_lie_close_enough_to_tell_something_and_end_with_a_long_answer():
    steps = [later / earlier for earlier, later in itertools.pairwise(BOUNDS_MS)]
    assert max(steps) <= 2.5
    assert (BOUNDS_MS[0], BOUNDS_MS[-1]) == (5, 10 * 60 * 1000)
