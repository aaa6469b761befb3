import re

import pytest

from proxy.core.endpoints import ENDPOINTS
from proxy.core.providers import PROVIDERS
from proxy.core.record import IN_STREAM, LONGEST_CHARACTERS, Trail, record
from proxy.core.spans import (
    OPERATIONS,
    PROVIDER_NAMES,
    Place,
    of_attempts,
    of_request,
    place,
)
from proxy.core.types import InstanceConfig, Usage
from proxy.settings import ROOT
from tests.core.test_record import ended, seen, tried

AZURE = Place("azure.ai.openai", "east.example", 443)
END_NS = 1_700_000_000_124_000_000
MS = 1_000_000


def a_record(*attempts, **changes):
    """Of a call for embeddings that took 900 ms; by default one instance answered it."""
    values = {"endpoint": "embeddings", "model": "ada", "client": "app", "request_bytes": 9}
    values |= {"trail": Trail("failover", list(attempts or [tried()])), "ended": ended()}
    return record(seen(**values | changes))


def attempts_of(found, where=lambda _name: AZURE):
    return of_attempts(found, where)


# The request's.


def test_a_request_is_a_servers_span_in_http_s_words():
    span = of_request(a_record())
    assert (span.name, span.why) == ("POST /v1/embeddings", "")
    assert (span.start_ns, span.end_ns) == (END_NS - 900 * MS, END_NS)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "url.path": "/v1/embeddings",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "http.request.body.size": 9,
        "http.response.body.size": 77,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.request.model": "ada",
        "gateway.request_id": "mine",
        "gateway.client": "app",
        "gateway.policy": "failover",
        "gateway.instance": "a",
        "gateway.outcome": "succeeded",
        "gateway.waited_ms": 0,
        "gateway.first_byte_ms": 300,
    }


@pytest.mark.parametrize(
    "path, route",
    [
        ("/openai/v1/embeddings", "/openai/v1/embeddings"),
        ("/openai/deployments/ada/embeddings", "/openai/deployments/{model}/embeddings"),
        ("/openai/deployments/a/b/embeddings", "/openai/deployments/{model}/embeddings"),
    ],
)
def test_its_name_has_nothing_that_a_client_made_up(path, route):
    span = of_request(a_record(path=path))
    assert span.name == f"POST {route}"
    assert span.attributes["http.route"] == route
    assert span.attributes["url.path"] == path


@pytest.mark.parametrize(
    "status, outcome, error",
    [
        (200, "succeeded", None),
        (200, "failed", "failed"),  # a stream that broke off
        (200, "expired", "expired"),  # one whose time was over
        (200, "aborted", None),  # nobody's mistake: the client left
        (429, "throttled", None),  # of a server's span, what a client is told is no error
        (499, "aborted", None),
        (502, "unreachable", "502"),
    ],
)
def test_it_failed_where_the_gateway_did(status, outcome, error):
    span = of_request(a_record(tried(), status=status, ended=ended(outcome=outcome)))
    assert span.attributes.get("error.type") == error


def test_of_one_that_was_refused_at_the_door_there_is_what_is_known():
    found = record(seen(status=401, endpoint="embeddings", error="missing_api_key"))
    span = of_request(found)
    assert (span.attributes["http.response.status_code"], span.name) == (
        401,
        "POST /v1/embeddings",
    )
    assert span.attributes["gateway.error"] == "missing_api_key"
    assert not {"gen_ai.request.model", "gateway.client", "error.type"} & set(span.attributes)
    assert attempts_of(found) == []


def test_who_was_passed_over_is_told_with_the_reason():
    trail = Trail("failover", [tried()], {"b": ("no_room", 1.0), "c": ("operator", 2.0)})
    span = of_request(a_record(trail=trail))
    assert span.attributes["gateway.passed_over"] == ["b: no_room", "c: operator"]


# The attempts'.


def test_an_attempt_is_a_clients_span_in_gen_ai_s_words():
    (span,) = attempts_of(a_record(tried(upstream_id="u", region="West")))
    assert (span.name, span.why) == ("embeddings ada", "")
    assert span.start_ns == END_NS - 650 * MS
    assert span.end_ns == span.start_ns + 600 * MS
    assert span.attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "azure.ai.openai",
        "gen_ai.request.model": "ada",
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "east.example",
        "server.port": 443,
        "gateway.instance": "a",
        "gateway.deployment": "d",
        "gateway.outcome": "succeeded",
        "gateway.upstream_id": "u",
        "gateway.region": "West",
    }


