import math
import time

import pytest

from proxy.errors import UpstreamFailed, UpstreamTimeout
from proxy.runtime.line import Line
from proxy.runtime.lookup import Begun, Found, Question, look_up
from proxy.runtime.upstream import UpstreamError
from tests.builders import config
from tests.runtime.world import FakeAnswer, FakeUpstream

PATH = "responses/resp_1"


ASKED = Question(PATH, "GET", "", {"X-Own": "1"}, "x", Line(), math.inf)


def ask(answer, fields=None, **asked):
    """What came of it, and what was sent."""
    upstream = FakeUpstream(a=answer)
    found = look_up(upstream, [config(**fields or {})], ASKED._replace(**asked))
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
    assert ask(FakeAnswer(), fields, query="limit=2")[1].url == url


@pytest.mark.parametrize("method, body", [("GET", None), ("DELETE", None), ("POST", b"")])
def test_nothing_is_sent_but_the_question(method, body):
    sent = ask(FakeAnswer(), method=method)[1]
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
    found = look_up(upstream, [config(name) for name in "abc"], ASKED)
    assert (found.status, found.body, upstream.asked) == (404, b"gone", ["a", "b"])


@pytest.mark.parametrize(
    "first, asked",
    [
        (UpstreamError("it broke off", was_sent=True), ["a"]),
        (FakeAnswer(200, (UpstreamError("it broke off"),)), ["a"]),
        (FakeAnswer(500), ["a"]),
        (UpstreamError("the connection was refused"), ["a", "b"]),
        (FakeAnswer(401), ["a", "b"]),
    ],
)
def test_what_may_have_been_deleted_is_not_deleted_again(first, asked, caplog):
    """Another instance would say, truly, that it is not there."""
    upstream = FakeUpstream(a=first, b=FakeAnswer(404, (b"gone",)))
    question = ASKED._replace(method="DELETE")
    try:
        found = look_up(upstream, [config("a"), config("b")], question).status
    except UpstreamFailed:
        found = None
    assert upstream.asked == asked
    assert (found == 404) is (len(asked) > 1)
    assert [record.fields["instance"] for record in caplog.records] == ["a"]


def test_nobody_else_is_asked_for_a_client_that_left():
    line = Line()

    def leave():
        line.cut()
        return UpstreamError("it broke off")

    upstream = FakeUpstream(a=leave, b=FakeAnswer())
    with pytest.raises(UpstreamFailed):
        look_up(upstream, [config("a"), config("b")], ASKED._replace(line=line))
    assert upstream.asked == ["a"]


def test_it_has_the_instances_time_and_no_more_than_its_clients():
    before = time.monotonic()
    sent = ask(FakeAnswer(), {"timeout_seconds": 7.0})[1]
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


# As a stream.

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def test_a_stream_is_given_to_whoever_asks_for_one_as_soon_as_it_begins():
    upstream = FakeUpstream(a=FakeAnswer(200, (b"data: {}",), EVENTS))
    found = look_up(upstream, [config("a")], ASKED._replace(of_stream=True))
    assert found == Begun("a", upstream.opened[0])
    assert (upstream.opened[0].closed, list(found.answer.left)) == (0, [b"data: {}"])


@pytest.mark.parametrize(
    "status, given, of_stream",
    [(200, EVENTS, False), (400, EVENTS, True), (200, {"content-type": "text/json"}, True)],
)
def test_all_else_is_read_whole(status, given, of_stream):
    found, _ = ask(FakeAnswer(status, (b"{", b"}"), given), of_stream=of_stream)
    assert found == Found(status, list(given.items()), b"{}")
