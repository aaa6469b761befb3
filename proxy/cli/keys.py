"""`flask keys`: clients and their keys, checked as the admin API checks them."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import click
from flask.cli import AppGroup

from proxy.cli.told import author, told, with_reason
from proxy.context import parts
from proxy.core.columns import aligned
from proxy.core.moments import NotAMoment, as_text, moment
from proxy.errors import Unprocessable
from proxy.store import client_states, keys
from proxy.store.db import Connection
from proxy.store.keys import StoredClient
from proxy.web.keys import with_state
from proxy.web.schemas_keys import (
    COMPATS,
    MAX_GRACE_SECONDS,
    checked_change,
    checked_client,
)

keys_cli = AppGroup("keys", help="Clients and their keys.")

UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhdw]?)", re.ASCII)

Command = Callable[..., None]

# Each option and its field; a list that is given empty allows all again.
LISTS = {
    "--model": ("allowed_models", "One it may use, or the beginning of names: 'gpt-4o*'."),
    "--instance": ("allowed_instances", "One it may use."),
    "--network": ("allowed_networks", "From where it may call, such as 10.0.0.0/8."),
}
LIMITS: dict[str, tuple[str, type, str]] = {
    "--max-tpm": ("max_tpm", int, "Tokens a minute."),
    "--max-rpm": ("max_rpm", int, "Requests a minute."),
    "--max-parallel": ("max_parallel_requests", int, "Requests at a time."),
    "--tokens-per-day": ("max_tokens_per_day", int, "Tokens a day."),
    "--tokens-per-month": ("max_tokens_per_month", int, "Tokens a month."),
    "--cost-per-day": ("max_cost_per_day", float, "What it may spend a day."),
    "--cost-per-month": ("max_cost_per_month", float, "What it may spend a month."),
}


HEADINGS = ("NAME", "KEY", "STATUS", "ADDED", "EXPIRES", "LAST USED", "LIMITS", "LABELS")


class Duration(click.ParamType[int]):
    """Seconds: 30s, 90m, 24h, 30d, 2w, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no time; write one as 90m, 24h or 30d.", param, ctx)
        return int(match[1]) * UNIT_SECONDS[match[2]]


class Moment(click.ParamType[tuple[float | None]]):
    """Seconds since the epoch, of a time from now or a date in UTC; None for `never`."""

    name = "moment"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float | None]:
        if value == "never":
            return (None,)
        match = _DURATION.fullmatch(value)
        if match is not None and match[2]:
            # Whole seconds, so that it can be written as a date.
            return (float(int(time.time()) + int(match[1]) * UNIT_SECONDS[match[2]]),)
        try:
            return (moment(value),)
        except NotAMoment:
            self.fail(f"{value!r} is no date; write 30d, 2030-01-31 or never.", param, ctx)


class Label(click.ParamType[tuple[str, str] | None]):
    name = "key=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str] | None:
        name, sign, text = value.partition("=")
        if value and not sign:
            self.fail(f"{value!r} has no =; write it as team=search.", param, ctx)
        return (name, text) if value else None


def _client_options(command: Command) -> Command:
    """One for each field of a client; what is not given is None, or an empty list."""
    for option, (field, text) in LISTS.items():
        command = click.option(option, field, multiple=True, help=text)(command)
    for option, (field, kind, text) in LIMITS.items():
        command = click.option(option, field, type=kind, help=f"{text} 0: no limit.")(command)
    command = click.option(
        "--expires", "expires_at", type=Moment(), help="30d, 2030-01-31, or never."
    )(command)
    command = click.option(
        "--label", "labels", type=Label(), multiple=True, help="To tell clients apart."
    )(command)
    return click.option(
        "--compat",
        type=click.Choice(COMPATS),
        help="openai_strict: without what Azure adds to answers.",
    )(command)


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """Those that were given, as the schema has them."""
    found = {k: v for k, v in given.items() if v is not None and v != ()}
    for field, _ in LISTS.values():
        if field in found:
            found[field] = [text for text in found[field] if text]
    if "expires_at" in found:
        (found["expires_at"],) = found["expires_at"]
    if "labels" in found:
        found["labels"] = dict(label for label in found["labels"] if label)
    return found


@keys_cli.command("add")
@click.argument("name")
@_client_options
@with_reason
def add_key(name: str, reason: str | None, **given: Any) -> None:
    """Make a key for client NAME and print it, this once. Only its hash is kept."""
    values = _checked(checked_client, {"name": name, **_fields(given)})
    del values["name"]
    with told(), parts().database.session() as session:
        key = keys.add(session, name, values, author=author(reason))
    _print_key(name, key)
    _tell_if_over(values)


