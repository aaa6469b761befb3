"""`flask admins`: who may use the admin API, and with which role."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup

from proxy.cli.told import author, told, with_reason
from proxy.context import parts
from proxy.core.columns import aligned
from proxy.core.masking import MASK
from proxy.core.roles import ROLES, name_problem
from proxy.store import admin_keys
from proxy.store.admin_keys import StoredAdmin

SECONDS = {"m": 60, "h": 3600, "d": 86_400}
NEVER = "never"
HEADINGS = ("name", "role", "key", "made", "expires")
MAX_DAYS = 36_500

admins_cli = AppGroup("admins", help="Keys of the admin API, and their roles.")


class _Expiry(click.ParamType["float | None"]):
    """A time from now, as a moment; None for never."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | None:
        if value is None or value == NEVER:
            return None
        match = re.fullmatch(r"([1-9]\d{0,8})([mhd])", value, re.ASCII)
        seconds = int(match[1]) * SECONDS[match[2]] if match else 0
        if not 0 < seconds <= MAX_DAYS * SECONDS["d"]:
            self.fail(f"{value!r} is none; write 90d, 12h, 30m, or {NEVER}.", param, ctx)
        return time.time() + seconds


def _name(_ctx: click.Context, _param: click.Parameter, name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise click.BadParameter(problem)
    return name


def _role(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind = click.Choice(list(ROLES))
    return click.option("--role", type=kind, required=required, help="What it may do.")


@admins_cli.command("add")
@click.argument("name", callback=_name)
@_role(required=True)
@click.option("--expires", "expires_at", type=_Expiry(), help="From now on, such as 90d.")
@with_reason
def add_admin(name: str, role: str, expires_at: float | None, reason: str | None) -> None:
    """Make an admin key for NAME and print it, this once. Only its hash is kept.

    A viewer sees everything but secrets; an operator may also clear, verify, explain, and
    switch instances on and off; an admin may do everything.
    """
    with told(), parts().database.session() as session:
        key = admin_keys.add(session, name, role, author=author(reason), expires_at=expires_at)
    click.echo(f"Key of {name}, role {role}; it cannot be shown again:", err=True)
    click.echo(key)


@admins_cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_admins(as_json: bool) -> None:
    """Names, roles, the last characters of the keys, when they were made and expire."""
    with told(writes=False), parts().database.read() as connection:
        found = admin_keys.listed(connection)
    if as_json:
        click.echo(json.dumps([each.shown(time.time()) for each in found], indent=2))
        return
    if not found:
        click.echo("There is no admin key. `flask admins add NAME` makes one.", err=True)
        return
    for line in aligned([HEADINGS, *map(_columns, found)]):
        click.echo(line)


@admins_cli.command("change")
@click.argument("name")
@_role(required=False)
@click.option("--expires", "expires_at", type=_Expiry(), help="From now on; never: not at all.")
@with_reason
@click.pass_context
def change_admin(
    ctx: click.Context,
    name: str,
    role: str | None,
    expires_at: float | None,
    reason: str | None,
) -> None:
    """Give the admin key of NAME another role or expiry. The key stays."""
    values: dict[str, Any] = {} if role is None else {"role": role}
    if ctx.get_parameter_source("expires_at") is click.core.ParameterSource.COMMANDLINE:
        values["expires_at"] = expires_at
    if not values:
        raise click.UsageError("Nothing to change: give --role or --expires.")
    with told(), parts().database.session() as session:
        admin_keys.change(
            session, name, values, author=author(reason), is_first_set=_is_first_set()
        )
    click.echo(f"The admin key of {name} is changed.")


@admins_cli.command("remove")
@click.argument("name")
@with_reason
def remove_admin(name: str, reason: str | None) -> None:
    """The admin key of NAME is worth nothing from now on."""
    with told(), parts().database.session() as session:
        admin_keys.remove(session, name, author=author(reason), is_first_set=_is_first_set())
    click.echo(f"The admin key of {name} is removed.")


def _is_first_set() -> bool:
    return bool(parts().settings.admin_api_key)


def _columns(stored: StoredAdmin) -> tuple[str, ...]:
    expires_at = stored.admin.expires_at
    expiry = "never" if expires_at is None else _date(expires_at)
    if stored.admin.is_expired(time.time()):
        expiry += " (expired)"
    return (
        *(stored.admin.name, stored.admin.role, f"{MASK}{stored.hint}"),
        *(_date(stored.created_at), expiry),
    )


def _date(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}Z"
