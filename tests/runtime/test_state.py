import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.core import limiter
from proxy.core import verdict as verdicts
from proxy.core.attempts import Ending, Reservation
from proxy.core.breaker import ALONE_SECONDS, FAILURES_IN_A_ROW, UNTRIED_SECONDS
from proxy.core.deltas import (
    TOTALS,
    WHOLE_INSTANCE,
    Deltas,
    LastError,
    Rest,
    SharedInstance,
    SharedState,
)
from proxy.core.hints import Hint
from proxy.core.limiter import COUNTED_SECONDS, Peers
from proxy.core.live import RETRY_SECONDS
from proxy.core.refusal import LEFT_TO_OTHERS, Refusal
from proxy.core.types import Client, QuotaGroup, Usage
from proxy.core.verdict import OUTCOMES, Verdict
from proxy.core.window import WINDOW_SECONDS
from proxy.runtime.state import (
    BREAKER_CLOSED,
    BREAKER_OPENED,
    LAST_ERROR_CHARACTERS,
    LONG_REST,
    MISCONFIGURED_NOW,
    OPERATOR,
    State,
    StateView,
    removed_view,
)
from tests.builders import MODEL, call, config, serving
from tests.runtime.world import OPENED_AT, Clock

A = config("a", max_tpm=100)
TEN = call(reserved_tokens=10)
DONE = Ending(verdicts.SUCCEEDED, Usage(4, 3, 2))
NOTHING = Ending(verdicts.ABORTED)


def throttled(seconds=7.0):
    return Ending(Verdict("throttled", try_next=True, rest_seconds=seconds), error="429: slow")


MISCONFIGURED = Ending(Verdict("misconfigured", rest_seconds=300.0, whole_instance=True))
FAILED = Ending(verdicts.FAILED, error="it broke off its answer")
UNREACHABLE = Ending(verdicts.UNREACHABLE, error="the connection was refused")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def state(clock):
    return State(clock, chance=lambda: 0.0)


def once(state, ending=DONE, of=None, asked=TEN):
    """One whole attempt."""
    reservation = state.start(of or serving(A), asked)
    assert not isinstance(reservation, Refusal)
    state.finish(reservation, ending)
    return reservation


def candidate(state, of=None, tokens=10):
    """The instance, if it is one that could serve now."""
    of = of or serving(A)
    (refused,) = state.refusals([of], call(reserved_tokens=tokens))
    (found,) = state.look([of])
    return found if refused is None else None


def refusal(state, of=None, tokens=10):
    """(reason, seconds) of the instance, which could not serve now."""
    (refused,) = state.refusals([of or serving(A)], call(reserved_tokens=tokens))
    assert refused is not None
    return refused.reason, refused.wait_seconds


# Room.


def test_nothing_is_known_of_an_instance_nobody_asked(state):
    assert candidate(state).in_flight == 0
    assert state.view("a") == StateView(
        "healthy", 0, 0, dict.fromkeys(TOTALS, 0), {}, *[None] * 3
    )


def test_who_has_started_takes_room_until_the_end(state):
    reservation = state.start(serving(A), TEN)
    assert (candidate(state).in_flight, candidate(state).load) == (1, 0.1)
    assert (state.view("a").current_tpm, state.view("a").current_rpm) == (10, 1)
    state.finish(reservation, DONE)
    assert (candidate(state).in_flight, candidate(state).load) == (0, 0.07)
    assert (state.view("a").current_tpm, state.view("a").current_rpm) == (7, 1)


def test_requests_per_second_are_of_the_last_ten_that_are_over(state, clock):
    for _ in range(5):
        once(state)
    assert state.requests_per_second("a") == 0  # this second is not over
    clock.now += 1
    assert state.requests_per_second("a") == 0.5
    clock.now += 9
    assert state.requests_per_second("a") == 0.5
    clock.now += 1
    assert state.requests_per_second("a") == 0


def test_the_last_room_is_taken_once(state):
    reservations = [state.start(serving(A), TEN) for _ in range(11)]
    assert [isinstance(r, Refusal) for r in reservations] == [False] * 10 + [True]
    assert state.view("a").current_rpm == 10


def test_no_room_says_how_long_to_wait(state, clock):
    clock.now += 0.25
    once(state, Ending(verdicts.SUCCEEDED, Usage(91)))
    assert candidate(state, tokens=9) is not None
    assert refusal(state, tokens=10) == ("no room", 60.75)


def test_a_request_larger_than_the_limit_takes_all_of_it(state):
    reservation = state.start(serving(A), call(reserved_tokens=5000))
    assert reservation.tokens == 100
    assert candidate(state, tokens=1) is None


def test_a_reservation_of_a_minute_ago_is_settled_nowhere(state, clock):
    reservation = state.start(serving(A), TEN)
    clock.now += 59
    assert state.view("a").current_tpm == 10
    clock.now += 1
    state.finish(reservation, Ending(verdicts.SUCCEEDED, Usage(80)))
    assert (state.view("a").current_tpm, candidate(state).in_flight) == (0, 0)
    assert state.view("a").totals["total_tokens_served"] == 80


def test_seconds_that_are_over_are_not_written_any_more(state, clock):
    reservation = state.start(serving(A), TEN)
    state.take()
    clock.now += COUNTED_SECONDS
    state.finish(reservation, DONE)
    assert state.take().windows == {}


def test_a_reservation_of_just_under_a_minute_is_settled_where_it_was_taken(state, clock):
    reservation = state.start(serving(A), TEN)
    clock.now += 59
    state.finish(reservation, Ending(verdicts.SUCCEEDED, Usage(80)))
    assert state.view("a").current_tpm == 80
    clock.now += 1
    assert state.view("a").current_tpm == 0


def test_instances_of_a_group_share_its_room(state):
    group = {"g": QuotaGroup("g", max_tpm=25)}
    a, b, other = (
        limiter.serving(config(name, max_tpm=0, quota_group=of), MODEL, group)
        for name, of in (("a", "g"), ("b", "g"), ("c", None))
    )
    state.start(a, TEN)
    reservation = state.start(b, TEN)
    assert (refusal(state, a)[0], refusal(state, b)[0]) == ("no room", "no room")
    assert candidate(state, other) is not None
    state.finish(reservation, NOTHING)
    assert candidate(state, a) is not None


def test_a_deployment_has_room_of_its_own(state):
    bounds = {MODEL: {"max_rpm": 6}}
    one, other = (serving(config("a", model_limits=bounds), d) for d in (MODEL, "mini"))
    once(state, of=one)
    assert refusal(state, one) == ("no room", 11.0)
    assert candidate(state, other) is not None


