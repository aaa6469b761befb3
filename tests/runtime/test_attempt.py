import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.providers import LAST_WITHOUT_STREAM_OPTIONS
from proxy.core.types import Usage
from proxy.runtime.attempt import ERROR_BYTES, StreamBroken, excerpt
from tests.builders import call, config
from tests.runtime.world import (
    CACHED,
    COMPLETION,
    DONE,
    PROMPT,
    USAGE,
    USAGE_EVENT,
    Clock,
    FakeAnswer,
    World,
    event,
    failed,
    ok,
    stream,
    token,
    unreachable,
)

A = config("a")
REAL = Usage(PROMPT, COMPLETION, CACHED)
WANTS_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
BROKEN = unreachable("it broke off its answer")


def relayed(attempt):
    """Everything a client gets."""
    got = b"".join(attempt)
    attempt.close()
    return got


def broken(attempt):
    """What a client gets of a stream that the upstream breaks, and what ends it."""
    got = []
    with pytest.raises(StreamBroken) as caught:
        got.extend(attempt)
    attempt.close()
    return b"".join(got), caught.value


# Streams.


@given(st.data())
def test_a_stream_goes_through_untouched_however_it_is_cut(data):
    whole = token() + b": keep-alive\r\n\r\n" + token("\u00e9") + USAGE_EVENT + DONE
    cuts = data.draw(st.lists(st.integers(1, len(whole) - 1), unique=True).map(sorted))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    world = World(A, a=stream(*pieces))
    attempt = world.attempt(**WANTS_USAGE)
    assert list(attempt) == pieces
    assert attempt.usage == REAL


def test_bytes_go_out_as_they_come_in():
    world = World(A, a=stream(token("one"), token("two"), DONE))
    attempt = world.attempt(**WANTS_USAGE)
    (answer,) = world.upstream.opened
    pieces = iter(attempt)
    for expected, still_to_come in ((token("one"), 2), (token("two"), 1), (DONE, 0)):
        assert next(pieces) == expected
        assert len(answer.left) == still_to_come


def test_the_usage_event_that_only_we_asked_for_is_hidden():
    world = World(A, a=stream(token(), USAGE_EVENT, DONE))
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == token() + DONE
    assert attempt.usage == REAL
    (sent,) = world.upstream.sent
    assert json.loads(sent.body)["stream_options"] == {"include_usage": True}


def test_the_usage_event_that_the_client_asked_for_is_not():
    world = World(A, a=stream(token(), USAGE_EVENT, DONE))
    attempt = world.attempt(**WANTS_USAGE)
    assert relayed(attempt) == token() + USAGE_EVENT + DONE
    assert world.upstream.sent[0].body == call(**WANTS_USAGE).body


def test_of_an_api_version_that_rejects_the_question_usage_is_not_asked():
    world = World(
        config("a", api_version=LAST_WITHOUT_STREAM_OPTIONS),
        a=stream(token(), token(), token(), DONE),
    )
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == token() * 3 + DONE
    assert world.upstream.sent[0].body == call(stream=True).body
    # One token an event, and the last one.
    assert attempt.usage == Usage(call().prompt_tokens, 4, estimated=True)


def test_a_stream_that_breaks_before_its_first_byte_is_no_answer():
    world = World(A, a=stream(BROKEN))
    attempt = world.alone(stream=True)
    assert (attempt.error, attempt.verdict.outcome) == (BROKEN, "failed")
    assert str(attempt) == "a: it broke off its answer"


def test_an_empty_stream_is_no_answer():
    attempt = World(A, a=stream()).alone(stream=True)
    assert (attempt.error.message, attempt.verdict.outcome) == (
        "it sent an empty stream",
        "failed",
    )


def test_a_stream_that_breaks_in_the_middle_ends_with_an_error_the_client_can_read():
    world = World(A, a=stream(token("so far"), token(), BROKEN))
    got, error = broken(world.attempt(stream=True))
    text, events = token("so far") + token(), got.removeprefix(token("so far") + token())
    assert got.startswith(text)
    assert events.startswith(b"data: ")
    assert events.endswith(b"\n\n")
    assert json.loads(events[6:]) == {
        "error": {
            "message": "The answer broke off: it broke off its answer.",
            "type": "server_error",
            "param": None,
            "code": "stream_interrupted",
        }
    }
    assert b"[DONE]" not in got
    assert isinstance(error, ConnectionResetError)  # what a WSGI server ends a connection by


def test_a_connection_that_breaks_after_the_streams_end_spoils_nothing():
    world = World(A, a=stream(token(), DONE, BROKEN))
    attempt = world.attempt(**WANTS_USAGE)
    assert relayed(attempt) == token() + DONE
    assert (attempt.error, attempt.verdict.outcome) == (None, "succeeded")


