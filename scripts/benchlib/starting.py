"""How long a start takes, what a worker holds then, and after many requests."""

import time

from loadlib.gateway import TICKS_PER_SECOND, Gateway, GatewayGone, stat
from loadlib.health import asked

from benchlib.growth import CLIENTS, INSTANCES
from benchlib.loads import Ask
from benchlib.places import GATEWAY, our_gateway, through
from benchlib.plain import CONNECTIONS
from benchlib.stage import Stage
from benchlib.table import Measure

START_SECONDS = 60.0
POLL_SECONDS = 0.02
IDLE_SECONDS = 1.0
FEW_REQUESTS, MANY_REQUESTS = 10_000, 1_000_000
STARTTIME_FIELD = 19  # of /proc/PID/stat, from `state` on


def start(stage: Stage) -> None:
    few = Measure("start with 3 instances, 3 client keys: until /ready", "s")
    many = Measure(
        f"start with {INSTANCES:,} instances, {CLIENTS:,} client keys: until /ready", "s"
    )
    for number in range(stage.options.rounds):
        for measure, instances, clients in ((few, 3, 3), (many, INSTANCES, CLIENTS)):
            stage.progress(measure.name)
            folder = stage.folder / f"start-{number}-{instances}"
            with our_gateway(
                folder, stage.upstream.url, instances=instances, clients=clients
            ) as started:
                stage.results.note(measure, GATEWAY, seconds_until_ready(started))
                time.sleep(IDLE_SECONDS)
                title = measure.name.partition(":")[0].removeprefix("start ")
                idle = Measure(f"idle {title}: memory (PSS) of a worker", "MB")
                stage.results.note(idle, GATEWAY, worker_mb(started))


def seconds_until_ready(started: Gateway) -> float:
    """Since its process was started. Raises GatewayGone."""
    while not asked(started.settings, "/ready"):
        if age_seconds(started.process.pid) > START_SECONDS:
            raise GatewayGone("The gateway does not become ready.")
        time.sleep(POLL_SECONDS)
    return age_seconds(started.process.pid)


def age_seconds(pid: int) -> float:
    began = int(stat(pid)[STARTTIME_FIELD]) / TICKS_PER_SECOND
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def worker_mb(started: Gateway) -> float:
    _, workers = started.usage()
    return sum(u.pss_mb for u in workers) / len(workers)


def memory(stage: Stage) -> None:
    """Whether it grows: with `is_long` a hundred times as many requests, too."""
    stage.upstream.behave()
    if not stage.options.is_long:
        stage.results.notes.append(
            f"Memory after {MANY_REQUESTS:,} requests was left out: --long measures it."
        )
    with our_gateway(stage.folder / "memory", stage.upstream.url) as started:
        time.sleep(IDLE_SECONDS)  # until both workers are there: one would have all requests
        _make(stage, started, FEW_REQUESTS)
        few_mb = worker_mb(started)
        stage.results.note(Measure(_title(FEW_REQUESTS), "MB"), GATEWAY, few_mb)
        if stage.options.is_long:
            _make(stage, started, MANY_REQUESTS - FEW_REQUESTS)
            base = f"after {FEW_REQUESTS:,}"
            measure = Measure(_title(MANY_REQUESTS), "MB", base)
            stage.results.note(measure, base, few_mb)
            stage.results.note(measure, GATEWAY, worker_mb(started))


def _title(requests: int) -> str:
    return f"memory (PSS) of a worker after {requests:,} requests"


def _make(stage: Stage, started: Gateway, requests: int) -> None:
    ask = Ask((stage.body(),), CONNECTIONS, requests=requests)
    stage.make("memory", through(started), ask)
    time.sleep(IDLE_SECONDS)