def test_what_other_workers_used_counts_in_every_meter(state, clock):
    member = config("a", max_tpm=0, quota_group="g", model_limits={MODEL: {"max_tpm": 15}})
    group = {"g": QuotaGroup("g", max_tpm=25)}
    mine = limiter.serving(member, MODEL, group)
    second = int(clock.now)
    shared = [(second, "a", MODEL, 10, 1), (second, "b", MODEL, 14, 1)]
    configs = {"a": member, "b": config("b", quota_group="g")}
    state.merge(SharedState(windows=shared), configs)
    (found,) = state.refusals([mine], TEN)
    assert (found.limit.meter, found.used_share) == (("deployment", "a", MODEL), 10 / 15)
    (found,) = state.refusals([limiter.serving(member, "mini", group)], TEN)
    assert (found.limit.meter, found.used_share) == (("group", "g", ""), 24 / 25)
    assert state.view("b").current_tpm == 14


def test_what_the_upstream_says_is_left_is_kept_by_deployment(state, clock):
    reservation = state.start(serving(A), TEN)
    state.answered(reservation, 5.0, Hint(clock.now, remaining_tokens=9))
    assert refusal(state) == ("no room upstream", 10.0)
    assert candidate(state, serving(A, "mini")) is not None


# Rests.


def test_a_deployment_rests_alone(state, clock):
    mini = serving(A, "mini")
    once(state, throttled(7))
    assert refusal(state) == ("throttled", 7.0)
    assert isinstance(state.start(serving(A), TEN), Refusal)
    assert candidate(state, mini) is not None
    clock.now += 6.9
    assert refusal(state)[1] == pytest.approx(0.1)
    clock.now += 0.1
    assert candidate(state) is not None


def test_a_rest_ends_with_the_clock_that_measured_it(state, clock):
    once(state, throttled(5.0))
    clock.now -= 3600
    assert candidate(state) is not None
    assert state.view("a").rests == {}
    once(state, throttled(3.0))
    assert refusal(state) == ("throttled", 3.0)


def test_a_whole_instance_rests_with_all_its_deployments(state):
    once(state, MISCONFIGURED)
    assert refusal(state, serving(A, "mini")) == ("misconfigured", 300.0)
    assert candidate(state, serving(config("b"))) is not None


def test_of_two_rests_the_longer_counts(state):
    first, second = state.start(serving(A), TEN), state.start(serving(A), TEN)
    third = state.start(serving(A, "mini"), TEN)
    state.finish(first, throttled(30))
    state.finish(second, throttled(5))
    state.finish(
        third,
        MISCONFIGURED._replace(verdict=replace(MISCONFIGURED.verdict, rest_seconds=10)),
    )
    assert refusal(state)[1] == 30.0
    assert refusal(state, serving(A, "mini"))[1] == 10.0
    assert refusal(state, serving(A, "other"))[1] == 10.0


@pytest.mark.parametrize(
    "change",
    [{"api_key": "new"}, {"api_base": "https://new"}, {"model_deployments": {"x": "y"}}],
)
def test_a_rest_does_not_concern_another_upstream_of_the_same_name(change, state):
    once(state, MISCONFIGURED)
    assert candidate(state, serving(replace(A, **change))) is not None
    assert candidate(state, serving(replace(A, priority=5))) is None


def test_of_a_rest_of_another_upstream_and_one_of_this_the_latter_counts(state):
    old = replace(A, api_key="old")
    late = state.start(serving(old), TEN)
    once(state, throttled(5))
    state.finish(late, MISCONFIGURED)
    assert refusal(state)[1] == 5.0


# Breakers.


def broken(state, of=None):
    """Three attempts without an answer; what the last one tells."""
    reservations = [state.start(of or serving(A), TEN) for _ in range(3)]
    return [state.finish(r, UNREACHABLE) for r in reservations][-1]


def test_an_instance_that_does_not_answer_is_left_alone_by_all_deployments(state, clock):
    assert broken(state) == BREAKER_OPENED
    assert refusal(state) == refusal(state, serving(A, "mini")) == ("failing", 1.0)
    view = state.view("a")
    assert (view.status, view.breaker, view.open_until) == ("error", "open", clock.now + 1)
    assert candidate(state, serving(config("b"))) is not None


def test_one_attempt_tries_whether_it_is_well_again(state, clock):
    broken(state)
    clock.now += 1
    trial = state.start(serving(A), TEN)
    assert trial.is_trial
    assert refusal(state) == ("failing", 0.25)
    assert (state.view("a").breaker, state.view("a").open_until) == ("half_open", None)
    assert state.answered(trial, 5.0)
    assert candidate(state) is not None
    assert state.finish(trial, DONE) is None
    assert state.view("a").status == "healthy"


def test_a_trial_that_fails_does_not_say_so_again(state, clock):
    assert broken(state) == BREAKER_OPENED
    clock.now += 1
    assert state.finish(state.start(serving(A), TEN), FAILED) is None
    assert refusal(state) == ("failing", 2.0)


@pytest.mark.parametrize("verdict", [verdicts.SUCCEEDED, verdicts.REJECTED])
def test_that_it_answers_again_is_said_when_an_answer_came_to_its_end(state, clock, verdict):
    broken(state)
    clock.now += 1
    trial = state.start(serving(A), TEN)
    assert state.answered(trial, 5.0, streams=True)
    state.take()
    assert state.finish(trial, Ending(verdict, was_answered=True)) == BREAKER_CLOSED
    assert state.take().breakers["a"][0].open_seconds == 0.0
    assert state.finish(state.start(serving(A), TEN), DONE) is None  # it is said once


@pytest.mark.parametrize("verdict", [verdicts.ABORTED, verdicts.EXPIRED, verdicts.MODEL_ERROR])
def test_what_says_nothing_of_that_ends_no_probation(state, clock, verdict):
    broken(state)
    clock.now += 1
    trial = state.start(serving(A), TEN)
    state.answered(trial, 5.0, streams=True)
    assert state.finish(trial, Ending(verdict, was_answered=True)) is None
    assert state.take().breakers["a"][0].open_seconds == 1.0


def test_one_whose_streams_break_in_the_middle_is_left_alone_for_longer_each_time(state, clock):
    broken(state)
    for seconds in (2.0, 4.0, 8.0):
        clock.now += refusal(state)[1]
        trial = state.start(serving(A), TEN)
        assert state.answered(trial, 5.0, streams=True)
        assert state.finish(trial, Ending(verdicts.FAILED, was_answered=True)) is None
        assert refusal(state) == ("failing", seconds)


def test_one_that_nobody_asks_does_not_fail_for_ever(state, clock):
    broken(state)
    clock.now += 1 + UNTRIED_SECONDS
    view = state.view("a")
    assert (view.status, view.breaker) == ("healthy", "closed")
    assert candidate(state) is not None


def test_a_trial_whose_client_left_lets_the_next_try(state, clock):
    broken(state)
    clock.now += 1
    state.finish(state.start(serving(A), TEN), NOTHING)
    assert state.start(serving(A), TEN).is_trial


