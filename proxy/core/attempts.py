"""One attempt: the room it takes, how it ended, and what is counted of it."""

from typing import NamedTuple

from proxy.core.deltas import OTHER_MODEL, UsageKey
from proxy.core.histogram import bucket
from proxy.core.types import NO_USAGE, InstanceConfig, MeterKey, Usage
from proxy.core.usage import ABANDONED, FIRST_BYTE, LATENCY, LOST, MINUTE_SECONDS
from proxy.core.verdict import ERRORS, LOSSES, NO_SUCH_MODEL, OUTCOMES, Outcome, Verdict


class Reservation(NamedTuple):
    """Room taken when it began; what was too much is given back at its end."""

    config: InstanceConfig
    deployment: str
    model: str
    client: str
    tokens: int
    second: int
    meters: tuple[MeterKey, ...] = ()
    is_trial: bool = False  # of a breaker that is half open
    is_retry: bool = False  # of one that refused the gateway, where there is nobody else


class Ending(NamedTuple):
    """How an attempt ended. Its times are its own; `before_ms` is what its client had waited
    when it began. `answered`: its answer went to the client, so the client's
    request counts here; `is_left`: the client did not wait for it; `was_answered`:
    its answer was told of before it ended; `error` is what an operator should read of it;
    `cost_nano` what its usage costs, in billionths."""

    verdict: Verdict
    usage: Usage = NO_USAGE
    latency_ms: int = 0
    first_byte_ms: int = 0
    before_ms: int = 0
    answered: bool = True
    is_left: bool = False
    was_answered: bool = False
    error: str | None = None
    cost_nano: int = 0


def totals(ending: Ending) -> dict[str, int]:
    outcome = ending.verdict.outcome
    counts = {"total_requests": 1, "total_tokens_served": ending.usage.total_tokens}
    counter = OUTCOMES[outcome]
    if ending.verdict.is_ours:
        return counts
    if counter is not None:
        counts[counter] = 1
    if outcome in ERRORS:
        counts["error_count"] = 1
    if outcome == "succeeded":
        counts["latency_total_ms"] = ending.latency_ms
    return counts


def usage_key(reservation: Reservation, verdict: Verdict, now: float) -> UsageKey:
    """Names that clients make up are not kept."""
    return (
        int(now) // MINUTE_SECONDS * MINUTE_SECONDS,
        reservation.config.name,
        OTHER_MODEL if verdict is NO_SUCH_MODEL else reservation.model,
        reservation.client,
    )


def without_answer(outcome: Outcome, *, is_left: bool) -> dict[str, int]:
    """How the request of a client ended that got no good answer, if not by its own fault."""
    if is_left:
        return {ABANDONED: 1}
    return {LOST: 1} if outcome in LOSSES else {}


def usage(ending: Ending) -> dict[str, int]:
    used, outcome = ending.usage, ending.verdict.outcome
    counts = {"requests": int(ending.answered), "attempts": 1, outcome: 1}
    if used is not NO_USAGE:
        counts["prompt_tokens"] = used.prompt_tokens
        counts["completion_tokens"] = used.completion_tokens
        if used.cached_tokens:
            counts["cached_tokens"] = used.cached_tokens
        if used.reasoning_tokens:
            counts["reasoning_tokens"] = used.reasoning_tokens
    if outcome == "succeeded":
        # As its client saw it: with what went before, which is no matter of the instance's.
        latency_ms = ending.before_ms + ending.latency_ms
        first_byte_ms = ending.before_ms + ending.first_byte_ms
        counts["latency_total_ms"] = latency_ms
        counts["first_byte_total_ms"] = first_byte_ms
        counts[LATENCY[bucket(latency_ms)]] = 1
        counts[FIRST_BYTE[bucket(first_byte_ms)]] = 1
    elif ending.answered and outcome != "aborted":
        counts |= without_answer(outcome, is_left=ending.is_left)
    if ending.cost_nano:
        counts["cost_nano"] = ending.cost_nano
    return counts
