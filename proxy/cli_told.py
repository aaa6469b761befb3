"""How a command says what is wrong."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from proxy.context import parts
from proxy.errors import ProxyError
from proxy.store import schema

LOGGER = logging.getLogger("proxy")  # of all our modules
COMMAND_LINE = "command line"  # whose changes of config these are


@contextmanager
def told() -> Iterator[None]:
    """What is wrong, in a sentence, and exit code 1. What a server tells its log of all that
    goes well, a command's reader does not want to know."""
    level = LOGGER.level
    LOGGER.setLevel(max(level, logging.WARNING))
    try:
        schema.check(parts().database)
        yield
    except (ProxyError, schema.SchemaProblem) as error:
        raise click.ClickException(str(error)) from error
    finally:
        LOGGER.setLevel(level)
        parts().database.dispose()
