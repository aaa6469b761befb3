"""How exactly limits hold when several times as much is asked for as they allow."""

import asyncio
import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadlib import bench, client
from loadlib.azure import Started
from loadlib.client import Progress
from loadlib.gateway import gateway
from loadlib.stats import Load, Report, Row
from proxy.core.limiter import request_window
from proxy.simulator import Resource, Simulator
from proxy.simulator.asks import expected_usage

MODEL = "gpt-4o"
CONNECTIONS = 40  # of each client
TIMEOUT_SECONDS = 10.0

MAX_RPM = 600
MAX_TPM = 12_000
MINUTE_SECONDS = 60

LIMIT, FOUND, OVER = "limit", "found", "above it, %"


@dataclass(frozen=True, slots=True)
class Options:
    seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class Case:
    """A gateway whose only instance has this limit."""

    unit: str
    fields: dict[str, Any]
    limit: int
    window_seconds: int

    @property
    def tokens(self) -> bool:
        return self.unit == "tokens"


_SIZE, _SECONDS = request_window(MAX_RPM)
CASES = (
    Case("requests", {"max_rpm": MAX_RPM}, _SIZE, _SECONDS),
    Case("tokens", {"max_tpm": MAX_TPM}, MAX_TPM, MINUTE_SECONDS),
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
    resources = [Resource(f"sim-{n}", api_key="simulated-key") for n, _ in enumerate(CASES)]
    settings = {"PROXY_MAX_WAIT_MS": "0", "PROXY_WORKERS": str(options.workers)}
    with ExitStack() as stack:
        stack.enter_context(Simulator(resources))
        gateways = []
        for case, resource in zip(CASES, resources, strict=True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limits-")))
            instance = Started(resource.name, resource.url, resource.api_key or "")
            started = gateway(folder, [instance], MODEL, settings=settings, fields=case.fields)
            gateways.append(stack.enter_context(started))
        plan = client.Plan(
            CONNECTIONS, seconds=options.seconds, timeout_seconds=TIMEOUT_SECONDS
        )
        targets = [client.gateway_target(g.url, key=g.key, model=MODEL) for g in gateways]
        loads = await asyncio.gather(
            *(client.run(client.plain, [target], plan, progress) for target in targets)
        )
        rows = [
            row
            for case, resource, load in zip(CASES, resources, loads, strict=True)
            for row in _rows(case, resource, load)
        ]
        facts = {**bench.facts(gateways[0]), "seconds": int(options.seconds)}
        return Report(facts, rows)


def _rows(case: Case, resource: Resource, load: Load) -> list[Row]:
    moments = [r.at.timestamp() for r in resource.requests]
    each = expected_usage(resource.requests[0].json)["total_tokens"] if case.tokens else 1
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