def test_a_trial_whose_end_nobody_hears_of_is_over_in_time(state, clock):
    patient = serving(replace(A, timeout_seconds=10.0))
    broken(state, patient)
    clock.now += 1
    state.start(patient, TEN)
    clock.now += 14.9
    assert refusal(state, patient)[0] == "failing"
    clock.now += 0.1
    assert state.start(patient, TEN).is_trial


def test_a_breaker_is_about_one_upstream(state):
    broken(state)
    moved = serving(replace(A, api_base="https://elsewhere"))
    assert candidate(state, moved) is not None
    assert not state.start(moved, TEN).is_trial
    assert candidate(state, moved) is not None


def test_what_began_at_another_upstream_says_nothing_about_this_one(state):
    old = [state.start(serving(A), TEN) for _ in range(4)]
    state.start(serving(replace(A, api_key="new")), TEN)
    assert [state.finish(r, UNREACHABLE) for r in old[:3]] == [None] * 3
    assert not state.answered(old[3], 5.0)
    assert candidate(state, serving(replace(A, api_key="new"))) is not None


def test_answers_end_a_row_of_failures(state):
    for _ in range(2):
        once(state, UNREACHABLE)
    state.answered(state.start(serving(A), TEN), 5.0)
    for _ in range(2):
        once(state, UNREACHABLE)
    assert candidate(state) is not None


def test_one_that_is_silent_for_much_too_long_is_unwell_though_nobody_waited(state):
    for _ in range(FAILURES_IN_A_ROW - 1):
        once(state, Ending(verdicts.OVERDUE, is_left=True))
    assert state.view("a").breaker == "closed"
    once(state, Ending(verdicts.OVERDUE, is_left=True))
    assert state.view("a").breaker == "open"


def test_workers_tell_each_other_of_breakers(state, clock):
    other = State(clock, chance=lambda: 0.0)
    broken(state)
    news, config_ = state.take().breakers["a"]
    assert config_ == A
    other.merge(SharedState({"a": SharedInstance(breaker=news)}))
    assert refusal(other)[0] == "failing"
    clock.now += 1
    trial = state.start(serving(A), TEN)
    other.merge(SharedState({"a": SharedInstance(breaker=state.take().breakers["a"][0])}))
    clock.now += 1
    assert refusal(other) == ("failing", 0.25)
    state.answered(trial, 5.0)
    other.merge(SharedState({"a": SharedInstance(breaker=state.take().breakers["a"][0])}))
    assert candidate(other) is not None


def test_a_first_misconfiguration_is_told_once(state):
    some = [state.start(serving(A), TEN) for _ in range(2)]
    assert [state.finish(r, MISCONFIGURED) for r in some] == [MISCONFIGURED_NOW, None]


@pytest.mark.parametrize("seconds, told", [(29.0, None), (30.0, LONG_REST)])
def test_a_long_rest_is_told_once(state, seconds, told):
    ending = Ending(Verdict("throttled", try_next=True, rest_seconds=seconds))
    some = [state.start(serving(A), TEN) for _ in range(2)]
    assert [state.finish(r, ending) for r in some] == [told, None]


def test_the_median_to_the_first_byte_is_kept_by_deployment(state):
    assert state.look([serving(A)])[0].first_byte_ms is None
    for ms in (10.0, 30.0, 20.0):
        state.answered(state.start(serving(A), TEN), ms)
    assert state.look([serving(A)])[0].first_byte_ms == 20.0
    assert state.look([serving(A, "mini")])[0].first_byte_ms is None


def test_a_prompt_that_is_too_long_is_refused(state):
    short = serving(replace(A, max_input_tokens=9))
    assert refusal(state, short)[0] == "prompt too long"


# What is counted.


@pytest.mark.parametrize("outcome, column", OUTCOMES.items())
def test_each_outcome_has_its_counter(outcome, column, state):
    once(state, Ending(Verdict(outcome), Usage(4, 3), latency_ms=20, error="because"))
    totals = state.view("a").totals
    expected = {"total_requests": 1, "total_tokens_served": 7}
    if column is not None:
        expected[column] = 1
    if outcome in ("throttled", "failed", "misconfigured", "unreachable"):
        expected["error_count"] = 1
    if outcome == "succeeded":
        expected["latency_total_ms"] = 20  # of failures the time says nothing
    assert {c: n for c, n in totals.items() if n} == expected


@pytest.mark.parametrize("outcome, is_error", [("failed", True), ("rejected", False)])
def test_the_last_error_is_the_instances_own(outcome, is_error, state, clock):
    once(state, Ending(Verdict(outcome), error="x" * 1000))
    view = state.view("a")
    assert view.last_error == ("x" * LAST_ERROR_CHARACTERS if is_error else None)
    assert view.last_error_time == (clock.now if is_error else None)
    assert view.last_used == clock.now


def test_an_error_that_no_database_takes_keeps_nothing_from_it(state):
    once(state, Ending(Verdict("failed"), error="half \ud83d of it"))
    assert state.view("a").last_error == "half ? of it"


def test_usage_is_counted_by_minute_model_and_client(state, clock):
    ending = Ending(
        verdicts.SUCCEEDED, Usage(4, 3, 2, reasoning_tokens=1), latency_ms=20, first_byte_ms=5
    )
    clock.now += 59.9
    once(state, ending, asked=call(model="one", client=Client("app")))
    clock.now += 0.1
    once(state, ending._replace(answered=False), asked=call(model="one", client=Client("web")))
    assert state.take().usage == {
        (int(OPENED_AT), "a", "one", "app"): {
            "requests": 1,
            "attempts": 1,
            "succeeded": 1,
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "cached_tokens": 2,
            "reasoning_tokens": 1,
            "latency_total_ms": 20,
            "first_byte_total_ms": 5,
            "latency_upto_25_ms": 1,
            "first_byte_upto_5_ms": 1,
        },
        (int(OPENED_AT) + 60, "a", "one", "web"): {
            "requests": 0,
            "attempts": 1,
            "succeeded": 1,
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "cached_tokens": 2,
            "reasoning_tokens": 1,
            "latency_total_ms": 20,
            "first_byte_total_ms": 5,
            "latency_upto_25_ms": 1,
            "first_byte_upto_5_ms": 1,
        },
    }


def test_a_request_nobody_could_be_asked_for_counts_at_no_instance(state, clock):
    clock.now += 59.9
    state.refuse("app", "one", "refused")
    assert state.take().usage == {
        (int(OPENED_AT), "", "one", "app"): {"requests": 1, "refused": 1}
    }


