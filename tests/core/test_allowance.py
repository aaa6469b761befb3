"""What a client may use now, without memory of workers and without time."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.allowance import (
    NOTHING,
    SOON_SECONDS,
    Account,
    Limits,
    denial,
    lines,
)
from proxy.core.limiter import COUNTED_SECONDS
from proxy.core.prices import NANO
from proxy.core.types import Client

NOW = datetime(2026, 12, 31, 12, 0, tzinfo=UTC).timestamp()
DAY = NOW - 12 * 3600
MIDNIGHT = DAY + 86_400  # of the new year


def limits(**fields):
    return Limits(Client("app", **fields))


def asks(tokens=1, cost_nano=0):
    """What a call takes of a client with all kinds of limits."""
    return 1, 1, tokens, tokens, cost_nano


def used(*calls, spent=(0, 0), held=(0, 0), in_flight=0):
    """An account with these calls, (tokens, second), what was spent today, and what its own
    calls in flight hold."""
    account = Account()
    for tokens, second in calls:
        account.add(tokens, 1, int(second))
    account.spend(int(DAY), *spent)
    account.held_tokens, account.held_nano = held
    account.in_flight = in_flight
    return account


def denied(limits, account=None, asked=None, *, others=NOTHING, now=NOW, **more):
    return denial(limits, account or Account(), asked or asks(), others, now, **more)


@pytest.mark.parametrize(
    "fields, is_any",
    [
        ({}, False),
        ({"max_tpm": 1}, True),
        ({"max_rpm": 1}, True),
        ({"max_parallel_requests": 1}, True),
        ({"max_tokens_per_day": 1}, True),
        ({"max_cost_per_month": 0.01}, True),
    ],
)
def test_limits_are_true_where_there_is_one(fields, is_any):
    assert bool(limits(**fields)) is is_any


def test_without_a_limit_everything_may_go():
    account = used((10**9, NOW), spent=(10**9, 10**15), in_flight=1000)
    assert denied(limits(), account) is None


# Minutes.


def test_a_minute_has_room_up_to_its_last_token():
    account = used((60, NOW))
    assert denied(limits(max_tpm=100), account, asks(40)) is None
    assert denied(limits(max_tpm=100), account, asks(41)).limit == "max_tpm"


def test_a_minute_has_room_for_so_many_requests_at_once():
    """Not a sixth of them in ten seconds, as Azure has it."""
    account = used(*[(1, NOW)] * 59)
    assert denied(limits(max_rpm=60), account) is None
    account.add(1, 1, int(NOW))
    found = denied(limits(max_rpm=60), account)
    assert (found.limit, found.bound, found.used) == ("max_rpm", 60, 60)


def test_who_is_refused_by_two_limits_is_told_the_longer_wait():
    account = used((50, NOW - 30), (50, NOW))
    found = denied(limits(max_tpm=100, max_rpm=2), account, asks(80))
    assert (found.limit, found.until) == ("max_tpm", NOW + COUNTED_SECONDS)
    found = denied(limits(max_tpm=100, max_rpm=1), account, asks(10))
    assert found.limit == "max_rpm"


def test_what_never_fits_is_never_worth_another_try():
    found = denied(limits(max_tpm=100), asked=asks(101))
    assert (found.limit, found.asked, found.until) == ("max_tpm", 101, None)
    assert found.is_pointless


def test_what_other_workers_took_counts():
    others = (1, 1, 60, 0, 0)
    found = denied(limits(max_tpm=100), asked=asks(41), others=others)
    assert (found.used, found.until) == (60, NOW + COUNTED_SECONDS)
    assert denied(limits(max_rpm=1), others=others).limit == "max_rpm"
    assert denied(limits(max_tpm=100, max_rpm=2), asked=asks(40), others=others) is None


calls = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 70)), min_size=1, max_size=30)


@given(calls, st.integers(1, 100), st.floats(0, 0.999))
def test_the_moment_it_names_is_exact(calls, tokens, part):
    """Refused just before, admitted then."""
    account, both = used(*((t, NOW - age) for t, age in calls)), limits(max_tpm=100, max_rpm=5)
    found = denied(both, account, asks(tokens), now=NOW + part)
    if found is not None:
        until = found.until
        assert until == int(until)
        assert denied(both, account, asks(tokens), now=until - 0.001) is not None
        assert denied(both, account, asks(tokens), now=until) is None


steps = st.lists(
    st.tuples(
        st.floats(0, 30),  # seconds until it comes
        st.integers(1, 120),  # tokens it takes
        st.floats(0, 1),  # the share of them that it did use
        st.integers(0, 3),  # how many of those in flight end before
    ),
    max_size=60,
)


@given(steps)
def test_whatever_comes_no_minute_has_more_than_the_limits(steps):
    both, account, now = limits(max_tpm=200, max_rpm=6), Account(), NOW
    in_flight, admitted = [], []
    for pause, tokens, share, ending in steps:
        now += pause
        for second, taken, real in in_flight[:ending]:
            account.add(real - taken, 0, second)
        del in_flight[:ending]
        if denial(both, account, asks(tokens), NOTHING, now) is None:
            account.add(tokens, 1, int(now))
            in_flight.append((int(now), tokens, int(tokens * share)))
            admitted.append((now, int(tokens * share)))
    for began, _ in admitted:
        minute = [real for at, real in admitted if began <= at < began + 60]
        assert sum(minute) <= 200
        assert len(minute) <= 6


# Calls in flight.


def test_so_many_calls_are_in_flight_and_no_more():
    three = limits(max_parallel_requests=3)
    assert denied(three, used(in_flight=2)) is None
    found = denied(three, used(in_flight=1), others=(2, 0, 0, 0, 0))
    assert (found.limit, found.used) == ("max_parallel_requests", 3)
    assert (found.until, found.is_pointless) == (NOW + SOON_SECONDS, False)


# Budgets.

BUDGETS = [
    ("max_tokens_per_day", 100, MIDNIGHT),
    ("max_tokens_per_month", 100, MIDNIGHT),
    ("max_cost_per_day", 100 / NANO, MIDNIGHT),
    ("max_cost_per_month", 100 / NANO, MIDNIGHT),
]
each_budget = pytest.mark.parametrize("field, bound, ends", BUDGETS)


@each_budget
def test_a_budget_that_is_spent_is_there_again_when_its_time_is_over(field, bound, ends):
    account = used(spent=(60, 60))
    assert denied(limits(**{field: bound}), account, asks(40, 40)) is None
    found = denied(limits(**{field: bound}), account, asks(41, 41))
    assert (found.limit, found.bound, found.used, found.asked) == (field, 100, 60, 41)
    assert (found.until, found.is_pointless, found.is_budget) == (ends, True, True)
    assert denied(limits(**{field: bound}), account, asks(41, 41), now=ends - 0.001)
    assert denied(limits(**{field: bound}), account, asks(41, 41), now=ends) is None


@each_budget
def test_what_is_in_flight_may_cost_less_so_it_is_worth_another_try(field, bound, ends):
    account = used(spent=(20, 20), held=(30, 30))
    others = (0, 0, 0, 10, 10)
    assert denied(limits(**{field: bound}), account, asks(40, 40), others=others) is None
    found = denied(limits(**{field: bound}), account, asks(41, 41), others=others)
    assert (found.used, found.until, found.is_pointless) == (60, NOW + SOON_SECONDS, False)


@each_budget
def test_what_others_spent_for_good_counts_as_spent_before_it_was_heard_of(field, bound, ends):
    account, others = used(spent=(20, 20)), (1, 0, 0, 50, 50)
    spent, held = (
        denied(limits(**{field: bound}), account, asks(41, 41), others=others, settled=settled)
        for settled in ((40, 40), (39, 39))
    )
    assert (spent.used, spent.until, spent.is_pointless) == (70, ends, True)
    assert (held.used, held.is_pointless) == (70, False)


@each_budget
def test_what_costs_more_than_a_whole_budget_never_fits(field, bound, ends):
    found = denied(limits(**{field: bound}), asked=asks(101, 101))
    assert (found.until, found.is_pointless) == (None, True)


def test_days_are_apart_and_months_are_made_of_them():
    account = used(spent=(60, 0))
    account.spend(int(DAY) - 86_400, 30, 0)
    assert denied(limits(max_tokens_per_day=100), account, asks(40)) is None
    month = limits(max_tokens_per_month=100)
    assert denied(month, account, asks(10)) is None
    assert denied(month, account, asks(11)).until == MIDNIGHT


def test_a_month_that_is_over_counts_no_more_nor_does_what_is_heard_of_it_later():
    account = used(spent=(60, 0))
    account.turn(MIDNIGHT)
    account.spend(int(DAY), 30, 0)
    account.spend(int(MIDNIGHT), 5, 0)
    assert (account.day, account.month) == ((5, 0), (5, 0))


def test_the_month_is_the_longer_wait():
    now = NOW - 86_400  # the day before the last of the month
    account = Account()
    account.spend(int(DAY) - 86_400, 100, 0)
    found = denied(limits(max_tokens_per_day=100, max_tokens_per_month=100), account, now=now)
    assert (found.limit, found.until) == ("max_tokens_per_month", MIDNIGHT)


# Headers.


def test_headers_tell_of_both_limits_as_openai_does():
    account = used((30, NOW - 10), (40, NOW - 1))
    both = limits(max_tpm=100, max_rpm=10)
    assert dict(lines(both, account, NOTHING, NOW + 0.5)) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "30",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_of_a_limit_that_is_not_set_no_header_tells():
    names = dict(lines(limits(max_rpm=10), Account(), NOTHING, NOW)).keys()
    assert names == {
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    }
    assert lines(limits(max_parallel_requests=1), Account(), NOTHING, NOW) == []


@pytest.mark.parametrize(
    "later, reset",
    [(0, "1m1s"), (1, "1m0s"), (2, "59s"), (60, "1s"), (61, "0s")],
)
def test_all_is_left_again_when_the_last_that_was_used_is_a_minute_old(later, reset):
    found = dict(lines(limits(max_rpm=5), used((1, NOW)), NOTHING, NOW + later))
    assert found["x-ratelimit-reset-requests"] == reset
    assert found["x-ratelimit-remaining-requests"] == ("5" if reset == "0s" else "4")


def test_what_others_took_is_not_left_and_what_is_left_is_never_below_nothing():
    found = dict(lines(limits(max_tpm=100), used((80, NOW)), (1, 1, 70, 0, 0), NOW))
    assert found["x-ratelimit-remaining-tokens"] == "0"
    found = dict(lines(limits(max_tpm=100), Account(), (1, 1, 70, 0, 0), NOW))
    assert found["x-ratelimit-remaining-tokens"] == "30"
    assert found["x-ratelimit-reset-tokens"] == "1m1s"
