"""`flask mock`: simulated Azure, for tests of one's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import click

from proxy.simulator import Resource, Simulator, describe

MAX_PORT = 65_535


def _whole(
    name: str, low: int, high: int, *, default: int, help: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind = click.IntRange(low, high)
    return click.option(name, type=kind, default=default, show_default=True, help=help)


@click.command("mock")
@_whole("--port", 1, MAX_PORT, default=9100, help="Port of the first instance.")
@_whole("--count", 1, 100, default=3, help="How many instances.")
@_whole("--latency-ms", 0, 600_000, default=100, help="To the first byte.")
@_whole("--event-interval-ms", 0, 600_000, default=30, help="Of a stream.")
def mock(port: int, count: int, latency_ms: int, event_interval_ms: int) -> None:
    """Simulate Azure OpenAI on loopback until Ctrl-C."""
    if port + count - 1 > MAX_PORT:
        raise click.BadParameter(f"{count} ports from {port} on do not exist.")
    simulator = Simulator(
        simulated_resources(count, latency_ms=latency_ms, event_interval_ms=event_interval_ms),
        port=port,
    )
    with _bound():
        simulator.start()
    with simulator:
        for line in describe(simulator):
            click.echo(line)
        wait_for_interrupt()


def simulated_resources(
    count: int, *, latency_ms: float, event_interval_ms: float
) -> list[Resource]:
    """`sim-1` and so on, each with a key of its own."""
    return [
        Resource(
            name=f"sim-{n}",
            api_key=f"simulated-key-{n}",
            latency_ms=latency_ms,
            event_interval_ms=event_interval_ms,
        )
        for n in range(1, count + 1)
    ]


def wait_for_interrupt(wait: Callable[[], object] | None = None) -> None:
    try:
        (wait or Event().wait)()
    except KeyboardInterrupt:
        pass  # how it is meant to end


@contextmanager
def _bound() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"Cannot listen: {error.strerror}.") from error