@pytest.mark.parametrize(
    "ending, moments",
    [
        (DONE, {"last_used", "last_success_time"}),
        (FAILED, {"last_used", "last_failure_time"}),
        (NOTHING, {"last_used"}),
        (throttled(), {"last_used"}),
    ],
)
def test_other_workers_learn_when_it_was_used_and_how_it_went(ending, moments, state, clock):
    once(state, ending)
    assert state.take().moments == {"a": dict.fromkeys(moments, clock.now)}


@pytest.mark.parametrize(
    "ending, status",
    [
        (DONE, "healthy"),
        (NOTHING, "healthy"),
        (FAILED, "healthy"),  # once is not enough
        (throttled(), "rate_limited"),
        (MISCONFIGURED, "misconfigured"),
    ],
)
def test_the_status_is_one_word(ending, status, state):
    once(state, ending)
    assert state.view("a").status == status


def test_the_status_is_what_stands_most_in_the_way(state):
    mini = state.start(serving(A, "mini"), TEN)
    some = [state.start(serving(A), TEN) for _ in range(4)]
    for reservation in some[:3]:
        state.finish(reservation, UNREACHABLE)
    assert state.view("a").status == "error"
    state.finish(some[3], throttled())
    assert state.view("a").status == "error"  # only that deployment rests
    state.finish(mini, MISCONFIGURED)
    assert state.view("a").status == "misconfigured"


def test_a_view_shows_only_rests_that_last(state, clock):
    once(state, throttled(7))
    clock.now += 6
    assert state.view("a").rests == {MODEL: Rest(OPENED_AT + 7, "throttled", OPENED_AT, A)}
    clock.now += 1
    assert state.view("a").rests == {}
    assert state.view("a").status == "healthy"


def test_of_a_removed_instance_the_totals_remain():
    shared = SharedInstance({"total_requests": 3}, 1.0, last_error="x", last_error_time=2.0)
    expected = StateView("removed", 0, 0, {"total_requests": 3}, {}, 1.0, "x", 2.0)
    assert removed_view(shared) == expected


# The operator's hand.


def test_clearing_voids_errors_and_rests(state):
    state.merge(SharedState({"a": SharedInstance({"error_count": 5}, last_error="old")}))
    endings = (*[UNREACHABLE] * 3, throttled(), MISCONFIGURED)
    some = [state.start(serving(A, e.verdict.outcome), TEN) for e in endings]
    for reservation, ending in zip(some, endings, strict=True):
        state.finish(reservation, ending)
    state.clear("a")
    view = state.view("a")
    assert (view.status, view.rests, view.last_error) == ("healthy", {}, None)
    assert view.totals["error_count"] == 0
    assert view.totals["total_requests"] == 5  # what happened is not forgotten
    assert view.breaker == "closed"
    written = state.take()
    assert (written.rests, written.errors, written.breakers) == ({}, {}, {})
    assert "last_failure_time" not in written.moments["a"]


def test_clearing_one_instance_leaves_the_others(state):
    once(state, throttled(), serving(config("b")))
    state.clear("a")
    assert state.view("b").status == "rate_limited"
    assert state.take().rests.keys() == {("b", MODEL)}


def test_ending_the_rests_keeps_the_errors(state):
    once(state, throttled())
    state.clear_rests("a")
    view = state.view("a")
    assert (view.status, view.last_error, view.totals["error_count"]) == (
        "healthy",
        "429: slow",
        1,
    )


def test_an_operators_rest_is_of_the_whole_instance(state, clock):
    state.rest("a", clock.now + 60)
    assert refusal(state) == (OPERATOR, 60.0)
    assert state.view("a").status == "rate_limited"
    assert state.take().rests == {("a", ""): Rest(clock.now + 60, OPERATOR, clock.now)}


# Between workers.


def test_what_was_taken_is_not_taken_again(state):
    once(state)
    first = state.take()
    assert first.totals["a"]["total_requests"] == 1
    state.merge(SharedState())
    assert not state.take()


def test_what_is_being_written_is_still_shown(state):
    once(state, FAILED)
    state.take()
    once(state)
    view = state.view("a")
    assert (view.totals["total_requests"], view.last_error) == (2, FAILED.error)


def test_what_is_given_back_is_taken_again_with_what_came_since(state):
    once(state, FAILED)
    taken = state.take()
    once(state)
    state.give_back(taken)
    assert state.view("a").totals["total_requests"] == 2
    again = state.take()
    assert again.totals["a"]["total_requests"] == 2
    assert again.windows[int(OPENED_AT), "a", MODEL] == (7, 2)
    assert again.errors["a"].message == FAILED.error


def test_seconds_that_are_over_are_not_given_back(state, clock):
    once(state)
    taken = state.take()
    clock.now += COUNTED_SECONDS
    once(state)
    state.give_back(taken)
    assert {at for at, _, _ in state.take().windows} == {OPENED_AT, clock.now}
    taken = Deltas()
    taken.add_window((int(OPENED_AT) - 1, "a", MODEL), 1, 1)
    state.give_back(taken)
    assert not state.take().windows


def test_what_others_measured_is_merged(state, clock):
    now = int(clock.now)
    state.merge(
        SharedState(
            {
                "a": SharedInstance(
                    {"total_requests": 5},
                    last_used=1.0,
                    last_error="x",
                    last_error_time=2.0,
                )
            },
            {("a", MODEL): Rest(clock.now + 5, "throttled", clock.now)},
            [(now - 59, "a", MODEL, 10, 1), (now, "a", MODEL, 20, 2)],
        )
    )
    view = state.view("a")
    assert (view.current_tpm, view.current_rpm, view.totals["total_requests"]) == (30, 3, 5)
    assert (view.last_used, view.last_error, view.last_error_time) == (1.0, "x", 2.0)
    assert refusal(state)[1] == 5.0
    clock.now += 1
    assert state.view("a").current_tpm == 20


def test_what_others_reserved_of_an_instance_nobody_finished_with_yet_is_merged(state, clock):
    state.merge(SharedState(windows=[(int(clock.now), "a", MODEL, 100, 1)]))
    assert candidate(state) is None


def test_what_happened_since_the_read_stays_on_top(state, clock):
    once(state, throttled(5))
    open_one = state.start(serving(A, "mini"), TEN)
    taken = state.take()
    shared = SharedState(
        {"a": SharedInstance({"total_requests": 5 + taken.totals["a"]["total_requests"]})},
        taken.rests,
        [(int(clock.now), "a", MODEL, 10, 2)],
    )
    once(state, MISCONFIGURED, serving(A, "mini"))
    state.merge(shared)
    view = state.view("a")
    assert (view.totals["total_requests"], view.current_tpm, view.current_rpm) == (7, 10, 3)
    assert set(view.rests) == {"", MODEL}
    state.finish(open_one, DONE)
    assert state.view("a").current_tpm == 7


def test_a_rest_that_ended_in_the_database_ends_here(state):
    once(state, throttled())
    state.take()
    state.merge(SharedState())
    assert candidate(state) is not None


