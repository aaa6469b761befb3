import pytest

from proxy.core import refusal
from proxy.core.story import FAILURES, REASONS, story
from proxy.core.verdict import MISCONFIGURED, OUTCOMES

CALL = {"id": "x", "ended_at": 1.0, "method": "POST", "path": "/v1/chat/completions"}
CALL |= {"status": 200, "ms": 910, "client": "app", "model": "gpt-4o", "policy": "failover"}
CALL |= {"endpoint": "chat/completions", "request_bytes": 96, "waited_ms": 0}
ANSWER = {"outcome": "succeeded", "stream": False, "first_byte_ms": 310, "prompt_tokens": 3}
ANSWER |= {
    "completion_tokens": 20,
    "cached_tokens": 0,
    "response_bytes": 77,
    "instance": "west",
}
EAST = {"instance": "east", "deployment": "4o", "at_ms": 2, "ms": 31, "status": 429}
EAST |= {"outcome": "throttled", "rest_ms": 7000}
WEST = {"instance": "west", "deployment": "4o", "at_ms": 35, "ms": 870, "status": 200}
WEST |= {"outcome": "succeeded", "upstream_id": "12-34", "region": "West US"}


NORTH = {"instance": "north", "reason": "throttled", "wait_ms": 5000}
PASSED = "north was passed over: it rested after a 429, for another 5.0 s."


def test_a_calls_way_is_told_step_by_step():
    record = CALL | ANSWER | {"attempts": [EAST, WEST], "passed_over": [NORTH]}
    assert story(record) == [
        "app asked for gpt-4o (chat/completions, 96 bytes); instances in the order of the"
        " policy failover.",
        "After 2 ms east (deployment 4o) was asked: it answered 429 in 31 ms, it is at its"
        " limit; it is left alone for 7.0 s; so the next was tried.",
        "After 35 ms west (deployment 4o) was asked: it answered 200 in 870 ms. The upstream"
        " knows it as 12-34, West US.",
        f"On the way {PASSED}",
        "The answer was there after 310 ms and was over after 910 ms.",
        "It used 3 tokens of the prompt and 20 of the answer: 77 bytes.",
    ]


def test_of_a_call_that_refers_to_something_kept_it_is_told_where():
    record = CALL | ANSWER | {"attempts": [WEST], "home": "west", "endpoint": "responses"}
    assert story(record)[0] == (
        "app asked for gpt-4o (responses, 96 bytes); only who keeps what it refers to could be"
        " asked: west."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"outcome": "aborted", "status": None},
        {"outcome": "expired", "status": None},
        {"outcome": "failed", "why": "it broke off its answer"},  # after its beginning
        {"outcome": "rejected"},  # as its stream said
    ],
)
def test_who_was_passed_over_is_told_first_where_nothing_could_come_after(changes):
    call = CALL | ANSWER | {"passed_over": [NORTH], "waited_ms": 250}
    told = story(call | {"attempts": [WEST | changes]})
    assert told[1:3] == [PASSED, "It waited 250 ms for room."]
    assert told[3].startswith("After 35 ms west")


@pytest.mark.parametrize(
    "attempts",
    [
        [EAST],
        [EAST | {"status": None, "outcome": "failed", "why": "it broke off its answer"}],
        [EAST | {"status": 404, "outcome": "rejected"}],  # a model that may be another's
        [EAST, WEST],
    ],
)
def test_no_order_is_told_that_is_not_known(attempts):
    call = CALL | {"status": 429, "outcome": "throttled", "attempts": attempts}
    told = story(call | {"passed_over": [NORTH | {"instance": "east"}], "waited_ms": 250})
    assert told[1].startswith("After 2 ms east")
    assert told[1 + len(attempts) : 3 + len(attempts)] == [
        f"On the way {PASSED}".replace("north", "east"),
        "On the way it waited 250 ms for room.",
    ]


@pytest.mark.parametrize(
    "outcome, why, came",
    [
        ("failed", "it broke off its answer", "no usable answer came"),
        ("expired", "the time for the call is over", "no usable answer came"),
        ("aborted", "the client left before it had answered", "no usable answer came"),
        ("misconfigured", "there is no token of Entra ID for it", "no answer came"),
        ("unreachable", "it timed out", "no answer came"),
    ],
)
def test_what_came_and_was_no_answer_is_not_told_as_nothing(outcome, why, came):
    tried = EAST | {"status": None, "outcome": outcome, "why": why, "rest_ms": 0}
    told = story(CALL | {"status": 502, "outcome": outcome, "attempts": [tried]})
    assert told[1] == f"After 2 ms east (deployment 4o) was asked: {came} in 31 ms, {why}."


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"status": 429, "outcome": "throttled"}, ", it is at its limit"),
        ({"status": 500, "outcome": "failed"}, ", it failed"),
        (
            {"status": 401, "outcome": "misconfigured"},
            ", it refuses the gateway, for a person to mend",
        ),
        ({"status": 400, "outcome": "rejected"}, ""),  # it may be the client's mistake
        ({"status": 200, "outcome": "succeeded"}, ""),
        ({"status": 200, "outcome": "failed"}, ""),  # as its stream said
    ],
)
def test_of_the_last_one_it_is_told_what_its_status_means(changes, why):
    told = story(CALL | {"attempts": [EAST | {"rest_ms": 0} | changes]})
    came = f"it answered {changes['status']} in 31 ms"
    assert told[1] == f"After 2 ms east (deployment 4o) was asked: {came}{why}."


