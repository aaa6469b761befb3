"""`flask legacy`: what an older proxy left on disk, looked at and carried over."""

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from flask.cli import AppGroup

from migrations.legacy import report, run
from migrations.legacy.apply import Result, preview
from migrations.legacy.plan import Plan
from proxy.cli.told import told
from proxy.context import parts
from proxy.store import schema
from proxy.store.db import StoreUnavailable

legacy_cli = AppGroup("legacy", help="The files of an older proxy.")


@legacy_cli.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def inspect_legacy(path: Path, as_json: bool) -> None:
    """Show what an import of PATH would do, field by field; write nothing.

    Exit code 1 if a record cannot be carried.
    """
    try:
        plan = run.inspect(path)
    except run.ImportRefused as error:
        if as_json:
            click.echo(json.dumps({"error": str(error)}))
            sys.exit(1)
        raise click.ClickException(str(error)) from error
    found = _in_database(plan)
    if as_json:
        database = asdict(found) if isinstance(found, Result) else None
        click.echo(json.dumps({**report.as_json(plan), "database": database}))
    else:
        click.echo("\n".join([report.as_text(plan), *_lines(plan, found)]))
    if plan.problems:
        sys.exit(1)


def _in_database(plan: Plan) -> Result | str | None:
    """What an import would do in the database as it is, None if it is not made yet; a sentence
    where that is not known."""
    database = parts().database
    path = schema.sqlite_path(database)
    if path is not None and not os.path.exists(path):
        return None  # connecting would make one
    try:
        with database.read() as connection:
            return preview(connection, plan)
    except StoreUnavailable as error:
        return f"The database was not looked at: {error.message}"
    finally:
        database.dispose()


def _lines(plan: Plan, found: Result | str | None) -> list[str]:
    if found is None:
        return []
    if isinstance(found, str):
        return [found]
    verb = "Would be written"
    if plan.problems:
        verb = "Nothing would be imported; with --skip-bad would be written"
    return run.result_lines(found, verb)


@contextmanager
def _reported() -> Iterator[None]:
    """What was found is no error: it can be read page by page, and kept."""
    try:
        yield
    except run.ImportRefused as error:
        if error.report:
            click.echo(error.report)
        raise click.ClickException(error.said) from error


@legacy_cli.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Import the rest if a record cannot be carried.")
def import_legacy(path: Path, skip_bad: bool) -> None:
    """Carry an older proxy's files at PATH, a file or a folder, into the database."""
    with told(), _reported():
        database = parts().database
        with database.read() as connection:
            backups = schema.private_parent(connection)
        # Before the transaction: running workers wait five seconds for its lock, not longer.
        leave_out = f"flask legacy import --skip-bad {shlex.quote(str(path))}"
        ready = run.prepared(path, backups, leave_out=leave_out, skip_bad=skip_bad)
        with database.write() as connection:
            outcome = run.carry_out(connection, ready)
    click.echo(outcome.as_text())
