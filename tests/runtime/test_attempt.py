import contextlib
import gc
import json
import time
import weakref
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import verdict as verdicts
from proxy.core.kept import Marks
from proxy.core.live import RETRY_SECONDS
from proxy.core.providers import LAST_WITHOUT_STREAM_OPTIONS, resource
from proxy.core.record import Trail
from proxy.core.sse import ENDLESS_BYTES
from proxy.core.types import NO_USAGE, Usage
from proxy.errors import ClientLeft, ProxyError, UpstreamTimeout
from proxy.runtime import attempt as attempts
from proxy.runtime.broken_stream import StreamBroken
from proxy.runtime.entra import NoToken
from proxy.runtime.line import Line
from proxy.runtime.upstream import NoCredential
from tests.builders import MODEL, call, config, serving
from tests.runtime.world import (
    BROKEN,
    DONE,
    END,
    ERROR,
    REAL,
    ROLE,
    USAGE,
    USAGE_EVENT,
    WANTS_USAGE,
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
PREAMBLE = event(choices=[], prompt_filter_results=[])


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
    got = list(attempt)
    assert b"".join(got) == whole
    # What came before the first event that says something is held back, nothing after it.
    held = next(n for n, end in enumerate([*cuts, len(whole)], 1) if end >= len(token()))
    assert got == [b"".join(pieces[:held]), *pieces[held:]]
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


def test_of_an_answer_that_broke_it_is_told_by_what_its_upstream_knows_it():
    """And no status: it came to no answer."""
    broken = stream(BROKEN)
    broken.given |= {"apim-request-id": "12-34", "x-ms-region": "West US"}
    tried = World(A, a=broken).alone(stream=True).tried()
    assert (tried.status, tried.upstream_id, tried.region) == (0, "12-34", "West US")


def test_nobody_pays_for_a_stream_that_broke_before_it_said_anything():
    paid = []
    world = World(A, a=lambda: stream(ROLE, BROKEN))
    with pytest.raises(ProxyError):
        world.gateway.forward(
            call(stream=True), world.trail, None, lambda usage, _: paid.append(usage)
        )
    assert paid == [Usage()]
    assert world.trail.charged is None


def test_an_error_event_that_blames_the_request_is_passed_on_at_once_and_harms_nobody():
    told = event(error={"code": "content_filter", "message": "no"})
    world = World(A, config("b", priority=200), a=lambda: stream(PREAMBLE, told, DONE))
    for _ in range(20):
        attempt = world.attempt(stream=True)
        assert relayed(attempt) == PREAMBLE + told + DONE
        assert attempt.verdict is verdicts.REJECTED
        assert attempt.usage == Usage()
        assert attempt.trouble() == "an error inside of its stream: no"
    assert set(world.tried) == {"a:200"}
    view = world.state.view("a")
    assert (view.breaker, view.totals["error_count"]) == ("closed", 0)
    assert view.totals["total_upstream_400_errors"] == 20


@pytest.mark.parametrize("joined", [True, False])
def test_what_was_said_before_or_behind_it_is_charged_however_it_is_cut(joined):
    told = event(error={"code": "content_filter", "message": "no"})
    for pieces in ((token(), token(), told, DONE), (PREAMBLE, told, token(), DONE)):
        given = (b"".join(pieces),) if joined else pieces
        attempt = World(A, a=stream(*given)).attempt(stream=True)
        relayed(attempt)
        assert attempt.verdict is verdicts.REJECTED
        assert attempt.usage.completion_tokens == 4


def test_an_error_that_may_blame_the_request_is_asked_of_one_sibling_and_opens_no_breaker():
    told = event(error={"type": "BadRequestError", "code": 400, "message": "no"})
    b = config("b", priority=200)
    world = World(A, b, a=lambda: stream(told), b=lambda: stream(told))
    for _ in range(10):
        with pytest.raises(ProxyError):
            world.attempt(stream=True)
    assert world.tried == ["a:failed", "b:failed"] * 10
    assert {world.state.view(name).breaker for name in "ab"} == {"closed"}
    world.upstream.answers["b"] = lambda: stream(token(), DONE)
    assert relayed(world.attempt(stream=True)) == token() + DONE


def test_so_it_is_in_the_middle_where_what_came_before_is_charged():
    told = event(error={"type": "invalid_request_error", "code": 400, "message": "no"})
    world = World(A, a=stream(token(), told, DONE))
    attempt = world.attempt(stream=True)
    relayed(attempt)
    assert attempt.verdict is verdicts.REJECTED
    assert attempt.usage.estimated
    assert world.state.view("a").breaker == "closed"


def test_a_stream_of_one_event_may_end_without_its_empty_line():
    for asks in ({"stream": True}, WANTS_USAGE):
        attempt = World(A, a=stream(END[:-2])).attempt(**asks)
        assert relayed(attempt) == END[:-2]
        assert attempt.verdict is verdicts.SUCCEEDED
        assert attempt.usage.completion_tokens == 1


def test_an_endless_event_is_a_failure_also_where_it_is_the_first():
    pieces = [b'data: {"x":"', *[b"x" * 2_000_000] * 20]
    attempt = World(A, a=stream(*pieces)).attempt(stream=True)
    got, _ = broken(attempt)
    assert b"stream_interrupted" in got
    assert attempt.verdict is verdicts.FAILED


def test_an_empty_stream_is_no_answer():
    attempt = World(A, a=stream()).alone(stream=True)
    assert (attempt.error.message, attempt.verdict.outcome) == (
        "it ended its stream before it said anything",
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
            "message": "The answer broke off: the upstream broke off its answer.",
            "type": "server_error",
            "param": None,
            "code": "stream_interrupted",
        }
    }
    assert b"[DONE]" not in got
    assert isinstance(error, ConnectionResetError)  # what a WSGI server ends a connection by


