from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.window import SET_BACK_SECONDS, WINDOW_SECONDS, Window


class Events:
    """The slow obvious version: every event is kept."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.newest = 0
        self.all = []

    def add(self, amount, second):
        self.newest = max(self.newest, second)
        self.all.append((second, amount))

    def look(self, second):
        if second < self.newest - SET_BACK_SECONDS:
            self.all, self.newest = [], second
        self.newest = max(self.newest, second)

    def total(self, second):
        self.look(second)
        return self._sum(self.newest, self.seconds)

    def recent(self, second, seconds):
        self.look(second)
        return self._sum(self.newest, seconds + self.newest - second)

    def seconds_until(self, at_most, second, seconds=None):
        self.look(second)
        span = min(seconds or self.seconds, self.seconds)
        waits = range(self.newest - second + span + 1)
        return next(
            (w for w in waits if self._sum(max(self.newest, second + w), span) <= at_most), None
        )

    def _sum(self, second, seconds):
        seconds = min(seconds, self.seconds)
        kept = [a for at, a in self.all if second - seconds < at <= second]
        return max(sum(kept), 0)


# What is asked of both, with an amount and the moment.
STEPS = {
    "add": lambda w, amount, now: w.add(amount, now),
    "recent": lambda w, amount, now: w.recent(now, abs(amount) + 1),
    "until": lambda w, amount, now: w.seconds_until(amount, now),
    "recent until": lambda w, amount, now: w.seconds_until(amount, now, seconds=3),
}


def assert_is_the_sum_of_its_events(seconds, steps):
    """`steps`: (what, amount, seconds since the step before)"""
    window, events = Window(seconds), Events(seconds)
    now = 1_700_000_000
    for what, amount, passed in steps:
        now += passed
        found, expected = (STEPS[what](w, amount, now) for w in (window, events))
        assert (found, window.total(now)) == (expected, events.total(now))


@pytest.mark.parametrize("seconds", [1, 2, 5, 60])
def test_is_the_sum_of_the_events_of_the_last_seconds(seconds):
    rng = Random(seconds)
    assert_is_the_sum_of_its_events(
        seconds,
        [
            # Also back in time, as threads overtake each other.
            (rng.choice([*STEPS, "add"]), rng.randint(-20, 40), rng.choice([-2, 0, 0, 1, 3]))
            for _ in range(600)
        ],
    )


@given(
    seconds=st.sampled_from([1, 2, 5, 60]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(list(STEPS)),
            st.integers(-50, 100),
            st.integers(-8, 8) | st.sampled_from([-60, 4, 5, 6, 59, 60, 61, 10_000]),
        ),
        max_size=40,
    ),
)
def test_is_their_sum_after_leaps_in_time_too(seconds, steps):
    assert_is_the_sum_of_its_events(seconds, steps)


def test_counts_the_last_sixty_seconds():
    window = Window()
    window.add(5, 100)
    window.add(7, 159)
    assert window.total(159) == 12
    assert window.total(160) == 7
    assert window.total(218) == 7
    assert window.total(219) == 0


def test_a_minute_has_sixty_seconds():
    assert WINDOW_SECONDS == 60


def test_what_was_reserved_too_much_is_given_back_to_its_own_second():
    window = Window()
    window.add(100, 10)
    window.add(-70, 10)
    assert window.total(69) == 30
    assert window.total(70) == 0


def test_a_correction_that_lies_before_the_window_has_no_effect():
    window = Window()
    window.add(100, 10)
    window.add(50, 70)
    window.add(-100, 10)
    assert window.total(70) == 50


def test_the_sum_is_never_below_nothing():
    window = Window()
    window.add(-5, 10)
    assert window.total(10) == 0
    window.add(7, 11)
    assert window.total(11) == 2


def test_says_when_enough_will_have_left():
    window = Window()
    for second in (0, 10, 20):
        window.add(300, 1000 + second)
    assert window.seconds_until(900, 1025) == 0
    assert window.seconds_until(899, 1025) == 35
    assert window.seconds_until(600, 1025) == 35
    assert window.seconds_until(599, 1025) == 45
    assert window.seconds_until(0, 1025) == 55


def test_nobody_need_wait_for_less_than_nothing():
    window = Window()
    assert window.seconds_until(-1, 1000) is None
    window.add(5, 1000)
    assert window.seconds_until(-1, 1000) is None
    window.add(-3, 1001)  # once the 5 have left, the bare sum is below nothing
    assert window.seconds_until(-1, 1001) is None


def test_who_read_the_clock_before_another_waits_the_longer():
    window = Window()
    window.add(5, 1001)
    assert window.seconds_until(0, 1001) == 60
    assert window.seconds_until(0, 1000) == 61


def test_a_year_of_silence_costs_no_more_than_a_minute():
    window = Window()
    window.add(5, 0)
    assert window.total(10**15) == 0


def test_what_a_clock_counted_that_was_set_back_since_is_forgotten():
    window = Window()
    window.add(5, 2000)
    assert window.total(2000 - SET_BACK_SECONDS) == 5  # threads overtake each other
    assert window.seconds_until(0, 200) == 0
    window.add(3, 200)
    assert window.total(200) == 3


def test_what_is_settled_late_forgets_nothing():
    window = Window()
    window.add(5, 2000)
    window.add(-5, 100)
    assert window.total(2000) == 5


def test_tells_what_was_added_in_each_of_the_last_seconds():
    window = Window(5)
    for second, amount in ((100, 1), (102, 2), (103, 3), (102, 20)):
        window.add(amount, second)
    assert window.by_second(103, 4) == [1, 0, 22, 3]
    assert window.by_second(105, 3) == [3, 0, 0]
    assert window.by_second(106, 3) == [0, 0, 0]
    # Another thread read the clock later, but came first.
    window.add(4, 107)
    assert window.by_second(106, 5) == [0, 3, 0, 0, 0]


def test_the_newest_second_is_the_last_to_which_something_was_added():
    window = Window()
    window.add(1, 100)
    window.add(1, 90)
    assert window.newest == 100
