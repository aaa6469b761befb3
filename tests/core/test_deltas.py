from dataclasses import replace
from random import Random

import pytest

from proxy.core import deltas as module
from proxy.core.breaker import BreakerNews
from proxy.core.deltas import (
    MAX_USAGE_KEYS,
    OTHER_MODEL,
    TOTALS,
    WHOLE_INSTANCE,
    Deltas,
    LastError,
    Rest,
)
from tests.builders import config


def some():
    """One of everything."""
    deltas = Deltas()
    deltas.add_totals("a", {"total_requests": 1, "latency_total_ms": 20})
    deltas.note("a", last_used=100.0)
    deltas.errors["a"] = LastError("500: no", 100.0)
    deltas.add_rest(("a", "gpt-4o"), Rest(105.0, "throttled", 100.0))
    deltas.add_window((100, "a", "gpt-4o"), tokens=30, requests=1)
    deltas.add_usage((60, "a", "gpt-4o", "app"), {"requests": 1, "attempts": 1})
    return deltas


def test_nothing_measured_is_false():
    assert not Deltas()


@pytest.mark.parametrize(
    "measure",
    [
        lambda d: d.add_totals("a", {"total_requests": 1}),
        lambda d: d.errors.update(a=LastError("500: no", 1.0)),
        lambda d: d.note("a", last_used=1.0),
        lambda d: d.add_rest(("a", ""), Rest(2.0, "throttled", 1.0)),
        lambda d: d.mend(("a", ""), 1.0),
        lambda d: d.add_window((1, "a", "d"), 1, 1),
        lambda d: d.add_usage((0, "a", "m", "c"), {"requests": 1}),
    ],
)
def test_anything_measured_is_true(measure):
    deltas = Deltas()
    measure(deltas)
    assert deltas


def test_later_deltas_are_added():
    both = some()
    both.add(some())
    assert both.totals == {"a": {"total_requests": 2, "latency_total_ms": 40}}
    assert both.windows == {(100, "a", "gpt-4o"): (60, 2)}
    assert both.usage == {(60, "a", "gpt-4o", "app"): {"requests": 2, "attempts": 2}}
    assert both.moments == {"a": {"last_used": 100.0}}
    assert both.rests == {("a", "gpt-4o"): Rest(105.0, "throttled", 100.0)}


def test_adding_to_nothing_gives_the_same_and_shares_nothing():
    later = some()
    sum_ = Deltas()
    sum_.add(later)
    assert sum_ == later
    sum_.add(some())
    assert later == some()


def test_of_two_errors_the_later_stays():
    first, later = some(), some()
    later.errors["a"] = LastError("503: later", 101.0)
    first.add(later)
    assert first.errors["a"].message == "503: later"


def test_windows_take_corrections():
    deltas = Deltas()
    deltas.add_window((100, "a", "d"), tokens=30, requests=1)
    deltas.add_window((100, "a", "d"), tokens=-20, requests=0)
    assert deltas.windows == {(100, "a", "d"): (10, 1)}


def test_moments_only_go_forward():
    deltas = Deltas()
    deltas.note("a", last_used=5.0)
    deltas.note("a", last_used=3.0, last_success_time=3.0)
    assert deltas.moments == {"a": {"last_used": 5.0, "last_success_time": 3.0}}


@pytest.mark.parametrize(
    "until, reason", [(104.0, "first"), (105.0, "first"), (106.0, "second")]
)
def test_the_longer_rest_stays(until, reason):
    deltas = Deltas()
    deltas.add_rest(("a", "d"), Rest(105.0, "first", 1.0))
    deltas.add_rest(("a", "d"), Rest(until, "second", 2.0))
    assert deltas.rests["a", "d"].reason == reason


def test_a_deployments_rest_and_the_whole_instances_are_two():
    deltas = Deltas()
    deltas.add_rest(("a", "d"), Rest(105.0, "throttled", 1.0))
    deltas.add_rest(("a", WHOLE_INSTANCE), Rest(400.0, "misconfigured", 1.0))
    assert len(deltas.rests) == 2


def test_a_rest_concerns_the_upstream_it_was_earned_with():
    rest = Rest(105.0, "throttled", 100.0, config=config(api_key="old"))
    assert rest.applies_to(config(api_key="old", weight=1))
    assert not rest.applies_to(config(api_key="new"))


def test_a_rest_that_names_no_config_concerns_any():
    assert Rest(105.0, "operator", 100.0).applies_to(config())


def test_what_was_measured_before_a_clearing_is_dropped_and_nothing_else():
    deltas = Deltas()
    for place, set_at in (
        (("a", "d"), 9.0),
        (("a", ""), 10.0),
        (("a", "e"), 10.1),
        (("b", ""), 1.0),
    ):
        deltas.add_rest(place, Rest(500.0, "throttled", set_at))
    for name, at in (("a", 10.0), ("b", 9.0), ("c", 10.1)):
        deltas.note(name, last_failure_time=at, last_used=at)
        deltas.breakers[name] = BreakerNews(changed_at=at), config(name)
    for name in "ac":
        deltas.drop_before(name, before=10.0)
    assert set(deltas.rests) == {("a", "e"), ("b", "")}
    assert set(deltas.breakers) == {"b", "c"}
    assert deltas.moments["a"] == {"last_used": 10.0}
    assert [len(deltas.moments[name]) for name in "bc"] == [2, 2]
    deltas.drop_before("nobody", before=10.0)


