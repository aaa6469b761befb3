"""A request's record as spans, in the words of OpenTelemetry's semantic conventions: one of the
request, and one of each attempt. What those have no word for begins with `gateway.`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from proxy.core.record import IN_STREAM, LONGEST_CHARACTERS, MOST_PASSED_OVER, Record
from proxy.core.story import FAILURES
from proxy.core.types import InstanceConfig
from proxy.core.verdict import LOSSES

Attributes = dict[str, str | int | float | bool | list[str]]

# Endpoint -> `gen_ai.operation.name`; provider -> `gen_ai.provider.name`.
OPERATIONS: Mapping[str, str] = {
    "chat/completions": "chat",
    "responses": "chat",
    "responses/compact": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "images/generations": "image_generation",
    "images/edits": "image_edit",
    "audio/transcriptions": "transcription",
    "audio/translations": "translation",
    "audio/speech": "speech",
}
PROVIDER_NAMES: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "azure_v1": "azure.ai.openai",
    "openai": "openai",
}
BY_DEPLOYMENT = "/openai/deployments/"
PORTS: Mapping[str, int] = {"http": 80, "https": 443}

# Attribute -> what of the record, or of one of its attempts, it tells.
_OF_REQUEST: Mapping[str, str] = {
    "http.request.method": "method",
    "url.path": "path",
    "http.response.status_code": "status",
    "http.request.body.size": "request_bytes",
    "http.response.body.size": "response_bytes",
    "gen_ai.request.model": "model",
    "gateway.request_id": "id",
    "gateway.client": "client",
    "gateway.policy": "policy",
    "gateway.instance": "instance",
    "gateway.outcome": "outcome",
    "gateway.error": "error",
    "gateway.waited_ms": "waited_ms",
    "gateway.first_byte_ms": "first_byte_ms",
}
_OF_ATTEMPT: Mapping[str, str] = {
    "http.response.status_code": "status",
    "gateway.instance": "instance",
    "gateway.deployment": "deployment",
    "gateway.outcome": "outcome",
    "gateway.rest_ms": "rest_ms",
    "gateway.upstream_id": "upstream_id",
    "gateway.region": "region",
}
# Of the attempt whose answer the client got. Not of the request too: whoever adds up all spans
# is to count a token once.
_OF_ANSWER: Mapping[str, str] = {
    "gen_ai.request.stream": "stream",
    "gen_ai.usage.input_tokens": "prompt_tokens",
    "gen_ai.usage.output_tokens": "completion_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cached_tokens",
    "gateway.estimated": "estimated",
    "gateway.cost": "cost",
}


class Span(NamedTuple):
    """Moments in nanoseconds since the epoch. It failed if it has the attribute `error.type`;
    `why` in words."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    why: str = ""


class Place(NamedTuple):
    """Where an instance is, and of which kind."""

    provider: str
    host: str
    port: int


def place(config: InstanceConfig) -> Place:
    parts = urlsplit(config.api_base)
    port = parts.port or PORTS.get(parts.scheme, 0)
    return Place(PROVIDER_NAMES[config.provider_type], parts.hostname or "", port)


def of_request(record: Record) -> Span:
    """Of a record of a call, as core/record.py makes them."""
    attributes = _told(record, _OF_REQUEST)
    endpoint, path = record["endpoint"], record["path"]
    route = _route(endpoint, path)
    attributes |= {
        "http.route": route,
        "url.scheme": "http",  # TLS belongs to a server in front
        "gen_ai.operation.name": OPERATIONS[endpoint],
    }
    passed_over = record.get("passed_over")
    if passed_over:
        attributes["gateway.passed_over"] = [
            _clean(f"{passed['instance']}: {passed['reason']}")
            for passed in passed_over[:MOST_PASSED_OVER]
        ]
    status, outcome = record["status"], record.get("outcome")
    # Of a server's span a 4xx is no error (the client made it), nor that a client left.
    if status >= 500:
        attributes["error.type"] = str(status)
    elif status < 400 and outcome in LOSSES:  # a stream that broke off, or whose time was over
        attributes["error.type"] = outcome
    end_ns = _whole_ms(record["ended_at"]) * 1_000_000
    start_ns = end_ns - record["ms"] * 1_000_000
    return Span(f"{record['method']} {route}", start_ns, end_ns, attributes)


def of_attempts(record: Record, where: Callable[[str], Place | None]) -> list[Span]:
    """`where` each instance is, if it still is."""
    attempts = record.get("attempts", ())
    return [_attempt(record, number, where) for number in range(len(attempts))]


def _attempt(record: Record, number: int, where: Callable[[str], Place | None]) -> Span:
    attempt = record["attempts"][number]
    is_last = number == len(record["attempts"]) - 1
    operation, model = OPERATIONS[record["endpoint"]], _clean(record["model"])
    attributes = _told(attempt, _OF_ATTEMPT)
    attributes |= {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": model,
        "http.request.method": "POST",
    }
    if number:
        attributes["http.request.resend_count"] = number
    found = where(attempt["instance"])
    if found is not None:
        attributes["gen_ai.provider.name"] = found.provider
        attributes["server.address"] = found.host
        attributes["server.port"] = found.port
    if is_last and "first_byte_ms" in record:
        attributes |= _told(record, _OF_ANSWER)
        if record["stream"]:
            until_first_ms = max(0, record["first_byte_ms"] - attempt["at_ms"])
            attributes["gen_ai.response.time_to_first_chunk"] = until_first_ms / 1000
    status, outcome = attempt.get("status", 0), attempt["outcome"]
    why = ""
    if status >= 400 or outcome in LOSSES:
        attributes["error.type"] = str(status) if status >= 400 else outcome
        why = _why(attempt)
    if not is_last:
        attributes["gateway.next_tried_because"] = _why(attempt)
    start_ns = (_whole_ms(record["ended_at"]) - record["ms"] + attempt["at_ms"]) * 1_000_000
    end_ns = start_ns + attempt["ms"] * 1_000_000
    return Span(f"{operation} {model}", start_ns, end_ns, attributes, why)


def _route(endpoint: str, path: str) -> str:
    """The path without what a client chose."""
    if path.startswith(BY_DEPLOYMENT):
        return f"{BY_DEPLOYMENT}{{model}}/{endpoint}"
    return path


def _why(attempt: Mapping[str, Any]) -> str:
    """Nothing of what an upstream's answer says: it goes to whoever keeps the spans."""
    why: str = attempt.get("why") or FAILURES.get(attempt["outcome"], attempt["outcome"])
    return IN_STREAM if why.startswith(IN_STREAM) else _clean(why)


def _told(values: Mapping[str, Any], names: Mapping[str, str]) -> Attributes:
    """What it did not come to is left out."""
    found = ((attribute, values.get(name)) for attribute, name in names.items())
    return {
        attribute: _clean(value) if isinstance(value, str) else value
        for attribute, value in found
        if value is not None and value != ""
    }


def _clean(text: str) -> str:
    """Of bounded length, and UTF-8: for one that is not, all that are sent with it are lost."""
    short = text[:LONGEST_CHARACTERS]
    return short if short.isascii() else short.encode("utf-8", "replace").decode()


def _whole_ms(seconds: float) -> int:
    return round(seconds * 1000)
