import json
import math

import pytest

from proxy.core.record import (
    MOST_ATTEMPTS,
    Ended,
    Seen,
    Trail,
    Tried,
    fitted,
    record,
    text_fields,
)
from proxy.core.types import Usage

STARTED = 100.0


def seen(**changes):
    """A request that began at 100 s of the monotonic clock, and took 900 ms."""
    values = {"ended_at": 1_700_000_000.1239, "started": STARTED, "ms": 900, "id": "mine"}
    values |= {"method": "POST", "path": "/v1/embeddings", "status": 200}
    return Seen(**values | changes)


def tried(instance="a", **changes):
    values = {"deployment": "d", "started": STARTED + 0.25, "ms": 5, "status": 200}
    values |= {"outcome": "succeeded", "error": None, "rest_seconds": 0.0}
    values |= {"upstream_id": None, "region": None}
    return Tried(instance=instance, **values | changes)


def ended(**changes):
    values = {"started": STARTED + 0.25, "ms": 600, "first_byte_ms": 50}
    values |= {
        "outcome": "succeeded",
        "error": None,
        "usage": Usage(3, 20, 2, reasoning_tokens=5),
    }
    values |= {"cost_nano": 0, "sent_bytes": 77, "streams": False}
    return Ended(**values | changes)


def test_of_a_request_that_is_no_call_little_is_known():
    assert record(seen(error="unknown_path", status=404)) == {
        "id": "mine",
        "ended_at": 1_700_000_000.124,
        "method": "POST",
        "path": "/v1/embeddings",
        "status": 404,
        "ms": 900,
        "error": "unknown_path",
    }


@pytest.mark.parametrize(
    "status, outcome", [(400, "refused"), (401, "refused"), (499, "aborted")]
)
def test_a_call_that_could_not_be_read_has_an_outcome_too(status, outcome):
    found = record(seen(endpoint="embeddings", status=status))
    assert (found["outcome"], "attempts" in found) == (outcome, False)


def test_the_answers_times_count_from_the_requests_beginning():
    found = record(seen(trail=Trail("failover", [tried()]), ended=ended()))
    assert (found["first_byte_ms"], found["attempts"][0]["at_ms"]) == (300, 250)


def test_of_the_last_attempt_counts_how_it_ended_and_not_how_it_began():
    trail = Trail("failover", [tried("b", status=500, outcome="failed"), tried()])
    broken = ended(outcome="failed", error="it broke off", streams=True)
    found = record(seen(trail=trail, ended=broken))
    first, last = found["attempts"]
    assert (first["ms"], first["outcome"]) == (5, "failed")
    assert (last["ms"], last["outcome"], last["why"]) == (600, "failed", "it broke off")
    assert (found["instance"], found["outcome"], found["stream"]) == ("a", "failed", True)


def test_tokens_bytes_and_cost_are_told():
    found = record(seen(trail=Trail(), ended=ended(cost_nano=2_500_000), request_bytes=9))
    kinds = ("prompt", "completion", "cached", "reasoning")
    assert tuple(found[f"{kind}_tokens"] for kind in kinds) == (3, 20, 2, 5)
    assert found["request_bytes"] == 9
    assert (found["response_bytes"], found["cost"]) == (77, 0.0025)
    assert "cost" not in record(seen(trail=Trail(), ended=ended()))  # no price is known


@pytest.mark.parametrize(
    "usage, told", [(Usage(1, 1, estimated=True), True), (Usage(1, 1), None)]
)
def test_tokens_that_we_counted_are_marked(usage, told):
    assert record(seen(trail=Trail(), ended=ended(usage=usage))).get("estimated") is told


@pytest.mark.parametrize(
    "attempts, status, outcome",
    [
        ([], 429, "refused"),
        ([], 499, "aborted"),  # the client left while it waited
        ([tried(status=0, outcome="unreachable")], 502, "unreachable"),
        ([tried(status=429, outcome="throttled")], 429, "throttled"),
    ],
)
def test_without_an_answer_the_outcome_is_the_last_attempts(attempts, status, outcome):
    found = record(seen(trail=Trail("failover", attempts), status=status))
    assert (found["outcome"], found["instance"]) == (outcome, "")


def test_what_a_client_pays_that_got_no_answer_is_told():
    charged = Usage(12, 0, estimated=True), 24_000
    trail = Trail("failover", [tried(status=0, outcome="aborted")], charged=charged)
    found = record(seen(trail=trail, status=499))
    assert (found["prompt_tokens"], found["completion_tokens"]) == (12, 0)
    assert (found["estimated"], found["cost"]) == (True, 0.000024)
    assert "response_bytes" not in found


def test_an_answer_tells_itself_what_it_used():
    trail = Trail("failover", [tried()], charged=(Usage(12, 0), 0))
    assert record(seen(trail=trail, ended=ended()))["prompt_tokens"] == 3


def test_who_was_passed_over_is_told_and_for_how_long():
    trail = Trail(
        "failover", passed_over={"a": ("throttled", 7.5), "b": ("too_long", math.inf)}
    )
    assert record(seen(trail=trail))["passed_over"] == [
        {"instance": "a", "reason": "throttled", "wait_ms": 7500},
        {"instance": "b", "reason": "too_long", "wait_ms": None},
    ]


def test_the_upstreams_ids_are_of_the_last_attempt():
    ids = {"upstream_id": "9-9", "region": "East US"}
    found = record(seen(trail=Trail("failover", [tried("b"), tried(**ids)]), ended=ended()))
    assert (found["upstream_id"], found["region"]) == ("9-9", "East US")
    assert found["attempts"][1].items() >= ids.items()


def test_a_line_of_text_has_a_word_of_each_attempt():
    trail = Trail("failover", [tried("b", status=0, outcome="unreachable"), tried()])
    found = text_fields(record(seen(trail=trail, ended=ended(), client="app")))
    assert (found["attempts"], found["tried"]) == (2, "b:unreachable,a:200")
    assert list(found)[:6] == ["id", "method", "path", "status", "ms", "client"]


def words(values):
    return json.dumps(values).encode()


def fit(values, most_bytes):
    return fitted(values, words(values), most_bytes, words)


def test_what_fits_is_left_as_it_is():
    values = record(seen(trail=Trail("failover", [tried()]), ended=ended()))
    assert fit(values, 4000) == words(values)


def test_of_what_is_too_much_as_little_as_possible_is_left_out():
    attempts = [tried(str(number), error="x" * 500) for number in range(50)]
    passed = {f"p{number}": ("no_room", 1.0) for number in range(50)}
    values = record(seen(path="/" + "p" * 4000, trail=Trail("failover", attempts, passed)))
    found = json.loads(fit(values, 4000))
    names = [attempt["instance"] for attempt in found["attempts"]]
    assert names == [*(str(n) for n in range(MOST_ATTEMPTS - 1)), "49"]
    assert (found["id"], found["status"]) == ("mine", 200)
    assert found["cut"] is True
    assert len(fit(values, 400)) <= 400
    assert fit(values, 10) == b""
