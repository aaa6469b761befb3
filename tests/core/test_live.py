from dataclasses import replace

import pytest

from proxy.core.breaker import HEARSAY_SECONDS
from proxy.core.deltas import WHOLE_INSTANCE, Rest
from proxy.core.hints import Hint
from proxy.core.limiter import Lately, Meter, Peers
from proxy.core.live import RETRY_SECONDS, Live
from proxy.core.refusal import (
    FAILING,
    LEFT_TO_OTHERS,
    NO_ROOM,
    SHARED_OUT,
    TOO_LONG,
    UPSTREAM_SAYS,
)
from proxy.core.types import Candidate
from tests.builders import MODEL, call, config, serving

NOW = 1_800_000_000.25
A = config("a", max_tpm=100, max_input_tokens=50)
HERE = serving(A)
TEN = call(reserved_tokens=10)
NOTHING_USED = {}


def rest(until, reason="throttled", **more):
    return Rest(until, reason, NOW, **more)


def full(tokens=100):
    """Meters in which so much of A's limit is used."""
    meter = Meter()
    meter.add(tokens, 1, int(NOW))
    return {("instance", "a", ""): meter}


def refused(live, of=HERE, asked=TEN, now=NOW, meters=NOTHING_USED):
    refusal = live.refusal(of, asked, meters, now)
    return refusal and (refusal.reason, pytest.approx(refusal.wait_seconds))


def broken(live):
    for _ in range(3):
        live.breaker.fail(NOW, 0.0, is_trial=False, no_answer=True)


def test_a_new_instance_may_be_asked():
    live = Live()
    assert refused(live) is None
    assert live.candidate(HERE, {}, NOW) == Candidate(HERE, 0, 0.0, None)
    assert live.status({}) == "healthy"


def test_a_prompt_longer_than_it_takes_is_refused():
    assert refused(Live(), asked=call(prompt_tokens=50)) is None
    assert refused(Live(), asked=call(prompt_tokens=51)) == (TOO_LONG, 0.0)


@pytest.mark.parametrize("place", [MODEL, WHOLE_INSTANCE])
def test_it_rests_until_then(place):
    live = Live()
    live.rests[place] = rest(NOW + 7)
    assert refused(live) == ("throttled", 7.0)
    assert refused(live, now=NOW + 7) is None


def test_of_two_rests_the_longer_counts():
    live = Live()
    live.rests = {MODEL: rest(NOW + 7), WHOLE_INSTANCE: rest(NOW + 9, "operator")}
    assert refused(live) == ("operator", 9.0)
    assert refused(live, serving(A, "mini")) == ("operator", 9.0)


def test_the_rest_of_another_deployment_or_upstream_is_none():
    live = Live()
    live.rests = {"mini": rest(NOW + 7), MODEL: rest(NOW + 7, config=replace(A, api_key="old"))}
    assert refused(live) is None


def test_one_that_fails_is_left_alone():
    live = Live()
    live.begin(HERE, 10, NOW)
    broken(live)
    assert refused(live) == (FAILING, 1.0)
    assert refused(live, now=NOW + 1) is None
    assert refused(live, serving(replace(A, api_key="new"))) is None


def test_another_upstream_begins_anew():
    live = Live()
    live.begin(HERE, 10, NOW)
    broken(live)
    live.begin(serving(replace(A, weight=1)), 10, NOW)  # the same
    assert not live.breaker.is_closed
    live.answered(MODEL, 5.0, Hint(NOW, remaining_tokens=1))
    live.begin(serving(replace(A, api_base="https://elsewhere")), 10, NOW)
    assert live.breaker.is_closed
    assert refused(live) is None
    assert live.candidate(HERE, {}, NOW).first_byte_ms is None


def test_one_without_room_says_when_there_will_be_some_and_how_much_is_used():
    live = Live()
    meters = full(91)
    assert refused(live, asked=call(reserved_tokens=9), meters=meters) is None
    refusal = live.refusal(HERE, TEN, meters, NOW)
    assert (refusal.reason, refusal.wait_seconds, refusal.used_share) == (NO_ROOM, 60.75, 0.91)
    assert refusal.limit == HERE.limits[0]
    assert refused(live, meters=meters, now=NOW + 59) == (NO_ROOM, 1.75)
    assert live.candidate(HERE, meters, NOW).load == 0.91