@pytest.mark.parametrize("here, there", [(5.0, 9.0), (9.0, 5.0)])
def test_of_a_rest_here_and_one_there_the_longer_counts(here, there, state, clock):
    once(state, throttled(here))
    state.merge(SharedState(rests={("a", MODEL): Rest(clock.now + there, "x", clock.now)}))
    assert refusal(state)[1] == 9.0


def test_a_clearing_in_another_worker_voids_what_is_older_here(state, clock):
    mini = state.start(serving(A, "mini"), TEN)
    late = state.start(serving(A), TEN)
    broken(state)
    state.finish(late, throttled(100))
    clock.now += 1
    cleared = SharedState({"a": SharedInstance(cleared_at=clock.now)})
    clock.now += 1
    state.finish(mini, throttled(50))
    state.merge(cleared)
    assert set(state.view("a").rests) == {"mini"}
    assert state.view("a").breaker == "closed"
    written = state.take()
    assert (written.rests.keys(), written.breakers) == ({("a", "mini")}, {})


def test_a_failure_after_the_clearing_stands(state, clock):
    cleared_at = clock.now
    clock.now += 1
    broken(state)
    state.merge(SharedState({"a": SharedInstance(cleared_at=cleared_at)}))
    assert state.view("a").breaker == "open"
    written = state.take()
    assert "last_failure_time" in written.moments["a"]
    assert written.breakers.keys() == {"a"}


def test_a_clearing_of_long_ago_voids_nothing_new(state, clock):
    cleared_at = clock.now - 1
    state.merge(SharedState({"a": SharedInstance(cleared_at=cleared_at)}))
    late = state.start(serving(A), TEN)
    broken(state)
    state.finish(late, throttled())
    taken = state.take()
    shared = SharedInstance(cleared_at=cleared_at, breaker=taken.breakers["a"][0])
    state.merge(SharedState({"a": shared}, taken.rests))
    assert (state.view("a").rests.keys(), state.view("a").breaker) == ({MODEL}, "open")


# What changed since the last merge.


def changed(number, *rows, name="a"):
    """What others added to seconds since."""
    added = [(at, name, MODEL, *counts) for at, *counts in rows]
    return SharedState(windows=added, number=number, is_whole=False)


def heard(clock, *rows):
    """A worker that counts in these configs, and has read all once."""
    state, configs = State(clock, peers=Peers(others=1)), {"a": A}
    state.merge(replace(changed(0, *rows), is_whole=True), configs)
    return state, configs


def test_what_others_added_counts_on_top_of_what_was_heard(clock):
    second = int(clock.now)
    state, configs = heard(clock, (second - 1, 10, 1), (second, 20, 2))
    for number in (1, 2):
        state.merge(changed(number, (second, 25, 3), (second - 1, -3, 0)), configs)
    view = state.view("a")
    assert (view.current_tpm, view.current_rpm) == (74, 9)


def test_a_change_of_config_counts_what_was_heard_where_it_says(clock):
    second = int(clock.now)
    state, _ = heard(clock, (second - 1, 10, 1), (second, 20, 2))
    state.start(serving(A), TEN)
    new = config("a", quota_group="g")
    state.merge(changed(1, (second, 5, 1)), {"a": new})
    meters = {key: m.tokens.total(second) for key, m in state._metering.all.items()}
    assert meters == dict.fromkeys(limiter.meters(new, MODEL), 45)
    state.merge(changed(2), {"a": A})
    meters = {key: m.requests.total(second) for key, m in state._metering.all.items()}
    assert meters == dict.fromkeys(limiter.meters(A, MODEL), 5)


def test_what_counted_before_there_was_a_config_counts_where_it_says(clock):
    second = int(clock.now)
    state = State(clock)
    state.merge(SharedState(windows=[(second, "a", MODEL, 10, 1)]))
    state.merge(changed(1), {"a": config("a", quota_group="g")})
    assert state._metering.all["group", "g", MODEL].tokens.total(second) == 10


def test_what_was_written_here_is_counted_once_and_what_came_since_stays_on_top(clock):
    second = int(clock.now)
    state, configs = heard(clock, (second, 20, 1))
    state.start(serving(A), TEN)
    state.take()
    state.start(serving(A), TEN)
    state.merge(changed(1, (second, 5, 1)), configs)
    view = state.view("a")
    assert (view.current_tpm, view.current_rpm) == (45, 4)
    meter = state._metering.all["instance", "a", ""]
    lately = state._lately(meter)
    assert (lately.tokens(second), lately.requests(second)) == (20, 2)
    state.take()
    state.merge(changed(2), configs)
    lately = state._lately(meter)
    assert (lately.tokens(second), lately.requests(second)) == (10, 1)
    state.merge(changed(2), configs)
    assert state._lately(meter) is None


def bounded(clock, used_tokens=600):
    """One of two workers, of an instance with a limit of which all have used so much."""
    of, free = serving(config("a", max_tpm=1000)), serving(config("a", max_tpm=0))
    state = State(clock, peers=Peers(others=1))
    state.merge(changed(0, (int(clock.now), used_tokens, 1)), {"a": of.config})
    return state, of, free


def takes(state, of):
    """How many calls of ten tokens it lets in."""
    return sum(isinstance(state.start(of, TEN), Reservation) for _ in range(100))


def test_what_is_taken_after_others_may_is_left_to_them_too(clock):
    state, of, _ = bounded(clock)
    assert takes(state, of) == 20  # of the 400 that are left


@pytest.mark.parametrize("is_given_back", [False, True])
def test_what_is_being_written_others_have_not_heard_of(is_given_back, clock):
    state, of, _ = bounded(clock)
    for _ in range(15):
        state.start(of, TEN)
    state._metering._unknown = None
    taken = state.take()
    if is_given_back:
        state.give_back(taken)
    assert takes(state, of) == 5


def test_what_was_just_written_others_hear_of_in_their_next_round(clock):
    state, of, _ = bounded(clock)
    for _ in range(15):
        state.start(of, TEN)
    state.take()
    state.merge(changed(1), {"a": of.config})
    assert takes(state, of) == 5
    state.take()
    state.merge(changed(2), {"a": of.config})
    # 800 are used; the others may have taken what these five did, and what is taken now.
    assert takes(state, of) == 8


def test_a_call_of_a_newer_config_counts_where_that_says_before_all_have_it(clock):
    state, *_ = bounded(clock, 0)
    groups = {"g": QuotaGroup("g", max_tpm=45)}
    newer = limiter.serving(config("a", quota_group="g"), MODEL, groups)
    assert [isinstance(state.start(newer, TEN), Reservation) for _ in range(3)] == [
        True,
        True,
        False,
    ]


