"""Streams: how much later they begin and their events arrive, and what an event costs."""

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Thread

from loadlib.gateway import Gateway
from loadlib.health import asked

from benchlib.loads import Ask
from benchlib.places import DIRECT, GATEWAY, Place, our_gateway, through
from benchlib.stage import Made, Stage
from benchlib.table import Measure

PEERS_TIMEOUT_SECONDS = 180.0  # the slowest are to be measured, not cut off

STREAMS, EVENTS, INTERVAL_MS = 256, 100, 20.0

OPEN, OPEN_EVENTS, OPEN_INTERVAL_MS = 2000, 50, 200.0
OPEN_RAMP_SECONDS = 6.0
OPEN_TIMEOUT_SECONDS = 30.0  # three times as long as a stream lasts
OPEN_THREADS = OPEN  # of each worker, among which they are unevenly shared
OPEN_FILES = 3 * OPEN

FLAT_STREAMS, FLAT_EVENTS = 64, 1000

BURST, BURST_EVENTS = 200, 10
BURSTS = 3

PROBE_SECONDS = 0.1
MEMORY_SECONDS = 1.0


def note_added_first_byte(
    stage: Stage, title: str, base: Made, made: Made, place: Place, percents: Sequence[str]
) -> None:
    for percent in percents:
        direct_ms = base.load.first_byte_us[percent] / 1000
        added_ms = made.load.first_byte_us[percent] / 1000 - direct_ms
        measure = Measure(
            f"{title}: first byte added, {percent}", "ms", DIRECT, has_ratio=False
        )
        if place.name == GATEWAY:
            stage.results.note(measure, DIRECT, direct_ms)
        stage.results.note(measure, place.name, added_ms)


def spaced(stage: Stage) -> None:
    stage.upstream.behave(events=EVENTS, interval_ms=INTERVAL_MS)
    # One stream's length: so they begin evenly, and do so again when they have ended.
    lasts_seconds = (EVENTS - 1) * INTERVAL_MS / 1000
    ask = Ask(
        (stage.body(stream=True),),
        connections=STREAMS,
        seconds=max(stage.options.seconds, lasts_seconds),
        warm_seconds=lasts_seconds,
        ramp_seconds=lasts_seconds,
        events=EVENTS,
        timeout_seconds=PEERS_TIMEOUT_SECONDS,
    )
    # Some take so long that none of theirs would begin after those of the ramp.
    of_peers = replace(ask, warm_seconds=0, seconds=ask.warm_seconds + ask.seconds)
    title = f"{STREAMS} streams, {INTERVAL_MS:g} ms between events"
    delay = Measure(f"{title}: event delay, p99", "ms", DIRECT, has_ratio=False)
    cost = Measure(f"{title}: CPU an event, starts included", "µs")
    for _ in range(stage.options.rounds):
        base = stage.make("streams", stage.direct, ask)
        stage.results.note(delay, DIRECT, base.load.delay_us["p99"] / 1000)
        for place in (stage.gateway, *stage.peers):
            made = stage.make("streams", place, ask if place is stage.gateway else of_peers)
            if not made.load.first_byte_us.get("p50") or not made.load.delay_us.get("p99"):
                stage.results.notes.append(f"{place.name} began no stream in time ({title}).")
                continue
            note_added_first_byte(stage, title, base, made, place, ("p50", "p99"))
            stage.results.note(delay, place.name, made.load.delay_us["p99"] / 1000)
            stage.results.note(cost, place.name, made.us_an_event)


def flat_out(stage: Stage) -> None:
    stage.upstream.behave(events=FLAT_EVENTS, interval_ms=0)
    ask = Ask(
        (stage.body(stream=True),),
        connections=FLAT_STREAMS,
        seconds=stage.options.seconds,
        warm_seconds=0.5,
        events=FLAT_EVENTS,
    )
    title = f"flat out, {FLAT_STREAMS} streams of {FLAT_EVENTS:,} events: events"
    rate = Measure(title, "a second", DIRECT)
    for _ in range(stage.options.rounds):
        for place in (stage.direct, stage.gateway):
            done = stage.make("flat", place, ask).load
            stage.results.note(rate, place.name, done.events_in_time / done.seconds)


