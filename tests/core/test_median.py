from statistics import median_low

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.median import KEPT_VALUES, MovingMedian


def test_of_nothing_there_is_none():
    assert MovingMedian().value is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=80))
def test_it_is_the_median_of_the_latest(values):
    moving = MovingMedian()
    for number, value in enumerate(values, 1):
        moving.add(value)
        assert moving.value == median_low(values[max(0, number - KEPT_VALUES) : number])
