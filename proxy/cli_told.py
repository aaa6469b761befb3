"""How a command says what is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from proxy.context import parts
from proxy.errors import ProxyError
from proxy.store import schema

COMMAND_LINE = "command line"  # whose changes of config these are


@contextmanager
def told() -> Iterator[None]:
    """What is wrong, in a sentence, and exit code 1."""
    try:
        schema.check(parts().database)
        yield
    except (ProxyError, schema.SchemaProblem) as error:
        raise click.ClickException(str(error)) from error
    finally:
        parts().database.dispose()
