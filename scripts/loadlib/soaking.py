"""The soak: a gateway under mixed faults for long, and what it has lost by the end.

At any time two of the four simulated resources are sick, each with another fault every few
seconds, and a fifth is always dead. Requests come at a share of what was measured to be the
most there can be, with the client and the simulated Azure on the same machine.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadlib import azure, bench, client
from loadlib.azure import Sick, SimulatedAzure, Started, simulated_azure
from loadlib.client import ERROR_IN_STREAM, Asking, Connection, Progress
from loadlib.gateway import Gateway, Usage, free_port, gateway
from loadlib.stats import Failure, Outcome, Report, Row, percentile
from proxy.server.worker import READY_THREADS

MODEL = "gpt-4o"
RESOURCES = 4
EVENTS = 20
LATENCY_MS = 20.0
EVENT_INTERVAL_MS = 10.0
CONNECTIONS = 100

# All that a resource can do to a call and that is over when the resource is well again. What
# a person has to mend (401, 404) is not here: it rests for minutes, and soon nobody is left.
FAULTS = (
    "500",
    "stall-in-middle",
    "429-ms",
    "break-before-head",
    "error-before-content",
    "503-text",
    "hang",
    "break-in-middle",
    "408",
    "empty",
    "break-before-content",
    "429-reset",
    "error-event",
    "502-html",
    "slow-head",
    "break-before-first-event",
    "504",
    "stall-before-content",
    "500-flat",
)
PHASE_SECONDS = 5.0

# Silences are short, so that many calls meet them.
SETTINGS = {"PROXY_STREAM_IDLE_SECONDS": "2"}
FIELDS = {"timeout_seconds": 2, "retry_count": 6}

CAPACITY_SECONDS = 6.0
SAMPLE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
WARM_UP_SHARE = 0.2
WINDOW_SHARE = 0.1  # of the run: what is compared are its first and its last samples
IDLE_SECONDS = 125.0  # connections to upstreams are kept for 90 s, and looked for every 15 s

# Shorter runs are not judged by what grows: Python takes minutes to have had all its threads
# busy with everything once.
JUDGED_SECONDS = 600.0
MOST_GROWTH = 0.05

PLAIN, STREAMED, LEFT = "plain", "streamed", "left"
SHARES = {PLAIN: 0.45, STREAMED: 0.45, LEFT: 0.1}
ASKS: Mapping[str, Asking] = {
    PLAIN: client.plain,
    # Its usage is asked for on the gateway's own account, so that event is not among them.
    STREAMED: client.streaming(expected_events=EVENTS - 1),
    LEFT: client.streaming(leave_after=client.LEAVE_AFTER_EVENTS),
}

EARLY, LATE, ALL = "after warm-up", "at the end", "in all"


@dataclass(frozen=True, slots=True)
class Options:
    """`load` is a share of the most requests a second there can be, `allowed` of the requests
    that may fail."""

    seconds: float
    load: float
    allowed: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the workers hold together at a moment, and the main process with them."""

    pss_mb: float
    threads: int
    sockets: int


@dataclass(slots=True)
class Seen:
    """What came of the requests. `total_ms` are of the good ones."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    total_ms: list[float] = field(default_factory=list)

    def add(self, kind: str, outcome: Outcome) -> None:
        failure = outcome.failure
        if failure is None:
            self.counts[kind] += 1
            self.total_ms.append(outcome.total_ms)
        elif failure.kind == ERROR_IN_STREAM and kind != PLAIN:
            # The instance failed when the text had begun: nothing better can be done than to
            # say so.
            self.counts["told"] += 1
        else:
            self._fail(kind, failure)

    @property
    def total(self) -> int:
        return self.counts.total() + self.failures.total()

    @property
    def failed_share(self) -> float:
        return self.failures.total() / self.total if self.total else 1.0

    def _fail(self, kind: str, failure: Failure) -> None:
        name = f"{kind}: {failure.kind}"
        self.failures[name] += 1
        self.examples.setdefault(name, failure.detail)


def sick_phases(resources: Sequence[str]) -> Iterator[list[Sick]]:
    """For each phase, who falls sick with what, and who is well again. Never ends."""
    number, before = 0, set[str]()
    while True:
        first = resources[number % len(resources)]
        second = resources[(number + 1 + number // len(resources) % 2) % len(resources)]
        sick = {
            first: FAULTS[number % len(FAULTS)],
            second: FAULTS[(number * 5 + 7) % len(FAULTS)],
        }
        yield [
            *(Sick(name, None) for name in sorted(before - set(sick))),
            *(Sick(name, fault) for name, fault in sick.items()),
        ]
        number, before = number + 1, set(sick)


def compared(
    samples: Sequence[Sample], value: Callable[[Sample], float]
) -> tuple[float, float]:
    """The medians of a run's first samples after its warm-up, and of its last."""
    warm = samples[int(len(samples) * WARM_UP_SHARE) :]
    size = max(1, int(len(samples) * WINDOW_SHARE))
    return (
        statistics.median(value(s) for s in warm[:size]),
        statistics.median(value(s) for s in warm[-size:]),
    )


