"""What /metrics tells: its families, and what is left of limits. Named by Prometheus' rules.

Prometheus itself gives each sample the label `instance`, the address it came from; so an
instance of ours is `instance_name`, as in the database's tables.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from proxy.core.types import MeterKey, Serving

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

STATUSES = ("healthy", "rate_limited", "error", "misconfigured")
IN_FLIGHT = "gateway_attempts_in_flight"
BREAKER_STATES = ("closed", "open", "half_open")

_INSTANCE = ("instance_name",)
_SERVED = ("instance_name", "model")
_CLIENT = ("client",)
_CLIENT_PERIOD = ("client", "period")
_WORKER = ("worker",)


@dataclass(frozen=True, slots=True)
class Family:
    """`help` is one sentence; docs/metrics.md has the same."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


# fmt: off
# Sums of all workers, read from the database: they go on when a worker or the gateway ends.
USAGE_FAMILIES = (
    Family("gateway_requests_total", COUNTER, _SERVED,
           "Requests of clients, each once, at the instance whose answer it got."),
    Family("gateway_requests_lost_total", COUNTER, _SERVED,
           "Those of gateway_requests_total whose client got an error by no fault of its own."),
    Family("gateway_requests_refused_total", COUNTER, ("model", "reason"),
           "Requests of clients for which no instance was asked."),
    Family("gateway_attempts_total", COUNTER, ("instance_name", "model", "outcome"),
           "Tries at instances, each with one outcome."),
    Family("gateway_tokens_total", COUNTER, ("instance_name", "model", "kind"),
           "Tokens of prompts and completions."),
    Family("gateway_cached_tokens_total", COUNTER, _SERVED,
           "Those tokens of prompts that the upstream had in its cache."),
    Family("gateway_reasoning_tokens_total", COUNTER, _SERVED,
           "Those tokens of completions that the model thought and did not say."),
    Family("gateway_cost_total", COUNTER, _SERVED,
           "Cost of tokens, in the currency of the prices."),
    Family("gateway_request_duration_seconds", HISTOGRAM, ("model",),
           "Time of requests that succeeded, from their beginning to their last byte."),
    Family("gateway_first_byte_seconds", HISTOGRAM, _SERVED,
           "Time of requests that succeeded, from their beginning to their first byte."),
    Family("gateway_client_requests_total", COUNTER, _CLIENT,
           "Requests of a client, answered or refused."),
    Family("gateway_client_tokens_total", COUNTER, ("client", "kind"),
           "Tokens of a client's prompts and completions."),
    Family("gateway_client_cost_total", COUNTER, _CLIENT,
           "Cost of a client's tokens, in the currency of the prices."),
)
WORKER_FAMILIES = (
    Family("gateway_calls_open", GAUGE, _WORKER, "Calls of clients that are open."),
    Family("gateway_calls_limit", GAUGE, _WORKER,
           "Calls that may be open; the next is refused with 503."),
    Family("gateway_calls_waiting", GAUGE, _WORKER,
           "Open calls that wait for an instance with room."),
    Family("gateway_threads_busy", GAUGE, _WORKER, "Threads that are at a request."),
    Family("gateway_threads_limit", GAUGE, _WORKER, "Threads that there may be."),
    Family("gateway_sync_age_seconds", GAUGE, _WORKER,
           "Time since counts and config were last exchanged with the database."),
    Family("gateway_sync_failed", GAUGE, _WORKER,
           "1 if the last exchange with the database failed; counts wait in memory."),
    Family("gateway_config_revision", GAUGE, _WORKER,
           "Number of the config's version that the worker uses."),
)
INSTANCE_FAMILIES = (
    Family(IN_FLIGHT, GAUGE, _INSTANCE,
           "Tries at an instance that are open, of all workers."),
    Family("gateway_instance_enabled", GAUGE, _INSTANCE,
           "1 if the instance may be asked, by its config."),
    Family("gateway_instance_status", GAUGE, ("instance_name", "status"),
           "1 for the status that the instance has, 0 for the others."),
    Family("gateway_breaker_state", GAUGE, ("instance_name", "state"),
           "1 for the state that the instance's breaker has, 0 for the others."),
    Family("gateway_rest_seconds", GAUGE, ("instance_name", "deployment", "reason"),
           "Time for which a deployment is still left alone; without a name, the instance."),
)
BUDGET_FAMILIES = (
    Family("gateway_instance_tokens_limit", GAUGE, _INSTANCE,
           "Tokens a minute that the instance may use."),
    Family("gateway_instance_tokens_remaining", GAUGE, _INSTANCE,
           "What is left of them in this minute."),
    Family("gateway_deployment_tokens_limit", GAUGE, ("instance_name", "deployment"),
           "Tokens a minute that the deployment may use, where it has a limit of its own."),
    Family("gateway_deployment_tokens_remaining", GAUGE, ("instance_name", "deployment"),
           "What is left of them in this minute."),
    Family("gateway_quota_group_tokens_limit", GAUGE, ("quota_group", "model"),
           "Tokens a minute that a quota group may use; without a model, for all together."),
    Family("gateway_quota_group_tokens_remaining", GAUGE, ("quota_group", "model"),
           "What is left of them in this minute."),
    Family("gateway_model_tokens_limit", GAUGE, ("model",),
           "Tokens a minute that the enabled instances may use for the model together."),
    Family("gateway_model_tokens_remaining", GAUGE, ("model",),
           "What is left of them in this minute; nothing of instances that rest or fail."),
)
CLIENT_FAMILIES = (
    Family("gateway_client_calls_in_flight", GAUGE, _CLIENT,
           "Open calls of a client with limits."),
    Family("gateway_client_calls_limit", GAUGE, _CLIENT,
           "Calls that the client may have open at a time."),
    Family("gateway_client_requests_limit", GAUGE, _CLIENT,
           "Requests a minute that the client may send."),
    Family("gateway_client_requests_remaining", GAUGE, _CLIENT,
           "What is left of them in this minute."),
    Family("gateway_client_tokens_limit", GAUGE, _CLIENT_PERIOD,
           "Tokens that the client may use in a minute, a UTC day or a month."),
    Family("gateway_client_tokens_remaining", GAUGE, _CLIENT_PERIOD,
           "What is left of them."),
    Family("gateway_client_cost_limit", GAUGE, _CLIENT_PERIOD,
           "Money that the client may spend in a UTC day or month, in the prices' currency."),
    Family("gateway_client_cost_remaining", GAUGE, _CLIENT_PERIOD, "What is left of it."),
)
FAMILIES = (
    Family("gateway_build_info", GAUGE, ("version", "python_version"),
           "1, with the versions that run."),
    Family("gateway_database_up", GAUGE, (),
           "1 if usage could be read from the database for this answer, else 0."),
    Family("gateway_workers", GAUGE, (), "Workers that there are to be."),
    *WORKER_FAMILIES,
    *INSTANCE_FAMILIES,
    *BUDGET_FAMILIES,
    *CLIENT_FAMILIES,
    *USAGE_FAMILIES,
    Family("gateway_usage_series_dropped", GAUGE, (),
           "Pairs of instance and model left out because there are too many of them."),
)
# fmt: on


