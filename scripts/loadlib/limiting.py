"""How exactly limits hold when several times as much is asked for as they allow."""

import asyncio
import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadlib import bench, client
from loadlib.azure import Started
from loadlib.client import Progress
from loadlib.gateway import Gateway, gateway
from loadlib.stats import Load, Report, Row
from proxy.core.limiter import request_window
from proxy.simulator import Resource, Simulator
from proxy.simulator.asks import TOKENS, expected_usage

MODEL = "gpt-4o"
CONNECTIONS = 40  # of each client, where an instance is limited
KEY_CONNECTIONS = 10  # where its key is
TIMEOUT_SECONDS = 10.0

MAX_RPM = 600
MAX_TPM = 12_000
MINUTE_SECONDS = 60

# So little that the simulated resource remembers each request.
KEY_MAX_RPM = 300
KEY_MAX_TPM = 6_000
MAX_PARALLEL = 5
PARALLEL_MS = 1000  # what each of them takes
SHORT_TOKENS = 10  # of an answer: fewer than a call takes that names no limit

LIMIT, FOUND, OVER = "limit", "found", "above it, %"


@dataclass(frozen=True, slots=True)
class Options:
    seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class Case:
    """A gateway whose only instance, or whose client's key, has this limit: so many within any
    `window_seconds`. Of what is open at a time these are what each request takes."""

    unit: str
    fields: dict[str, Any]
    limit: int
    window_seconds: int
    client: dict[str, Any] = field(default_factory=dict)
    latency_ms: float = 0.0
    answer_tokens: int = TOKENS

    @property
    def connections(self) -> int:
        return KEY_CONNECTIONS if self.client else CONNECTIONS

    @property
    def tokens(self) -> bool:
        return self.unit.endswith("tokens")


_SIZE, _SECONDS = request_window(MAX_RPM)
CASES = (
    Case("requests", {"max_rpm": MAX_RPM}, _SIZE, _SECONDS),
    Case("tokens", {"max_tpm": MAX_TPM}, MAX_TPM, MINUTE_SECONDS),
    Case("a key's requests", {}, KEY_MAX_RPM, MINUTE_SECONDS, {"max_rpm": KEY_MAX_RPM}),
    Case(
        "a key's tokens",
        {},
        KEY_MAX_TPM,
        MINUTE_SECONDS,
        {"max_tpm": KEY_MAX_TPM},
        answer_tokens=SHORT_TOKENS,
    ),
    Case(
        "a key's open requests",
        {},
        MAX_PARALLEL,
        PARALLEL_MS // 1000,
        {"max_parallel_requests": MAX_PARALLEL},
        PARALLEL_MS,
    ),
)


def most_within(moments: Sequence[float], seconds: float) -> int:
    """How many of these moments, ascending, lie within any such span at most."""
    first, most = 0, 0
    for count, moment in enumerate(moments, start=1):
        while moments[first] + seconds <= moment:
            first += 1
        most = max(most, count - first)
    return most


async def run(options: Options, progress: Progress) -> Report:
    """Starts all it needs, measures, stops all of it. Raises GatewayGone."""
    progress("starting", None)
    resources = [
        Resource(
            f"sim-{n}",
            api_key="simulated-key",
            latency_ms=case.latency_ms,
            tokens=case.answer_tokens,
        )
        for n, case in enumerate(CASES)
    ]
    settings = {"PROXY_MAX_WAIT_MS": "0", "PROXY_WORKERS": str(options.workers)}
    with ExitStack() as stack:
        stack.enter_context(Simulator(resources))
        gateways = []
        for case, resource in zip(CASES, resources, strict=True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limits-")))
            instance = Started(resource.name, resource.url, resource.api_key or "")
            started = gateway(
                folder,
                [instance],
                MODEL,
                settings=settings,
                fields=case.fields,
                client=case.client,
            )
            gateways.append(stack.enter_context(started))
        loads = await asyncio.gather(
            *(
                _load(case, gateway, options.seconds, progress)
                for case, gateway in zip(CASES, gateways, strict=True)
            )
        )
        rows = [
            row
            for case, resource, load in zip(CASES, resources, loads, strict=True)
            for row in _rows(case, resource, load)
        ]
        facts = {**bench.facts(gateways[0]), "seconds": int(options.seconds)}
        return Report(facts, rows)


async def _load(case: Case, gateway: Gateway, seconds: float, progress: Progress) -> Load:
    target = client.gateway_target(gateway.url, key=gateway.key, model=MODEL)
    plan = client.Plan(case.connections, seconds=seconds, timeout_seconds=TIMEOUT_SECONDS)
    return await client.run(client.plain, [target], plan, progress)


def _rows(case: Case, resource: Resource, load: Load) -> list[Row]:
    moments = [r.at.timestamp() for r in resource.requests]
    asked = resource.requests[0].json
    each = expected_usage(asked, resource.tokens)["total_tokens"] if case.tokens else 1
    most = each * most_within(moments, case.window_seconds)
    # A window is full at once when it begins.
    windows = math.ceil(load.seconds / case.window_seconds)
    return [
        Row(f"{case.unit} in any {case.window_seconds} s", "", _shown(case.limit, most)),
        Row(f"{case.unit} in all", "", _shown(case.limit * windows, each * len(moments))),
        Row("asked for", "requests a second", {FOUND: len(load.outcomes) / load.seconds}),
    ]


def _shown(limit: int, found: int) -> dict[str, float]:
    return {LIMIT: limit, FOUND: found, OVER: 100 * (found - limit) / limit}
