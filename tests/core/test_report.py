import random

import pytest

from proxy.core.report import (
    OF_ATTEMPTS,
    Question,
    aligned,
    failed_attempts,
    failed_share,
    figures,
    is_kept,
    kept_since,
    last,
    slices,
    usual_bucket,
)
from proxy.core.usage import NOTHING
from tests.builders import counts

MINUTE, HOUR, DAY = 60, 3600, 86_400
START = 20_000 * DAY
ALL_KEPT = {MINUTE: 0, HOUR: 0, DAY: 0}


@pytest.mark.parametrize(
    "since, until, expected",
    [
        (0, HOUR, [(HOUR, 0, HOUR)]),
        (MINUTE, 3 * MINUTE, [(MINUTE, MINUTE, 3 * MINUTE)]),
        (0, HOUR + MINUTE, [(HOUR, 0, HOUR), (MINUTE, HOUR, HOUR + MINUTE)]),
        (HOUR, 2 * DAY, [(HOUR, HOUR, DAY), (DAY, DAY, 2 * DAY)]),
        (5, 5, []),
    ],
)
def test_as_few_rows_as_can_be(since, until, expected):
    found = slices(START + since, START + until)
    assert found == [(p, START + a, START + b) for p, a, b in expected]


def test_slices_cover_each_minute_once_whatever_the_range():
    chance = random.Random(5)
    for _ in range(200):
        since = START + MINUTE * chance.randrange(5000)
        until = since + MINUTE * chance.randrange(1, 9000)
        bucket = chance.choice([0, MINUTE, HOUR, DAY])
        if bucket:
            since, until = since // bucket * bucket, -(-until // bucket) * bucket
        found = slices(since, until, bucket)
        ends = [since, *(end for _, _, end in found)]
        assert [begin for _, begin, _ in found] == ends[:-1]
        assert ends[-1] == until
        assert all(a % p == b % p == 0 and p <= (bucket or DAY) for p, a, b in found)


@pytest.mark.parametrize(
    "since, until, bucket, oldest, expected",
    [
        (61, 119, 0, {}, (60, 120)),
        (61, 3601, HOUR, {}, (0, 2 * HOUR)),
        (61, 119, 0, {MINUTE: 200}, (0, HOUR)),  # minutes are gone
        (61, 119, 0, {MINUTE: 100}, (0, HOUR)),  # some of them
        (61, HOUR + 61, 0, {MINUTE: 100}, (0, HOUR + 120)),
        (61, 119, 0, {MINUTE: 200, HOUR: HOUR}, (0, DAY)),
        (DAY + 61, DAY + 119, 0, {MINUTE: DAY + 200, HOUR: DAY}, (DAY, DAY + HOUR)),
    ],
)
def test_a_range_is_widened_to_what_is_kept(since, until, bucket, oldest, expected):
    asked = Question(since, until, bucket_seconds=bucket)
    assert aligned(asked, ALL_KEPT | oldest) == expected


@pytest.mark.parametrize(
    "seconds, expected", [(HOUR, "minute"), (DAY, "hour"), (8 * DAY, "hour"), (30 * DAY, "day")]
)
def test_a_series_has_a_sensible_number_of_points(seconds, expected):
    assert usual_bucket(100 * DAY, 100 * DAY + seconds, ALL_KEPT) == expected


@pytest.mark.parametrize(
    "since, expected", [(50 * DAY, "minute"), (49 * DAY, "hour"), (9 * DAY, "day")]
)
def test_a_series_of_long_ago_is_of_what_is_still_kept(since, expected):
    oldest = {MINUTE: 50 * DAY, HOUR: 10 * DAY, DAY: 0}
    assert usual_bucket(since, since + HOUR, oldest) == expected


def test_the_bucket_that_is_being_forgotten_may_be_asked_for():
    oldest = {MINUTE: 90, HOUR: 0, DAY: 0}
    assert kept_since(MINUTE, oldest) == 120
    assert is_kept(60, MINUTE, oldest)
    assert not is_kept(59, MINUTE, oldest)


def test_dimensions_are_those_that_are_filtered_or_told_apart():
    asked = Question(0, 1, {"client": "app"}, ("model", "client"))
    assert asked.dimensions == ("client", "model")


def test_of_nothing_there_are_no_rates_and_no_times():
    found = figures(NOTHING)
    assert (found["success_rate"], found["attempt_success_rate"]) == (None, None)
    assert found["latency_ms"] == {"p50": None, "p90": None, "p99": None, "mean": None}


def test_errors_are_told_apart_by_whose_fault_they_are():
    numbers = {name: 10**i for i, name in enumerate(OF_ERRORS)}
    assert figures(counts(**numbers))["errors"] == {
        "client": 11,
        "ours": 1100,
        "upstream_429": 10_000,
        "upstream_4xx": 100_000,
        "upstream_5xx": 1_000_000,
        "connection": 10_000_000,
        "timeout": 100_000_000,
    }


OF_ERRORS = (
    *("mistaken", "rejected", "limited", "refused"),
    *("throttled", "misconfigured", "failed", "unreachable", "expired"),
)


def test_attempts_failed_after_which_a_client_got_nothing_but_an_error():
    numbers = {name: 10**i for i, name in enumerate(OF_ERRORS)}
    assert failed_attempts(figures(counts(**numbers))) == 111_110_000
    assert set(OF_ATTEMPTS) < set(figures(NOTHING)["errors"])
    assert (failed_share(None), failed_share(0.9996)) == (None, 0.0004)


def test_the_last_minutes_end_with_what_is_counted_now():
    assert last(900, START + 0.5) == Question(START - 899, START + 1)


def test_what_is_the_clients_fault_or_wish_lowers_no_rate():
    given = {"succeeded": 3, "rejected": 5, "mistaken": 5, "aborted": 5, "limited": 5}
    found = figures(counts(**given))
    assert (found["success_rate"], found["attempt_success_rate"]) == (1.0, 1.0)


def test_a_failure_that_another_made_good_lowers_the_rate_of_attempts_only():
    found = figures(counts(**{"succeeded": 3, "failed": 1}))
    assert (found["success_rate"], found["attempt_success_rate"]) == (1.0, 0.75)
    assert figures(counts(succeeded=3, expired=1))["attempt_success_rate"] == 0.75
    assert figures(counts(**{"succeeded": 3, "lost": 1}))["success_rate"] == 0.75
    assert figures(counts(**{"succeeded": 3, "refused": 1}))["success_rate"] == 0.75


def test_tokens_times_and_money():
    found = figures(
        counts(
            prompt_tokens=5,
            completion_tokens=3,
            cached_tokens=2,
            reasoning_tokens=1,
            latency_upto_100_ms=4,
            latency_total_ms=300,
            cost_nano=1_500_000_000,
        )
    )
    assert found["tokens"] == {
        **{"prompt": 5, "completion": 3, "cached": 2, "reasoning": 1, "total": 8}
    }
    assert found["latency_ms"] == {"p50": 75.0, "p90": 95.0, "p99": 99.5, "mean": 75.0}
    assert found["cost"] == 1.5
