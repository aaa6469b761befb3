"""The real SDK and its real exporter, against a collector on loopback."""

import logging
import threading
import time

import pytest
from opentelemetry.sdk.trace.export import SpanExporter

from proxy.core.record import Trail, record
from proxy.core.types import InstanceConfig
from proxy.runtime import otel
from proxy.runtime.otel import Spans
from tests.collector import collecting
from tests.core.test_record import ended, seen, tried

# As an operator would set it: a key, of which the encoding is not checked.
HEADERS = "x-collector-key=planted collector key\n,x"


@pytest.fixture
def collector(monkeypatch):
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
        for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
            monkeypatch.delenv(name, raising=False)
        yield collector


@pytest.fixture
def make_spans(collector):
    made = []

    def make(propagates=False):
        config = InstanceConfig("a", "https://east.example", "planted-key")
        made.append(Spans(version="1.2", propagates=propagates, config_of={"a": config}.get))
        return made[-1]

    yield make
    for spans in made:
        spans.stop()
    for spans in made:  # one that hangs would tell the next tests of it
        spans._processor._batch_processor._worker_thread.join(10)


def tell(spans, environ=None):
    """Of one call with one attempt."""
    trace = spans.begin(environ or {})
    if trace.begin_attempt is not None:
        trace.begin_attempt()
    values = {"endpoint": "embeddings", "model": "ada", "client": "app"}
    values |= {"trail": Trail("failover", [tried()]), "ended": ended()}
    spans.tell(trace, record(seen(**values)))


def test_spans_reach_the_collector_with_who_tells_them(make_spans, collector):
    spans = make_spans()
    tell(spans)
    spans.flush()
    (told_by, attempt), (_, request) = collector.spans()
    assert told_by["service.name"] == "azure-openai-gateway"
    assert told_by["service.version"] == "1.2"
    assert (request.name, attempt.name) == ("POST /v1/embeddings", "embeddings ada")
    assert attempt.parent_span_id == request.span_id
    assert request.end_time_unix_nano - request.start_time_unix_nano == 900_000_000
    found = {a.key: a.value for a in attempt.attributes}
    assert found["server.address"].string_value == "east.example"
    assert found["gen_ai.usage.input_tokens"].int_value == 3


@pytest.mark.parametrize(
    "name, value",
    [("OTEL_SERVICE_NAME", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine")],
)
def test_the_variables_name_the_service(make_spans, collector, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    spans = make_spans()
    tell(spans)
    spans.stop()  # what waits is sent
    assert {told_by["service.name"] for told_by, _ in collector.spans()} == {"mine"}


def test_spans_that_began_early_last_as_long_as_the_record_says(make_spans, collector):
    spans = make_spans(propagates=True)
    before = time.time_ns()
    tell(spans)
    spans.flush()
    for (_, span), lasted_ms in zip(collector.spans(), (600, 900), strict=True):
        assert before <= span.start_time_unix_nano <= time.time_ns()
        assert span.end_time_unix_nano - span.start_time_unix_nano == lasted_ms * 1_000_000


def test_a_sampled_out_call_is_told_to_nobody(make_spans, collector, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    for propagates in (False, True):
        spans = make_spans(propagates)
        tell(spans)
        spans.flush()
    assert collector.sent == []


# A collector that fails.


def test_it_is_logged_once_that_it_fails_and_once_that_it_works_again(
    make_spans, collector, logged, monkeypatch, capfd, caplog
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", HEADERS)
    spans = make_spans()
    collector.status = 401
    for _ in range(3):
        tell(spans)
        spans.flush()
    collector.status = 200
    for _ in range(2):
        tell(spans)
        spans.flush()
    assert logged == [
        ("WARNING", "the collector takes no traces: HTTP 401"),
        ("WARNING", "the collector takes traces again"),
    ]
    assert len(collector.spans()) == 4
    # The library's own lines may quote what it was told in secret.
    assert not any(record.name.startswith("opentelemetry") for record in caplog.records)
    assert "".join(capfd.readouterr()) == ""


def test_where_nobody_listens_nothing_but_that_is_told(make_spans, logged, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:planted@127.0.0.1:9")
    spans = make_spans()
    tell(spans)
    spans.flush()
    ((level, line),) = logged
    assert level == "WARNING"
    assert line.startswith("the collector takes no traces: Failed to export … batch")


class Failing(SpanExporter):
    """What the library's own does, and what it should not."""

    def export(self, batch):
        said = "Transient error %s encountered, retrying in %.2fs."
        error = ConnectionError("quoting what it was asked with")
        logging.getLogger("opentelemetry.exporter.any").warning(said, error, 1.0)
        raise error


def test_of_an_error_its_kind_is_told_and_not_its_words(make_spans, logged, monkeypatch, capfd):
    monkeypatch.setattr(otel, "OTLPSpanExporter", Failing)
    spans = make_spans()
    tell(spans)
    spans.flush()
    assert logged == [("WARNING", "the collector takes no traces: ConnectionError")]
    assert "".join(capfd.readouterr()) == ""


def test_what_waits_for_a_collector_is_bounded(make_spans, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "6")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "6")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    spans = make_spans()
    for _ in range(50):
        tell(spans)
    assert len(spans._processor._batch_processor._queue) <= 6


def test_the_end_of_a_worker_does_not_wait_for_a_collector_that_hangs(
    make_spans, full_port, monkeypatch
):
    monkeypatch.setattr(otel, "LAST_SECONDS", 0.05)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{full_port}")
    spans = make_spans()
    tell(spans)
    ending = threading.Thread(target=spans.stop, daemon=True)
    ending.start()
    ending.join(2)
    assert not ending.is_alive()
