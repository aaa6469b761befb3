"""The `flask` commands. Same settings and database as the server, which follows by itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Event
from typing import Any

import click
from flask import Flask

from proxy.cli_admins import admins_cli
from proxy.cli_keys import keys_cli
from proxy.cli_usage import usage_cli
from proxy.simulator import Resource, Simulator, describe

MAX_PORT = 65_535


class _Later(click.Group):
    """`flask <name>`, loaded from `proxy.cli_<name>` when it is asked for: a server is up
    sooner without it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._loaded().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._loaded().get_command(ctx, cmd_name)

    def _loaded(self) -> click.Group:
        group: click.Group = getattr(
            import_module(f"proxy.cli_{self.name}"), f"{self.name}_cli"
        )
        return group


class _LaterCommand(click.Command):
    """The same of one command, `proxy.cli_<name>.<name>`."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        command: click.Command = getattr(
            import_module(f"proxy.cli_{self.name}"), str(self.name)
        )
        return command.make_context(info_name, args, parent, **extra)


DOCTOR = _LaterCommand("doctor", help="Look for what is wrong, and say what to do about it.")
TOP = _LaterCommand("top", help="Show what the gateway does, once a second.")
INSTANCES = _Later("instances", help="Instances: how they stand, on and off, verify.")
LEGACY = _Later("legacy", help="The files of an older proxy.")
SECRETS = _Later("secrets", help="The key that secrets are encrypted with.")
LOGS = _Later("logs", help="What the log knows of a request.")
CONFIG = _Later("config", help="All config as one file, and every version of it.")


def register(app: Flask) -> None:
    app.cli.add_command(keys_cli)
    app.cli.add_command(admins_cli)
    app.cli.add_command(INSTANCES)
    app.cli.add_command(DOCTOR)
    app.cli.add_command(TOP)
    app.cli.add_command(LEGACY)
    app.cli.add_command(SECRETS)
    app.cli.add_command(CONFIG)
    app.cli.add_command(LOGS)
    app.cli.add_command(usage_cli)
    app.cli.add_command(mock)


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
