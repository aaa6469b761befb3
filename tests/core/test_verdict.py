import pytest

from proxy.core import verdict
from proxy.core.deltas import TOTALS
from proxy.core.verdict import (
    ABORTED,
    ERRORS,
    EXPIRED,
    FAILED,
    LOSSES,
    NO_DEPLOYMENT,
    OUTCOMES,
    UNREACHABLE,
    Verdict,
)

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    "status, expected",
    [
        # Nobody asked for another protocol.
        (101, Verdict("failed", try_next=True, failure=True, shown=False)),
        (200, Verdict("succeeded")),
        (201, Verdict("succeeded")),
        (204, Verdict("succeeded")),
        (299, Verdict("succeeded")),
        # A redirect is not followed, and not shown: it names where our key would go.
        (300, Verdict("failed", try_next=True, failure=True, shown=False)),
        (307, Verdict("failed", try_next=True, failure=True, shown=False)),
        (399, Verdict("failed", try_next=True, failure=True, shown=False)),
        # The client's own doing: every instance would say the same.
        (400, Verdict("rejected")),
        (402, Verdict("rejected")),
        (405, Verdict("rejected")),
        (409, Verdict("rejected")),
        (413, Verdict("rejected")),
        (422, Verdict("rejected")),
        (428, Verdict("rejected")),
        (430, Verdict("rejected")),
        (499, Verdict("rejected")),
        # Our key and our deployment: the client has no part in it and does not see it.
        (
            401,
            Verdict(
                "misconfigured",
                try_next=True,
                rest_seconds=300.0,
                whole_instance=True,
                shown=False,
            ),
        ),
        # Only this deployment: it may be about one model.
        (403, Verdict("misconfigured", try_next=True, rest_seconds=300.0, shown=False)),
        (
            404,
            Verdict(
                "misconfigured",
                try_next=True,
                rest_seconds=300.0,
                rest_reason=NO_DEPLOYMENT,
                shown=False,
            ),
        ),
        (408, Verdict("failed", try_next=True, failure=True)),
        (429, Verdict("throttled", try_next=True, rest_seconds=5.0)),
        (500, Verdict("failed", try_next=True, failure=True)),
        (502, Verdict("failed", try_next=True, failure=True)),
        (503, Verdict("failed", try_next=True, failure=True)),
        (504, Verdict("failed", try_next=True, failure=True)),
        (599, Verdict("failed", try_next=True, failure=True)),
    ],
)
def test_what_a_status_means(status, expected):
    assert verdict.of(status, {}, NOW) == expected


def test_a_verdict_that_says_nothing_more_is_shown_and_has_no_consequence():
    bare = Verdict("succeeded")
    assert (bare.try_next, bare.failure, bare.whole_instance) == (False, False, False)
    assert not bare.no_answer
    assert (bare.rest_seconds, bare.shown) == (0.0, True)


@pytest.mark.parametrize(
    "headers, rest_seconds",
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "50"}, 0.05),
        ({"retry-after": "0"}, 0.05),  # said, and not to be mistaken for unsaid
        ({"retry-after": "86400"}, 120.0),
        ({"retry-after": "later"}, 5.0),
    ],
)
def test_a_throttled_instance_rests_as_long_as_it_asks(headers, rest_seconds):
    assert verdict.of(429, headers, NOW).rest_seconds == pytest.approx(rest_seconds)


@pytest.mark.parametrize("status", [200, 400, 404, 500, 503])
def test_only_a_429_may_ask_for_a_rest(status):
    assert verdict.of(status, {"retry-after": "7"}, NOW) == verdict.of(status, {}, NOW)


def test_no_answer_is_a_failure_that_another_instance_could_better():
    assert Verdict("unreachable", try_next=True, failure=True, no_answer=True) == UNREACHABLE
    assert Verdict("failed", try_next=True, failure=True) == FAILED


def test_a_client_that_leaves_says_nothing_about_the_instance():
    assert Verdict("aborted") == ABORTED


@pytest.mark.parametrize(
    "outcome, counter",
    [
        ("succeeded", "successful_requests"),
        ("rejected", "total_upstream_400_errors"),
        ("throttled", "total_upstream_429_errors"),
        ("failed", "total_upstream_500_errors"),
        ("misconfigured", "total_upstream_other_errors"),
        ("unreachable", "total_upstream_other_errors"),
        ("aborted", None),
        ("expired", None),
    ],
)
def test_each_outcome_adds_to_its_counter(outcome, counter):
    assert OUTCOMES[outcome] == counter


