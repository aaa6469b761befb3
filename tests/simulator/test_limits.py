import pytest

from proxy.simulator.limits import Limits, window


def test_without_limits_everybody_gets_in():
    limits = Limits()
    assert all(limits.admit(10**6, now=0).limited_by is None for _ in range(1000))


def test_tokens_are_a_budget_of_sixty_seconds():
    limits = Limits(tokens_per_minute=1000)
    assert limits.admit(600, now=0).remaining_tokens == 400
    refused = limits.admit(401, now=1)
    assert (refused.limited_by, refused.retry_after_seconds) == ("token", 59)
    assert limits.admit(400, now=1).limited_by is None
    assert limits.admit(600, now=59.9).limited_by == "token"
    last = limits.admit(600, now=60)
    assert (last.limited_by, last.remaining_tokens) == (None, 0)


def test_refused_tokens_are_not_charged():
    limits = Limits(tokens_per_minute=1000)
    assert limits.admit(2000, now=0).remaining_tokens == 1000


def test_the_wait_is_as_long_as_it_takes_for_enough_to_leave():
    limits = Limits(tokens_per_minute=1000)
    for now in (0, 10, 20):
        limits.admit(300, now=now)
    assert limits.admit(100, now=25).limited_by is None
    assert limits.admit(300, now=25).retry_after_seconds == 35
    assert limits.admit(301, now=25).retry_after_seconds == 45


def test_a_request_above_the_whole_budget_never_fits():
    limits = Limits(tokens_per_minute=1000)
    for now in (0, 60, 120):
        assert limits.admit(1001, now=now).retry_after_seconds == 60


def test_a_burst_is_refused_though_the_minute_has_room():
    limits = Limits(requests_per_minute=600)
    assert all(limits.admit(1, now=0).limited_by is None for _ in range(100))
    refused = limits.admit(1, now=3)
    assert (refused.limited_by, refused.retry_after_seconds) == ("call", 7)
    assert refused.remaining_requests == 0


def test_refused_requests_count_so_that_blind_retries_prolong_the_wait():
    limits = Limits(requests_per_minute=6)
    assert limits.admit(1, now=0).limited_by is None
    assert limits.admit(1, now=9).retry_after_seconds == 10
    assert limits.admit(1, now=10).limited_by == "call"
    assert limits.admit(1, now=20).limited_by is None


@pytest.mark.parametrize("limit", [{"tokens_per_minute": 10}, {"requests_per_minute": 1}])
def test_the_longest_wait_is_the_window_whatever_the_clock_says(limit):
    """4.4 + 60 - 4.4 is more than 60 to a computer, and 61 when a header rounds it up."""
    limits = Limits(**limit)
    limits.admit(10, now=4.4)
    assert limits.admit(10, now=4.4).retry_after_seconds == 60


@pytest.mark.parametrize("rpm", [1, 3, 10, 60, 601])
def test_who_comes_back_when_told_gets_in(rpm):
    limits = Limits(requests_per_minute=rpm)
    now = 0.0
    while (admission := limits.admit(1, now)).limited_by is None:
        pass
    assert limits.admit(1, now + admission.retry_after_seconds).limited_by is None


@pytest.mark.parametrize(
    "rpm, expected",
    [(600, (100, 10)), (60, (10, 10)), (10, (2, 12)), (6, (1, 10)), (1, (1, 60))],
)
def test_the_window_is_about_ten_seconds_and_the_rate_exact(rpm, expected):
    assert window(rpm) == expected