def test_what_no_limit_can_concern_is_not_summed_up(clock):
    state, _, free = bounded(clock)
    state.merge(changed(1), {"a": free.config})
    state.start(free, TEN)
    assert state._metering.unknown(int(clock.now)) == {}
    state.start(free, TEN)
    assert state._metering.unknown(int(clock.now)) == {}


def test_of_what_a_group_used_through_one_without_limits_others_may_have_taken_as_much(clock):
    free = config("free", quota_group="g", rate_limit_enabled=False)
    bound = config("bound", quota_group="g")
    state = State(clock, peers=Peers(others=1))
    state.merge(SharedState(), {c.name: c for c in (free, bound)})
    groups = {"g": QuotaGroup("g", max_tpm=30)}
    state.start(limiter.serving(free, MODEL, groups), TEN)
    state.start(limiter.serving(free, MODEL, groups), TEN)
    refused = state.start(limiter.serving(bound, MODEL, groups), TEN)
    assert refused.reason == LEFT_TO_OTHERS


def test_what_was_given_back_is_counted_once_when_it_is_written(clock):
    state, configs = heard(clock)
    state.start(serving(A), TEN)
    state.give_back(state.take())
    state.start(serving(A), TEN)
    state.take()
    state.merge(changed(1), configs)
    assert (state.view("a").current_tpm, state.view("a").current_rpm) == (20, 2)


def test_what_an_old_config_counted_elsewhere_counts_where_the_present_one_says(clock):
    old = limiter.serving(config("a", quota_group="g"), MODEL)
    new = config("a", quota_group="h")
    state = State(clock)
    reservation = state.start(old, TEN)
    written = state.take()
    state.merge(SharedState(windows=[(int(clock.now), "a", MODEL, 10, 1)]), {"a": new})
    state.finish(reservation, DONE)
    state.take()
    state.merge(changed(1), state._metering.configs)
    meters = {key: m.tokens.total(int(clock.now)) for key, m in state._metering.all.items()}
    assert meters == dict.fromkeys(limiter.meters(new, MODEL), 7)
    assert written.windows


def test_instances_that_did_not_change_are_as_they_were(clock):
    state, configs = heard(clock)
    shared = SharedInstance({"total_requests": 5}, last_error="x", last_error_time=1.0)
    state.merge(SharedState({"a": shared, "b": shared}), configs)
    more = {"b": SharedInstance({"total_requests": 6})}
    state.merge(SharedState(more, is_whole=False), configs)
    found = [state.view(name) for name in ("a", "b")]
    assert [v.totals["total_requests"] for v in found] == [5, 6]
    assert [v.last_error for v in found] == ["x", None]


def test_deployments_that_nobody_asks_any_more_leave_no_meters(clock):
    state, configs = heard(clock)
    for number in range(3 * COUNTED_SECONDS):
        row = (int(clock.now), "a", f"client-{number}", 1, 1)
        state.merge(SharedState(windows=[row], is_whole=False), configs)
        clock.now += 1
    assert len(state._metering.all) <= 2 * COUNTED_SECONDS + 1
    assert state.view("a").current_rpm == WINDOW_SECONDS - 1


class Bank:
    """What the database does with deltas, in plain sums; nobody forgets anything."""

    def __init__(self):
        self.kept = Deltas()

    def write_and_read(self, deltas, now):
        copy = Deltas()
        copy.add(deltas)
        self.kept.add(copy)
        seconds = [
            key + counts
            for key, counts in self.kept.windows.items()
            if key[0] > int(now) - COUNTED_SECONDS
        ]
        return SharedState(
            {n: SharedInstance(dict(counts)) for n, counts in self.kept.totals.items()},
            {place: rest for place, rest in self.kept.rests.items() if rest.until > now},
            seconds,
        )