def test_one_that_another_followed_says_why_and_for_how_long_its_instance_rests():
    first = tried("b", status=429, outcome="throttled", rest_seconds=7.0)
    before, after = attempts_of(a_record(first, tried()))
    assert before.why == before.attributes["gateway.next_tried_because"] == "it is at its limit"
    assert before.attributes["error.type"] == "429"
    assert before.attributes["gateway.rest_ms"] == 7000
    assert "http.request.resend_count" not in before.attributes
    assert after.attributes["http.request.resend_count"] == 1
    assert "gateway.next_tried_because" not in after.attributes


def test_tokens_and_cost_are_told_once_of_the_answer_that_the_client_got():
    answer = ended(cost_nano=2_500_000, usage=Usage(3, 20, estimated=True))
    found = a_record(tried("b", status=500, outcome="failed"), tried(), ended=answer)
    told = [of_request(found), *attempts_of(found)]
    assert ["gen_ai.usage.input_tokens" in span.attributes for span in told] == [0, 0, 1]
    assert (told[2].attributes["gateway.cost"], told[2].attributes["gateway.estimated"]) == (
        0.0025,
        True,
    )
    refused = a_record(tried(status=0, outcome="unreachable"), ended=None, status=502)
    assert "gen_ai.usage.input_tokens" not in attempts_of(refused)[0].attributes


def test_a_streams_first_chunk_counts_from_its_attempt_in_seconds():
    (span,) = attempts_of(a_record(ended=ended(streams=True)))
    assert span.attributes["gen_ai.request.stream"] is True
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == 0.05


@pytest.mark.parametrize(
    "status, outcome, error",
    [
        (200, "succeeded", None),
        (0, "aborted", None),
        (0, "expired", "expired"),
        (400, "rejected", "400"),
        (401, "misconfigured", "401"),
        (0, "unreachable", "unreachable"),
        (200, "failed", "failed"),
    ],
)
def test_it_failed_by_its_status_or_else_by_what_came_instead(status, outcome, error):
    (span,) = attempts_of(a_record(tried(status=status, outcome=outcome), ended=None))
    assert span.attributes.get("error.type") == error
    assert ("http.response.status_code" in span.attributes) is (status != 0)


@pytest.mark.parametrize("words", ["it gave no answer", f"{IN_STREAM}: my secret plan"])
def test_what_an_upstream_says_stays_here(words):
    failed = tried(status=0, outcome="failed", error=words)
    before, _ = attempts_of(a_record(failed, tried()))
    assert before.why == words.partition(":")[0]
    assert "secret" not in str(before)


def test_of_an_instance_that_is_gone_it_is_not_known_where_it_was():
    (span,) = attempts_of(a_record(), lambda _name: None)
    assert not {"server.address", "server.port", "gen_ai.provider.name"} & set(span.attributes)


@pytest.mark.parametrize("text, told", [("x" * 500, "x" * LONGEST_CHARACTERS), ("\ud800", "?")])
def test_no_text_is_long_or_cannot_be_sent(text, told):
    found = a_record(tried(text), model=text, client=text, path=f"/openai/deployments/{text}")
    (attempt,) = attempts_of(found)
    assert attempt.attributes["gateway.instance"] == told
    assert attempt.name == f"embeddings {told}"
    attributes = of_request(found).attributes
    assert attributes["gateway.client"] == attributes["gen_ai.request.model"] == told
    assert len(attributes["url.path"]) <= LONGEST_CHARACTERS


@pytest.mark.parametrize(
    "base, host, port",
    [
        ("https://h.example", "h.example", 443),
        ("http://h.example/v1", "h.example", 80),
        ("https://[::1]:8443", "::1", 8443),
        ("https://user:password@h.example", "h.example", 443),
    ],
)
def test_where_an_instance_is_has_no_credential(base, host, port):
    config = InstanceConfig("a", base, "key", provider_type="openai")
    assert place(config) == Place("openai", host, port)


def test_each_endpoint_and_provider_has_a_name_there():
    assert set(OPERATIONS) == set(ENDPOINTS)
    assert set(PROVIDER_NAMES) == set(PROVIDERS)


def test_the_documentation_has_exactly_these_attributes():
    text = (ROOT / "docs/traces.md").read_text().partition("\n## Attributes\n")[2]
    table = [line for line in text.partition("\n```")[0].splitlines() if line.startswith("| ")]
    names = re.compile(r"`((?:http|url|gen_ai|server|gateway)\.[a-z_.]+)`")
    documented = {name for line in table for name in names.findall(line)}
    everything = a_record(
        tried("b", status=429, outcome="throttled", rest_seconds=1.0),
        tried(upstream_id="u", region="West"),
        error="code",
        status=500,
        ended=ended(streams=True, cost_nano=1, usage=Usage(1, 1, 1, estimated=True)),
    )
    everything["passed_over"] = [{"instance": "c", "reason": "no_room"}]
    told = [of_request(everything), *attempts_of(everything)]
    assert {name for span in told for name in span.attributes} - {"error.type"} == documented