def losses(samples: Sequence[Sample], seconds: float, workers: int) -> list[str]:
    """What a gateway that loses nothing would not show, in words."""
    found = []
    # Whatever the load does, one connection is one thread at most, and one to each upstream;
    # and some threads are there before any load.
    for what, most in (
        ("threads", workers * (max(CONNECTIONS, READY_THREADS) + 24)),
        ("sockets", CONNECTIONS + workers * (CONNECTIONS * (RESOURCES + 1) + 50)),
    ):
        peak = max(getattr(s, what) for s in samples)
        if peak > most:
            found.append(f"{peak} {what} were open; the load explains {most}")
    # Threads and kept connections are as many as were ever needed at a time, which chance says;
    # they may come nearer to these bounds, but not beyond. Of sockets none may stay at the end.
    if seconds >= JUDGED_SECONDS:
        early, late = compared(samples, lambda sample: sample.pss_mb)
        if late > early * (1 + MOST_GROWTH):
            found.append(f"{early:,.1f} MB of memory grew to {late:,.1f}")
    return found


@dataclass(frozen=True, slots=True)
class Soaked:
    """`is_good`: no more failed than may, and nothing was left behind."""

    report: Report
    is_good: bool


def run(options: Options, progress: Progress) -> Soaked:
    """Starts all it needs, measures, stops all of it. Raises GatewayGone."""
    progress("starting", None)
    plan = azure.Plan(RESOURCES, EVENTS, LATENCY_MS, EVENT_INTERVAL_MS)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, simulated_azure(plan) as cloud:
        dead = Started("dead", f"http://127.0.0.1:{free_port()}", "nobody-reads-it")
        with gateway(
            Path(folder), [*cloud.resources, dead], MODEL, settings=SETTINGS, fields=FIELDS
        ) as started:
            client.allow_files(CONNECTIONS)
            return asyncio.run(_Soak(options, cloud, started, progress).run())


