"""The whole app with traces on, and spans as they would go to a collector."""

import contextlib
import re

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from proxy import make_parts
from proxy.context import EXTENSION
from proxy.runtime import otel
from tests.builders import MODEL
from tests.web.conftest import ADMIN_KEY, CHAT, STREAM, USUAL, log_kept, running

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-00"
STATE = "congo=t61rcWkgMzE"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

both_ways = pytest.mark.parametrize("propagate", [False, True], ids=["afterwards", "early"])


@pytest.fixture
def exported(monkeypatch):
    """What goes to the collector."""
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    memory = InMemorySpanExporter()
    monkeypatch.setattr(otel, "OTLPSpanExporter", lambda: memory)
    return memory


@pytest.fixture
def traced(exported, make_settings, simulator, routes):
    """A function that makes a world with traces and the instances a and b, in that order."""
    with log_kept(), contextlib.ExitStack() as stack:

        def make(**changes):
            settings = make_settings(**USUAL | {"traces": True} | changes)
            routes.extensions[EXTENSION] = make_parts(settings)
            world = stack.enter_context(running(routes, simulator))
            world.add("a", priority=1)
            world.add("b", priority=2)
            return world

        yield make


def spans(world, exported):
    """(the request's, those of its attempts) of each request so far."""
    world.parts.log_writer.stop()
    world.parts.traces._spans.flush()
    found = sorted(exported.get_finished_spans(), key=lambda span: span.start_time)
    requests = [span for span in found if span.kind is SpanKind.SERVER]
    of = {span.context.span_id: [] for span in requests}
    for span in found:
        if span.kind is SpanKind.CLIENT:
            of[span.parent.span_id].append(span)
    return [(span, of[span.context.span_id]) for span in requests]


def ids(header):
    """(trace, span, flags) of a traceparent."""
    return TRACEPARENT.fullmatch(header).groups()


@both_ways
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_a_call_is_one_span_and_each_attempt_one_below_it(traced, exported, propagate, body):
    world = traced(traces_propagate=propagate)
    world.simulator["a"].faults["*"] = "429"
    assert world.ask(body, headers={"x-request-id": "mine"}).status_code == 200
    ((request, (first, second)),) = spans(world, exported)
    assert request.name == "POST /v1/chat/completions"
    assert request.attributes["gateway.request_id"] == "mine"
    assert request.attributes["gateway.client"] == "app"
    assert request.attributes["http.response.status_code"] == 200
    assert request.status.status_code is StatusCode.UNSET
    assert request.parent is None
    assert (first.name, second.name) == (f"chat {MODEL}", f"chat {MODEL}")
    assert first.attributes["error.type"] == "429"
    assert (first.status.status_code, first.status.description) == (
        StatusCode.ERROR,
        "it is at its limit",
    )
    assert second.status.status_code is StatusCode.UNSET
    assert second.attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert second.attributes["gen_ai.usage.output_tokens"] == 20
    assert second.attributes["gen_ai.request.stream"] is ("stream" in body)
    assert second.attributes["server.address"] == "127.0.0.1"
    assert [s.attributes["gateway.instance"] for s in (first, second)] == ["a", "b"]
    assert {s.context.trace_id for s in (first, second)} == {request.context.trace_id}
    # They last whole milliseconds, and a thread may be stopped between its looks at two clocks.
    assert request.start_time <= first.start_time <= second.start_time
    assert second.end_time <= request.end_time + 100_000_000


