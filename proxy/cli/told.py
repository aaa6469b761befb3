"""How a command says what is wrong, and whose changes of config it makes."""

import logging
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from proxy.context import parts
from proxy.core.roles import COMMAND_LINE
from proxy.errors import ProxyError
from proxy.runtime import running
from proxy.store import lost, schema
from proxy.store.damage import check_set_aside
from proxy.store.revisions import REASON_CHARACTERS, Author

ASKED_SECONDS = 0.5

LOGGER = logging.getLogger("proxy")  # of all our modules


@contextmanager
def told(*, writes: bool = True) -> Iterator[None]:
    """What is wrong, in a sentence, and exit code 1. What a server tells its log of all that
    goes well, a command's reader does not want to know. One that only looks, and `writes`
    nothing, needs nobody else to end."""
    level = LOGGER.level
    LOGGER.setLevel(max(level, logging.WARNING))
    try:
        check_set_aside(parts().database)
        schema.check(parts().database, writes=writes)
        yield
    except schema.DatabaseMissing as error:
        raise click.ClickException(while_it_runs() or str(error)) from error
    except (ProxyError, schema.SchemaProblem) as error:
        raise click.ClickException(str(error)) from error
    finally:
        LOGGER.setLevel(level)
        parts().database.dispose()


def while_it_runs() -> str | None:
    """What to do about a database that is gone while a gateway runs; None if none does: then
    there may never have been one."""
    runs = running.health(parts().settings.address, seconds=ASKED_SECONDS) is not None
    return it_goes_on() if runs else None


def it_goes_on() -> str:
    """The same of one that is known to run."""
    mine = parts()
    address = mine.settings.address
    return (
        f"The database {mine.database.file} is gone; the gateway that runs at {address} goes on"
        f" with what it knows. {lost.WAY_BACK} An empty one in its place would turn all clients"
        " away."
    )


def with_reason(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for what changes config; `reason` is checked."""
    decorated: Callable[..., Any] = click.option(
        "--reason", callback=_checked_reason, help="Kept with the revision."
    )(command)
    return decorated


def author(reason: str | None = None) -> Author:
    """Of the revision that a command makes."""
    return Author(f"{COMMAND_LINE} ({_user()})", reason or None)


def _checked_reason(_ctx: click.Context, _param: Any, reason: str | None) -> str | None:
    if reason is not None and (len(reason) > REASON_CHARACTERS or not reason.isprintable()):
        raise click.BadParameter(f"At most {REASON_CHARACTERS} printable characters.")
    return reason


def _user() -> str:
    """The system's name of who gave the command; behind sudo, of who gave it there."""
    name = os.environ.get("SUDO_USER", "") or _name_of(os.getuid())
    return name[:32] if name.isprintable() else str(os.getuid())


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container whose user has no name
        return str(uid)