class _Soak:
    """One run."""

    def __init__(
        self, options: Options, cloud: SimulatedAzure, started: Gateway, progress: Progress
    ) -> None:
        self._options = options
        self._azure = cloud
        self._gateway = started
        self._progress = progress
        self._target = client.gateway_target(started.url, key=started.key, model=MODEL)
        self._random = random.Random(1)
        self._samples: list[Sample] = []
        self._pids: set[int] = set()

    async def run(self) -> Soaked:
        idle = self._sample()
        capacity = await self._load("how much it can", Seen(), CAPACITY_SECONDS, None)
        pace = capacity * self._options.load
        self._samples.clear()
        seen = Seen()
        chaos = asyncio.create_task(self._chaos())
        try:
            rate = await self._load("soaking", seen, self._options.seconds, pace)
        finally:
            chaos.cancel()
        problems = losses(self._samples, self._options.seconds, self._gateway.settings.workers)
        if self._options.seconds >= JUDGED_SECONDS:
            problems += await self._left_over(idle)
        if len(self._pids) > self._gateway.settings.workers:
            problems.append("a worker was replaced")
        report = Report(
            {**bench.facts(self._gateway), "seconds": int(self._options.seconds)},
            self._rows(seen, capacity, rate),
            seen.failures + Counter(problems),
            seen.examples,
        )
        return Soaked(report, seen.failed_share <= self._options.allowed and not problems)

    async def _load(self, title: str, seen: Seen, seconds: float, pace: float | None) -> float:
        """Requests a second: as many as there can be, or at a pace."""
        started = time.perf_counter()
        ends_at = started + seconds
        async with asyncio.TaskGroup() as group:
            sampling = asyncio.create_task(self._sampling(title, seen, started, seconds))
            for number in range(CONNECTIONS):
                group.create_task(self._connection(seen, number, ends_at, pace))
        sampling.cancel()
        return seen.total / (time.perf_counter() - started)

    async def _connection(
        self, seen: Seen, number: int, ends_at: float, pace: float | None
    ) -> None:
        every = CONNECTIONS / pace if pace else 0.0
        connection = Connection(self._target)
        at = time.perf_counter() + every * number / CONNECTIONS
        try:
            while at < ends_at:
                await asyncio.sleep(at - time.perf_counter())
                [kind] = self._random.choices(list(SHARES), list(SHARES.values()))
                outcome = await client.outcome_of(ASKS[kind], connection, TIMEOUT_SECONDS)
                seen.add(kind, outcome)
                # What was late is not made up for: that would be a burst.
                at = max(at + every, time.perf_counter())
        finally:
            connection.close()

    async def _chaos(self) -> None:
        for sick in sick_phases([r.name for r in self._azure.resources]):
            for each in sick:
                await asyncio.to_thread(self._azure.make, each)
            await asyncio.sleep(PHASE_SECONDS)

    async def _sampling(self, title: str, seen: Seen, started: float, seconds: float) -> None:
        while True:
            self._samples.append(self._sample())
            counts, failed = seen.counts, seen.failures.total()
            text = f"{counts.total()} done, {counts['told']} told, {failed} failed | {title}"
            self._progress(text, min((time.perf_counter() - started) / seconds, 1.0))
            await asyncio.sleep(SAMPLE_SECONDS)

    def _sample(self) -> Sample:
        main, workers = self._gateway.usage()
        self._pids.update(w.pid for w in workers)
        return _summed(main, workers)

    async def _left_over(self, idle: Sample) -> list[str]:
        """Sockets that are open when nobody asks any more, and no connection is kept."""
        ends_at = time.perf_counter() + IDLE_SECONDS
        sockets = self._sample().sockets
        while sockets > idle.sockets and time.perf_counter() < ends_at:
            self._progress(f"{sockets} sockets are open | idle", None)
            await asyncio.sleep(SAMPLE_SECONDS)
            sockets = self._sample().sockets
        if sockets > idle.sockets:
            return [f"{sockets} sockets are open when all is over; {idle.sockets} were before"]
        return []

    def _rows(self, seen: Seen, capacity: float, rate: float) -> list[Row]:
        counts = seen.counts
        rows = [
            Row("the most requests a second, all well", "", {ALL: capacity}),
            Row("requests a second of the soak", "", {ALL: rate}),
            Row("requests", "", {ALL: seen.total}),
            Row("plain ones answered", "", {ALL: counts[PLAIN]}),
            Row("streams answered", "", {ALL: counts[STREAMED]}),
            Row("streams left", "", {ALL: counts[LEFT]}),
            Row(
                "streams that broke after their text began, told so", "", {ALL: counts["told"]}
            ),
            Row("failed", "", {ALL: seen.failures.total()}),
        ]
        rows += [
            Row(f"total p{percent}", "ms", {ALL: percentile(seen.total_ms, percent)})
            for percent in (50, 99)
            if seen.total_ms
        ]
        for title, unit, name in (
            ("memory (PSS) of all", "MB", "pss_mb"),
            ("threads", "", "threads"),
            ("open sockets", "", "sockets"),
        ):
            early, late = compared(self._samples, lambda s, name=name: getattr(s, name))
            rows.append(Row(title, unit, {EARLY: early, LATE: late}))
        return rows


def _summed(main: Usage, workers: Sequence[Usage]) -> Sample:
    everyone = [main, *workers]
    return Sample(
        sum(u.pss_mb for u in everyone),
        sum(u.threads for u in everyone),
        sum(u.sockets for u in everyone),
    )