@pytest.mark.parametrize("asked", [WANTS_USAGE, {"stream": True}])
def test_half_an_event_does_not_swallow_the_error(asked):
    world = World(A, a=stream(token() + b'data: {"choi', BROKEN))
    got, _ = broken(world.attempt(**asked))
    events = got.split(b"\n\n")
    assert events[-1] == b""
    assert "error" in json.loads(events[-2].removeprefix(b"data: "))


def test_a_broken_stream_counts_as_the_instances_failure():
    world = World(A, a=stream(token(), BROKEN))
    attempt = world.attempt(stream=True)
    broken(attempt)
    view = world.state.view("a")
    assert (view.status, view.last_error) == ("error", "it broke off its answer")
    counted = world.usage("a")
    assert (counted["failed"], counted["requests"], counted["attempts"]) == (1, 1, 1)
    # What came so far is charged: the upstream charges it too.
    assert attempt.usage == Usage(call().prompt_tokens, 1, estimated=True)
    assert world.upstream.opened[0].closed == 1
    assert world.in_flight() == 0


def test_a_client_that_leaves_before_the_first_byte_ends_the_upstreams_answer():
    world = World(A, a=stream(token(), token(), DONE))
    attempt = world.attempt(stream=True)
    attempt.close()
    assert world.upstream.opened[0].closed == 1
    assert world.usage("a")["aborted"] == 1
    assert world.in_flight() == 0


def test_a_client_that_leaves_in_the_middle_is_charged_what_came_so_far():
    world = World(A, a=stream(token(), token(), token(), DONE))
    attempt = world.attempt(stream=True)
    pieces = iter(attempt)
    next(pieces)
    next(pieces)
    pieces.close()
    attempt.close()
    assert attempt.usage == Usage(call().prompt_tokens, 2, estimated=True)
    counted = world.usage("a")
    assert (counted["aborted"], counted["completion_tokens"]) == (1, 2)
    assert world.state.view("a").status == "healthy"
    assert world.upstream.opened[0].closed == 1
    assert world.in_flight() == 0


def test_a_client_that_leaves_as_a_stream_breaks_hides_no_failure():
    world = World(A, a=stream(token(), BROKEN))
    attempt = world.attempt(stream=True)
    pieces = iter(attempt)
    next(pieces)
    next(pieces)  # the error event
    pieces.close()
    attempt.close()
    assert (world.usage("a")["failed"], world.usage("a")["aborted"]) == (1, 0)


@pytest.mark.parametrize("taken", range(5))
def test_whenever_it_is_closed_it_is_settled_once(taken):
    world = World(A, a=stream(token(), token(), USAGE_EVENT, DONE))
    attempt = world.attempt(**WANTS_USAGE)
    pieces = iter(attempt)
    for _ in range(taken):
        next(pieces, None)
    for _ in range(3):
        attempt.close()
    assert world.usage("a")["attempts"] == 1
    assert world.state.view("a").current_tpm == attempt.usage.total_tokens
    assert world.upstream.opened[0].closed == 1
    assert world.in_flight() == 0


def test_it_is_counted_before_the_last_bytes_go_out():
    world = World(A, a=stream(token(), b"data: half an event"))
    counted = [(piece, world.usage("a")["succeeded"]) for piece in world.attempt(stream=True)]
    assert counted == [(token(), 0), (b"data: half an event", 1)]


def test_an_upstream_that_cannot_even_be_closed_gives_its_room_back():
    class Stuck(FakeAnswer):
        def close(self):
            raise OSError("bad file descriptor")

    world = World(A, a=Stuck(200, (token(),), {"content-type": "text/event-stream"}))
    attempt = world.attempt(stream=True)
    with pytest.raises(OSError, match="bad file"):
        attempt.close()
    assert world.in_flight() == 0


# Plain answers.


def test_a_plain_answer_is_read_whole():
    body = ok().pieces[0]
    world = World(A, a=FakeAnswer(200, (body[:10], body[10:])))
    attempt = world.alone()
    assert (attempt.body, attempt.streams, attempt.usage) == (body, False, REAL)
    assert attempt.verdict.outcome == "succeeded"
    assert str(attempt) == "a: HTTP 200"


def test_a_plain_answer_that_breaks_off_is_no_answer():
    world = World(A, a=FakeAnswer(200, (b'{"choices": ', BROKEN)))
    attempt = world.alone()
    assert (attempt.body, attempt.error, attempt.verdict.outcome) == (None, BROKEN, "failed")


def test_a_plain_answer_without_a_byte_is_no_answer():
    attempt = World(A, a=FakeAnswer(200, ())).alone()
    assert (attempt.error.message, attempt.verdict.outcome) == (
        "it sent an empty answer",
        "failed",
    )


def test_an_error_answer_may_be_empty():
    attempt = World(A, a=failed(400)).alone()
    assert (attempt.error, attempt.body, attempt.trouble()) == (None, b"", "400: ")