@keys_cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines, with all fields.")
def list_keys(as_json: bool) -> None:
    """Clients: the last characters of their keys, how they stand, when their keys were made,
    expire and were last used, limits and labels."""
    with told(writes=False), parts().database.read() as connection:
        _look_at_use(connection)
        shown = [_shown(stored) for stored in keys.listed(connection)]
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    if not shown:
        click.echo("There is no client. `flask keys add NAME` makes one.", err=True)
        return
    for line in aligned([HEADINGS, *map(_row, shown)]):
        click.echo(line)


@keys_cli.command("show")
@click.argument("name")
def show_key(name: str) -> None:
    """All that is known of client NAME, as JSON: what it may do, and what it used."""
    with told(writes=False), parts().database.read() as connection:
        _look_at_use(connection)
        shown = _shown(keys.stored(connection, name))
    click.echo(json.dumps(shown, indent=2))


@keys_cli.command("change")
@click.argument("name")
@_client_options
@with_reason
def change_key(name: str, reason: str | None, **given: Any) -> None:
    """Change what client NAME may do. What is not given stays; a list that is given replaces
    the one there is, and an empty text ('') empties it."""
    values = _fields(given)
    if not values:
        raise click.UsageError("Nothing to change: give at least one option.")
    _change(name, values, reason)
    click.echo(f"{name} is changed.")
    _tell_if_over(values)


@keys_cli.command("rotate")
@click.argument("name")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="0: all old ones end now.",
)
@with_reason
def rotate_key(name: str, grace: int, reason: str | None) -> None:
    """Make another key for client NAME and print it, this once. The old one stays valid for
    the time of grace."""
    if grace > MAX_GRACE_SECONDS:
        raise click.BadParameter(
            f"At most {MAX_GRACE_SECONDS // 86_400} days.", param_hint="--grace"
        )
    with told(), parts().database.session() as session:
        key = keys.rotate(session, name, grace_seconds=grace, author=author(reason))
    _print_key(name, key)


@keys_cli.command("disable")
@click.argument("name")
@with_reason
def disable_key(name: str, reason: str | None) -> None:
    """Let client NAME make no more requests; those in flight finish."""
    _change(name, {"enabled": False}, reason)
    click.echo(f"{name} is disabled.")


@keys_cli.command("enable")
@click.argument("name")
@with_reason
def enable_key(name: str, reason: str | None) -> None:
    """Let client NAME make requests again."""
    _change(name, {"enabled": True}, reason)
    click.echo(f"{name} is enabled.")


@keys_cli.command("remove")
@click.argument("name")
@with_reason
def remove_key(name: str, reason: str | None) -> None:
    """The key of client NAME is worth nothing from now on."""
    with told(), parts().database.session() as session:
        keys.remove(session, name, author=author(reason))
    click.echo(f"The key of {name} is removed.")


def _look_at_use(connection: Connection) -> None:
    """As a worker hears of it at its start."""
    number = 0  # which write it is matters only to who reads on
    parts().clients.merge(client_states.read(connection, time.time(), number))


def _shown(stored: StoredClient) -> dict[str, Any]:
    """As the admin API shows it, but for calls in flight: only workers know of these."""
    shown = with_state(stored)
    del shown["state"]["in_flight"]
    return shown


def _change(name: str, values: dict[str, Any], reason: str | None) -> None:
    values = _checked(checked_change, values)
    with told(), parts().database.session() as session:
        keys.change(session, name, values, author=author(reason))


def _checked(check: Callable[[Any], dict[str, Any]], values: dict[str, Any]) -> dict[str, Any]:
    try:
        return check(values)
    except Unprocessable as error:
        raise click.UsageError(error.message) from error


def _print_key(name: str, key: str) -> None:
    click.echo(f"Key of {name}; it cannot be shown again:", err=True)
    click.echo(key)


def _row(client: dict[str, Any]) -> tuple[str, ...]:
    limits = [f"{f}={client[f]}".removesuffix(".0") for f, *_ in LIMITS.values() if client[f]]
    labels = [f"{key}={value}" for key, value in client["labels"].items()]
    return (
        client["name"],
        client["key_hint"] or "-",
        _standing(client),
        _minute(client["created_at"]),
        _minute(client["expires_at"]),
        _minute(client["last_used_at"]),
        ", ".join(limits) or "none",
        ", ".join(labels) or "-",
    )


def _minute(moment_at: float | None) -> str:
    if moment_at is None:
        return "never"
    return f"{as_text(moment_at)[:16].replace('T', ' ')}Z"


def _tell_if_over(values: dict[str, Any]) -> None:
    ends_at = values.get("expires_at")
    if ends_at is not None and ends_at <= time.time():
        click.echo(
            f"Note: {as_text(ends_at)} is over, so its keys open nothing until --expires says"
            " otherwise.",
            err=True,
        )


def _standing(client: dict[str, Any]) -> str:
    if client["key_hint"] is None:
        return "has no key"
    if not client["enabled"]:
        return "disabled"
    return "expired" if client["expired"] else "enabled"