def test_while_other_clients_want_more_room_is_handed_out_evenly():
    live, meters = Live(), full(4)  # of 100
    assert refused(live, meters=meters) is None
    refusal = live.refusal(HERE, TEN, meters, NOW, kept=0)
    assert (refusal.reason, refusal.wait_seconds) == (SHARED_OUT, 0.75)
    assert (refusal.limit, refusal.used_share) == (HERE.limits[0], 0.04)
    assert live.refusal(HERE, TEN, full(3), NOW, kept=0) is None
    assert live.refusal(HERE, TEN, full(3), NOW, kept=1).reason == SHARED_OUT
    assert live.refusal(HERE, TEN, full(91), NOW, kept=0).reason == NO_ROOM


def test_what_is_kept_for_others_is_kept_of_the_minutes_last_room_too():
    live, meters = Live(), full(0)
    meters["instance", "a", ""].add(88, 1, int(NOW) - 30)
    assert live.refusal(HERE, TEN, meters, NOW, kept=2) is None
    refusal = live.refusal(HERE, TEN, meters, NOW, kept=3)
    assert (refusal.reason, refusal.wait_seconds) == (NO_ROOM, 30.75)


def lately(tokens):
    found = Lately()
    found.add(tokens, 1, int(NOW))
    return found


def test_room_that_others_may_have_taken_is_there_when_they_were_heard_of():
    told = {}
    live = Live(Peers(others=1, sync_seconds=0.2), told.get)
    meters = full(45)
    assert refused(live, meters=meters) is None
    told[meters["instance", "a", ""]] = lately(45)
    refusal = live.refusal(HERE, call(reserved_tokens=11), meters, NOW)
    assert (refusal.reason, refusal.wait_seconds) == (LEFT_TO_OTHERS, 0.2)
    assert (refusal.limit, refusal.used_share) == (HERE.limits[0], 0.45)
    assert refused(live, meters=meters) is None  # ten fit
    assert refused(Live(), asked=call(reserved_tokens=11), meters=meters) is None


@pytest.mark.parametrize("sync_seconds, later", [(0.2, HEARSAY_SECONDS), (3.0, 6.0)])
def test_who_hears_of_a_breaker_late_tries_later(sync_seconds, later):
    ours, theirs = Live(), Live(Peers(others=1, sync_seconds=sync_seconds))
    ours.begin(HERE, 10, NOW)
    broken(ours)
    theirs.breaker.hear(ours.breaker.news, NOW)
    waits = [live.breaker.wait_seconds(NOW) for live in (ours, theirs)]
    assert waits[1] - waits[0] == pytest.approx(later)


def test_where_there_is_no_room_the_true_wait_is_told():
    meters = full(91)
    told = {meters["instance", "a", ""]: lately(91)}
    live = Live(Peers(others=1, sync_seconds=0.2), told.get)
    assert refused(live, meters=meters) == (NO_ROOM, 60.75)


def test_what_a_person_or_another_request_must_mend_is_said_first():
    live = Live()
    live.begin(HERE, 10, NOW)
    broken(live)
    assert refused(live, meters=full(0))[0] == FAILING
    live.rests[MODEL] = rest(NOW + 1, "misconfigured")
    assert refused(live, meters=full())[0] == "misconfigured"


def test_of_what_time_will_mend_the_longest_is_said():
    live = Live()
    live.rests[MODEL] = rest(NOW + 5)
    assert refused(live, meters=full()) == (NO_ROOM, 60.75)
    assert refused(live, meters=full(0)) == ("throttled", 5.0)
    live.begin(HERE, 10, NOW)
    broken(live)  # for a second
    assert refused(live, meters=full(0)) == ("throttled", 5.0)
    live.rests[MODEL] = rest(NOW + 0.01)
    assert refused(live, meters=full(0))[0] == FAILING
    assert refused(live, meters=full()) == (NO_ROOM, 60.75)


def test_of_several_limits_the_one_that_lasts_longest_is_told():
    both = serving(replace(A, model_limits={MODEL: {"max_tpm": 50}}))
    meters = full(95)
    meters["deployment", "a", MODEL] = Meter()
    meters["deployment", "a", MODEL].add(45, 1, int(NOW) - 20)
    refusal = Live().refusal(both, TEN, meters, NOW)
    assert refusal.limit.max_tpm == 100
    meters["instance", "a", ""] = Meter()
    refusal = Live().refusal(both, TEN, meters, NOW)
    assert (refusal.limit.max_tpm, refusal.wait_seconds) == (50, 40.75)