def test_one_that_is_asked_once_more_is_not_the_next():
    failed = EAST | {"status": 500, "outcome": "failed", "rest_ms": 0}
    told = story(CALL | ANSWER | {"attempts": [failed, failed | {"at_ms": 700}, WEST]})
    assert told[1].endswith("it answered 500 in 31 ms, it failed; so it was asked once more.")
    assert told[2].endswith("it answered 500 in 31 ms, it failed; so the next was tried.")


def test_one_token_is_one():
    told = story(CALL | ANSWER | {"attempts": [WEST], "prompt_tokens": 1})
    assert told[-1] == "It used 1 token of the prompt and 20 of the answer: 77 bytes."


def test_who_left_and_pays_is_told_what_for():
    asked = EAST | {"status": None, "outcome": "aborted", "why": "the client left"}
    paid = {"prompt_tokens": 12, "completion_tokens": 0, "estimated": True, "cost": 0.000024}
    told = story(CALL | paid | {"status": 499, "outcome": "aborted", "attempts": [asked]})
    assert told[-2:] == [
        f"The client got none of these answers: 499 after {CALL['ms']} ms.",
        "But its upstream went on, so it is charged 12 tokens of the prompt and 0 of the"
        " answer, counted by the gateway, at a cost of 0.000024.",
    ]


def test_who_pays_for_what_an_upstream_broke_off_is_not_told_that_it_went_on():
    asked = EAST | {"status": 200, "outcome": "failed", "why": "it broke off its answer"}
    paid = {"prompt_tokens": 12, "completion_tokens": 1, "estimated": True}
    told = story(CALL | paid | {"status": 502, "outcome": "failed", "attempts": [asked]})
    assert told[-1] == (
        "It is charged 12 tokens of the prompt and 1 of the answer, counted by the gateway."
    )


def test_what_is_no_call_is_one_sentence():
    record = {
        "id": "x",
        "ended_at": 1.0,
        "method": "GET",
        "path": "/no",
        "status": 404,
        "ms": 1,
    }
    assert story(record) == ["GET /no: 404 after 1 ms."]
    record |= {"client": "app", "error": "unknown_path"}
    assert story(record) == ["app sent GET /no: 404 (unknown_path) after 1 ms."]


def test_a_call_for_which_nobody_could_be_asked_says_what_the_client_was_told():
    refused = {"status": 429, "error": "no_room", "outcome": "refused", "waited_ms": 250}
    passed = [{"instance": "east", "reason": refusal.TOO_LONG, "wait_ms": None}]
    assert story(CALL | refused | {"attempts": [], "passed_over": passed})[1:] == [
        "east was passed over: the prompt was too long for it.",
        "It waited 250 ms for room.",
        "No instance was asked.",
        "The client got 429 (no_room) after 910 ms.",
    ]
    told = {"said": "This key may make 6 requests a minute. Try again in 2.0 s."}
    assert story(CALL | refused | told)[-1] == (
        "The client got 429 (no_room) after 910 ms: This key may make 6 requests a minute. Try"
        " again in 2.0 s."
    )


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"outcome": "aborted"}, "The client left after 910 ms."),
        (
            {"outcome": "failed", "stream": True},
            "The stream broke off after 910 ms, and the client was told so.",
        ),
        ({"stream": True}, "The answer said something after 310 ms and was over after 910 ms."),
        (
            {"cost": 0.0025, "cached_tokens": 2, "reasoning_tokens": 5, "estimated": True},
            "It used 3 tokens of the prompt (2 of them cached) and 20 of the answer (5 of them"
            " thought), counted by the gateway, at a cost of 0.0025: 77 bytes.",
        ),
    ],
)
def test_the_end_is_told_as_it_was(changes, sentence):
    assert sentence in story(CALL | ANSWER | {"attempts": [WEST]} | changes)


def test_without_an_answer_it_is_said_why():
    gone = {"instance": "east", "at_ms": 0, "ms": 5000, "outcome": "unreachable"}
    gone["why"] = "the connection was refused"
    told = story(CALL | {"status": 502, "outcome": "unreachable", "attempts": [gone]})
    assert told[1] == (
        "After 0 ms east was asked: no answer came in 5.0 s, the connection was refused."
    )


def test_a_record_that_was_cut_to_fit_has_a_story_too():
    record = CALL | ANSWER | {"cut": True}
    del record["path"]
    left_out = "The record was too long to be kept whole: %s."
    assert story(record)[1] == left_out % "whom it was sent to is left out"
    some = story(record | {"attempts": [WEST]})
    assert some[1].startswith("After 35 ms west")
    assert some[2] == left_out % "not all of it is told"


def test_each_reason_and_each_failure_has_words():
    named = {v for n, v in vars(refusal).items() if n.isupper() and isinstance(v, str)}
    assert named | MISCONFIGURED | {"throttled", "operator"} == set(REASONS)
    assert set(OUTCOMES) - {"succeeded", "expired", "aborted"} == set(FAILURES)


def test_a_stream_that_its_worker_left_was_not_left_by_its_client():
    left = WEST | {"outcome": "aborted", "why": "the gateway is being stopped"}
    told = story(CALL | ANSWER | {"outcome": "aborted", "stream": True, "attempts": [left]})
    assert "The stream broke off after 910 ms, and the client was told so." in told


def test_a_small_cost_is_written_out():
    told = story(CALL | ANSWER | {"attempts": [WEST], "cost": 0.00001})
    assert "at a cost of 0.00001:" in told[-1]