@pytest.mark.parametrize("asks", [{"stream": True}, WANTS_USAGE])
def test_a_stream_whose_line_does_not_end_is_the_instances_failure(asks):
    pieces = [token("Hello"), b"data: ", *[b"x" * 2_000_000] * 20]
    world = World(A, a=stream(*pieces))
    attempt = world.attempt(**asks)
    got, _ = broken(attempt)
    assert attempt.verdict is verdicts.FAILED
    assert attempt.error.message == "it sent an event of its stream that did not end"
    line, last = got.split(b"\n\n")[1:3]
    assert line.startswith(b"data: xxx")
    assert len(line) < ENDLESS_BYTES + 2_000_000
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"


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


@pytest.mark.parametrize(
    "pieces, why",
    [
        ((token(), BROKEN), "it broke off its answer"),
        ((token(), ERROR), "an error inside of its stream: out of order"),
    ],
)
def test_that_a_client_got_a_part_of_an_answer_is_logged(logged, pieces, why):
    attempt = World(A, a=stream(*pieces)).attempt(stream=True)
    with contextlib.suppress(StreamBroken):
        list(attempt)
    attempt.close()
    told = ("WARNING", f"request-1 a, in the middle of its stream: {why}")
    assert logged.count(told) == 1


def test_a_mistake_of_the_gateways_with_a_plain_answer_is_no_broken_stream(logged):
    attempt = World(A, a=ok()).alone()
    attempt.spoil()
    assert attempt.verdict.outcome == "failed"
    assert logged == []


@pytest.mark.parametrize("ends", [True, False])
def test_that_it_got_all_or_wanted_no_more_is_not(logged, ends):
    attempt = World(A, a=stream(token(), DONE)).attempt(stream=True)
    if ends:
        list(attempt)
    attempt.close()
    assert logged == []


class Large(bytearray):
    """Of which it can be seen whether it is still somewhere."""


def test_an_open_stream_keeps_nothing_of_its_request():
    body = Large(b'{"model": "gpt-4o"}')
    seen, world = weakref.ref(body), World(A, a=stream(token(), DONE))
    attempt = world.gateway.forward(call(stream=True, body=body), Trail())
    world.upstream.sent.clear()
    del body
    gc.collect()
    assert seen() is None
    assert relayed(attempt) == token() + DONE


def test_a_broken_stream_counts_as_the_instances_failure():
    world = World(A, a=stream(token(), BROKEN))
    attempt = world.attempt(stream=True)
    broken(attempt)
    view = world.state.view("a")
    assert view.last_error == "it broke off its answer"
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
    world = World(A, a=stream(END, b": half a comment"))
    counted = [(piece, world.usage("a")["succeeded"]) for piece in world.attempt(stream=True)]
    assert counted == [(END, 0), (b": half a comment", 1)]


def test_an_upstream_that_cannot_even_be_closed_gives_its_room_back():
    class Stuck(FakeAnswer):
        def close(self):
            raise OSError("bad file descriptor")

    world = World(A, a=Stuck(200, (token(),), {"content-type": "text/event-stream"}))
    attempt = world.attempt(stream=True)
    with pytest.raises(OSError, match="bad file"):
        attempt.close()
    assert world.in_flight() == 0


# What says nothing yet is held back.


def test_nothing_goes_out_before_there_is_content():
    world = World(A, a=stream(PREAMBLE, ROLE, token(), token(), DONE))
    attempt = world.attempt(stream=True)
    (answer,) = world.upstream.opened
    assert len(answer.left) == 2
    assert list(attempt) == [PREAMBLE + ROLE + token(), token(), DONE]


@pytest.mark.parametrize(
    "pieces, trouble",
    [
        ((PREAMBLE, ROLE, BROKEN), "it broke off its answer"),
        ((PREAMBLE, unreachable("it timed out", timed_out=True)), "it timed out"),
        ((PREAMBLE, ROLE), "it ended its stream before it said anything"),
        ((ERROR, DONE), "an error inside of its stream: out of order"),
        ((PREAMBLE, ROLE + ERROR, DONE), "an error inside of its stream: out of order"),
        ((token()[:-1], BROKEN), "it broke off its answer"),
    ],
)
def test_what_fails_before_it_said_anything_is_asked_of_another(pieces, trouble):
    world = World(A, config("b", priority=200), a=stream(*pieces), b=stream(token(), DONE))
    assert relayed(world.attempt(stream=True)) == token() + DONE
    assert world.upstream.asked == ["a", "b"]
    assert world.state.view("a").last_error == trouble
    assert world.usage("a")["failed"] == 1


def test_a_stream_that_says_nothing_but_that_it_ends_is_whole():
    world = World(A, a=stream(PREAMBLE, DONE))
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == PREAMBLE + DONE
    assert attempt.verdict.outcome == "succeeded"


def test_an_error_event_in_the_middle_is_passed_on_and_is_the_instances_failure():
    world = World(A, a=stream(token(), ERROR, DONE))
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == token() + ERROR + DONE
    assert (attempt.verdict.outcome, attempt.usage.completion_tokens) == ("failed", 3)
    assert world.state.view("a").last_error == "an error inside of its stream: out of order"


def test_after_an_error_event_a_stream_needs_no_other_end():
    world = World(A, a=stream(token(), ERROR))
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == token() + ERROR
    assert attempt.verdict.outcome == "failed"


def test_a_key_in_an_error_event_is_not_told():
    key = "key-0123456789abcdef"
    world = World(config("a", api_key=key), a=stream(event(error={"message": f"bad {key}"})))
    attempt = world.alone(stream=True)
    assert key not in attempt.trouble()


@pytest.mark.parametrize("pieces", [(token(),), (token(), token()[:-1])])
def test_a_stream_that_just_ends_was_broken_off(pieces):
    world = World(A, a=stream(*pieces))
    got, _ = broken(world.attempt(stream=True))
    assert b'"code": "stream_interrupted"' in got
    assert world.state.view("a").last_error == "it ended its stream before the answer's end"


def test_a_stream_of_which_one_choice_ended_and_another_was_cut_was_broken_off():
    world = World(A, a=stream(token(), END))
    got, _ = broken(world.attempt(stream=True, choices=2))
    assert b'"code": "stream_interrupted"' in got


def test_a_done_without_its_empty_line_is_an_end():
    world = World(A, a=stream(token(), DONE.rstrip() + b"\n"))
    attempt = world.attempt(stream=True)
    relayed(attempt)
    assert attempt.verdict.outcome == "succeeded"


