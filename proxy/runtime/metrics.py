"""What /metrics tells, gathered when it is asked: nothing here is on a request's way.

Counters come from the database, where all workers add to them: whoever is asked gives the same
numbers, and they go on when a worker ends. Without the database they are left out, which
Prometheus takes for a gap; older numbers of this worker would look like a fall.
"""

import platform
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from proxy.core.limiter import instance_meter
from proxy.core.metrics import BREAKER_STATES, IN_FLIGHT, STATUSES, left_of_model
from proxy.core.prices import NANO
from proxy.core.types import ANONYMOUS, Client, InstanceConfig, MeterKey, Serving
from proxy.core.usage import FIRST_BYTE, LATENCY, LOST, REFUSALS
from proxy.core.verdict import OUTCOMES
from proxy.runtime.clients import ClientState, ClientView
from proxy.runtime.roster import Roster
from proxy.runtime.snapshot import Snapshot, Snapshots
from proxy.runtime.state import State, StateView
from proxy.store import usage_sums
from proxy.store.db import Database, StoreUnavailable
from proxy.store.usage_sums import Sums, UsageSums

# What a label says of deployments that clients made up. Of models it says nothing, as the
# database does: any other name could be a model's.
OTHER = "other"

FAMILY_OF_METER = {
    "instance": "gateway_instance_tokens",
    "deployment": "gateway_deployment_tokens",
    "group": "gateway_quota_group_tokens",
}


class Reading(NamedTuple):
    """A value of a family, with its labels' in the family's order. Of a histogram `counts` are
    those of each bucket, and `value` is the sum."""

    family: str
    labels: tuple[str, ...]
    value: float
    counts: tuple[int, ...] = ()


