"""`flask legacy`: what an older proxy left on disk, looked at and carried over."""

import json
import sys
from pathlib import Path

import click
from flask.cli import AppGroup

from migrations.legacy import report, run
from proxy.cli_told import told
from proxy.context import parts
from proxy.store import schema

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
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report.as_json(plan)) if as_json else report.as_text(plan))
    if plan.problems:
        sys.exit(1)


@legacy_cli.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--skip-bad", is_flag=True, help="Import the rest if a record cannot be carried.")
def import_legacy(path: Path, skip_bad: bool) -> None:
    """Carry an older proxy's files at PATH, a file or a folder, into the database."""
    with told(), parts().database.write() as connection:
        backups = schema.private_parent(connection)
        outcome = run.import_legacy(connection, path, backups=backups, skip_bad=skip_bad)
    click.echo(outcome.as_text())
