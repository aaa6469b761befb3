"""`flask logs`: what the log knows of a request, in sentences."""

import json
import sys
from pathlib import Path

import click
from flask.cli import AppGroup

from proxy.context import parts
from proxy.core.story import story
from proxy.runtime import log_files

logs_cli = AppGroup("logs", help="What the log knows of a request.")

NO_FILE = (
    "PROXY_LOG_DIR is not set, so no file has the log. Name one with --file, or give it to"
    " standard input: journalctl -u UNIT -o cat | flask logs explain ID -"
)


@logs_cli.command("explain")
@click.argument("request_id")
@click.argument("source", required=False, type=click.Choice(["-"]), metavar="[-]")
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
    help="Look there, and not in PROXY_LOG_DIR.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines: the record.")
def explain(request_id: str, source: str | None, file: Path | None, as_json: bool) -> None:
    """Tell where the request REQUEST_ID went and why, from the log's files, the newest first.

    With - the log is read from standard input. The id is what an answer has as
    x-request-id.
    """
    is_stdin = source == "-" or str(file) == "-"
    files = [] if is_stdin else [file] if file is not None else _files()
    where = f" ({files[0].parent})" if files and file is None else ""
    try:
        found = (
            log_files.find_in_stream(request_id, sys.stdin.buffer)
            if is_stdin
            else log_files.find_in_files(request_id, files)
        )
    except OSError as error:
        raise click.ClickException(f"The log cannot be read: {error.strerror}.") from error
    if found is None:
        raise click.ClickException(f"The log{where} has no request with the id {request_id!r}.")
    if found.record is None:
        raise click.ClickException(
            "Its line is text, which does not tell its story; set PROXY_LOG_FORMAT=json for"
            f" later ones. {found.line}"
        )
    told = story(found.record)
    if as_json:
        click.echo(json.dumps({**found.record, "story": told}))
    else:
        click.echo("\n".join(told))


def _files() -> list[Path]:
    """Of the folder that the settings name."""
    folder = parts().settings.log_dir
    if folder is None:
        raise click.ClickException(NO_FILE)
    found = log_files.files(folder)
    if not found:
        raise click.ClickException(f"There is no log in {folder} (PROXY_LOG_DIR).")
    return found