def burst(stage: Stage) -> None:
    stage.upstream.behave(events=BURST_EVENTS, interval_ms=INTERVAL_MS)
    ask = Ask(
        (stage.body(stream=True),), connections=BURST, requests=BURST, events=BURST_EVENTS
    )
    title = f"{BURST} streams begun in the same instant"
    for _ in range(stage.options.rounds * BURSTS):
        base = stage.make("burst", stage.direct, ask)
        made = stage.make("burst", stage.gateway, ask)
        note_added_first_byte(stage, title, base, made, stage.gateway, ("p50", "p99"))


@dataclass(slots=True)
class Watched:
    """What a gateway looked like while it was busy. `health_ms` are of each /health."""

    health_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    threads: int = 0


class Watcher:
    """Asks a gateway for its health and looks at its memory, between `start` and `stop`."""

    def __init__(self, started: Gateway) -> None:
        self._gateway = started
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.watched = Watched()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Watched:
        self._stopping.set()
        self._thread.join()
        return self.watched

    def _run(self) -> None:
        next_look = 0.0
        while not self._stopping.wait(PROBE_SECONDS):
            began = time.monotonic()
            if asked(self._gateway.settings, "/health"):
                self.watched.health_ms.append((time.monotonic() - began) * 1000)
            if began >= next_look:
                next_look = began + MEMORY_SECONDS
                _, workers = self._gateway.usage()
                self.watched.memory_mb.append(sum(u.pss_mb for u in workers))
                self.watched.threads = max(
                    self.watched.threads, max(u.threads for u in workers)
                )


def many_open(stage: Stage) -> None:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < OPEN_FILES:
        stage.results.notes.append(
            f"{OPEN} open streams were left out: a process may open {files} files here, and"
            f" {OPEN_FILES} are needed (ulimit -Hn)."
        )
        return
    stage.upstream.behave(events=OPEN_EVENTS, interval_ms=OPEN_INTERVAL_MS)
    settings = {"PROXY_THREADS": str(OPEN_THREADS)}
    with our_gateway(stage.folder / "open", stage.upstream.url, settings=settings) as started:
        for _ in range(stage.options.rounds):
            _many_open(stage, started)


def _many_open(stage: Stage, started: Gateway) -> None:
    ask = Ask(
        (stage.body(stream=True),),
        connections=OPEN,
        requests=OPEN,
        ramp_seconds=OPEN_RAMP_SECONDS,
        events=OPEN_EVENTS,
        timeout_seconds=OPEN_TIMEOUT_SECONDS,
    )
    title = f"{OPEN:,} open streams, {OPEN_INTERVAL_MS:g} ms between events"
    base = stage.make("open", stage.direct, ask)
    place = through(started)
    watcher = Watcher(started)
    watcher.start()
    made = stage.make("open", place, ask)
    watched = watcher.stop()
    note = stage.results.note
    settings = f"with PROXY_THREADS={OPEN_THREADS}"
    note(Measure(f"{title} ({settings}): complete"), place.name, made.load.finished)
    note_added_first_byte(stage, title, base, made, place, ("p50", "p99"))
    delay = Measure(f"{title}: event delay, p99", "ms", DIRECT, has_ratio=False)
    note(delay, DIRECT, base.load.delay_us["p99"] / 1000)
    note(delay, place.name, made.load.delay_us["p99"] / 1000)
    note(Measure(f"{title}: CPU an event, starts included", "µs"), place.name, made.us_an_event)
    memory = Measure(f"{title}: memory (PSS) of all workers at most", "MB")
    note(memory, place.name, max(watched.memory_mb))
    note(Measure(f"{title}: threads of a worker at most"), place.name, watched.threads)
    health = Measure(f"{title}: slowest /health meanwhile", "ms")
    note(health, place.name, max(watched.health_ms))