def test_a_stream_whose_choices_ended_needs_no_done():
    world = World(A, a=stream(token(), END))
    attempt = world.attempt(stream=True)
    assert relayed(attempt) == token() + END
    assert attempt.verdict.outcome == "succeeded"


def test_an_instance_that_answers_again_closes_its_breaker(logged):
    world = World(A, a=unreachable())
    for _ in range(3):
        with contextlib.suppress(ProxyError):
            world.forward()
    world.upstream.answers["a"] = stream(token(), DONE)
    world.clock.now += 1
    attempt = world.attempt(stream=True)
    assert world.state.view("a").breaker == "closed"  # though the stream goes on
    told = ("WARNING", "a answers again: its breaker closed")
    assert told not in logged
    relayed(attempt)
    assert told in logged


def test_an_instance_that_takes_the_gateway_again_is_told_of_with_its_first_byte(logged):
    world = World(A, a=failed(401))
    with contextlib.suppress(ProxyError):
        world.forward()
    world.clock.now += RETRY_SECONDS
    world.upstream.answers["a"] = stream(token(), DONE)
    attempt = world.attempt(stream=True)
    assert ("WARNING", "a takes the gateway again, and is asked by all") in logged
    assert attempt.was_recovery
    assert world.state.view("a").status == "healthy"  # though the stream goes on


def test_one_that_refuses_the_gateway_still_is_not(logged):
    world = World(A, a=failed(401))
    for _ in range(2):
        with contextlib.suppress(ProxyError):
            world.forward()
        world.clock.now += RETRY_SECONDS
    assert world.upstream.asked == ["a", "a"]
    assert len([line for level, line in logged if level == "WARNING"]) == 3
    assert "again" not in str(logged)


@pytest.mark.parametrize("status", [400, 401, 429])
def test_how_fast_an_instance_refuses_is_not_how_fast_it_is(status):
    world = World(A, a=failed(status))
    with contextlib.suppress(ProxyError):
        world.forward()
    (candidate,) = world.state.look([serving(A)])
    assert candidate.first_byte_ms is None


def test_what_a_person_should_hear_of_is_logged(logged):
    world = World(A, a=unreachable())
    for _ in range(3):
        world.alone().close()
    world = World(A, a=failed(401, b"no"))
    world.alone().close()
    assert [line for level, line in logged if level == "WARNING"] == [
        "a fails, and is left alone for a while: the connection was refused",
        "a refuses the gateway; a person has to mend its config: 401: no",
    ]


def test_what_an_instance_says_of_a_deployment_names_it(logged):
    World(A, a=failed(404, b"unknown")).alone().close()
    World(A, a=failed(429, **{"retry-after": "60"})).alone().close()
    assert [line for level, line in logged if level == "WARNING"] == [
        "a refuses the gateway; a person has to mend its config: 404: unknown"
        " (of its deployment gpt-4o)",
        "a wants to be left alone for long: 60 s (of its deployment gpt-4o)",
    ]


# Times.


AT_ONCE_SECONDS = (
    0.25  # in which a call comes to its instance, also where others use the machine
)


def soon(seconds):
    return time.monotonic() + seconds


def silent_until(ends_at):
    """Of an instance that says nothing until then."""

    def answer():
        while time.monotonic() < ends_at:
            pass
        return unreachable("it timed out", timed_out=True)

    return answer


def test_before_the_content_the_configs_time_counts_and_after_it_the_silence_of_streams():
    world = World(config("a", timeout_seconds=7.0), a=stream(ROLE, token(), DONE))
    ends_at = soon(100)
    attempt = world.attempt(stream=True, ends_at=ends_at)
    assert world.upstream.sent[0].ends_at == ends_at
    before, after = world.upstream.opened[0].ends
    assert before == pytest.approx(soon(7), abs=1)
    assert (after, world.upstream.opened[0].silences) == (ends_at, [60.0])
    attempt.close()


def test_nothing_goes_on_beyond_the_calls_time():
    world = World(A, a=stream(ROLE, token(), token(), DONE))
    ends_at = soon(5)
    attempt = world.attempt(stream=True, ends_at=ends_at)
    assert world.upstream.sent[0].ends_at == ends_at
    assert world.upstream.opened[0].ends == [ends_at, ends_at]
    attempt.close()


def test_the_body_of_an_error_is_waited_for_a_second_at_most():
    world = World(A, a=failed(500))
    world.attempt(ends_at=soon(100)).close()
    assert world.upstream.opened[0].ends == [pytest.approx(soon(1), abs=0.5)]


def test_a_call_whose_time_is_over_asks_nobody():
    world = World(A, a=AssertionError("not to be asked"))
    with pytest.raises(UpstreamTimeout, match="the time for the call is over"):
        world.forward(ends_at=soon(-1))
    assert world.upstream.asked == []
    assert world.in_flight() == 0


