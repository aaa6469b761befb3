"""`flask top`: the gateway at a glance, once a second, from what its workers tell."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import click
from flask.cli import with_appcontext
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proxy.cli.look import (
    ASKED_SECONDS,
    in_order,
    needs_token,
    note_heard,
    onlooker,
    standing_of,
    without_log,
)
from proxy.cli.told import told
from proxy.context import Parts, parts
from proxy.core.columns import aligned, printable
from proxy.core.deltas import WHOLE_INSTANCE
from proxy.core.live_table import (
    CALM,
    FULL,
    HEALTHY,
    HIGH,
    Row,
    bar,
    errors_words,
    fitting,
    ms_words,
    pressure,
    share_words,
    status_words,
    tokens_words,
    usage_words,
)
from proxy.core.outlook import BAD, POOR, WELL, Budget, Outlook, bounding, budgets, outlook
from proxy.core.report import failed_attempts, failed_share
from proxy.core.standing import DISABLED
from proxy.runtime import running
from proxy.runtime.onlooker import Onlooker
from proxy.store.db import StoreUnavailable
from proxy.web.counted import Json, Recent, recent

REFRESH_SECONDS = 1.0
# Whether a gateway runs is asked over its door, and not at each look.
ASKED_EVERY = 5
# Around the rows: the sentences, whether it runs, the head, what is left out.
OTHER_LINES = 9

HEADINGS = (
    *("INSTANCE", "PRIO", "STATUS", "IN FLIGHT", "REQ/S", "TOKENS/MIN"),
    *("REQUESTS", "ERRORS", "P50", "WHY"),
)
# Of a terminal's columns: with so many there is room for reasons, and for all.
WITH_REASONS, WITH_ALL = 116, 145
# So many these need: whose row it is, and how that is, comes first.
NEEDS = {"REQ/S": 72, "P50": 72, "TOKENS/MIN": 58, "ERRORS": 58}
# Shown where there is room for reasons; and where there is for all, as are whole numbers of
# tokens.
IN_SOME, IN_FULL = ("IN FLIGHT", "WHY"), ("PRIO", "REQUESTS")
NUMBERS = ("PRIO", "IN FLIGHT", "REQ/S", "REQUESTS", "P50")
LEVELS = {WELL: "green", POOR: "yellow", BAD: "bold red"}
PRESSURES = {CALM: "green", HIGH: "yellow", FULL: "red"}
STATUSES = {HEALTHY: "green", DISABLED: "dim", "rate_limited": "yellow"}


@dataclass(frozen=True, slots=True)
class View:
    """All of one moment. `running`: what a worker says of itself; None where none answers.
    `problem`: why it is not of now."""

    at: float
    address: str
    running: dict[str, Any] | None
    outlook: Outlook
    rows: list[Row]
    total: Json
    problem: str | None = None

    @property
    def gateway_words(self) -> str:
        if self.problem:
            return self.problem
        if self.running is None:
            return f"No gateway answers at {self.address}: this is what the database knows."
        return str(self.running["problem"] or f"The gateway runs at {self.address}.")


@click.command("top")
@click.option("--once", is_flag=True, help="One look, as plain lines.")
@click.option("--json", "as_json", is_flag=True, help="One look, for machines.")
@with_appcontext
def top(once: bool, as_json: bool) -> None:
    """Show how the gateway is and what its instances do, once a second, until Ctrl-C.

    Status and time left, requests in flight and a second, tokens of the last minute against
    max_tpm; of the last 15 minutes requests, errors and the median time to the first byte, as
    GET /admin/stats tells them. Read from the database, which workers write several times a
    second; what is in flight, they are asked. Without a terminal: once.
    """
    with told(writes=False), without_log():
        looks = _looks(parts())
        if as_json:
            click.echo(json.dumps(_json(next(looks)), ensure_ascii=False))
        elif once or not sys.stdout.isatty():
            for line in _lines(next(looks)):
                click.echo(line)
        else:
            show(looks, Console(), Event().wait)


def show(looks: Iterator[View], console: Console, wait: Callable[[float], object]) -> None:
    """On a screen of its own, so that the terminal is afterwards as it was."""
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for view in looks:
                live.update(_screen(view, *console.size), refresh=True)
                wait(REFRESH_SECONDS)
    except KeyboardInterrupt:
        pass  # how it is meant to end


def _looks(mine: Parts) -> Iterator[View]:
    """One whenever it is asked for. The first raises what the database does; later the last
    one stays, and says so."""
    eye, number = onlooker(), 0
    view, heard = None, None
    while True:
        if number % ASKED_EVERY == 0:
            heard = running.health(mine.settings.address, seconds=ASKED_SECONDS)
        number += 1
        in_flight = _in_flight(mine) if heard else None
        try:
            view = _view(mine, eye, heard, in_flight)
        except StoreUnavailable as error:
            if view is None:
                raise
            view = replace(view, running=heard, problem=str(error.message))
        yield view


def _in_flight(mine: Parts) -> dict[str, int] | None:
    settings = mine.settings
    return running.in_flight(settings.address, settings.metrics_token, seconds=ASKED_SECONDS)


def _view(
    mine: Parts, eye: Onlooker, heard: dict[str, Any] | None, in_flight: dict[str, int] | None
) -> View:
    eye.look()
    if needs_token():
        note_heard(heard)
    now = time.time()
    counted = recent(mine)
    rows = [_row(mine, stored, counted, in_flight) for stored in in_order()]
    found = outlook((row.standing.status for row in rows), _budgets(mine, rows))
    return View(now, mine.settings.address, heard, found, rows, counted.total)


def _row(mine: Parts, stored: Any, counted: Recent, in_flight: dict[str, int] | None) -> Row:
    config = stored.config
    return Row(
        config.name,
        config.priority,
        standing_of(stored),
        mine.state.requests_per_second(config.name),
        mine.state.view(config.name).current_tpm,
        config.max_tpm if config.rate_limit_enabled else 0,
        counted.of(config.name),
        None if in_flight is None else in_flight.get(config.name, 0),
    )


def _budgets(mine: Parts, rows: list[Row]) -> list[Budget]:
    """Of each model that an enabled instance names."""
    by_name = {row.name: row for row in rows}
    catalog = mine.snapshots.current.catalog
    served = {model: catalog.serving(model) for model in catalog.models()}
    used = mine.state.used_tokens(bounding(served))
    return budgets(served, used, lambda s: _may(by_name[s.config.name], s.deployment))


def _may(row: Row, deployment: str) -> bool:
    resting = row.standing.deployments
    return not row.is_ill or (bool(resting) and deployment not in (*resting, WHOLE_INSTANCE))


def _json(view: View) -> dict[str, Any]:
    return {
        "at": view.at,
        "gateway": {"address": view.address, "runs": view.running is not None}
        | ({"problem": view.running["problem"]} if view.running else {"problem": None}),
        "health": {"level": view.outlook.level, "sentence": view.outlook.sentence},
        "usage": view.total,
        "instances": [_row_json(row, view.at) for row in view.rows],
    }


def _row_json(row: Row, now: float) -> dict[str, Any]:
    stands = row.standing
    return {
        "name": row.name,
        "priority": row.priority,
        "status": stands.status,
        "reason": stands.reason,
        "seconds_left": stands.seconds_left(now),
        "requests_per_second": row.requests_per_second,
        "current_tpm": row.current_tpm,
        "max_tpm": row.max_tpm,
        "in_flight": row.in_flight,
        "usage": row.figures,
    }


def _lines(view: View) -> Iterator[str]:
    yield view.outlook.sentence
    yield printable(view.gateway_words)
    yield usage_words(view.total)
    if view.rows:
        yield ""
        yield from aligned([HEADINGS, *(_cells(row, view.at) for row in view.rows)])


def _cells(row: Row, now: float) -> tuple[str, ...]:
    return (
        row.name,
        str(row.priority),
        status_words(row.standing, now),
        "-" if row.in_flight is None else f"{row.in_flight:,}",
        f"{row.requests_per_second:.1f}",
        tokens_words(row),
        f"{row.figures['requests']:,}",
        errors_words(row.figures),
        ms_words(row.figures["first_byte_ms"]["p50"]),
        row.standing.why or "-",
    )


def _screen(view: View, width: int, height: int) -> Group:
    """Texts, and no markup: names come from outside."""
    headings = [h for h in HEADINGS if _has_room(h, width)]
    # One gives way to the others.
    gives_way = "WHY" if "WHY" in headings else "INSTANCE"
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in NUMBERS else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if heading == gives_way else None,
        )
    rows, left_out = fitting(view.rows, height - OTHER_LINES)
    for row in rows:
        texts = _texts(row, view.at, is_whole=width >= WITH_ALL)
        table.add_row(*(texts[heading] for heading in headings))
    runs = "dim" if view.running and not view.running["problem"] else "yellow"
    at = time.strftime("%H:%M:%S", time.localtime(view.at))
    return Group(
        Text(view.outlook.sentence, style=LEVELS[view.outlook.level]),
        Text(printable(view.gateway_words), style="red" if view.problem else runs),
        Text(usage_words(view.total)),
        Text(""),
        table,
        Text(f"... and {left_out} more." if left_out else "", style="dim"),
        Text(f"{at}  Ctrl-C ends it.", style="dim"),
    )


def _has_room(heading: str, width: int) -> bool:
    if heading in IN_FULL:
        return width >= WITH_ALL
    return width >= (WITH_REASONS if heading in IN_SOME else NEEDS.get(heading, 0))


def _texts(row: Row, now: float, *, is_whole: bool) -> dict[str, Text]:
    """By heading. `is_whole`: there is room for numbers, not only for shares."""
    cells = zip(HEADINGS, map(printable, _cells(row, now)), strict=True)
    texts = {heading: Text(cell) for heading, cell in cells}
    is_off = row.standing.status == DISABLED
    texts["INSTANCE"].stylize("dim" if is_off else "bold")
    texts["STATUS"].stylize(STATUSES.get(row.standing.status, "red"))
    texts["WHY"].stylize("dim")
    if not is_whole:
        failed = failed_share(row.figures["attempt_success_rate"])
        texts["ERRORS"] = Text(share_words(failed))
    if failed_attempts(row.figures):
        texts["ERRORS"].stylize("red")
    share = row.used_share
    if share is not None:
        shown = texts["TOKENS/MIN"] if is_whole else Text(share_words(share))
        texts["TOKENS/MIN"] = Text.assemble(
            (bar(share), PRESSURES[pressure(share)]), " ", shown
        )
    return texts