@both_ways
def test_a_stream_lasts_until_its_end(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    world.simulator["a"].latency_ms = 30
    world.ask(STREAM)
    ((request, (attempt,)),) = spans(world, exported)
    for span in (request, attempt):
        assert span.end_time - span.start_time >= 30_000_000


@both_ways
def test_a_client_that_leaves_in_the_middle_is_nobodys_error(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    answer = world.ask(STREAM, buffered=False)
    assert answer.iter_encoded()
    answer.close()
    ((request, (attempt,)),) = spans(world, exported)
    for span in (request, attempt):
        assert span.attributes["gateway.outcome"] == "aborted"
        assert span.status.status_code is StatusCode.UNSET


@both_ways
def test_a_stream_that_breaks_off_failed_though_its_status_is_200(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    world.simulator["a"].faults["*"] = "break-in-middle"
    with pytest.raises(ConnectionResetError):
        world.ask(STREAM)
    ((request, (attempt,)),) = spans(world, exported)
    for span in (request, attempt):
        assert span.attributes["http.response.status_code"] == 200
        assert span.attributes["error.type"] == "failed"
        assert span.status.status_code is StatusCode.ERROR


@both_ways
def test_a_call_that_is_refused_has_a_span_alone(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    world.ask(headers={"Authorization": ""})
    world.ask(CHAT | {"model": "x" * 201})
    world.ask(
        CHAT | {"messages": "x" * 10}, path=f"/openai/deployments/{'x' * 201}/completions"
    )
    found = spans(world, exported)
    assert [
        (request.attributes["http.response.status_code"], attempts)
        for request, attempts in found
    ] == [(401, []), (400, []), (400, [])]
    assert found[0][0].attributes["gateway.error"] == "missing_api_key"
    assert {request.status.status_code for request, _ in found} == {StatusCode.UNSET}


def test_one_that_nobody_answers_failed(traced, exported):
    world = traced()
    for name in "ab":
        world.simulator[name].faults["*"] = "break-before-head"
    assert world.ask().status_code == 502
    ((request, attempts),) = spans(world, exported)
    assert request.attributes["error.type"] == "502"
    assert request.status.status_code is StatusCode.ERROR
    assert {span.attributes["error.type"] for span in attempts} == {"unreachable"}


def test_what_is_no_call_has_no_span(traced, exported):
    world = traced()
    world.client.get("/health")
    world.client.get("/v1/models", headers={"api-key": world.client_key})
    world.client.post("/nothing")
    assert spans(world, exported) == []


# Whose child it is.


@both_ways
def test_the_clients_trace_goes_on(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    world.ask(headers={"traceparent": SAMPLED, "tracestate": STATE})
    ((request, (attempt,)),) = spans(world, exported)
    assert request.context.trace_id == attempt.context.trace_id == int(TRACE_ID, 16)
    assert (request.parent.span_id, request.parent.is_remote) == (int(PARENT_ID, 16), True)
    assert request.context.trace_state.to_header() == STATE


@both_ways
def test_a_trace_that_is_none_is_not_gone_on_with(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    for given in ("", "nonsense", f"00-{'0' * 32}-{PARENT_ID}-01", SAMPLED * 20):
        assert world.ask(headers={"traceparent": given}).status_code == 200
    assert [request.parent for request, _ in spans(world, exported)] == [None] * 4


@both_ways
def test_what_the_client_does_not_sample_is_left_out(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    world.ask(headers={"traceparent": NOT_SAMPLED})
    assert spans(world, exported) == []


@both_ways
def test_the_sampler_is_opentelemetrys(monkeypatch, traced, exported, propagate):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    world = traced(traces_propagate=propagate)
    assert world.ask().status_code == 200
    assert spans(world, exported) == []


# What upstreams are told.


def test_upstreams_are_told_only_if_that_is_asked_for(traced, exported):
    world = traced()
    world.ask(headers={"traceparent": SAMPLED, "tracestate": STATE})
    assert not {"traceparent", "tracestate"} & set(world.received("a").headers)


def test_without_traces_a_clients_headers_go_on_as_any(world):
    world.add("a")
    world.ask(headers={"traceparent": SAMPLED, "tracestate": STATE})
    sent = world.received("a").headers
    assert (sent["traceparent"], sent["tracestate"]) == (SAMPLED, STATE)


@pytest.mark.parametrize("given", [None, SAMPLED])
def test_each_attempt_tells_its_upstream_its_own_span(traced, exported, given):
    world = traced(traces_propagate=True)
    world.simulator["a"].faults["*"] = "500"
    world.ask(headers={"traceparent": given, "tracestate": STATE} if given else {})
    told = [world.received(name).headers for name in "ab"]
    ((request, attempts),) = spans(world, exported)
    for headers, span in zip(told, attempts, strict=True):
        trace_id, span_id, flags = ids(headers["traceparent"])
        assert int(trace_id, 16) == request.context.trace_id
        assert int(span_id, 16) == span.context.span_id
        assert int(flags, 16) & 1
        assert headers.get("tracestate") == (STATE if given else None)


def test_upstreams_are_told_what_is_not_sampled(traced, exported):
    world = traced(traces_propagate=True)
    world.ask(headers={"traceparent": NOT_SAMPLED})
    trace_id, span_id, flags = ids(world.received("a").headers["traceparent"])
    assert (trace_id, flags) == (TRACE_ID, "00")
    assert span_id != PARENT_ID


@both_ways
def test_no_body_and_no_key_is_in_a_span(traced, exported, propagate):
    world = traced(traces_propagate=propagate)
    world.simulator["a"].faults["*"] = "401"
    world.ask(CHAT | {"messages": [{"role": "user", "content": "a planted prompt"}]})
    told = "".join(
        span.to_json() for request, attempts in spans(world, exported) for span in attempts
    )
    for secret in ("planted", ADMIN_KEY, world.client_key, world.simulator["a"].api_key):
        assert secret not in told
