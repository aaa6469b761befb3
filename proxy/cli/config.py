"""`flask config`: all config as one file, and every version of it."""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup

from proxy.cli.told import author, told, with_reason
from proxy.context import parts
from proxy.core.columns import aligned
from proxy.core.config_document import shown
from proxy.core.config_plan import Plan, lines, shown_change, summary
from proxy.runtime.config_hand import Outcome, Wanted, shown_outcome
from proxy.store import revisions
from proxy.store.revisions import Revision, shown_revision
from proxy.web import config_import, config_text
from proxy.web.schemas_config import KINDS

config_cli = AppGroup("config", help="All config as one file, and every version of it.")

HEADINGS = ("number", "made", "author", "what")

_file = click.argument("file", type=click.File("rb"))
_number = click.IntRange(0, 2**31 - 1)
_prune = click.option(
    "--prune", is_flag=True, help="Of its sections, remove what is not in it."
)
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_json = click.option("--json", "as_json", is_flag=True, help="For machines.")


@config_cli.command("plan")
@_file
@_prune
@click.option("--check", is_flag=True, help="Exit code 1 if there is something to do.")
@_json
def plan(file: Any, prune: bool, check: bool, as_json: bool) -> None:
    """Show what `apply` would do with FILE, YAML or *.json; write nothing."""
    wanted = _wanted(file, prune)
    with told(writes=False):
        outcome = parts().config_hand.bring(wanted, author=author(), dry_run=True)
    _say(outcome, as_json)
    if check and outcome.plan.changes:
        sys.exit(1)


@config_cli.command("apply")
@_file
@_prune
@with_reason
@_yes
@_json
def apply(file: Any, prune: bool, reason: str | None, yes: bool, as_json: bool) -> None:
    """Make the config what FILE says, all or nothing, in one revision."""
    hand, wanted, by = parts().config_hand, _wanted(file, prune), author(reason)
    with told():
        outcome = hand.bring(wanted, author=by, dry_run=True)
        if _is_agreed(outcome, yes, as_json):
            # What was shown is what is done, or nothing.
            outcome = hand.bring(wanted, author=by, dry_run=False, if_match=outcome.revision)
    _say_done(outcome, as_json)


@config_cli.command("rollback")
@click.argument("number", type=_number, metavar="N")
@click.option("--dry-run", is_flag=True, help="Show what it would do; write nothing.")
@with_reason
@_yes
@_json
def rollback(number: int, dry_run: bool, reason: str | None, yes: bool, as_json: bool) -> None:
    """Make the config what revision N left: a new revision, all or nothing."""
    hand, by = parts().config_hand, author(reason)
    with told():
        outcome = hand.roll_back(number, author=by, dry_run=True)
        if not dry_run and _is_agreed(outcome, yes, as_json):
            outcome = hand.roll_back(
                number, author=by, dry_run=False, if_match=outcome.revision
            )
    if dry_run:
        _say(outcome, as_json)
    else:
        _say_done(outcome, as_json)


@config_cli.command("export")
@click.option("--format", "form", type=click.Choice(["json", "yaml"]), default="yaml")
def export(form: str) -> None:
    """Print all config. Secrets are masked, references to them (env:NAME) are not."""
    with told(writes=False):
        document, _ = parts().config_hand.document()
    text = config_text.to_json if form == "json" else config_text.to_yaml
    click.echo(text(shown(document)), nl=False)


@config_cli.command("revisions")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--offset", type=_number, default=0)
@click.option("--kind", type=click.Choice(KINDS), help="Of one that was changed.")
@click.option("--name", help="Of one that was changed.")
@click.option("--author", help="Who changed it.")
@_json
def list_revisions(as_json: bool, **query: Any) -> None:
    """Who changed what, when and why; the newest first."""
    with told(writes=False), parts().database.read() as connection:
        found, total = revisions.page(connection, **query)
    if as_json:
        _print_json({"revisions": [shown_revision(r) for r in found], "total": total})
        return
    if not total:
        click.echo("There is no such revision.", err=True)
        return
    for line in aligned([HEADINGS, *map(_row, found)]):
        click.echo(line)
    behind = query["offset"] + len(found)
    if behind < total:
        click.echo(f"{total - behind} older: --offset {behind} shows them.", err=True)


@config_cli.command("diff")
@click.argument("older", type=_number, metavar="A")
@click.argument("newer", type=_number, metavar="B")
@_json
def diff(older: int, newer: int, as_json: bool) -> None:
    """Show what became other from revision A to revision B."""
    with told(writes=False):
        changes, _ = parts().config_hand.difference(older, newer)
    if as_json:
        _print_json({"from": older, "to": newer, "changes": [shown_change(c) for c in changes]})
    elif changes:
        _print_all(lines(changes))
    else:
        click.echo("They are equal.")


def _wanted(file: Any, prune: bool) -> Wanted:
    """What the file says; `-` is standard input. It is read now, and checked when it is put
    over the present config."""
    is_json = str(getattr(file, "name", "")).lower().endswith(".json")
    with told(writes=False):
        given = (config_text.from_json if is_json else config_text.from_yaml)(file.read())
    return lambda present: config_import.wanted(given, present, prune=prune)


def _is_agreed(outcome: Outcome, yes: bool, as_json: bool) -> bool:
    """Shows the plan and asks, if there is something to do."""
    if not outcome.plan.changes or yes:
        return bool(outcome.plan.changes)
    # Standard output is for whoever reads the JSON.
    _print_all(_plan_lines(outcome.plan), err=as_json)
    click.confirm("Carry it out?", abort=True, err=as_json)
    return True


def _say(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        _print_json(shown_outcome(outcome))
    else:
        _print_all(_plan_lines(outcome.plan))


def _say_done(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        _print_json(shown_outcome(outcome))
    elif outcome.is_applied:
        _print_all(f"Note: {note}" for note in outcome.plan.notes)
        click.echo(f"Done; the config is at revision {outcome.revision}.")
    else:
        _print_all(_plan_lines(outcome.plan))


def _plan_lines(plan: Plan) -> Iterator[str]:
    yield from lines(plan.changes)
    for note in plan.notes:
        yield f"Note: {note}"
    yield summary(plan.changes)


def _row(revision: Revision) -> tuple[str, ...]:
    made_at = datetime.fromtimestamp(revision.made_at, UTC)
    names = [f"{record.kind} {record.name!r}" for record in revision.records]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    what = f": {', '.join(names[:3])}{more}" if names else ""
    why = f" ({revision.reason})" if revision.reason else ""
    which = f" id={revision.request_id}" if revision.request_id else ""
    return (
        str(revision.number),
        f"{made_at:%Y-%m-%d %H:%M:%S}Z",
        revision.author,
        f"{revision.action}{what}{why}{which}",
    )


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def _print_all(found: Iterable[str], *, err: bool = False) -> None:
    for line in found:
        click.echo(line, err=err)