@pytest.mark.parametrize(
    "is_hurried, is_over, is_told",
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_who_set_the_calls_time_is_told_not_to_repeat_it_when_that_is_over(
    is_hurried, is_over, is_told
):
    """A second try would take as long again."""
    ends_at = soon(-1 if is_over else 100)
    world = World(A, a=unreachable("it timed out", timed_out=True))
    with pytest.raises(UpstreamTimeout) as caught:
        world.forward(ends_at=ends_at, is_hurried=is_hurried)
    assert ("x-should-retry" in caught.value.headers()) is is_told


def test_a_client_that_waits_no_longer_is_not_the_instances_failure():
    ends_at = soon(AT_ONCE_SECONDS)
    world = World(A, config("b", priority=200), a=silent_until(ends_at))
    with pytest.raises(UpstreamTimeout):
        world.forward(ends_at=ends_at)
    assert world.upstream.asked == ["a"]
    assert world.state.view("a").totals["error_count"] == 0
    # But neither did it leave: it was told that there is no answer.
    counted = world.usage("a")
    assert (counted["expired"], counted["lost"], counted["aborted"]) == (1, 1, 0)


@pytest.mark.parametrize("is_unusual", [True, False])
@pytest.mark.parametrize("why, outcome", [("hurry", "aborted"), ("left", "aborted")])
def test_a_client_that_gives_up_after_an_unusual_silence_tells_of_a_failure(
    why, outcome, is_unusual, monkeypatch
):
    outcome = "unreachable" if is_unusual else outcome
    ends_at = soon(AT_ONCE_SECONDS) if why == "hurry" else soon(100)
    line = Line()

    def late():
        while why == "hurry" and time.monotonic() < ends_at:
            pass
        if why == "left":
            line.cut()
        return unreachable("it timed out", timed_out=True)

    world = World(A, a=late)
    if is_unusual:
        world.answered(10)
    monkeypatch.setattr(verdicts, "OVERDUE_SECONDS", 0.0)
    monkeypatch.setattr(verdicts, "OVERDUE_TIMES", 0)
    with pytest.raises(UpstreamTimeout if why == "hurry" else ClientLeft):
        world.attempt(line=line, stream=True, ends_at=ends_at, is_hurried=why == "hurry")
    assert (world.upstream.asked, world.usage("a")[outcome]) == (["a"], 1)
    assert world.usage("a")["lost"] == (why == "hurry" and is_unusual)
    assert world.state.view("a").totals["error_count"] == (outcome == "unreachable")


def test_a_client_that_waited_for_others_before_is_not_hasty():
    began_at, ends_at = time.monotonic() - 60, soon(AT_ONCE_SECONDS)
    world = World(A, a=silent_until(ends_at))
    with pytest.raises(UpstreamTimeout):
        world.forward(ends_at=ends_at, is_hurried=True, began_at=began_at)
    counted = world.usage("a")
    assert (counted["expired"], counted["lost"]) == (1, 1)


@pytest.mark.parametrize(
    "hasty, outcome, told",
    [
        (60.0, "aborted", []),
        (
            0.0,
            "expired",
            ["request-1 a: the time for the call is over, and there is no time to ask another"],
        ),
    ],
)
def test_a_client_that_waits_for_a_moment_only_says_nothing_of_the_instance(
    hasty, outcome, told, monkeypatch, logged
):
    monkeypatch.setattr(verdicts, "HASTY_SECONDS", hasty)
    ends_at = soon(AT_ONCE_SECONDS)
    world = World(A, a=silent_until(ends_at))
    with pytest.raises(UpstreamTimeout):
        world.forward(ends_at=ends_at, is_hurried=True)
    counted = world.usage("a")
    assert (counted[outcome], counted["lost"]) == (1, outcome == "expired")
    assert [line for level, line in logged if level == "WARNING"] == told


def test_a_client_that_leaves_after_a_failure_did_not_wait_for_better():
    line = Line()
    world = World(A, a=lambda: line.cut() or failed(500))
    with pytest.raises(ClientLeft):
        world.forward(line=line)
    counted = world.usage("a")
    assert (counted["requests"], counted["failed"]) == (1, 1)
    assert (counted["abandoned"], counted["lost"]) == (1, 0)


def test_how_long_a_plain_answer_takes_tells_nothing(monkeypatch):
    """It may be a long one, and its client impatient."""
    monkeypatch.setattr(verdicts, "OVERDUE_SECONDS", 0.0)
    line = Line()
    world = World(A, a=lambda: line.cut() or unreachable())
    world.answered(1)
    with pytest.raises(ClientLeft):
        world.forward(line=line)
    assert (world.usage("a")["aborted"], world.state.view("a").breaker) == (1, "closed")


def test_the_body_of_a_clients_mistake_is_waited_for():
    world = World(A, a=failed(400))
    world.attempt(ends_at=soon(100)).close()
    assert world.upstream.opened[0].ends == []


def test_a_stream_whose_time_is_over_is_told_so(monkeypatch):
    ends_at = soon(100)
    world = World(A, a=stream(token(), token(), DONE))
    attempt = world.attempt(stream=True, ends_at=ends_at)
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: ends_at)
        got, _ = broken(attempt)
    assert b"the time for the call is over" in got
    counted = world.usage("a")
    assert (counted["expired"], counted["lost"], counted["aborted"]) == (1, 1, 0)


def test_a_client_that_leaves_before_the_head_is_not_the_instances_failure():
    line = Line()

    def leaving():
        line.cut()
        return unreachable("it broke off its answer")

    world = World(A, config("b", priority=200), a=leaving)
    with pytest.raises(ClientLeft):
        world.forward(line=line)
    assert (world.upstream.asked, world.usage("a")["aborted"]) == (["a"], 1)
    assert world.in_flight() == 0
    (told,) = world.trail.attempts
    assert told.error == "the client left before it had answered"  # and nobody broke off