class Metrics:
    """`most_clients` are told one by one, the ones that were made first."""

    def __init__(
        self,
        *,
        version: str,
        workers: int,
        most_clients: int,
        database: Database,
        snapshots: Snapshots,
        state: State,
        clients: ClientState,
        roster: Roster,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._version = version
        self._workers = workers
        self._most_clients = most_clients
        self._database = database
        self._snapshots = snapshots
        self._state = state
        self._clients = clients
        self._roster = roster
        self._clock = clock

    def read(self, only: Collection[str] = ()) -> Iterator[Reading]:
        """All there is now, each family's in one piece or in several; or `only` these families.
        What is in flight, alone, is asked for each second: it needs no database."""
        if not only:
            yield from self._all()
        elif IN_FLIGHT in only and len(only) == 1:
            yield from (r for r in self._of_workers() if r.family == IN_FLIGHT)
        else:
            yield from (r for r in self._all() if r.family in only)

    def _all(self) -> Iterator[Reading]:
        snapshot = self._snapshots.current
        sums = self._sums()
        python = platform.python_version()
        yield Reading("gateway_build_info", (self._version, python), 1)
        yield Reading("gateway_database_up", (), int(sums is not None))
        yield Reading("gateway_workers", (), self._workers)
        yield from self._of_workers()
        yield from self._of_instances(snapshot)
        clients = self._told_clients(snapshot)
        for client in clients:
            yield from self._of_client(client)
        if sums is not None:
            names = {client.name for client in clients} | {ANONYMOUS.name, ""}
            yield from _of_usage(sums, names)

    def _sums(self) -> UsageSums | None:
        try:
            with self._database.read() as connection:
                return usage_sums.read(connection)
        except StoreUnavailable:
            return None

    def _of_workers(self) -> Iterator[Reading]:
        now = self._clock()
        in_flight = dict.fromkeys(self._snapshots.current.instances, 0)
        for row, entry in self._roster.read().items():
            worker = (str(row),)
            yield Reading("gateway_calls_open", worker, entry.calls_open)
            yield Reading("gateway_calls_limit", worker, entry.calls_limit)
            yield Reading("gateway_calls_waiting", worker, entry.calls_waiting)
            if entry.threads_busy is not None and entry.threads_limit is not None:
                yield Reading("gateway_threads_busy", worker, entry.threads_busy)
                yield Reading("gateway_threads_limit", worker, entry.threads_limit)
            if entry.synced_at:
                age_seconds = max(now - entry.synced_at, 0.0)
                yield Reading("gateway_sync_age_seconds", worker, age_seconds)
            yield Reading("gateway_sync_failed", worker, int(entry.sync_failed))
            yield Reading("gateway_config_revision", worker, entry.revision)
            for name, count in entry.in_flight.items():
                in_flight[name] = in_flight.get(name, 0) + count
        for name, count in in_flight.items():
            yield Reading(IN_FLIGHT, (name,), count)

    def _of_instances(self, snapshot: Snapshot) -> Iterator[Reading]:
        now = self._clock()
        views = {name: self._state.view(name) for name in snapshot.instances}
        for name, view in views.items():
            config = snapshot.instances[name].config
            yield from _of_instance(config, view, is_out=name in snapshot.problems)
            yield from _of_rests(config, view, now)
        served = {m: snapshot.catalog.serving(m) for m in snapshot.catalog.models()}
        limits = _limits(snapshot, served)
        used = self._state.used_tokens(limits)
        for key, limit in limits.items():
            yield from _of_limit(key, limit, used[key])
        for model, servings in served.items():
            barred = {s.config.name for s in servings if _is_barred(s, views)}
            found = left_of_model(servings, used, barred)
            if found is not None:
                yield Reading("gateway_model_tokens_limit", (model,), found[0])
                yield Reading("gateway_model_tokens_remaining", (model,), found[1])

    def _told_clients(self, snapshot: Snapshot) -> list[Client]:
        by_name = {known.client.name: known.client for known in snapshot.keys.values()}
        return sorted(by_name.values(), key=lambda c: c.number)[: self._most_clients]

    def _of_client(self, client: Client) -> Iterator[Reading]:
        view = None
        for family, period, limit, used in _bounds(client):
            if limit <= 0:
                continue
            if view is None:
                view = self._clients.view(client)
                in_flight = view.in_flight
                yield Reading("gateway_client_calls_in_flight", (client.name,), in_flight)
            labels = (client.name, period) if period else (client.name,)
            yield Reading(f"gateway_client_{family}_limit", labels, limit)
            if family != "calls":
                left = max(limit - used(view), 0)
                yield Reading(f"gateway_client_{family}_remaining", labels, left)


def _bounds(
    client: Client,
) -> tuple[tuple[str, str, float, Callable[[ClientView], float]], ...]:
    """(of what, in which period, how much, what is used of it)."""
    return (
        ("calls", "", client.max_parallel_requests, lambda view: view.in_flight),
        ("requests", "", client.max_rpm, lambda view: view.current_rpm or 0),
        ("tokens", "minute", client.max_tpm, lambda view: view.current_tpm or 0),
        ("tokens", "day", client.max_tokens_per_day, lambda view: view.tokens_today),
        ("tokens", "month", client.max_tokens_per_month, lambda view: view.tokens_this_month),
        ("cost", "day", client.max_cost_per_day, lambda view: view.cost_today),
        ("cost", "month", client.max_cost_per_month, lambda view: view.cost_this_month),
    )


def _of_instance(config: InstanceConfig, view: StateView, *, is_out: bool) -> Iterator[Reading]:
    name = config.name
    status = "misconfigured" if is_out else view.status
    yield Reading("gateway_instance_enabled", (name,), int(config.enabled))
    for each in STATUSES:
        yield Reading("gateway_instance_status", (name, each), int(each == status))
    for each in BREAKER_STATES:
        yield Reading("gateway_breaker_state", (name, each), int(each == view.breaker))


def _of_rests(config: InstanceConfig, view: StateView, now: float) -> Iterator[Reading]:
    """Of deployments that the config names; of others, which clients may have named, the
    longest for each reason."""
    named = {*config.model_deployments.values(), *config.supported_models, ""}
    longest: dict[tuple[str, str], float] = {}
    for deployment, rest in view.rests.items():
        key = (deployment if deployment in named else OTHER, rest.reason)
        longest[key] = max(longest.get(key, 0.0), rest.until - now)
    for (deployment, reason), seconds in longest.items():
        yield Reading("gateway_rest_seconds", (config.name, deployment, reason), seconds)


def _limits(
    snapshot: Snapshot, served: Mapping[str, tuple[Serving, ...]]
) -> dict[MeterKey, int]:
    """The limits of tokens of all enabled instances, and those that bound calls to models which
    some config names."""
    found = {
        instance_meter(config.name): config.max_tpm
        for config in snapshot.configs.values()
        if config.enabled and config.rate_limit_enabled and config.max_tpm > 0
    }
    for servings in served.values():
        for serving in servings:
            found |= {lim.meter: lim.max_tpm for lim in serving.limits if lim.max_tpm > 0}
    return found


def _of_limit(key: MeterKey, limit: int, used: int) -> Iterator[Reading]:
    kind, name, part = key
    family = FAMILY_OF_METER[kind]
    labels = (name,) if kind == "instance" else (name, part)
    yield Reading(f"{family}_limit", labels, limit)
    yield Reading(f"{family}_remaining", labels, max(limit - used, 0))


def _is_barred(serving: Serving, views: Mapping[str, StateView]) -> bool:
    view = views[serving.config.name]
    return view.breaker != "closed" or "" in view.rests or serving.deployment in view.rests


def _of_usage(sums: UsageSums, told: Collection[str]) -> Iterator[Reading]:
    """`told`: the names of clients that are told one by one."""
    for (instance, model), counts in sums.served.items():
        if instance:
            yield from _of_served((instance, model), counts)
            continue
        for reason in REFUSALS:
            yield Reading("gateway_requests_refused_total", (model, reason), counts[reason])
    # Those of which anything is told.
    models = {(model,) for instance, model in sums.served if instance}
    yield from _of_durations({m: sums.models[m] for m in sums.models if m in models})
    yield Reading("gateway_usage_series_dropped", (), sums.dropped)
    for (client,), counts in sums.clients.items():
        if client in told:
            yield from _of_told(client, counts)


def _of_served(labels: tuple[str, str], counts: Sums) -> Iterator[Reading]:
    yield Reading("gateway_requests_total", labels, counts["requests"])
    yield Reading("gateway_requests_lost_total", labels, counts[LOST])
    for outcome in OUTCOMES:
        yield Reading("gateway_attempts_total", (*labels, outcome), counts[outcome])
    for kind in ("prompt", "completion"):
        yield Reading("gateway_tokens_total", (*labels, kind), counts[f"{kind}_tokens"])
    yield Reading("gateway_cached_tokens_total", labels, counts["cached_tokens"])
    yield Reading("gateway_reasoning_tokens_total", labels, counts["reasoning_tokens"])
    yield Reading("gateway_cost_total", labels, counts["cost_nano"] / NANO)
    seconds = counts["first_byte_total_ms"] / 1000
    buckets = tuple(counts[name] for name in FIRST_BYTE)
    yield Reading("gateway_first_byte_seconds", labels, seconds, buckets)


def _of_durations(models: Mapping[tuple[str, ...], Sums]) -> Iterator[Reading]:
    """By model alone: how long an answer takes, its length says more than its instance; and to
    tell it of each pair would be half of all there is to tell. All of its pairs count: a sum of
    some would fall when others take their place."""
    for labels, counts in models.items():
        seconds = counts["latency_total_ms"] / 1000
        buckets = tuple(counts[name] for name in LATENCY)
        yield Reading("gateway_request_duration_seconds", labels, seconds, buckets)


def _of_told(client: str, counts: Sums) -> Iterator[Reading]:
    yield Reading("gateway_client_requests_total", (client,), counts["requests"])
    for kind in ("prompt", "completion"):
        tokens = counts[f"{kind}_tokens"]
        yield Reading("gateway_client_tokens_total", (client, kind), tokens)
    yield Reading("gateway_client_cost_total", (client,), counts["cost_nano"] / NANO)