def test_what_can_be_voided_is_what_a_clearing_drops():
    deltas = some()
    deltas.note("b", last_used=1.0, last_success_time=1.0)
    deltas.note("c", last_failure_time=1.0)
    deltas.breakers["d"] = (BreakerNews(changed_at=1.0), config("d"))
    deltas.add_rest(("e", ""), Rest(2.0, "throttled", 1.0))
    deltas.errors["f"] = LastError("no", 1.0)
    assert deltas.voidable() == {"a", "c", "d", "e", "f"}


def test_what_was_earned_with_a_config_that_is_no_longer_in_use_is_dropped():
    old, new = config(api_key="old"), config(api_key="new")
    deltas = Deltas()
    deltas.add_rest(("a", "old"), Rest(500.0, "misconfigured", 1.0, old))
    deltas.add_rest(("a", "new"), Rest(500.0, "throttled", 1.0, new))
    deltas.add_rest(("a", "any"), Rest(500.0, "operator", 1.0))
    deltas.add_rest(("removed", ""), Rest(500.0, "misconfigured", 1.0, old))
    deltas.breakers = {
        "a": (BreakerNews(), old),
        "b": (BreakerNews(), replace(old, weight=1)),
        "removed": (BreakerNews(), old),
    }
    deltas.drop_stale({"a": new, "b": old})
    assert set(deltas.breakers) == {"b", "removed"}
    assert set(deltas.rests) == {("a", "new"), ("a", "any"), ("removed", "")}


def test_forgetting_windows_drops_the_seconds_before():
    deltas = Deltas()
    for second in (98, 99, 100, 101):
        deltas.add_window((second, "a", "d"), 1, 1)
    deltas.forget_windows(before=100)
    assert [second for second, _, _ in deltas.windows] == [100, 101]


@pytest.fixture
def full(monkeypatch):
    """Deltas that hold as many usage rows as they may."""
    monkeypatch.setattr(module, "MAX_USAGE_KEYS", 3)
    deltas = Deltas()
    for minute in (0, 60, 120):
        deltas.add_usage((minute, "a", "m", "c"), {"requests": 1})
    return deltas


def test_of_too_many_rows_model_and_minute_are_given_up_and_never_a_count(full):
    full.add_usage((7261, "a", "m", "c"), {"requests": 5})
    full.add_usage((7322, "a", "n", "c"), {"requests": 6})
    assert full.usage[7200, "a", OTHER_MODEL, "c"]["requests"] == 11
    assert len(full.usage) == 4


def test_a_row_that_is_there_is_added_to_however_many_there_are(full):
    full.add_usage((60, "a", "m", "c"), {"requests": 5})
    assert full.usage[60, "a", "m", "c"]["requests"] == 6


def test_rows_below_the_limit_stay_apart():
    deltas = Deltas()
    for minute in range(100):
        deltas.add_usage((60 * minute, "a", "m", "c"), {"requests": 1})
    assert len(deltas.usage) == 100
    assert MAX_USAGE_KEYS == 20_000


def test_totals_have_the_names_operators_know():
    assert set(TOTALS) == {
        "total_requests",
        "successful_requests",
        "error_count",
        "total_tokens_served",
        "total_upstream_400_errors",
        "total_upstream_429_errors",
        "total_upstream_500_errors",
        "total_upstream_other_errors",
        "latency_total_ms",
    }
    assert len(TOTALS) == 9


# What is taken to be written.


def many():
    """Of five instances, of which "c" failed."""
    deltas = Deltas()
    for number, name in enumerate("abcde"):
        deltas.add_totals(name, {"total_requests": 1})
        deltas.note(name, last_used=float(number))
        deltas.add_usage((60, name, "gpt-4o", ""), {"attempts": 1})
        deltas.add_window((100, name, "gpt-4o"), 10, 1)
    deltas.errors["c"] = LastError("boom", 2.0)
    deltas.add_rest(("d", ""), Rest(9.0, "failed", 2.0))
    return deltas


def test_all_is_taken_but_of_usage_what_has_waited_longest():
    deltas = many()
    taken = deltas.take(usage=2)
    assert [name for _, name, *_ in taken.usage] == ["a", "b"]
    assert taken.totals == many().totals
    assert (taken.windows, taken.rests) == (many().windows, many().rests)
    deltas.add_totals("a", {"total_requests": 1})
    later = deltas.take(usage=5)
    assert [name for _, name, *_ in later.usage] == ["c", "d", "e"]
    assert later.totals == {"a": {"total_requests": 1}}
    assert not deltas


