"""The benchmark: the simulated Azure directly, then through a gateway, taking turns."""

import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from loadlib import azure, client
from loadlib.azure import SimulatedAzure, simulated_azure
from loadlib.client import Asking, Plan, Progress, Target
from loadlib.gateway import Gateway, GatewayGone, Usage, gateway
from loadlib.stats import Load, Report, Row, percentile, plain_rows, stream_rows
from proxy.core.types import InstanceConfig

RESOURCES = 3
TURNS = 2
WARM_UP_REQUESTS = 100
IDLE_SECONDS = 1.0  # for counts to be written and for what is closed to be cleared away
ABORT_SECONDS = 10.0

DIRECT, GATEWAY = "direct", "gateway"
PLAIN = {DIRECT: client.plain, GATEWAY: client.plain}

__all__ = ["GatewayGone", "Options", "run"]


@dataclass(frozen=True, slots=True)
class Options:
    """`ramp_ms` 0: streams are only measured all at once, not also started one by one."""

    model: str
    streams: int
    stream_seconds: float
    events_per_second: float
    latency_ms: float
    ramp_ms: float
    plain: int
    seconds: float
    abort: int
    timeout_seconds: float

    @property
    def events(self) -> int:
        """Of each stream as Azure sends it: the first at once, the last when time is up."""
        intervals = round(self.stream_seconds * self.events_per_second)
        return max(intervals, azure.EXTRA_EVENTS) + 1

    @property
    def azure(self) -> azure.Plan:
        return azure.Plan(
            RESOURCES, self.events, self.latency_ms, 1000 / self.events_per_second
        )


def run(options: Options, progress: Progress) -> Report:
    """Starts all it needs, measures, stops all of it. Raises GatewayGone."""
    progress("starting", None)
    with (
        tempfile.TemporaryDirectory(prefix="load-test-") as folder,
        simulated_azure(options.azure) as simulated,
        gateway(Path(folder), simulated.resources, options.model) as started,
    ):
        # After the gateway's start: it is to have the limit it would have without us.
        client.allow_files(max(options.streams, options.abort))
        return _Bench(options, simulated, started, progress).report()