def test_what_the_upstream_says_is_left_lowers_our_view_and_never_raises_it():
    live = Live()
    live.answered(MODEL, 5.0, Hint(NOW, remaining_tokens=15))
    assert refused(live) is None
    live.begin(HERE, 10, NOW)
    assert refused(live) == (UPSTREAM_SAYS, 10.0)
    assert refused(live, serving(A, "mini")) is None
    assert refused(live, now=NOW + 9.75) == (UPSTREAM_SAYS, 0.25)
    assert refused(live, now=NOW + 10) is None
    live.answered(MODEL, 5.0, Hint(NOW, remaining_tokens=10**6))
    assert refused(live, meters=full())[0] == NO_ROOM


def test_a_lower_limit_the_upstream_tells_of_bounds_the_deployment():
    live = Live()
    meters = {("deployment", "a", MODEL): full(45)["instance", "a", ""]}
    live.answered(MODEL, 5.0, Hint(NOW, limit_tokens=50))
    assert refused(live, meters=meters) == (NO_ROOM, 60.75)
    assert refused(live, serving(A, "mini"), meters=meters) is None
    unlimited = serving(replace(A, max_tpm=0, max_rpm=60))
    assert refused(live, unlimited, meters=meters) is None
    live.answered(MODEL, 5.0, Hint(NOW, limit_tokens=1000))
    assert refused(live, meters=meters) is None


@pytest.mark.parametrize("told, why", [(99, (NO_ROOM, 60.75)), (100, None)])
def test_a_limit_that_the_upstream_tells_of_counts_only_if_it_is_lower(told, why):
    live = Live()
    live.answered(MODEL, 5.0, Hint(NOW, limit_tokens=told))
    # Which cannot be: the instance counts what its deployment does.
    meters = {("deployment", "a", MODEL): full(100)["instance", "a", ""]}
    assert refused(live, meters=meters) == why


def test_a_lower_limit_counts_where_any_of_ours_is_one_of_tokens():
    live = Live()
    meters = {("deployment", "a", MODEL): full(45)["instance", "a", ""]}
    both = serving(replace(A, model_limits={MODEL: {"max_rpm": 600}}))
    live.answered(MODEL, 5.0, Hint(NOW, limit_tokens=50))
    assert refused(live, both, meters=meters) == (NO_ROOM, 60.75)


def test_what_the_upstream_says_is_left_counts_without_a_limit_of_ours_too():
    live = Live()
    live.answered(MODEL, 5.0, Hint(NOW, remaining_tokens=9))
    assert refused(live, serving(replace(A, max_tpm=0))) == (UPSTREAM_SAYS, 10.0)


def test_an_instance_whose_limits_are_off_has_none():
    live = Live()
    live.answered(MODEL, 5.0, Hint(NOW, 1, 1, 0))
    off = serving(replace(A, rate_limit_enabled=False))
    assert refused(live, off, meters=full()) is None


@pytest.mark.parametrize(
    "reasons, status",
    [
        ([], "healthy"),
        (["throttled"], "rate_limited"),
        (["operator"], "rate_limited"),
        (["throttled", "misconfigured"], "misconfigured"),
        (["no_deployment"], "misconfigured"),
    ],
)
def test_the_status_is_what_stands_most_in_the_way(reasons, status):
    rests = {str(n): rest(NOW + 1, reason) for n, reason in enumerate(reasons)}
    assert Live().status(rests) == status


def test_one_that_fails_has_an_error():
    live = Live()
    broken(live)
    assert live.status({}) == "error"
    assert live.status({"": rest(NOW)}) == "rate_limited"
    # Others than that deployment cannot be asked either.
    assert live.status({"mini": rest(NOW)}) == "error"


def test_attempts_that_began_are_in_flight():
    live = Live()
    live.begin(HERE, 10, NOW)
    live.begin(serving(A, "mini"), 10, NOW)
    assert live.candidate(HERE, {}, NOW).in_flight == 2


def test_what_answers_tell_is_kept_for_each_deployment():
    live = Live()
    live.answered(MODEL, 5.0, Hint(NOW, remaining_tokens=1))
    live.answered("mini", 7.0, Hint(NOW, remaining_tokens=100))
    assert live.candidate(HERE, {}, NOW).first_byte_ms == 5.0
    assert live.candidate(serving(A, "mini"), {}, NOW).first_byte_ms == 7.0
    assert refused(live) == (UPSTREAM_SAYS, 10.0)
    assert refused(live, serving(A, "mini")) is None


