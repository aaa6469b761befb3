"""`flask usage`: what the admin API tells of usage, as a table, JSON or CSV."""

import json
from typing import Any

import click
from flask.cli import with_appcontext

from proxy.cli.told import told
from proxy.context import parts
from proxy.core.report import BUCKETS
from proxy.core.usage import DIMENSIONS
from proxy.errors import Unprocessable
from proxy.web.schemas_usage import usage_question
from proxy.web.stats import as_csv, moment_text, usage_report

# Of a row, what a terminal has room for.
TABLE = ("requests", "success", "errors", "prompt", "completion", "p50 ms", "p99 ms", "cost")


@click.command("usage")
@click.option("--from", "since", metavar="MOMENT", help="2030-01-31T08:00Z; else the last day.")
@click.option("--to", "until", metavar="MOMENT", help="Left out: now.")
@click.option("--by", type=click.Choice(list(BUCKETS)), default="hour", show_default=True)
@click.option("--group-by", metavar="NAMES", help=f"Some of {','.join(DIMENSIONS)}.")
@click.option("--instance", help="Only this instance.")
@click.option("--model", help="Only this model.")
@click.option("--client", help="Only this client.")
@click.option("--json", "as_json", is_flag=True, help="As GET /admin/usage answers.")
@click.option("--csv", "is_csv", is_flag=True, help="The same as CSV.")
@with_appcontext
def usage(
    as_json: bool, is_csv: bool, since: str | None, until: str | None, **given: str | None
) -> None:
    """Requests, tokens, errors, times and money, by minute, hour or day."""
    if as_json and is_csv:
        raise click.UsageError("Give --json or --csv, not both.")
    asked = {"from": since, "to": until, **given}
    try:
        question, _ = usage_question({k: v for k, v in asked.items() if v is not None})
    except Unprocessable as error:
        raise click.UsageError(error.message) from None
    with told(writes=False):
        report = usage_report(parts(), question)
    if is_csv:
        click.echo(as_csv(report["rows"], question.by), nl=False)
    elif as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        for line in _table(report["rows"], list(question.by)):
            click.echo(line)


def _table(rows: list[dict[str, Any]], by: list[str]) -> list[str]:
    """Columns as wide as they have to be, numbers to the right."""
    if not rows:
        return ["Nothing was counted in that time."]
    lines = [["from (UTC)", *by, *TABLE], *([*_names(row, by), *_numbers(row)] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    words = 1 + len(by)
    return [
        "  ".join(
            text.ljust(width) if i < words else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _names(row: dict[str, Any], by: list[str]) -> list[str]:
    """Names come from clients: what a terminal would obey is not written as it is."""
    names = ("".join(c if c.isprintable() else "?" for c in row[each]) for each in by)
    return [moment_text(row["at"]), *(name or "-" for name in names)]


def _numbers(row: dict[str, Any]) -> list[str]:
    rate, times = row["success_rate"], row["latency_ms"]
    return [
        str(row["requests"]),
        "-" if rate is None else f"{rate:.2%}",
        str(sum(row["errors"].values())),
        str(row["tokens"]["prompt"]),
        str(row["tokens"]["completion"]),
        *("-" if times[q] is None else f"{times[q]:.0f}" for q in ("p50", "p99")),
        f"{row['cost']:.4f}",
    ]