@pytest.mark.parametrize("was_sent", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("why", ["left", "hurry"])
def test_who_waits_no_longer_pays_for_the_prompt_that_the_upstream_was_sent(
    why, stream, was_sent
):
    line, paid, ends_at = Line(), [], soon(AT_ONCE_SECONDS if why == "hurry" else 100)

    def late():
        while why == "hurry" and time.monotonic() < ends_at:
            pass
        if why == "left":
            line.cut()
        return unreachable("it timed out", timed_out=True, was_sent=was_sent)

    world, asked = World(A, a=late), call(stream=stream, ends_at=ends_at)
    with pytest.raises(ProxyError):
        world.gateway.forward(asked, world.trail, line, lambda usage, _: paid.append(usage))
    used = Usage(asked.prompt_tokens, 0, estimated=True) if was_sent else Usage()
    assert paid == [used]
    assert world.usage("a")["prompt_tokens"] == used.prompt_tokens
    assert world.trail.charged == ((used, 0) if was_sent else None)


def test_so_does_who_leaves_in_the_middle_of_a_plain_answer():
    line, paid = Line(), []
    answer = FakeAnswer(200, (b"{", b"}"))
    answer.read_all = lambda: line.cut() or answer.read_some()
    world, asked = World(A, a=answer), call()
    world.upstream.send = lambda *_, **__: answer
    answer.line = line
    with pytest.raises(ClientLeft):
        world.gateway.forward(asked, world.trail, line, lambda usage, _: paid.append(usage))
    assert paid == [Usage(asked.prompt_tokens, 0, estimated=True)]


def test_an_instance_that_failed_and_is_not_the_last_one_costs_the_client_nothing():
    paid = []
    silent = unreachable("it timed out", timed_out=True, was_sent=True)
    world = World(A, config("b", priority=200), a=silent)
    attempt = world.gateway.forward(
        call(), world.trail, None, lambda usage, _: paid.append(usage)
    )
    attempt.close()
    assert paid == [REAL]


# Plain answers.


def test_a_plain_answer_is_read_whole():
    body = ok().pieces[0]
    world = World(A, a=FakeAnswer(200, (body[:10], body[10:])))
    attempt = world.alone()
    assert (attempt.body, attempt.stream, attempt.usage) == (body, None, REAL)
    assert attempt.verdict.outcome == "succeeded"
    assert str(attempt) == "a: HTTP 200"


def test_a_plain_answer_that_breaks_off_is_no_answer():
    world = World(A, a=FakeAnswer(200, (b'{"choices": ', BROKEN)))
    attempt = world.alone()
    assert (attempt.body, attempt.error, attempt.verdict.outcome) == (None, BROKEN, "failed")


@pytest.mark.parametrize("body, whole", [(b'{"id": "x"}', True), (b'{"id": "x', False)])
def test_a_plain_answer_that_ends_with_its_connection_is_whole_if_its_json_is(body, whole):
    world = World(A, config("b", priority=200), a=FakeAnswer(200, (body,), is_delimited=False))
    world.forward()
    assert world.upstream.asked == (["a"] if whole else ["a", "b"])


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
    "endpoint, completion",
    [
        ("chat/completions", 25),
        ("completions", 25),
        ("embeddings", 0),
        ("audio/transcriptions", 25),
        ("images/edits", 16),  # as many as were held for them
    ],
)
def test_an_answer_that_names_no_usage_is_estimated(endpoint, completion):
    attempt = World(A, a=FakeAnswer(200, (b"{%b}" % (b" " * 98),))).alone(endpoint=endpoint)
    assert attempt.usage == Usage(call().prompt_tokens, completion, estimated=True)


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"\n <!DOCTYPE html>"])
@pytest.mark.parametrize("asks", [{}, {"stream": True}])
def test_a_page_instead_of_an_answer_is_the_instances_failure(body, asks):
    page = FakeAnswer(200, (body,), {"content-type": "application/json"})
    world = World(A, config("b", priority=200), a=page)
    attempt = world.alone(**asks)
    assert attempt.verdict is verdicts.FAILED
    assert str(attempt) == "a: its answer is a page of HTML or XML, and no JSON"
    attempt.close()
    assert world.forward()[0] == 200
    assert world.tried == ["a:failed", "b:200"]