def test_medians_are_kept_by_deployment_and_not_for_ever(monkeypatch):
    monkeypatch.setattr("proxy.core.live.MAX_DEPLOYMENTS", 3)
    live = Live()
    for number in range(20):
        live.answered(f"model-{number}", 5.0, Hint(NOW, remaining_tokens=number))
    assert len(live.first_bytes) <= 3
    assert len(live.hints) <= 3
    live.answered(MODEL, 7.0, None)
    assert live.candidate(HERE, {}, NOW).first_byte_ms == 7.0
    assert live.candidate(serving(A, "other"), {}, NOW).first_byte_ms is None


# Where nobody else can be asked, what refuses the gateway is tried now and then.


def test_what_refuses_the_gateway_is_tried_now_and_then_where_nobody_else_can_be_asked():
    live = Live()
    live.rests[WHOLE_INSTANCE] = rest(NOW + 300, "misconfigured")

    def may_be_asked(after_seconds, *, alone=True):
        return live.refusal(HERE, TEN, NOTHING_USED, NOW + after_seconds, alone=alone) is None

    assert not may_be_asked(RETRY_SECONDS - 1)
    assert may_be_asked(RETRY_SECONDS)
    assert not may_be_asked(RETRY_SECONDS, alone=False)
    assert live.retry(HERE, NOW + RETRY_SECONDS)
    assert not may_be_asked(2 * RETRY_SECONDS - 1)  # while nobody knows how that ended, too
    assert may_be_asked(2 * RETRY_SECONDS)


def test_what_rests_for_another_reason_besides_is_not_tried():
    live = Live()
    live.rests[WHOLE_INSTANCE] = rest(NOW + 300, "misconfigured")
    live.rests[HERE.deployment] = rest(NOW + 60, "operator")
    refusal = live.refusal(HERE, TEN, NOTHING_USED, NOW + RETRY_SECONDS, alone=True)
    assert (refusal.reason, refusal.wait_seconds) == ("operator", 60 - RETRY_SECONDS)


@pytest.mark.parametrize("rests", [{}, {WHOLE_INSTANCE: rest(NOW + 9)}])
def test_an_attempt_at_one_that_did_not_refuse_the_gateway_finds_nothing_mended(rests):
    live = Live()
    live.rests.update(rests)
    assert not live.retry(HERE, NOW)
    assert (live.mend(HERE.deployment), live.rests) == ([], rests)


def test_mended_are_the_instance_and_the_deployment_that_was_asked():
    live = Live()
    here, other = HERE.deployment, "another"
    live.rests = {p: rest(NOW + 9, "no_deployment") for p in (WHOLE_INSTANCE, here, other)}
    assert live.mend(here) == [WHOLE_INSTANCE, here]
    assert set(live.rests) == {other}


def test_when_each_was_tried_is_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr("proxy.core.live.MAX_DEPLOYMENTS", 3)
    live = Live()
    for name in "abcdef":
        live.rests = {name: rest(NOW + 300, "no_deployment")}
        assert live.retry(serving(A, name), NOW)
    assert set(live.retried_at) == {"d", "e", "f"}


def test_each_deployment_that_refuses_the_gateway_is_tried_in_its_own_time():
    live = Live()
    mini = serving(A, "mini")
    live.rests = {s.deployment: rest(NOW + 300, "no_deployment") for s in (HERE, mini)}
    assert live.retry(HERE, NOW + RETRY_SECONDS)
    asked = {"now": NOW + RETRY_SECONDS, "alone": True}
    assert live.refusal(mini, TEN, NOTHING_USED, **asked) is None
    assert live.refusal(HERE, TEN, NOTHING_USED, **asked).alone_seconds == RETRY_SECONDS


def test_what_was_tried_before_the_clock_was_set_back_bars_nothing():
    live = Live()
    live.rests[WHOLE_INSTANCE] = rest(NOW + 300, "misconfigured")
    live.retry(HERE, NOW + 250)
    later = NOW + 2 * RETRY_SECONDS
    assert live.refusal(HERE, TEN, NOTHING_USED, later, alone=True) is None
