"""How a model's room is shared among clients of which some ask for far more than others."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from loadlib import bench, client
from loadlib.azure import Started
from loadlib.client import AFTER_FAILURE_SECONDS, Connection, Progress, Target
from loadlib.gateway import gateway
from loadlib.stats import Report, Row, percentile
from proxy.core.limiter import COUNTED_SECONDS
from proxy.simulator import Resource, Simulator
from proxy.simulator.asks import expected_usage

MODEL = "gpt-4o"
CONNECTIONS = (40, 2, 1)  # of one client each; they never stop
TIMEOUT_SECONDS = 30.0
TICK_SECONDS = 1.0
PERCENTS = (50, 99)


@dataclass(frozen=True, slots=True)
class Options:
    seconds: float
    workers: int
    max_tpm: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Answered:
    """Moments are when it was first asked for, and when it was there."""

    began_at: float
    ended_at: float
    waited_ms: float


@dataclass(slots=True)
class Crowd:
    """One client with so many connections, and what became of what it asked for."""

    connections: int
    answers: list[Answered] = field(default_factory=list)
    refused: int = 0

    @property
    def name(self) -> str:
        return f"{self.connections} connection{'s' if self.connections > 1 else ''}"

    async def ask(self, target: Target, options: Options, ends_at: float) -> None:
        """One after the other on each connection; what is refused is asked for again, soon."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._ask(Connection(target), options, ends_at))

    async def _ask(self, connection: Connection, options: Options, ends_at: float) -> None:
        began = time.perf_counter()
        try:
            while time.perf_counter() < ends_at:
                outcome = await client.outcome_of(client.plain, connection, TIMEOUT_SECONDS)
                now = time.perf_counter()
                if outcome.failure is None:
                    waited_ms = (now - began) * 1000 - options.latency_ms
                    self.answers.append(Answered(began, now, max(waited_ms, 0.0)))
                    began = now
                else:
                    self.refused += 1
                    await asyncio.sleep(AFTER_FAILURE_SECONDS)
        finally:
            connection.close()


def due(demands: Sequence[float], capacity: float) -> list[float]:
    """The max-min fair shares: who asks for less than an equal part gets all of it, and what
    it leaves is shared by the others in the same way."""
    shares = [0.0] * len(demands)
    left, by_demand = capacity, sorted(range(len(demands)), key=lambda n: demands[n])
    for place, number in enumerate(by_demand):
        shares[number] = min(demands[number], left / (len(demands) - place))
        left -= shares[number]
    return shares


async def run(options: Options, progress: Progress) -> Report:
    """Starts all it needs, measures, stops all of it. Raises GatewayGone."""
    progress("starting", None)
    crowds = [Crowd(number) for number in CONNECTIONS]
    resource = Resource("sim", api_key="simulated-key", latency_ms=options.latency_ms)
    with ExitStack() as stack:
        stack.enter_context(Simulator([resource]))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairness-")))
        instance = Started(resource.name, resource.url, resource.api_key or "")
        started = stack.enter_context(
            gateway(
                folder,
                [instance],
                MODEL,
                settings={"PROXY_WORKERS": str(options.workers)},
                fields={"max_tpm": options.max_tpm},
                named=[crowd.name for crowd in crowds],
            )
        )
        began = time.perf_counter()
        ends_at = began + options.seconds
        ticker = asyncio.create_task(_tick(crowds, began, options, progress))
        try:
            async with asyncio.TaskGroup() as group:
                for crowd in crowds:
                    key = started.keys[crowd.name]
                    target = client.gateway_target(started.url, key=key, model=MODEL)
                    group.create_task(crowd.ask(target, options, ends_at))
        finally:
            ticker.cancel()
        started.check()
        each = expected_usage(resource.requests[0].json)["total_tokens"]
        facts = {
            **bench.facts(started),
            "seconds": int(options.seconds),
            "max_tpm": options.max_tpm,
            "latency ms": int(options.latency_ms),
        }
        return Report(facts, rows(crowds, options, each, began))


async def _tick(
    crowds: Sequence[Crowd], began: float, options: Options, progress: Progress
) -> None:
    while True:
        done = ", ".join(f"{len(crowd.answers)} of {crowd.name}" for crowd in crowds)
        progress(f"answers: {done}", min((time.perf_counter() - began) / options.seconds, 1.0))
        await asyncio.sleep(TICK_SECONDS)


def rows(crowds: Sequence[Crowd], options: Options, each: int, began: float) -> list[Row]:
    """A column for each client. `each` is the tokens of an answer."""
    names = [crowd.name for crowd in crowds]
    # Of what its connections would get if nobody kept them waiting.
    a_minute = 60_000 / max(options.latency_ms, 1.0) * each
    demands = [crowd.connections * a_minute for crowd in crowds]
    fair = due(demands, options.max_tpm)
    got = [len(crowd.answers) * each / options.seconds * 60 for crowd in crowds]
    table = [
        _row("could use", "tokens a minute", names, demands),
        _row("got", "tokens a minute", names, got),
        _row("fair share", "% of all", names, _percent(fair)),
        _row("got", "% of all", names, _percent(got)),
    ]
    windows = int(options.seconds // COUNTED_SECONDS)
    for number in range(windows):
        first = began + number * COUNTED_SECONDS
        counts = [
            sum(1 for a in crowd.answers if first <= a.ended_at < first + COUNTED_SECONDS)
            for crowd in crowds
        ]
        table.append(_row(f"got in minute {number + 1}", "% of all", names, _percent(counts)))
    # In the first minute all is taken before anybody is short of it.
    settled_at = began + (COUNTED_SECONDS if windows > 1 else 0.0)
    waits = [[a.waited_ms for a in c.answers if a.began_at >= settled_at] for c in crowds]
    for percent in PERCENTS:
        values = [percentile(each, percent) if each else 0.0 for each in waits]
        table.append(_row(f"waited after minute 1, p{percent}", "ms", names, values))
    refused = [crowd.refused / options.seconds * 60 for crowd in crowds]
    table.append(_row("refused", "a minute", names, refused))
    used = Row("used of max_tpm", "%", {"all": 100 * sum(got) / options.max_tpm})
    return [*table, used]


def _row(measure: str, unit: str, names: Sequence[str], values: Sequence[float]) -> Row:
    return Row(measure, unit, dict(zip(names, values, strict=True)))


def _percent(values: Sequence[float]) -> list[float]:
    total = sum(values)
    return [100 * value / total if total else 0.0 for value in values]