@pytest.mark.parametrize("is_delimited", [False, True])
@pytest.mark.parametrize("body", [b"", b"<unk> " * 20, b"WEBVTT\n\n"])
def test_a_transcript_may_be_text(body, is_delimited):
    kind = {"content-type": "text/plain; charset=utf-8"}
    answer = FakeAnswer(200, (body,), kind, is_delimited=is_delimited)
    attempt = World(A, a=answer).alone(endpoint="audio/translations")
    assert (attempt.verdict, attempt.body) == (verdicts.SUCCEEDED, body)
    assert attempt.usage == Usage(call().prompt_tokens, len(body) // 4, estimated=True)


@pytest.mark.parametrize(
    "endpoint, kind, body, why",
    [
        ("audio/translations", "application/json", b"", "it sent an empty answer"),
        ("audio/translations", "text/html", b"<html>", attempts.A_PAGE),
        ("audio/translations", "", b"<html>", attempts.A_PAGE),
        ("audio/translations", "text/xml", b"<!DOCTYPE html>", attempts.A_PAGE),
        ("images/edits", "text/plain", b"", "it sent an empty answer"),
        ("chat/completions", "text/plain", b"<html>", attempts.A_PAGE),
        ("audio/transcriptions", "application/json", b'{"text":', "it broke off its answer"),
    ],
)
def test_a_transcript_that_is_no_answer_is_the_instances_failure(endpoint, kind, body, why):
    answer = FakeAnswer(200, (body,), {"content-type": kind}, is_delimited=False)
    attempt = World(A, a=answer).alone(endpoint=endpoint)
    assert (attempt.verdict, str(attempt)) == (verdicts.FAILED, f"a: {why}")
    attempt.close()


SPEAKS = {"stream": True, "endpoint": "audio/speech"}


def sound(*pieces, kind="audio/mpeg", **more):
    return FakeAnswer(200, pieces, {"content-type": kind}, **more)


@pytest.mark.parametrize("is_delimited", [False, True])
@pytest.mark.parametrize(
    "kind", ["audio/mpeg", "Audio/PCM;rate=24000", "application/octet-stream"]
)
def test_a_sound_is_passed_on_as_it_comes(kind, is_delimited):
    pieces = [b"<html>", b"data: [DONE]\n\n", bytes(4_000)]
    world = World(A, a=sound(*pieces, kind=kind, is_delimited=is_delimited))
    attempt = world.attempt(**SPEAKS)
    assert list(attempt) == pieces
    attempt.close()
    assert attempt.usage == Usage(call().prompt_tokens, 4, estimated=True)
    assert attempt.verdict is verdicts.SUCCEEDED


def test_a_sound_that_breaks_in_the_middle_has_no_last_words():
    world = World(A, a=sound(b"abc", BROKEN))
    got, error = broken(world.attempt(**SPEAKS))
    assert (got, error.__class__) == (b"abc", StreamBroken)
    assert world.usage("a")["failed"] == 1


@pytest.mark.parametrize("answer", [sound(BROKEN), sound(), sound(b"<html>", kind="text/html")])
def test_where_nothing_was_heard_another_is_asked(answer):
    world = World(A, config("b", priority=200), a=answer, b=sound(b"abc"))
    attempt = world.attempt(**SPEAKS)
    assert (attempt.serving.config.name, list(attempt)) == ("b", [b"abc"])
    attempt.close()


def test_a_sound_may_lack_its_type():
    attempt = World(A, a=FakeAnswer(200, (b"abc", bytes(2_000)), {})).attempt(**SPEAKS)
    assert relayed(attempt) == b"abc" + bytes(2_000)
    assert attempt.usage == Usage(call().prompt_tokens, 2, estimated=True)


def test_a_sound_of_another_type_counts_by_its_bytes_too():
    attempt = World(A, a=sound(bytes(5_000), kind="video/mp4")).alone(**SPEAKS)
    assert (len(attempt.body), attempt.usage.completion_tokens) == (5_000, 5)


def test_an_answer_that_is_no_sound_is_read_whole():
    attempt = World(A, a=ok()).alone(**SPEAKS)
    assert (attempt.stream, attempt.verdict) == (None, verdicts.SUCCEEDED)
    assert attempt.usage == REAL


def test_of_other_endpoints_a_sound_is_no_stream():
    answer = sound(b"abc", kind="audio/mpeg")
    attempt = World(A, a=answer).alone(stream=True)
    assert (attempt.stream, attempt.body) == (None, b"abc")


def test_a_transcript_in_json_is_read_whatever_type_it_names():
    body = json.dumps({"text": "Hi", "usage": {"input_tokens": 5, "output_tokens": 1}}).encode()
    answer = FakeAnswer(200, (body,), {"content-type": "text/plain"})
    attempt = World(A, a=answer).alone(endpoint="audio/translations")
    assert attempt.usage == Usage(5, 1)


DURATION = {"type": "duration", "seconds": 60}


def test_a_transcript_that_counts_seconds_is_estimated_by_them():
    words = [{"word": "word", "start": 0.0, "end": 0.5}] * 100
    attempt = World(A, a=ok(text="\u00fc" * 20, words=words, usage=DURATION)).alone(
        endpoint="audio/transcriptions"
    )
    assert attempt.usage == Usage(1_000, 10, estimated=True)
    events = [event(type="transcript.text.delta", delta="a")] * 3
    last = event(type="transcript.text.done", text="aaa", usage=DURATION)
    world = World(A, a=stream(*events, last))
    streamed = world.attempt(stream=True, endpoint="audio/transcriptions")
    relayed(streamed)
    assert streamed.usage == Usage(1_000, 4, estimated=True)


IMAGES = {"endpoint": "images/generations", "prompt_tokens": 10, "reserved_tokens": 8_330}


def test_images_whose_answer_says_nothing_cost_what_was_held_for_them():
    attempt = World(A, a=ok(data=[{"url": "https://a/b.png"}], usage=None)).alone(**IMAGES)
    assert attempt.usage == Usage(10, 8_320, estimated=True)


@pytest.mark.parametrize("end", [(), (BROKEN,)])
def test_so_they_do_when_their_stream_breaks_off_or_its_client_leaves(end):
    partial = event(type="image_generation.partial_image", b64_json="x" * 100)
    world = World(A, a=stream(partial, partial, *end))
    attempt = world.attempt(stream=True, **IMAGES)
    next(iter(attempt))
    attempt.close()
    assert attempt.usage == Usage(10, 8_320, estimated=True)


def test_an_image_of_which_nothing_came_costs_its_prompt():
    attempt = World(A, a=stream(b": nothing yet\n\n", BROKEN)).alone(stream=True, **IMAGES)
    attempt.close()
    assert attempt.usage == Usage()


def test_a_transcripts_stream_ends_with_its_usage():
    events = [event(type="transcript.text.delta", delta="Hel"), event(type="t", delta="lo")]
    usage = {"input_tokens": 14, "output_tokens": 2, "type": "tokens"}
    last = event(type="transcript.text.done", text="Hello", usage=usage)
    world = World(A, a=stream(*events, last))
    attempt = world.attempt(stream=True, endpoint="audio/transcriptions")
    assert relayed(attempt) == b"".join([*events, last])
    assert attempt.usage == Usage(14, 2)


@pytest.mark.parametrize("body", [b" " * 99 + b"{}", b"\n{}", b"[]", b"data: {}\n\n"])
def test_whatever_else_it_is_is_passed_on_as_an_answer(body):
    """A stream may come under a name of its own."""
    for asks in ({}, {"stream": True}):
        answer = FakeAnswer(200, (body,), {"content-type": "text/plain"})
        attempt = World(A, a=answer).alone(**asks)
        assert (attempt.verdict, attempt.body) == (verdicts.SUCCEEDED, body)


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_answer_costs_nothing(status):
    attempt = World(A, a=failed(status, json.dumps({"usage": USAGE}).encode())).alone()
    attempt.close()
    assert attempt.usage == Usage()


NO_VERSION = b'{"error":{"code":"BadRequest","message":"API version not supported"}}'
OLD = (
    b'{"error":{"message":"It is enabled only for api versions 2024-12-01-preview and later"}}'
)


def test_a_version_that_azure_does_not_know_is_the_operators_to_mend_and_another_is_asked():
    world = World(A, config("b", priority=200), a=failed(400, NO_VERSION))
    assert [world.forward()[0] for _ in range(3)] == [200] * 3
    assert world.tried == ["a:400", "b:200", "b:200", "b:200"]
    view = world.state.view("a")
    assert view.status == "misconfigured"
    assert view.last_error == "400: API version not supported"
    alone = World(A, a=failed(400, NO_VERSION))
    with pytest.raises(ProxyError) as caught:
        alone.forward()
    assert (caught.value.status, caught.value.code) == (502, "upstream_misconfigured")


ECHO = b"""{"error":{"message":"Invalid value: 'API version not supported'.","code":"x",
"param":"messages[0].role"}}"""


@pytest.mark.parametrize(
    "body", [ECHO, ECHO.replace(b"param", b"p"), b"API version not supported"]
)
def test_a_client_that_is_quoted_puts_nobody_to_rest(body):
    world = World(A, config("b", priority=200), a=failed(400, body))
    assert world.forward() == (400, body)
    assert world.state.view("a").status == "healthy"


def test_of_others_than_azures_classic_api_no_version_is_to_blame():
    one = config("a", provider_type="openai")
    world = World(one, config("b", priority=200), a=failed(400, NO_VERSION))
    assert world.forward() == (400, NO_VERSION)


def test_one_whose_version_is_too_old_is_not_asked_again_while_there_is_time():
    settings = {"max_wait_seconds": 5.0, "waiting_places": 5}
    world = World(A, a=failed(400, OLD), clock=time.monotonic, settings=settings)
    assert world.forward() == (400, OLD)
    assert world.tried == ["a:400"]


def test_a_version_that_is_too_old_for_this_request_is_good_for_others():
    world = World(A, config("b", priority=200), a=failed(400, OLD))
    assert [world.forward()[0] for _ in range(2)] == [200] * 2
    assert world.tried == ["a:400", "b:200"] * 2
    view = world.state.view("a")
    assert (view.status, view.rests, view.breaker) == ("healthy", {}, "closed")
    assert (view.totals["error_count"], view.totals["total_upstream_400_errors"]) == (0, 2)
    alone = World(A, a=failed(400, OLD))
    assert alone.forward() == (400, OLD)  # it may be the client that asks for too much


NOT_FOR_CHAT = b"""{"error":{"message":"This model is only supported in v1/responses.",
"type":"invalid_request_error","param":"model","code":null}}"""


def test_a_model_asked_in_a_way_that_is_not_its_own_puts_nobody_to_rest():
    a, b = (config(n, provider_type="openai", supported_models=(MODEL,)) for n in "ab")
    world = World(a, replace(b, priority=200), a=failed(404, NOT_FOR_CHAT))
    assert [world.forward()[0] for _ in range(2)] == [200] * 2
    assert world.tried == ["a:404", "b:200"] * 2
    view = world.state.view("a")
    assert (view.status, view.rests, view.breaker) == ("healthy", {}, "closed")
    alone = World(a, a=failed(404, NOT_FOR_CHAT))
    assert alone.forward() == (404, NOT_FOR_CHAT)  # its client reads why


def test_a_stream_that_nobody_asked_for_is_read_whole():
    world = World(A, a=stream(token(), DONE))
    attempt = world.alone()
    assert (attempt.stream, attempt.body) == (None, token() + DONE)


@pytest.mark.parametrize(
    "status, kind", [(200, "application/json"), (400, "text/event-stream")]
)
def test_what_is_no_stream_is_none_though_one_was_asked_for(status, kind):
    world = World(A, a=FakeAnswer(status, (b"{}",), {"Content-Type": kind}))
    attempt = world.alone(stream=True)
    assert (attempt.stream, attempt.body) == (None, b"{}")


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


def test_times_are_counted_as_the_client_saw_them(monkeypatch):
    """What another instance and the way there took is none of the one that answers."""
    clock = Clock(100.0)
    monkeypatch.setattr("time.monotonic", clock)

    def taking(seconds, answer):
        def slow():
            clock.now += seconds
            return answer

        return slow

    a, b = taking(0.5, failed(500)), taking(0.25, ok())
    world = World(A, config("b", priority=200), a=a, b=b)
    world.forward(began_at=98.0)
    counted = world.usage("b")
    assert (counted["latency_total_ms"], counted["latency_upto_4000_ms"]) == (2750, 1)
    assert (counted["first_byte_total_ms"], counted["first_byte_upto_4000_ms"]) == (2750, 1)
    assert world.state.view("b").totals["latency_total_ms"] == 250


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
    line = Line()
    attempt = world.attempt(**WANTS_USAGE, line=line)
    pieces = iter(attempt)
    next(pieces)
    line.cut()
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


def test_the_token_it_was_asked_with_is_not_told_though_the_upstream_quotes_it():
    secret = "token-of-entra-0123456789"
    body = b'{"error": {"message": "bad token ' + secret.encode() + b'"}}'
    answer = FakeAnswer(500, (body,), token=secret)
    attempt = World(config("a", auth="entra"), a=answer).alone()
    assert secret not in (attempt.body.decode() + attempt.trouble())
    assert "***6789" in attempt.trouble()


@pytest.mark.parametrize("before", [b"", token()])
def test_nor_does_a_stream_tell_the_token_to_operators(before):
    secret = "token-of-entra-0123456789"
    error = event(error={"message": f"bad token {secret}"})
    answer = replace(stream(*filter(None, (before, error, DONE))), token=secret)
    attempt = World(config("a", auth="entra"), a=answer).alone(stream=True)
    if attempt.error is None:
        relayed(attempt)
    assert "***6789" in attempt.trouble()
    assert secret not in attempt.trouble()


@pytest.mark.parametrize(
    "error, outcome, failure, rest_seconds",
    [
        # A person has to mend it: it rests until there is another try.
        (NoToken("no role", is_refused=True, retry_seconds=1.5), "misconfigured", False, 1.5),
        # Nobody could be asked: it is as if the instance did not answer.
        (NoToken("no answer", retry_seconds=4.0), "unreachable", True, 0.0),
        (NoToken("no answer", timed_out=True), "unreachable", True, 0.0),
    ],
)
def test_without_a_token_others_are_asked_and_operators_are_told_why(
    error, outcome, failure, rest_seconds
):
    attempt = World(A, a=NoCredential(error)).alone()
    verdict = attempt.verdict
    assert verdict.try_next
    assert (verdict.outcome, verdict.failure, verdict.rest_seconds) == (
        outcome,
        failure,
        rest_seconds,
    )
    assert attempt.trouble() == f"there is no token of Entra ID for it: {error.message}"
    assert attempt.error.message == "there is no token of Entra ID for it"


@pytest.mark.parametrize("status", [400, 429])
def test_an_error_answer_that_breaks_off_is_still_judged_by_its_head(status):
    world = World(A, a=FakeAnswer(status, (b"half", unreachable("it broke off its answer"))))
    attempt = world.alone()
    assert (attempt.error, attempt.body) == (None, b"")
    assert attempt.verdict.outcome == {400: "rejected", 429: "throttled"}[status]


# Responses, which their instance keeps.

MARKS, HOME = Marks(b"secret", "app"), resource(A)


def of_response(payload, **changes):
    """The attempt at an instance that answers so."""
    answer = FakeAnswer(200, (json.dumps(payload).encode(),))
    attempt = World(A, a=answer).alone(endpoint="responses", marks=MARKS, **changes)
    attempt.close()
    return attempt


def test_a_response_goes_on_with_marks_and_its_usage():
    usage = {"input_tokens": 9, "output_tokens": 3}
    payload = {"id": "resp_1", "status": "completed", "error": None, "usage": usage}
    attempt = of_response(payload)
    assert json.loads(attempt.body) == payload | {"id": MARKS.marked("resp_1", HOME)}
    assert (attempt.verdict.outcome, attempt.usage) == ("succeeded", Usage(9, 3))


def test_without_marks_it_goes_on_as_it_came():
    answer = FakeAnswer(200, (b'{"id": "resp_1"}',))
    attempt = World(A, a=answer).alone(endpoint="responses")
    assert attempt.body == b'{"id": "resp_1"}'
    attempt.close()


def test_one_that_failed_is_as_good_as_an_error():
    error = {"code": "server_error", "message": "Bad luck."}
    attempt = of_response({"id": "resp_1", "status": "failed", "error": error})
    assert attempt.verdict is verdicts.FAILED
    assert attempt.trouble() == "it answered that it failed: Bad luck."


def test_one_that_its_client_is_to_blame_for_is_shown():
    error = {"code": "invalid_prompt", "message": "No."}
    attempt = of_response({"id": "resp_1", "status": "failed", "error": error})
    assert attempt.verdict is verdicts.REJECTED
    assert json.loads(attempt.body)["id"] == MARKS.marked("resp_1", HOME)


def test_one_in_the_background_counts_by_what_it_may_use():
    payload = {"id": "resp_1", "status": "queued", "usage": None}
    attempt = of_response(payload, prompt_tokens=10, reserved_tokens=110)
    assert attempt.usage == Usage(10, 100, estimated=True)


def test_a_stream_of_one_has_marks_and_an_end_of_its_own():
    told = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi"},
        {"type": "response.completed", "response": {"id": "resp_1", "usage": None}},
    ]
    pieces = tuple(f"data: {json.dumps(each)}\n\n".encode() for each in told)
    answer = FakeAnswer(200, pieces, {"content-type": "text/event-stream"})
    world = World(A, a=answer)
    with contextlib.closing(
        world.attempt(endpoint="responses", marks=MARKS, stream=True)
    ) as attempt:
        sent = relayed(attempt)
    assert sent.count(MARKS.marked("resp_1", HOME).encode()) == 2
    assert sent.count(MARKS.marked("msg_1", HOME).encode()) == 1
    assert attempt.verdict.outcome == "succeeded"


