"""The `flask` commands. Same settings and database as the server, which follows by itself."""

from importlib import import_module
from typing import Any

import click
from flask import Flask


class _Later(click.Group):
    """`flask <name>`, loaded from `proxy.cli.<name>` when it is asked for: a server is up
    sooner without it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._loaded().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._loaded().get_command(ctx, cmd_name)

    def _loaded(self) -> click.Group:
        group: click.Group = getattr(
            import_module(f"proxy.cli.{self.name}"), f"{self.name}_cli"
        )
        return group


class _LaterCommand(click.Command):
    """The same of one command, `proxy.cli.<name>.<name>`."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        command: click.Command = getattr(
            import_module(f"proxy.cli.{self.name}"), str(self.name)
        )
        return command.make_context(info_name, args, parent, **extra)


KEYS = _Later("keys", help="Clients and their keys.")
ADMINS = _Later("admins", help="Keys of the admin API, and their roles.")
USAGE = _LaterCommand(
    "usage", help="Requests, tokens, errors, times and money, by minute, hour or day."
)
MOCK = _LaterCommand("mock", help="Simulate Azure OpenAI on loopback until Ctrl-C.")
DOCTOR = _LaterCommand("doctor", help="Look for what is wrong, and say what to do about it.")
TOP = _LaterCommand("top", help="Show what the gateway does, once a second.")
INSTANCES = _Later("instances", help="Instances: how they stand, on and off, verify.")
LEGACY = _Later("legacy", help="The files of an older proxy.")
SECRETS = _Later("secrets", help="The key that secrets are encrypted with.")
LOGS = _Later("logs", help="What the log knows of a request.")
CONFIG = _Later("config", help="All config as one file, and every version of it.")


def register(app: Flask) -> None:
    app.cli.add_command(KEYS)
    app.cli.add_command(ADMINS)
    app.cli.add_command(INSTANCES)
    app.cli.add_command(DOCTOR)
    app.cli.add_command(TOP)
    app.cli.add_command(LEGACY)
    app.cli.add_command(SECRETS)
    app.cli.add_command(CONFIG)
    app.cli.add_command(LOGS)
    app.cli.add_command(USAGE)
    app.cli.add_command(MOCK)