def test_every_counter_exists_and_every_judgement_is_counted():
    assert {c for c in OUTCOMES.values() if c} <= set(TOTALS)
    assert {verdict.of(status, {}, NOW).outcome for status in range(200, 600)} < set(OUTCOMES)
    assert {ABORTED.outcome, UNREACHABLE.outcome} <= set(OUTCOMES)


def test_neither_a_bad_request_nor_hanging_up_is_the_instances_error():
    assert set(OUTCOMES) - ERRORS == {"succeeded", "rejected", "expired", "aborted"}
    assert set(OUTCOMES) > ERRORS


def test_a_client_whose_time_is_over_gets_an_error_though_no_instance_is_to_blame():
    assert {EXPIRED.outcome} == LOSSES - ERRORS
    assert Verdict("expired") == EXPIRED


@pytest.mark.parametrize(
    "silent_seconds, usual_ms, is_hurried, overdue",
    [
        (4.9, 10.0, False, False),
        (5.0, 10.0, False, True),
        (5.0, 500.0, True, True),
        (5.0, 501.0, True, False),  # it is slow also when it is well
        (29.9, None, False, False),
        (30.0, None, False, True),  # half of what it may take
        (3600.0, None, True, False),
    ],
)
def test_who_is_silent_for_much_longer_than_usual_is_unwell(
    silent_seconds, usual_ms, is_hurried, overdue
):
    found = verdict.is_overdue(
        silent_seconds, usual_ms, is_hurried=is_hurried, timeout_seconds=60.0
    )
    assert found is overdue


@pytest.mark.parametrize("retry_seconds, rest_seconds", [(0.0, 1.0), (1.5, 1.5), (60.0, 2.0)])
def test_without_a_token_an_instance_rests_until_its_worker_knows(retry_seconds, rest_seconds):
    assert verdict.without_token(retry_seconds) == Verdict(
        "misconfigured",
        try_next=True,
        rest_seconds=rest_seconds,
        whole_instance=True,
        shown=False,
    )


@pytest.mark.parametrize(
    "error, found",
    [
        ({"message": "API version not supported"}, verdict.WRONG_VERSION),
        ({"message": "API version not supported.", "code": "x"}, verdict.WRONG_VERSION),
        ({"message": "Invalid value: 'API version not supported'"}, None),
        ({"message": "API version not supported", "param": "role"}, None),
        ({"message": "o1 is enabled only for api versions 2024-12-01"}, verdict.UNSUPPORTED),
        ({"message": "enabled only for api versions", "param": "role"}, None),
        ({"message": "Invalid 'it is enabled only for api versions 1'"}, None),
        ({"message": 'Invalid "it is enabled only for api versions 1"'}, None),
        ({"message": "The prompt is too long"}, None),
        ({}, None),
        ("API version not supported", None),
        (None, None),
    ],
)
def test_a_400_may_blame_the_version_that_the_instances_config_has(error, found):
    assert verdict.of_version(error) is found


WRONG_ENDPOINT = {"message": "This is a chat model", "type": "invalid_request_error"}
WRONG_ENDPOINT |= {"param": "model", "code": None}


def test_a_404_may_blame_the_endpoint_that_the_client_chose():
    assert verdict.blames_endpoint(WRONG_ENDPOINT)


@pytest.mark.parametrize(
    "error",
    [
        WRONG_ENDPOINT | {"code": "model_not_found"},
        {name: said for name, said in WRONG_ENDPOINT.items() if name != "code"},
        WRONG_ENDPOINT | {"type": "server_error"},
        WRONG_ENDPOINT | {"param": None},  # a path that is not there: api_base is wrong
        {"code": "DeploymentNotFound", "message": "The API deployment does not exist."},
        {"code": "404", "message": "Resource not found"},
        {},
        None,
        "This is a chat model",
    ],
)
def test_a_404_of_a_model_or_path_that_is_not_there_is_no_such_one(error):
    assert not verdict.blames_endpoint(error)


@pytest.mark.parametrize(
    "error, found",
    [
        ({"code": "404", "message": "Resource not found"}, verdict.UNSUPPORTED),
        ({"code": None, "message": "Response not found."}, verdict.UNSUPPORTED),
        (None, verdict.UNSUPPORTED),
        ("no", verdict.UNSUPPORTED),
        ({"code": "DeploymentNotFound"}, None),
        ({"code": "model_not_found"}, None),
    ],
)
def test_a_404_of_the_responses_api_mostly_says_nothing_of_the_deployment(error, found):
    assert verdict.of_kept(error) is found