def test_a_stream_of_one_that_breaks_off_says_so_as_this_api_does():
    piece = b'data: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
    answer = FakeAnswer(200, (piece, BROKEN), {"content-type": "text/event-stream"})
    attempt = World(A, a=answer).attempt(endpoint="responses", marks=MARKS, stream=True)
    got, _ = broken(attempt)
    assert b"event: error" in got
    assert b'"code": "stream_interrupted"' in got


def test_what_a_response_used_it_says_itself_and_not_what_it_repeats():
    tools = [{"parameters": {"properties": {"usage": {"input_tokens": 0, "output_tokens": 0}}}}]
    payload = {"id": "resp_1", "status": "queued", "usage": None, "tools": tools}
    attempt = of_response(payload, prompt_tokens=10, reserved_tokens=110)
    assert attempt.usage == Usage(10, 100, estimated=True)
    payload |= {"usage": {"input_tokens": 0, "output_tokens": 0}}
    attempt = of_response(payload, prompt_tokens=10, reserved_tokens=110)
    assert attempt.usage == Usage(10, 100, estimated=True)
    used = {"usage": {"input_tokens": 7, "output_tokens": 5}, "metadata": tools[0]}
    assert of_response(payload | used | {"status": "completed"}).usage == Usage(7, 5)


def test_one_that_ended_without_saying_what_it_used_is_estimated_by_what_came():
    payload = {"id": "resp_1", "status": "completed", "output": "x" * 400}
    attempt = of_response(payload, prompt_tokens=10, reserved_tokens=9_000)
    assert attempt.usage.estimated
    assert 100 < attempt.usage.completion_tokens < 150


