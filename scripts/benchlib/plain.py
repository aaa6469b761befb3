"""Requests that are answered in one piece: how many, at what cost, and what is added to one."""

from benchlib.loads import Ask
from benchlib.places import DIRECT, EMPTY
from benchlib.stage import Stage
from benchlib.table import Measure

CONNECTIONS = 16
WARM_SECONDS = 0.5

PER_SECOND = Measure(f"plain, {CONNECTIONS} connections: requests", "a second", EMPTY)
COST = Measure(f"plain, {CONNECTIONS} connections: CPU a request", "µs", EMPTY)


def throughput(stage: Stage) -> None:
    stage.upstream.behave()
    ask = Ask(
        (stage.body(),),
        connections=CONNECTIONS,
        seconds=stage.options.seconds,
        warm_seconds=WARM_SECONDS,
    )
    for _ in range(stage.options.rounds):
        for place in (stage.empty, stage.gateway, *stage.peers):
            made = stage.make("plain", place, ask)
            stage.results.note(PER_SECOND, place.name, made.load.per_second)
            stage.results.note(COST, place.name, made.us_a_request)


def latency(stage: Stage) -> None:
    stage.upstream.behave()
    ask = Ask((stage.body(),), seconds=stage.options.seconds, warm_seconds=WARM_SECONDS)
    for _ in range(stage.options.rounds):
        base = stage.make("latency", stage.direct, ask).load.total_us
        for place in (stage.gateway, *stage.peers):
            found = stage.make("latency", place, ask).load.total_us
            for percent in ("p50", "p99"):
                measure = Measure(
                    f"1 connection: added to a request, {percent}",
                    "ms",
                    DIRECT,
                    has_ratio=False,
                )
                if place is stage.gateway:
                    stage.results.note(measure, DIRECT, base[percent] / 1000)
                added_us = found[percent] - base[percent]
                stage.results.note(measure, place.name, added_us / 1000)
