"""What is told of a request when it is over: one record, of which all that shows requests is
made: the log's line, the ring of the last ones, the story."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proxy.core.prices import NANO
from proxy.core.types import Usage
from proxy.core.verdict import Outcome

Record = dict[str, Any]

# What a client or an upstream made up, and what of it is kept in a record of bounded size.
LONGEST_CHARACTERS = 200
MOST_PASSED_OVER = 20
MOST_ATTEMPTS = 8

# How the reason begins where an upstream said so itself; what follows is its own words.
IN_STREAM = "an error inside of its stream"

# No instance was asked: the request was refused, or its client left while it waited.
REFUSED, LEFT = "refused", "aborted"
LEFT_STATUS = 499

# Of the record, what a line of text has, in this order.
TEXT_FIELDS = (
    *("id", "method", "path", "status", "ms", "client", "source", "model"),
    *("instance", "attempts", "tried"),
    *("outcome", "prompt_tokens", "completion_tokens"),
    *("first_byte_ms", "waited_ms", "upstream_id", "error"),
)


class Tried(NamedTuple):
    """One attempt. `started` is in monotonic seconds; `status` 0: it gave no answer; `error`:
    why it gave none, or no whole one."""

    instance: str
    deployment: str
    started: float
    ms: int
    status: int
    outcome: Outcome
    error: str | None
    rest_seconds: float
    upstream_id: str | None
    region: str | None


@dataclass(slots=True)
class Trail:
    """Which way a call went. `passed_over` has of instances that were not asked when it was
    their turn the reason, and the seconds until they may be. `begin_attempt`, if upstreams are
    told of a trace: before each attempt, the headers for that. `charged`: what its client pays
    for an attempt of which it got no answer, and the cost in nano."""

    policy: str = ""
    attempts: list[Tried] = field(default_factory=list)
    passed_over: dict[str, tuple[str, float]] = field(default_factory=dict)
    waited_seconds: float = 0.0
    begin_attempt: Callable[[], Mapping[str, str]] | None = None
    charged: tuple[Usage, int] | None = None


class Ended(NamedTuple):
    """How the attempt ended whose answer the client got."""

    started: float
    ms: int
    first_byte_ms: int
    outcome: Outcome
    error: str | None
    usage: Usage
    cost_nano: int
    sent_bytes: int
    streams: bool


class Seen(NamedTuple):
    """What is known of a request at its end, as small values: no body, no header. `started` is
    in monotonic seconds, `ended_at` a moment. None: it did not come to that. `trace`: what
    runtime/traces.py knows of it, None: it is not traced. `source`: the address that it came
    from, where its client's key does not open. `home`: the only instances that could be asked,
    because they know what the request refers to. `said`: why there was no room for it, in the
    words that its client was told."""

    ended_at: float
    started: float
    ms: int
    id: str
    method: str
    path: str
    status: int
    client: str | None = None
    model: str | None = None
    endpoint: str | None = None
    request_bytes: int | None = None
    error: str | None = None
    trail: Trail | None = None
    ended: Ended | None = None
    trace: Any = None
    source: str | None = None
    home: str | None = None
    said: str | None = None


def record(seen: Seen) -> Record:
    """What it did not come to is left out."""
    values = {
        "id": seen.id,
        "ended_at": round(seen.ended_at, 3),
        "method": seen.method,
        "path": seen.path,
        "status": seen.status,
        "ms": seen.ms,
        "client": seen.client,
        "source": seen.source,
        "model": seen.model,
        "endpoint": seen.endpoint,
        "home": seen.home,
        "request_bytes": seen.request_bytes,
    }
    if seen.error is not None:
        values["error"] = seen.error
    if seen.said is not None:
        values["said"] = seen.said
    if seen.trail is not None:
        values |= _of_trail(seen.trail, seen)
    elif seen.endpoint is not None:  # it could not be read as a call
        values["outcome"] = _without_attempt(seen)
    if seen.ended is not None:
        values |= _of_answer(seen.ended, seen)
    return _present(values)


def _present(values: Record) -> Record:
    """What is there. Of most records that is all: to look for it takes less than to copy."""
    if None not in values.values():
        return values
    return {name: value for name, value in values.items() if value is not None}


def _of_trail(trail: Trail, seen: Seen) -> Record:
    attempts = [_attempt(tried, seen) for tried in trail.attempts]
    if attempts and seen.ended is not None:
        attempts[-1] |= {"ms": seen.ended.ms, "outcome": seen.ended.outcome}
        attempts[-1] |= {"why": seen.ended.error} if seen.ended.error else {}
    last = trail.attempts[-1] if trail.attempts else None
    outcome = last.outcome if last is not None and seen.status != LEFT_STATUS else None
    values = {
        "policy": trail.policy,
        "instance": last.instance if last is not None and seen.ended is not None else "",
        "outcome": outcome or _without_attempt(seen),
        "attempts": attempts,
        "waited_ms": int(trail.waited_seconds * 1000),
    }
    if trail.passed_over:
        values["passed_over"] = [
            {"instance": name, "reason": reason, "wait_ms": _whole_ms(seconds)}
            for name, (reason, seconds) in trail.passed_over.items()
        ]
    if last is not None:
        values |= _of_upstream(last)
    if trail.charged is not None and seen.ended is None:
        values |= _of_usage(*trail.charged)
    return values


def _of_upstream(tried: Tried) -> Record:
    """Its own words for the call, and where it says it is."""
    return {"upstream_id": tried.upstream_id, "region": tried.region}


def _without_attempt(seen: Seen) -> str:
    return LEFT if seen.status == LEFT_STATUS else REFUSED


def _attempt(tried: Tried, seen: Seen) -> Record:
    values = {
        "instance": tried.instance,
        "deployment": tried.deployment,
        "at_ms": max(0, int((tried.started - seen.started) * 1000)),
        "ms": tried.ms,
        "status": tried.status or None,
        "outcome": tried.outcome,
    }
    if tried.error is not None:
        values["why"] = tried.error
    if tried.rest_seconds:
        values["rest_ms"] = _whole_ms(tried.rest_seconds) or None
    return _present(values | _of_upstream(tried))


def _of_answer(ended: Ended, seen: Seen) -> Record:
    until_first_ms = (ended.started - seen.started) * 1000 + ended.first_byte_ms
    return {
        "outcome": ended.outcome,
        "stream": ended.streams,
        "first_byte_ms": max(0, int(until_first_ms)),
        **_of_usage(ended.usage, ended.cost_nano),
        "response_bytes": ended.sent_bytes,
    }


def _of_usage(usage: Usage, cost_nano: int) -> Record:
    values: Record = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    }
    if usage.estimated:
        values["estimated"] = True
    if cost_nano:
        values["cost"] = cost_nano / NANO
    return values


def _whole_ms(seconds: float) -> int | None:
    """None where time will not end it."""
    return int(seconds * 1000) if seconds < float("inf") else None


def text_fields(values: Mapping[str, Any]) -> Record:
    """Of a record, what a line of text tells; the attempts in a word each."""
    found = {name: values[name] for name in TEXT_FIELDS if name in values}
    attempts = found.get("attempts")
    if attempts is not None:
        found["attempts"] = len(attempts)
        found["tried"] = ",".join(f"{a['instance']}:{_told(a)}" for a in attempts)
    return {name: found[name] for name in TEXT_FIELDS if name in found}


def _told(attempt: Mapping[str, Any]) -> object:
    """The status, or what came instead of one."""
    return attempt.get("status") or attempt["outcome"]


def fitted(
    values: Record, whole: bytes, most_bytes: int, words: Callable[[Record], bytes]
) -> bytes:
    """The record in `words`, of which it is the `whole`, with less of it where that would be
    too much: what tells most of it stays, and `cut` says so."""
    if len(whole) <= most_bytes:
        return whole
    short = {name: _cut(value) for name, value in values.items()} | {"cut": True}
    short["passed_over"] = [_short(p) for p in values.get("passed_over", ())][:MOST_PASSED_OVER]
    attempts = [_short(attempt) for attempt in values.get("attempts", ())]
    short["attempts"] = attempts[: MOST_ATTEMPTS - 1] + attempts[MOST_ATTEMPTS - 1 :][-1:]
    for left_out in ((), ("passed_over",), ("attempts",), ("path", "upstream_id", "region")):
        for name in left_out:
            short.pop(name, None)
        whole = words(short)
        if len(whole) <= most_bytes:
            return whole
    return b""


def _short(values: Mapping[str, Any]) -> Record:
    return {name: _cut(value) for name, value in values.items()}


def _cut(value: Any) -> Any:
    return value[:LONGEST_CHARACTERS] if isinstance(value, str) else value