def test_no_answer_at_all_is_unreachable():
    error = unreachable("the connection was refused")
    attempt = World(A, a=error).alone()
    attempt.close()
    assert (attempt.error, attempt.verdict.outcome) == (error, "unreachable")
    assert attempt.trouble() == "the connection was refused"


@pytest.mark.parametrize(
    "endpoint, completion", [("chat/completions", 25), ("completions", 25), ("embeddings", 0)]
)
def test_an_answer_that_names_no_usage_is_estimated(endpoint, completion):
    attempt = World(A, a=FakeAnswer(200, (b"x" * 100,))).alone(endpoint=endpoint)
    assert attempt.usage == Usage(call().prompt_tokens, completion, estimated=True)


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_answer_costs_nothing(status):
    attempt = World(A, a=failed(status, json.dumps({"usage": USAGE}).encode())).alone()
    attempt.close()
    assert attempt.usage == Usage()


def test_a_stream_that_nobody_asked_for_is_read_whole():
    world = World(A, a=stream(token(), DONE))
    attempt = world.alone()
    assert (attempt.streams, attempt.body) == (False, token() + DONE)


@pytest.mark.parametrize(
    "status, kind", [(200, "application/json"), (400, "text/event-stream")]
)
def test_what_is_no_stream_is_none_though_one_was_asked_for(status, kind):
    world = World(A, a=FakeAnswer(status, (b"{}",), {"Content-Type": kind}))
    attempt = world.alone(stream=True)
    assert (attempt.streams, attempt.body) == (False, b"{}")


def test_how_long_it_took_is_measured(monkeypatch):
    clock = Clock(100.0)
    monkeypatch.setattr("time.monotonic", clock)

    def slow():
        clock.now += 0.25
        return stream(token(), DONE)

    world = World(A, a=slow)
    attempt = world.attempt(stream=True)
    clock.now += 0.5
    relayed(attempt)
    clock.now += 10
    attempt.close()
    assert attempt.latency_ms == 750
    counted = world.usage("a")
    assert (counted["latency_total_ms"], counted["first_byte_total_ms"]) == (750, 250)
    assert world.state.view("a").totals["latency_total_ms"] == 750


# What an error answer says.


@pytest.mark.parametrize(
    "body, said",
    [
        (b'{"error": {"message": "no such thing"}}', "no such thing"),
        (b'{"statusCode": 500, "message": "flat"}', "flat"),  # Azure's other shape
        (b'{"error": "words"}', '{"error": "words"}'),
        (b'{"error": {"message": 5}}', '{"error": {"message": 5}}'),
        (b'["a list"]', '["a list"]'),
        (b"no healthy\r\n upstream\n", "no healthy upstream"),
        (b"<html>\n<b>502</b></html>", "<html> <b>502</b></html>"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * (ERROR_BYTES + 1), "x" * ERROR_BYTES),
        (b"[" * 20_000, "[" * ERROR_BYTES),  # deeper than any parser goes
        (b'{"error": {"message": "\\ud800 half"}}', "? half"),  # cannot be written as UTF-8
    ],
    ids=lambda value: repr(value[:20]),
)
def test_an_error_answers_message_on_one_line(body, said):
    assert excerpt(body) == said


@given(st.binary())
def test_no_error_answer_is_too_strange_to_quote(body):
    excerpt(body).encode()


def test_an_error_answer_nobody_can_parse_gives_its_room_back():
    world = World(A, a=failed(500, b"[" * 20_000))
    world.forward()
    assert world.in_flight() == 0


def test_events_with_usage_and_text_are_not_hidden():
    last = event(choices=[{"delta": {}, "finish_reason": "stop"}], usage=USAGE)
    world = World(A, a=stream(token(), last, DONE))
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == token() + last + DONE
    assert attempt.usage == REAL


def test_a_client_that_leaves_during_a_silence_is_not_the_instances_failure():
    world = World(A, a=stream(token(), token(), DONE))
    attempt = world.attempt(**WANTS_USAGE)
    pieces = iter(attempt)
    next(pieces)
    attempt.leave()
    assert list(pieces) == []
    assert (attempt.verdict.outcome, attempt.error) == ("aborted", None)
    assert attempt.usage.completion_tokens == 1


def test_the_instances_key_is_not_told_though_the_upstream_quotes_it():
    key = "key-0123456789abcdef"
    body = b'{"error": {"message": "bad key ' + key.encode() + b'"}}'
    world = World(config("a", api_key=key), a=failed(500, body))
    attempt = world.alone()
    assert key not in (attempt.body.decode() + attempt.trouble())
    assert "***cdef" in attempt.trouble()


@pytest.mark.parametrize("status", [400, 429])
def test_an_error_answer_that_breaks_off_is_still_judged_by_its_head(status):
    world = World(A, a=FakeAnswer(status, (b"half", unreachable("it broke off its answer"))))
    attempt = world.alone()
    assert (attempt.error, attempt.body) == (None, b"")
    assert attempt.verdict.outcome == {400: "rejected", 429: "throttled"}[status]