def left_of_model(
    servings: Iterable[Serving], used: Mapping[MeterKey, int], barred: Collection[str]
) -> tuple[int, int] | None:
    """The tokens a minute that these may use together, and what is left; None where one of
    them has no limit. `used` has each limit's meter; of the instances in `barred` nothing is
    left. What quota groups bound is counted once for each."""
    sums: dict[tuple[MeterKey, ...], tuple[int, int]] = {}
    bounds: dict[tuple[MeterKey, ...], tuple[int, int]] = {}
    for serving in servings:
        own, shared = _split(serving, used)
        if not own and not shared:
            return None
        limit, left = _least(own or shared.values())
        group = tuple(shared)
        before = sums.get(group, (0, 0))
        if serving.config.name in barred:
            left = 0
        sums[group] = before[0] + limit, before[1] + left
        if shared:
            bounds[group] = _least(shared.values())
    if not sums:
        return None
    capped = [_least([found, bounds.get(group, found)]) for group, found in sums.items()]
    return sum(limit for limit, _ in capped), sum(left for _, left in capped)


def _split(
    serving: Serving, used: Mapping[MeterKey, int]
) -> tuple[list[tuple[int, int]], dict[MeterKey, tuple[int, int]]]:
    """(limit, left) of its own limits, and of those that it shares by their meters."""
    own, shared = [], {}
    for limit in serving.limits:
        if limit.max_tpm > 0:
            found = limit.max_tpm, max(limit.max_tpm - used[limit.meter], 0)
            if limit.meter[0] == "group":
                shared[limit.meter] = found
            else:
                own.append(found)
    return own, shared


def _least(found: Iterable[tuple[int, int]]) -> tuple[int, int]:
    limits, lefts = zip(*found, strict=True)
    return min(limits), min(lefts)