def test_what_others_decide_by_and_whoever_failed_does_not_wait():
    deltas = many()
    deltas.add_totals("e", {"error_count": 1})
    at_once, waits = deltas.split()
    assert (len(at_once.windows), at_once.errors.keys(), len(at_once.rests)) == (5, {"c"}, 1)
    assert at_once.totals.keys() == at_once.moments.keys() == {"c", "d", "e"}
    assert waits.totals.keys() == waits.moments.keys() == {"a", "b"}
    assert (at_once.usage, waits.usage) == ({}, deltas.usage)
    assert (waits.windows, waits.errors, waits.rests) == ({}, {}, {})
    assert len(deltas.totals) == 5
    assert not waits.voidable()


def test_where_nothing_failed_all_that_is_but_shown_waits():
    deltas = many()
    deltas.errors.clear()
    deltas.rests.clear()
    at_once, waits = deltas.split()
    assert (at_once.totals, at_once.moments, len(at_once.windows)) == ({}, {}, 5)
    assert (waits.totals, waits.moments) == (deltas.totals, deltas.moments)


def test_nothing_is_lost_and_nothing_twice_whatever_is_taken_and_given_back():
    random, deltas, written, counted = Random(1), Deltas(), Deltas(), 0
    for second in range(500):
        for _ in range(random.randrange(20)):
            name = random.choice("abcdefgh")
            deltas.add_totals(name, {"total_requests": 1})
            deltas.add_usage((60, name, "", ""), {"attempts": 1})
            deltas.note(name, last_used=float(second))
            deltas.add_window((second, name, ""), 1, 1)
            counted += 1
        taken = deltas.take(random.randrange(4))
        if random.random() < 0.3:
            deltas.add_earlier(taken)
        else:
            written.add(taken)
    written.add(deltas)
    assert sum(c["total_requests"] for c in written.totals.values()) == counted
    assert sum(c["attempts"] for c in written.usage.values()) == counted
    assert sum(requests for _, requests in written.windows.values()) == counted


def test_what_was_measured_before_does_not_hide_what_came_later():
    earlier, later = many(), Deltas()
    later.errors["c"] = LastError("again", 3.0)
    later.note("a", last_used=7.0)
    later.add_earlier(earlier)
    assert later.errors["c"].message == "again"
    assert (later.moments["a"], later.moments["b"]) == ({"last_used": 7.0}, {"last_used": 1.0})


def test_of_seconds_measured_before_and_after_the_fewer_are_added_to_the_others():
    earlier, later = Deltas(), Deltas()
    for second in range(5):
        earlier.add_window((second, "a", ""), 10, 1)
    later.add_window((4, "a", ""), 5, 1)
    later.add_window((5, "a", ""), 5, 1)
    longer = earlier.windows
    later.add_earlier(earlier)
    assert later.windows is longer
    assert list(later.windows.values()) == [(10, 1)] * 4 + [(15, 2), (5, 1)]


def mended(at, place=("a", "d")):
    deltas = Deltas()
    deltas.mend(place, at)
    return deltas


def refusing(set_at, reason="misconfigured", place=("a", "d")):
    deltas = Deltas()
    deltas.add_rest(place, Rest(set_at + 300, reason, set_at))
    return deltas


@pytest.mark.parametrize("set_at, is_over", [(9.0, True), (10.0, True), (10.1, False)])
def test_what_was_mended_ends_the_rests_from_before_it_in_whatever_order(set_at, is_over):
    before, after = refusing(set_at), mended(10.0)
    before.add(mended(10.0))
    after.add_earlier(refusing(set_at))
    assert [bool(deltas.rests) for deltas in (before, after)] == [not is_over] * 2
    assert [deltas.mended for deltas in (before, after)] == [{("a", "d"): 10.0}] * 2


def test_what_was_mended_ends_no_other_rests():
    deltas = mended(10.0)
    deltas.add(refusing(9.0, "throttled"))
    deltas.add(refusing(9.0, place=("a", "e")))
    deltas.add(refusing(9.0, place=("b", "d")))
    assert len(deltas.rests) == 3


def test_of_two_menders_the_later_counts():
    deltas = mended(10.0)
    deltas.add_earlier(mended(9.0))
    assert deltas.mended == {("a", "d"): 10.0}


def test_what_was_mended_is_taken_once_and_told_to_others_at_once():
    deltas = mended(10.0)
    taken = deltas.take(usage=9)
    assert (taken.mended, deltas.mended) == ({("a", "d"): 10.0}, {})
    at_once, waits = taken.split()
    assert (at_once.mended, waits.mended) == ({("a", "d"): 10.0}, {})


@pytest.mark.parametrize(
    "set_at, until, reason, stands",
    [
        (100.0, 105.0, "throttled", True),
        (100.0, 104.0, "throttled", False),
        (160.0, 170.0, "throttled", True),  # threads overtake each other
        (3700.0, 3705.0, "throttled", False),
        (3700.0, 3705.0, "operator", True),
    ],
)
def test_a_rest_stands_until_it_is_over_but_for_one_of_a_clock_that_was_set_back(
    set_at, until, reason, stands
):
    assert Rest(until, reason, set_at).stands(104.0) is stands
