import pytest

from proxy.core import attempts, verdict
from proxy.core.attempts import Ending, Reservation
from proxy.core.deltas import OTHER_MODEL
from proxy.core.histogram import bucket
from proxy.core.types import Usage
from proxy.core.usage import ABANDONED, FIRST_BYTE, LATENCY, LOST
from proxy.core.verdict import OUTCOMES, Verdict
from tests.builders import config

RESERVATION = Reservation(config("a"), "east", "gpt-4o", "app", 10, 1_000_000)
DONE = Ending(
    verdict.SUCCEEDED,
    Usage(4, 3, cached_tokens=2, reasoning_tokens=1),
    latency_ms=50,
    first_byte_ms=20,
)


def test_an_instances_totals_say_how_it_did():
    assert attempts.totals(DONE) == {
        "total_requests": 1,
        "total_tokens_served": 7,
        "successful_requests": 1,
        "latency_total_ms": 50,
    }


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_each_outcome_has_its_counter_if_it_has_one(outcome):
    found = attempts.totals(Ending(Verdict(outcome)))
    counter = OUTCOMES[outcome]
    assert counter is None or found[counter] == 1
    assert ("error_count" in found) == (outcome in verdict.ERRORS)
    assert ("latency_total_ms" in found) == (outcome == "succeeded")


def test_usage_is_by_minute_instance_model_and_client():
    key = attempts.usage_key(RESERVATION, verdict.SUCCEEDED, 119.9)
    assert key == (60, "a", "gpt-4o", "app")


def test_a_model_that_a_client_made_up_is_not_kept():
    assert attempts.usage_key(RESERVATION, verdict.NO_SUCH_MODEL, 0.0)[2] == OTHER_MODEL


def test_a_clients_time_has_what_went_before_the_attempt():
    found = attempts.usage(DONE._replace(before_ms=1000, cost_nano=9))
    assert found == {
        "requests": 1,
        "attempts": 1,
        "succeeded": 1,
        "prompt_tokens": 4,
        "completion_tokens": 3,
        "cached_tokens": 2,
        "reasoning_tokens": 1,
        "latency_total_ms": 1050,
        "first_byte_total_ms": 1020,
        LATENCY[bucket(1050)]: 1,
        FIRST_BYTE[bucket(1020)]: 1,
        "cost_nano": 9,
    }


def test_an_attempt_whose_answer_the_client_did_not_get_is_no_request():
    assert attempts.usage(DONE._replace(answered=False))["requests"] == 0


@pytest.mark.parametrize(
    "ending, counted",
    [
        (Ending(verdict.FAILED), {LOST}),
        (Ending(verdict.FAILED, is_left=True), {ABANDONED}),
        (Ending(verdict.FAILED, answered=False), set()),
        (Ending(verdict.ABORTED), set()),
    ],
)
def test_a_request_without_an_answer_is_lost_or_was_abandoned(ending, counted):
    assert {LOST, ABANDONED} & attempts.usage(ending).keys() == counted
