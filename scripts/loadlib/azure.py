"""The simulated Azure in a process of its own, so that it takes no time from the client."""

import multiprocessing
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from proxy.simulator import Resource, Simulator

STOP_SECONDS = 10.0
POLL_SECONDS = 0.02

# Beside one for each token: the prompt's filter results, the role, the end, usage, [DONE].
EXTRA_EVENTS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """How each of `resources` resources behaves.

    A stream has `events` events if the client asks for its usage, else one less.
    """

    resources: int
    events: int
    latency_ms: float
    event_interval_ms: float


@dataclass(frozen=True, slots=True)
class Started:
    """A resource that listens."""

    name: str
    url: str
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """Summed over the resources: peers that left too early, streams being sent now."""

    aborted: int
    open_streams: int


@dataclass(frozen=True, slots=True)
class Sick:
    """From now on every request to this resource has the fault; None: it is well again."""

    resource: str
    fault: str | None


class SimulatedAzure:
    """The process' other end. Not thread-safe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.resources: list[Started] = pipe.recv()

    @property
    def seen(self) -> Seen:
        return self._told(None)

    def make(self, sick: Sick) -> Seen:
        return self._told(sick)

    def wait_for_aborts(self, aborted: int, timeout_seconds: float) -> Seen:
        """Until so many were seen and no stream is open, or time is up."""
        ends_at = time.monotonic() + timeout_seconds
        seen = self.seen
        while (seen.aborted < aborted or seen.open_streams) and time.monotonic() < ends_at:
            time.sleep(POLL_SECONDS)
            seen = self.seen
        return seen

    def _told(self, sick: Sick | None) -> Seen:
        self._pipe.send(sick)
        seen: Seen = self._pipe.recv()
        return seen


@contextmanager
def simulated_azure(plan: Plan) -> Iterator[SimulatedAzure]:
    # spawn: a fork would inherit our signal handlers and open files.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, plan), daemon=True)
    process.start()
    theirs.close()
    try:
        yield SimulatedAzure(ours)
    finally:
        ours.close()  # that is how it learns that it may go
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(pipe: Connection, plan: Plan) -> None:
    # Ctrl-C reaches every process of the terminal; we go when our starter does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resources = [
        Resource(
            name=f"sim-{number}",
            api_key=f"simulated-key-{number}",
            latency_ms=plan.latency_ms,
            event_interval_ms=plan.event_interval_ms,
            tokens=plan.events - EXTRA_EVENTS,
        )
        for number in range(1, plan.resources + 1)
    ]
    with Simulator(resources):
        pipe.send([Started(r.name, r.url, r.api_key or "") for r in resources])
        by_name = {r.name: r for r in resources}
        for sick in _asked(pipe):
            if sick is not None:
                _make(by_name[sick.resource], sick.fault)
            pipe.send(
                Seen(
                    aborted=sum(r.aborted for r in resources),
                    open_streams=sum(r.open_streams for r in resources),
                )
            )


def _asked(pipe: Connection) -> Iterator[Sick | None]:
    """What is to change before what was seen is told. Ends when the other end has gone."""
    while True:
        try:
            sick: Sick | None = pipe.recv()
        except (EOFError, OSError):
            return
        yield sick


def _make(resource: Resource, fault: str | None) -> None:
    resource.faults.clear()
    if fault is not None:
        resource.faults["*"] = fault