class _Bench:
    """One run: what it measured so far, as rows, and what failed on the way."""

    def __init__(
        self,
        options: Options,
        simulated: SimulatedAzure,
        started: Gateway,
        progress: Progress,
    ) -> None:
        self._options = options
        self._azure = simulated
        self._gateway = started
        self._progress = progress
        api_version = InstanceConfig(name="", api_base="", api_key="").api_version
        self._targets: dict[str, list[Target]] = {
            DIRECT: [
                client.azure_target(
                    r.url, key=r.api_key, model=options.model, api_version=api_version
                )
                for r in simulated.resources
            ],
            GATEWAY: [client.gateway_target(started.url, key=started.key, model=options.model)],
        }
        self._report = Report(facts=facts(started), rows=[])

    def report(self) -> Report:
        rows: list[Row] = []
        options = self._options
        time.sleep(IDLE_SECONDS)
        before = self._gateway.usage()
        self._turns("warming up", PLAIN, self._plan(4, total=WARM_UP_REQUESTS))
        if options.streams:
            rows += self._streams("streams at once", ramp_ms=0)
            if options.ramp_ms:
                title = f"streams over {options.ramp_ms:g} ms"
                rows += self._streams(title, ramp_ms=options.ramp_ms)
        if options.plain:
            rows += self._plain()
        if options.abort:
            rows += self._aborts()
        time.sleep(IDLE_SECONDS)
        rows += self._usage_rows(before, self._gateway.usage())
        return replace(self._report, rows=rows)

    def _streams(self, title: str, *, ramp_ms: float) -> list[Row]:
        count = self._options.streams
        plan = self._plan(count, total=count, ramp_ms=ramp_ms)
        events = self._options.events
        asks = {
            DIRECT: client.streaming(expected_events=events),
            # It asks for the usage on its own account, and keeps that event to itself.
            GATEWAY: client.streaming(expected_events=events - 1),
        }
        title = f"{count} {title}"
        loads, cpu_seconds = self._turns(title, asks, plan)
        rows = stream_rows(title, loads)
        added = _added_first_byte_ms(loads)
        if added is not None:
            rows.append(Row(f"{title}: added first byte p50", "ms", {GATEWAY: added}))
        return [
            *rows,
            *_cpu_row(
                f"{title}: CPU for each event, starts included", cpu_seconds, loads, "events"
            ),
        ]

    def _plain(self) -> list[Row]:
        plan = self._plan(self._options.plain, seconds=self._options.seconds)
        title = f"plain requests on {plan.concurrency} connections"
        loads, cpu_seconds = self._turns(title, PLAIN, plan)
        rows = plain_rows(title, loads)
        return [*rows, *_cpu_row("CPU for each plain request", cpu_seconds, loads, "requests")]

    def _aborts(self) -> list[Row]:
        count = self._options.abort
        before = self._azure.seen
        self._load(
            f"{count} streams that are left",
            client.streaming(leave_after=client.LEAVE_AFTER_EVENTS),
            self._targets[GATEWAY],
            self._plan(count, total=count),
        )
        left_at = time.monotonic()
        seen = self._azure.wait_for_aborts(before.aborted + count, ABORT_SECONDS)
        took_ms = (time.monotonic() - left_at) * 1000
        ended = seen.aborted - before.aborted
        title = f"{count} streams left after {client.LEAVE_AFTER_EVENTS} events"
        return [
            Row(f"{title}: the simulated Azure saw them go", "", {GATEWAY: ended}),
            Row(f"{title}: still open there", "", {GATEWAY: seen.open_streams}),
            Row(f"{title}: until it had seen the last", "ms", {GATEWAY: took_ms}),
        ]

    def _turns(
        self, title: str, asks: Mapping[str, Asking], plan: Plan
    ) -> tuple[dict[str, Load], float]:
        """Both places' loads, added up over the turns, and the gateway's CPU time in its."""
        loads = {DIRECT: Load(), GATEWAY: Load()}
        cpu_seconds = 0.0
        for turn in range(1, TURNS + 1):
            for place, targets in self._targets.items():
                before = self._gateway.cpu_seconds()
                shown = f"{title}, {place}, turn {turn} of {TURNS}"
                loads[place] += self._load(shown, asks[place], targets, plan)
                if place == GATEWAY:
                    cpu_seconds += self._gateway.cpu_seconds() - before
        return loads, cpu_seconds

    def _load(self, title: str, ask: Asking, targets: list[Target], plan: Plan) -> Load:
        def progress(text: str, share: float | None) -> None:
            self._progress(f"{text} | {title}", share)

        load = asyncio.run(client.run(ask, targets, plan, progress))
        for kind, count in load.failures.items():
            self._report.failures[f"{title}: {kind}"] += count
            self._report.examples[f"{title}: {kind}"] = load.examples[kind]
        return load

    def _plan(
        self,
        concurrency: int,
        *,
        total: int | None = None,
        seconds: float | None = None,
        ramp_ms: float = 0.0,
    ) -> Plan:
        timeout_seconds = self._options.timeout_seconds
        return Plan(concurrency, total, seconds, ramp_ms, timeout_seconds)

    def _usage_rows(
        self, before: tuple[Usage, list[Usage]], after: tuple[Usage, list[Usage]]
    ) -> list[Row]:
        if [u.pid for u in before[1]] != [u.pid for u in after[1]]:
            self._report.failures["a worker was replaced during the run"] += 1
        rows = []
        for moment, (main, workers) in (("before", before), ("after", after)):
            for number, usage in enumerate(workers, 1):
                measure = f"memory (PSS) of worker {number} {moment} load"
                rows.append(Row(measure, "MB", {GATEWAY: usage.pss_mb}))
            everyone = [main, *workers]
            for measure, unit, total in (
                ("memory (PSS) of all", "MB", sum(u.pss_mb for u in everyone)),
                ("threads", "", sum(u.threads for u in everyone)),
                ("open files", "", sum(u.files for u in everyone)),
            ):
                rows.append(Row(f"{measure} {moment} load", unit, {GATEWAY: total}))
        return rows


def _added_first_byte_ms(loads: Mapping[str, Load]) -> float | None:
    """What the gateway adds at the median; None if there is nothing to compare."""
    if not all(load.good for load in loads.values()):
        return None
    direct, gateway_ = (
        percentile((o.first_byte_ms for o in loads[place].good), 50)
        for place in (DIRECT, GATEWAY)
    )
    return gateway_ - direct


def _cpu_row(measure: str, cpu_seconds: float, loads: Mapping[str, Load], of: str) -> list[Row]:
    load = loads[GATEWAY]
    count = load.events if of == "events" else len(load.outcomes)
    if not count:
        return []
    return [Row(measure, "µs", {GATEWAY: cpu_seconds / count * 1_000_000})]


def facts(started: Gateway) -> dict[str, str | int]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("gunicorn", "flask", "requests")},
        "workers": started.settings.workers,
        "threads": started.settings.threads,
    }