class TwoWorkers(RuleBasedStateMachine):
    """Two workers' states and one database, against a list of everything that happened.

    A worker must show its own events and those that were written when it last merged, each
    once; in the end all of them are in the database, each once.
    """

    NAMES = ("a", "b")
    worker = st.integers(0, 1)

    @initialize()
    def begin(self):
        self.clock = Clock()
        self.states = [State(self.clock), State(self.clock)]
        self.bank = Bank()
        self.open = []
        self.events = []
        self.out = [None, None]  # deltas taken and not yet written or given back
        self.read = [None, None]  # shared state read and not yet merged, and its events
        self.seen = [set(), set()]  # events of the other that were merged

    def happened(self, worker, name, at, tokens, requests, finished, rests_until=0.0):
        self.events.append(
            {
                "worker": worker,
                "name": name,
                "at": at,
                "tokens": tokens,
                "requests": requests,
                "finished": finished,
                "rests_until": rests_until,
                "taken": False,
                "written": False,
            }
        )

    @rule(worker=worker, name=st.sampled_from(NAMES), tokens=st.integers(1, 50))
    def start(self, worker, name, tokens):
        of = serving(config(name, rate_limit_enabled=False))
        reservation = self.states[worker].start(of, call(reserved_tokens=tokens))
        if not isinstance(reservation, Refusal):  # not while it rests
            self.open.append((worker, reservation))
            self.happened(worker, name, reservation.second, tokens, 1, 0)

    @rule(
        number=st.integers(0), tokens=st.integers(0, 80), rest=st.sampled_from([0.0, 3.0, 30.0])
    )
    def finish(self, number, tokens, rest):
        if not self.open:
            return
        worker, reservation = self.open.pop(number % len(self.open))
        verdict = replace(verdicts.SUCCEEDED, rest_seconds=rest)
        self.states[worker].finish(reservation, Ending(verdict, Usage(tokens)))
        still = reservation.second > int(self.clock.now) - COUNTED_SECONDS
        settled = tokens - reservation.tokens if still else 0
        until = self.clock.now + rest if rest else 0.0
        name = reservation.config.name
        self.happened(worker, name, reservation.second, settled, 0, 1, until)

    @rule(seconds=st.sampled_from([0.5, 1.0, 20.0, 61.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(worker=worker)
    def take(self, worker):
        if self.out[worker] is None and self.read[worker] is None:
            self.out[worker] = self.states[worker].take()
            for event in self.events:
                event["taken"] |= event["worker"] == worker

    @rule(worker=worker)
    def give_back(self, worker):
        if self.out[worker] is not None:
            self.states[worker].give_back(self.out[worker])
            self.out[worker] = None
            for event in self.events:
                if event["worker"] == worker and not event["written"]:
                    event["taken"] = False

    @rule(worker=worker)
    def write_and_read(self, worker):
        if self.out[worker] is not None:
            shared = self.bank.write_and_read(self.out[worker], self.clock.now)
            self.out[worker] = None
            for event in self.events:
                event["written"] |= event["worker"] == worker and event["taken"]
            written = {i for i, event in enumerate(self.events) if event["written"]}
            self.read[worker] = (shared, written)

    @rule(worker=worker)
    def merge(self, worker):
        if self.read[worker] is not None:
            shared, written = self.read[worker]
            self.states[worker].merge(shared)
            self.seen[worker] |= written
            self.read[worker] = None

    @invariant()
    def each_worker_shows_its_own_and_what_it_merged_once(self):
        oldest = int(self.clock.now) - WINDOW_SECONDS
        for worker, state in enumerate(self.states):
            for name in self.NAMES:
                shown = [
                    e
                    for i, e in enumerate(self.events)
                    if e["name"] == name and (e["worker"] == worker or i in self.seen[worker])
                ]
                lately = [e for e in shown if e["at"] > oldest]
                view = state.view(name)
                assert view.totals["total_requests"] == sum(e["finished"] for e in shown)
                assert view.current_tpm == max(0, sum(e["tokens"] for e in lately))
                assert view.current_rpm == sum(e["requests"] for e in lately)
                until = max((e["rests_until"] for e in shown), default=0.0)
                rests = {MODEL: until} if until > self.clock.now else {}
                assert {d: r.until for d, r in view.rests.items()} == rests

    def teardown(self):
        for worker, state in enumerate(self.states):
            self.give_back(worker)
            self.merge(worker)
            self.bank.write_and_read(state.take(), self.clock.now)
        finished = sum(e["finished"] for e in self.events)
        kept = self.bank.kept
        assert sum(c["total_requests"] for c in kept.totals.values()) == finished
        assert sum(c["attempts"] for c in kept.usage.values()) == finished


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.fixture
def eager_threads():
    """New threads let others run after each line: what can go wrong between two, does."""

    def trace(frame, kind, _):
        if not frame.f_code.co_filename.endswith(("state.py", "deltas.py", "window.py")):
            return None
        time.sleep(0)
        return trace

    before = threading.gettrace()
    threading.settrace(trace)
    yield
    threading.settrace(before)


def in_threads(number, work):
    """Runs `work` in so many threads that begin together; raises what one of them did."""
    together = threading.Barrier(number)

    def run(_):
        together.wait()
        return work()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(run, range(number)))


def test_32_threads_get_exactly_the_room_there_is(eager_threads):
    room, state = 10, State(Clock())
    reservations = in_threads(32, lambda: state.start(serving(A), TEN))
    assert sum(not isinstance(r, Refusal) for r in reservations) == room
    assert (state.view("a").current_tpm, candidate(state)) == (100, None)


class CountingLock:
    def __init__(self):
        self.entered = 0

    def __enter__(self):
        self.entered += 1

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.refusals([serving(A)], TEN),
        lambda s: s.look([serving(A)]),
        lambda s: s.start(serving(A), TEN),
        lambda s: s.refuse("app", "one", "refused"),
        lambda s: s.clear("a"),
        lambda s: s.clear_rests("a"),
        lambda s: s.rest("a", 1.0),
        lambda s: s.view("a"),
        lambda s: s.take(),
        lambda s: s.give_back(Deltas()),
        lambda s: s.merge(SharedState()),
    ],
)
def test_nothing_is_done_without_the_lock_and_nothing_takes_it_twice(use, state):
    state._lock = lock = CountingLock()
    use(state)
    assert lock.entered == 1


@contextmanager
def syncing(state, bank):
    """A thread that syncs on and on, every third time in vain; once more at the end.

    Gives the list of what it saw of `total_requests` after each round.
    """
    seen = []
    over = threading.Event()

    def sync():
        while not over.is_set():
            taken = state.take()
            if len(seen) % 3 == 2:
                state.give_back(taken)
            else:
                state.merge(bank.write_and_read(taken, OPENED_AT))
            seen.append(state.view("a").totals["total_requests"])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(sync)
        try:
            yield seen
        finally:
            over.set()
        running.result()
    state.merge(bank.write_and_read(state.take(), OPENED_AT))


def test_32_threads_and_a_syncer_lose_and_double_nothing(eager_threads):
    threads, each = 32, 5
    state, bank = State(Clock()), Bank()
    of = serving(config("a", max_tpm=0))

    def ask():
        for _ in range(each):
            state.finish(state.start(of, TEN), DONE)

    with syncing(state, bank) as seen:
        in_threads(threads, ask)
    total = threads * each
    view = state.view("a")
    assert (view.totals["total_requests"], view.current_rpm) == (total, total)
    assert (view.totals["total_tokens_served"], view.current_tpm) == (7 * total, 7 * total)
    assert sum(c["attempts"] for c in bank.kept.usage.values()) == total
    assert seen == sorted(seen)  # a count never goes down
    assert candidate(state, of).in_flight == 0


def test_errors_written_by_others_give_way_to_a_newer_one_here(state, clock):
    state.merge(SharedState({"a": SharedInstance(last_error="old", last_error_time=1.0)}))
    once(state, FAILED)
    assert state.take().errors == {"a": LastError(FAILED.error, clock.now)}
    assert state.view("a").last_error == FAILED.error


def test_what_follows_the_answer_of_a_trial_is_no_trial(state, clock):
    """A stream that its breaker was closed by may end long after: it neither ends the next
    trial nor opens the breaker again as one would."""
    for _ in range(3):
        once(state, Ending(verdicts.UNREACHABLE))
    clock.now += 1
    trial = state.start(serving(A), TEN)
    assert state.answered(trial, 1.0)
    for _ in range(3):
        once(state, Ending(verdicts.UNREACHABLE))
    clock.now += 2
    assert state.start(serving(A), TEN).is_trial
    state.finish(trial, Ending(verdicts.ABORTED, was_answered=True))
    assert refusal(state)[0] == "failing"  # the new trial goes on
    state.finish(trial, Ending(verdicts.FAILED, was_answered=True))
    assert refusal(state)[0] == "failing"
    assert state.view("a").breaker == "half_open"


def test_a_request_is_counted_where_its_client_got_no_better(state):
    reservation = state.start(serving(A), TEN)
    state.finish(reservation, Ending(verdicts.FAILED, answered=False))
    state.count_request(reservation, verdicts.FAILED)
    (counts,) = state.take().usage.values()
    assert (counts["requests"], counts["attempts"], counts["lost"]) == (1, 1, 1)


def test_a_request_is_abandoned_whose_client_did_not_wait_for_better(state):
    reservation = state.start(serving(A), TEN)
    state.finish(reservation, Ending(verdicts.FAILED, answered=False))
    state.count_request(reservation, verdicts.FAILED, is_left=True)
    once(state, Ending(verdicts.OVERDUE, is_left=True))
    (counts,) = state.take().usage.values()
    assert (counts["requests"], counts["abandoned"], "lost" in counts) == (2, 2, False)


