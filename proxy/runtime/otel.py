"""Spans by OpenTelemetry's SDK, sent to a collector by OTLP. The only module that knows that
library: load it when needed. How and where they are sent, its own variables say (OTEL_*)."""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.core import spans
from proxy.core.record import Record
from proxy.core.types import InstanceConfig
from proxy.runtime.tell import tell

SERVICE = "azure-openai-gateway"
# How long the end of a worker waits for a collector.
LAST_SECONDS = 2.0
# As PEP 3333 calls what W3C's Trace Context calls so.
CONTEXT_KEYS = {"traceparent": "HTTP_TRACEPARENT", "tracestate": "HTTP_TRACESTATE"}

logger = logging.getLogger(__name__)

_W3C = TraceContextTextMapPropagator()
_PLACEHOLDER = re.compile(r"%(\.\d+)?[a-z]")
_VARIABLE = re.compile(r"OTEL_[A-Z_]+")


class Trace:
    """Of one call. Without a `tracer` its spans are made when it is over; with one they begin
    with what they are of, so that upstreams can be told of them. Not shared by threads."""

    __slots__ = ("_headers", "_tracer", "attempts", "request")

    def __init__(self, headers: Mapping[str, str], tracer: Tracer | None) -> None:
        self._headers = headers
        self._tracer = tracer
        self.request: Span | None = None
        self.attempts: list[Span] = []
        if tracer is not None:
            self.request = tracer.start_span("call", self.parent(), SpanKind.SERVER)

    @property
    def begin_attempt(self) -> Callable[[], Mapping[str, str]] | None:
        return None if self._tracer is None else self._begin_attempt

    def parent(self) -> Context:
        """What the client said of it, if that is valid; else nothing."""
        return _W3C.extract(self._headers)

    def _begin_attempt(self) -> Mapping[str, str]:
        assert self._tracer is not None, "only offered with one"
        assert self.request is not None, "begun with the trace"
        context = set_span_in_context(self.request)
        span = self._tracer.start_span("attempt", context, SpanKind.CLIENT)
        self.attempts.append(span)
        headers: dict[str, str] = {}
        _W3C.inject(headers, set_span_in_context(span))
        return headers


class Spans:
    """Made in the process that has the calls: a thread of its own sends them. `tell` is called
    by one thread. A collector that takes nothing costs what waits for it, and that is bounded
    (OTEL_BSP_MAX_QUEUE_SIZE). `problem`: a variable that the library does not understand, and
    goes on without."""

    def __init__(
        self,
        *,
        version: str,
        propagates: bool,
        config_of: Callable[[str], InstanceConfig | None],
    ) -> None:
        self._config_of = config_of
        heard = _Heard()
        self._exporter = _Exporter(OTLPSpanExporter(), heard)
        # Before the thread is there: these raise what is wrong with the variables.
        provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(self._exporter)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("proxy", version)
        self._early = self._tracer if propagates else None
        self.problem = heard.last

    def begin(self, environ: Mapping[str, Any]) -> Trace:
        headers = {name: environ[key] for name, key in CONTEXT_KEYS.items() if environ.get(key)}
        return Trace(headers, self._early)

    def tell(self, trace: Trace, record: Record) -> None:
        told = spans.of_request(record)
        request = trace.request or self._tracer.start_span(
            told.name, trace.parent(), SpanKind.SERVER, start_time=told.start_ns
        )
        if not request.is_recording():  # the sampler has left it out
            return
        context = set_span_in_context(request)
        begun = iter(trace.attempts)
        for each in spans.of_attempts(record, self._place):
            attempt = next(begun, None) or self._tracer.start_span(
                each.name, context, SpanKind.CLIENT, start_time=each.start_ns
            )
            _end(attempt, each)
        _end(request, told)

    def stop(self) -> None:
        """Idempotent. What waits is sent, unless the collector takes too long for that."""
        # The library would wait for half a minute.
        ending = Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(LAST_SECONDS)
        self._exporter.shutdown()

    def flush(self) -> None:
        """Sends what waits, now."""
        self._processor.force_flush()

    def _place(self, instance: str) -> spans.Place | None:
        config = self._config_of(instance)
        return None if config is None else spans.place(config)


class _Heard(logging.Handler):
    """The library's own lines, which go no further: it would write one for each try, and may
    quote what it was told in secret (OTEL_EXPORTER_OTLP_HEADERS). `last` is what the latest
    was about, without any value but a status and the kind of an error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        library = logging.getLogger("opentelemetry")
        library.handlers[:] = [self]
        library.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = _about(record) or self.last or _said(record)


class _Exporter(SpanExporter):
    """Tells of a collector once when it begins to fail, and once when it works again."""

    def __init__(self, exporter: SpanExporter, heard: _Heard) -> None:
        self._exporter = exporter
        self._heard = heard
        self._fails = False
        self._is_over = False

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(batch)
        finally:
            self._note(fails=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Idempotent. Ends what waits to try again."""
        if not self._is_over:
            self._is_over = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _note(self, *, fails: bool) -> None:
        why, self._heard.last = self._heard.last or "the exporter failed", ""
        if fails == self._fails:
            return
        self._fails = fails
        if fails:
            tell(logger, "traces_failed", "the collector takes no traces: %s", why, why=why)
        else:
            tell(logger, "traces_recovered", "the collector takes traces again")


def _about(record: logging.LogRecord) -> str:
    for value in _values(record):
        if isinstance(value, int) and "code" in str(record.msg):
            return f"HTTP {value}"
        if isinstance(value, BaseException):
            return type(value).__name__
    return ""


def _said(record: logging.LogRecord) -> str:
    """Its words, with no value in them but the name of a variable."""
    names = (str(v) if _VARIABLE.fullmatch(str(v)) else "…" for v in _values(record))
    return _PLACEHOLDER.sub(lambda _found: next(names, "…"), str(record.msg))


def _values(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else ()


def _resource(version: str) -> Resource:
    """Who tells it: as the variables say, or else by our own name."""
    found = Resource.create({"service.version": version})
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: SERVICE}))
    return found


def _end(span: Span, told: spans.Span) -> None:
    """One that began with what it is of lasted as long as the record says."""
    if not span.is_recording():
        return
    span.update_name(told.name)
    span.set_attributes(told.attributes)
    if "error.type" in told.attributes:
        span.set_status(Status(StatusCode.ERROR, told.why or None))
    start_ns = cast(ReadableSpan, span).start_time or time.time_ns()
    span.end(start_ns + told.end_ns - told.start_ns)