def test_one_that_failed_costs_nothing_if_others_are_asked():
    payload = {"id": "resp_1", "status": "failed", "error": {"code": "server_error"}}
    assert of_response(payload | {"usage": {"input_tokens": 7}}).usage == NO_USAGE


@pytest.mark.parametrize("body", [b"[1]", b'"x"', b"{", b"", b"<html>"])
def test_what_is_no_object_is_no_response(body):
    attempt = World(A, a=FakeAnswer(200, (body,))).alone(endpoint="responses", marks=MARKS)
    attempt.close()
    assert attempt.verdict is verdicts.FAILED


@pytest.mark.parametrize("background, tokens", [(True, 100), (False, 1)])
def test_what_goes_on_though_its_client_left_counts_by_what_it_may_use(background, tokens):
    told = [
        {"type": "response.created", "response": {"background": background}},
        {"type": "response.output_text.delta", "delta": "Hi"},
    ]
    pieces = (b"".join(f"data: {json.dumps(each)}\n\n".encode() for each in told), BROKEN)
    answer = FakeAnswer(200, pieces, {"content-type": "text/event-stream"})
    attempt = World(A, a=answer).attempt(
        endpoint="responses", marks=MARKS, stream=True, prompt_tokens=10, reserved_tokens=110
    )
    attempt.close()  # nobody listens
    assert attempt.usage == Usage(10, tokens, estimated=True)


def test_a_response_that_streams_unasked_is_passed_on_as_one():
    pieces = (b'data: {"type":"response.completed","response":{"usage":null}}\n\n',)
    answer = FakeAnswer(200, pieces, {"content-type": "text/event-stream; charset=utf-8"})
    with contextlib.closing(
        World(A, a=answer).attempt(endpoint="responses", marks=MARKS, stream=False)
    ) as attempt:
        assert relayed(attempt) == pieces[0]
    assert attempt.verdict.outcome == "succeeded"