def test_a_model_that_a_client_made_up_is_not_named_in_usage(state):
    """Neither by the attempt nor by its request: there can be any number of them."""
    reservation = state.start(serving(A), TEN)
    state.finish(reservation, Ending(verdicts.NO_SUCH_MODEL, answered=False))
    state.count_request(reservation, verdicts.NO_SUCH_MODEL)
    ((_, _, model, _),) = state.take().usage
    assert model == ""


@pytest.mark.parametrize(
    "verdict, answered, is_lost",
    [
        (verdicts.FAILED, True, True),
        (verdicts.FAILED, False, False),  # another may do better
        (verdicts.REJECTED, True, False),  # its client's own fault
        (verdicts.ABORTED, True, False),
        (verdicts.EXPIRED, True, True),
        (verdicts.SUCCEEDED, True, False),
    ],
)
def test_a_request_is_lost_whose_client_got_an_upstreams_error(
    verdict, answered, is_lost, state
):
    once(state, Ending(verdict, answered=answered))
    (counts,) = state.take().usage.values()
    assert counts.get("lost", 0) == is_lost


def test_only_successes_tell_how_long_things_take(state):
    once(state, Ending(verdicts.FAILED, latency_ms=20, first_byte_ms=5))
    (counts,) = state.take().usage.values()
    assert {name for name in counts if name.endswith("_ms")} == set()


def test_a_trial_that_failed_before_its_time_is_told_to_other_workers(state, clock):
    """Or they would wait for its end as long as it might have taken."""
    for _ in range(3):
        once(state, Ending(verdicts.UNREACHABLE))
    clock.now += ALONE_SECONDS
    trial = state.start(serving(A), TEN, alone=True)
    state.take()
    state.finish(trial, Ending(verdicts.UNREACHABLE))
    (news, _) = state.take().breakers["a"]
    assert news.trial_until == 0.0


def test_a_reservation_from_before_the_clock_was_set_back_is_settled_nowhere(state, clock):
    reservation = state.start(serving(A), TEN)
    clock.now -= 3600
    once(state, Ending(verdicts.SUCCEEDED, Usage(5)))
    state.finish(reservation, Ending(verdicts.SUCCEEDED, Usage(80)))
    assert state.view("a").current_tpm == 5


def test_what_is_in_flight_is_known_by_instance():
    state = State(Clock())
    one = state.start(serving(config("a")), call())
    state.start(serving(config("b")), call())
    assert state.in_flight() == {"a": 1, "b": 1}
    state.finish(one, Ending(verdicts.SUCCEEDED))
    assert state.in_flight() == {"b": 1}


def test_tokens_of_the_last_minute_are_known_by_what_limits_count_them_by():
    clock = Clock()
    state = State(clock)
    state.start(serving(config("a")), call(reserved_tokens=26))
    keys = [("instance", "a", ""), ("deployment", "a", MODEL), ("instance", "never", "")]
    assert list(state.used_tokens(keys).values()) == [26, 26, 0]
    clock.now += 61
    assert list(state.used_tokens(keys).values()) == [0, 0, 0]


# By a person's word.


@pytest.mark.parametrize(
    "ill, mend",
    [
        (MISCONFIGURED, lambda state: state.clear("a")),
        (MISCONFIGURED, lambda state: state.clear_rests("a")),
        (MISCONFIGURED, lambda state: state.end_rests("a", [WHOLE_INSTANCE])),
        (UNREACHABLE, lambda state: state.clear("a")),
    ],
)
def test_that_what_was_ill_is_asked_again_is_told_once(ill, mend, state, clock):
    for _ in range(3 if ill is UNREACHABLE else 1):
        once(state, ill)
    assert state.asked_again() == []
    clock.now += 0.1
    mend(state)
    assert state.asked_again() == ["a"]
    mend(state)
    assert state.asked_again() == []


def test_of_what_was_well_or_stays_ill_it_is_not_told(state, clock):
    once(state, throttled())
    state.clear("a")
    once(state, MISCONFIGURED)
    state.end_rests("a", ["another"])
    state.clear("a", at=clock.now - 1)
    assert state.asked_again() == []


# What refused the gateway and takes it again.


def retried(state, clock):
    """An attempt that finds out, in a state that was refused."""
    once(state, MISCONFIGURED)
    clock.now += RETRY_SECONDS
    return state.start(serving(A), TEN, alone=True)


def test_what_refused_the_gateway_is_tried_once_where_there_is_nobody_else(state, clock):
    assert retried(state, clock).is_retry
    assert isinstance(state.start(serving(A), TEN, alone=True), Refusal)


@pytest.mark.parametrize("ending", [FAILED, UNREACHABLE, throttled(1.0)])
def test_why_it_refuses_the_gateway_is_told_however_else_such_an_attempt_failed(
    ending, state, clock
):
    refused = MISCONFIGURED._replace(error="401: no")
    once(state, refused)
    clock.now += RETRY_SECONDS
    state.finish(state.start(serving(A), TEN, alone=True), ending)
    view = state.view("a")
    assert (view.status, view.last_error) == ("misconfigured", "401: no")
    clock.now += RETRY_SECONDS
    state.finish(
        state.start(serving(A), TEN, alone=True), refused._replace(error="403: not now")
    )
    assert state.view("a").last_error == "403: not now"


def test_no_other_attempt_finds_out_whether_it_was_mended(state, clock):
    assert not state.start(serving(A), TEN, alone=True).is_retry
    once(state, throttled())
    clock.now += 7
    assert not state.start(serving(A), TEN, alone=True).is_retry


def test_what_takes_the_gateway_again_is_asked_by_all(state, clock):
    reservation = retried(state, clock)
    assert state.accepted(reservation)
    assert candidate(state) is not None
    assert not state.accepted(reservation)  # that was no news
    assert state.take().mended == {("a", ""): clock.now}


def test_that_it_takes_an_old_key_says_nothing_of_the_new_one(state, clock):
    with_old_key = retried(state, clock)
    once(state, MISCONFIGURED, serving(replace(A, api_key="another")))
    assert not state.accepted(with_old_key)
    assert state.view("a").status == "misconfigured"


def test_what_others_did_not_hear_of_yet_stays_mended(state, clock):
    reservation = retried(state, clock)
    state.accepted(reservation)
    shared = SharedState(rests={("a", ""): Rest(clock.now + 290, "misconfigured", OPENED_AT)})
    state.merge(shared)
    assert candidate(state) is not None
    state.take()
    state.merge(shared)  # it was refused again
    assert candidate(state) is None


def test_what_a_person_wants_left_alone_is_so_whatever_it_answers_meanwhile(state, clock):
    late = state.start(serving(A), TEN)
    state.rest("a", clock.now + 60)
    state.finish(late, MISCONFIGURED)
    assert state.view("a").rests[""].reason == OPERATOR
    clock.now += 61
    once(state, MISCONFIGURED)
    assert state.view("a").rests[""].reason == "misconfigured"
