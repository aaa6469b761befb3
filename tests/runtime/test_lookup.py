import math
import time

import pytest

from proxy.errors import UpstreamFailed, UpstreamTimeout
from proxy.runtime.line import Line
from proxy.runtime.lookup import look_up
from proxy.runtime.upstream import UpstreamError
from tests.builders import config
from tests.runtime.world import FakeAnswer, FakeUpstream

PATH = "responses/resp_1"


def ask(answer, method="GET", query="", ends_at=math.inf, **changes):
    """What came of it, and what was sent."""
    upstream = FakeUpstream(a=answer)
    found = look_up(
        upstream,
        [config(**changes)],
        PATH,
        method=method,
        query=query,
        headers={"X-Own": "1"},
        request_id="x",
        line=Line(),
        ends_at=ends_at,
    )
    assert upstream.opened[-1].closed == 1
    return found, upstream.sent[-1]


@pytest.mark.parametrize("status", [200, 204, 400, 404, 429, 500, 503])
def test_what_the_instance_says_is_found_as_it_is(status):
    answer = FakeAnswer(status, (b"{", b"}"), {"x-ms-region": "West"})
    found, sent = ask(answer)
    assert found == (status, [("x-ms-region", "West")], b"{}")
    assert (sent.url, sent.method, sent.body) == (
        f"https://a.openai.azure.com/openai/v1/{PATH}",
        "GET",
        None,
    )
    assert sent.headers == {"X-Own": "1", "api-key": config().api_key}


@pytest.mark.parametrize(
    "fields, url",
    [
        ({}, f"https://a.openai.azure.com/openai/v1/{PATH}?limit=2"),
        (
            {"provider_type": "azure_v1", "api_version": "preview"},
            f"https://a.openai.azure.com/openai/v1/{PATH}?api-version=preview&limit=2",
        ),
        (
            {"provider_type": "openai", "api_base": "https://x.example/v1"},
            f"https://x.example/v1/{PATH}?limit=2",
        ),
    ],
)
def test_a_query_goes_along(fields, url):
    assert ask(FakeAnswer(), query="limit=2", **fields)[1].url == url


@pytest.mark.parametrize("method, body", [("GET", None), ("DELETE", None), ("POST", b"")])
def test_nothing_is_sent_but_the_question(method, body):
    sent = ask(FakeAnswer(), method)[1]
    assert (sent.method, sent.body) == (method, body)


@pytest.mark.parametrize(
    "first",
    [
        FakeAnswer(401),
        FakeAnswer(500, (b"{}",)),
        FakeAnswer(302),
        UpstreamError("it broke off"),
        UpstreamError("it timed out", timed_out=True),
    ],
)
def test_who_knows_the_same_is_asked_where_one_fails(first):
    upstream = FakeUpstream(a=first, b=FakeAnswer(404, (b"gone",)), c=FakeAnswer())
    configs = [config(name) for name in "abc"]
    found = look_up(
        upstream,
        configs,
        PATH,
        method="GET",
        query="",
        headers={},
        request_id="x",
        line=Line(),
        ends_at=math.inf,
    )
    assert (found.status, found.body, upstream.asked) == (404, b"gone", ["a", "b"])


def test_nobody_else_is_asked_for_a_client_that_left():
    line = Line()

    def leave():
        line.cut()
        return UpstreamError("it broke off")

    upstream = FakeUpstream(a=leave, b=FakeAnswer())
    with pytest.raises(UpstreamFailed):
        look_up(
            upstream,
            [config("a"), config("b")],
            PATH,
            method="GET",
            query="",
            headers={},
            request_id="x",
            line=line,
            ends_at=math.inf,
        )
    assert upstream.asked == ["a"]


def test_it_has_the_instances_time_and_no_more_than_its_clients():
    before = time.monotonic()
    sent = ask(FakeAnswer(), timeout_seconds=7.0)[1]
    assert before + 7 <= sent.ends_at <= time.monotonic() + 7
    assert ask(FakeAnswer(), ends_at=before + 1)[1].ends_at == before + 1


@pytest.mark.parametrize("status", [401, 403])
def test_that_the_gateway_is_refused_is_no_matter_of_the_clients(status):
    with pytest.raises(UpstreamFailed) as told:
        ask(FakeAnswer(status, (config().api_key.encode(),)))
    assert (told.value.code, told.value.is_worth_retrying) == ("upstream_misconfigured", False)


@pytest.mark.parametrize("status", [100, 301, 307])
def test_a_redirect_is_not_followed(status):
    with pytest.raises(UpstreamFailed, match="redirected"):
        ask(FakeAnswer(status, (b"",), {"location": "https://elsewhere.example"}))


@pytest.mark.parametrize("timed_out, kind", [(True, UpstreamTimeout), (False, UpstreamFailed)])
def test_an_answer_that_does_not_come_is_told(timed_out, kind):
    error = UpstreamError("it broke off", timed_out=timed_out)
    for answer in (error, FakeAnswer(200, (b"{", error))):
        with pytest.raises(kind, match="gave no answer: it broke off") as told:
            ask(answer)
        assert type(told.value) is kind


def test_the_key_is_not_shown_where_its_instance_quotes_it():
    found, _ = ask(FakeAnswer(400, (b"not " + config().api_key.encode(),)))
    assert config().api_key.encode() not in found.body
