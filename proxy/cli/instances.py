"""`flask instances`: what there is, how it stands, on and off, and whether it answers."""

import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

import click
from flask.cli import AppGroup

from proxy.cli.look import asking, in_order, look, look_and_ask, seen, stored
from proxy.cli.told import author, told, with_reason
from proxy.context import parts
from proxy.core.columns import aligned
from proxy.runtime.together import Done, together
from proxy.runtime.verify import Check, verify
from proxy.store import instances
from proxy.store.db import StoreUnavailable
from proxy.store.instances import StoredInstance

Json = dict[str, Any]

MODELS_SHOWN = 3
WHY_CHARACTERS = 60
# Side by side; each waits for an upstream most of its time.
VERIFY_THREADS = 8
# Of all of them: a person waits. One instance may have twenty deployments to ask.
VERIFY_SECONDS = 600.0
LATE = "It took too long, and was given up."

instances_cli = AppGroup("instances", help="Instances: how they stand, on and off, verify.")

_json = click.option("--json", "as_json", is_flag=True, help="For machines.")
_name = click.argument("name")


@instances_cli.command("list")
@_json
def list_instances(as_json: bool) -> None:
    """Status with reason and time left, tokens of the last minute against max_tpm, requests,
    priority, models. Those who are asked first come first."""
    now = time.time()
    with told(writes=False):
        look_and_ask()
        found = [seen(s, now) for s in in_order()]
    if as_json:
        _print_json(found)
    elif found:
        _print_aligned([HEADINGS, *map(_row, found)])
    else:
        click.echo("There is no instance. POST /admin/instances or `flask config` add some.")


@instances_cli.command("show")
@_name
@_json
def show_instance(name: str, as_json: bool) -> None:
    """All that is known of instance NAME: config and state. Secrets are masked."""
    with told(writes=False):
        look_and_ask()
        view = seen(stored(name), time.time())
    if as_json:
        _print_json(view)
        return
    status, reason = view["standing"]["status"], view["standing"]["text"]
    click.echo(f"{name}: {status}{f' ({reason})' if reason else ''}")
    for part in ("config", "state"):
        click.echo(f"\n{part}")
        fields = {k: v for k, v in view[part].items() if k != "name"}
        _print_aligned([(f"  {field}", _plain(value)) for field, value in fields.items()])


@instances_cli.command("enable")
@_name
@with_reason
@_json
def enable(name: str, reason: str | None, as_json: bool) -> None:
    """Send requests to instance NAME again."""
    _switch(name, reason, enabled=True, as_json=as_json)


@instances_cli.command("disable")
@_name
@with_reason
@_json
def disable(name: str, reason: str | None, as_json: bool) -> None:
    """Send no more requests to instance NAME; those in flight finish."""
    _switch(name, reason, enabled=False, as_json=as_json)


@instances_cli.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everyone", is_flag=True, help="All that are enabled.")
@click.option("--model", help="Try this one, instead of those that the config names.")
@_json
def verify_instances(
    names: tuple[str, ...], everyone: bool, model: str | None, as_json: bool
) -> None:
    """Call each deployment of the instances with a tiny prompt and say what was found.

    Each costs a few tokens, and counts nowhere. What is well, and was left alone because its
    key or deployment was wrong or it failed, is asked again by the gateway that runs. Exit
    code 1 if something is wrong.
    """
    if everyone == bool(names):
        raise click.UsageError("Name the instances, or give --all, and not both.")
    with told(writes=False):
        look()
        wanted = [stored(name) for name in dict.fromkeys(names)] or [
            s for s in in_order() if s.config.enabled
        ]
        with asking():
            found = _verified(wanted, model)
        back = [each["name"] for each in found if each["rest_ended"]]
    if as_json:
        _print_json(found)
    else:
        _print_aligned(
            [_checked_row(each, check) for each in found for check in each["checks"]]
        )
        for name in back:
            click.echo(f"{name} was left alone, and is asked again.")
    if not all(each["ok"] for each in found):
        sys.exit(1)


HEADINGS = ("NAME", "STATUS", "WHY", "TOKENS/MIN", "REQ/MIN", "PRIORITY", "MODELS")


def _row(view: Json) -> tuple[str, ...]:
    config, state, stands = view["config"], view["state"], view["standing"]
    most = config["max_tpm"] if config["rate_limit_enabled"] else 0
    used = state["current_tpm"]
    return (
        config["name"],
        stands["status"],
        textwrap.shorten(stands["text"], WHY_CHARACTERS, placeholder=" ...") or "-",
        f"{used:,} of {most:,} ({100 * used / most:.0f} %)" if most else f"{used:,}, no limit",
        f"{state['current_rpm']:,}",
        str(config["priority"]),
        _models(config["supported_models"]),
    )


def _models(names: Sequence[str]) -> str:
    more = len(names) - MODELS_SHOWN
    shown = ", ".join(names[:MODELS_SHOWN]) or "any"
    return f"{shown} and {more} more" if more > 0 else shown


def _checked_row(each: Json, check: Json) -> tuple[str, ...]:
    return (
        each["name"],
        "ok" if check["ok"] else "WRONG",
        check["model"] or "-",
        f"{check['ms']} ms",
        f"{check['check']}: {check['detail']}",
    )


def _switch(name: str, reason: str | None, *, enabled: bool, as_json: bool) -> None:
    with told():
        look()
        before = stored(name).revision
        with parts().database.session() as session:
            change = instances.change(
                session, name, {"enabled": enabled}, author=author(reason)
            )
    revision = change.stored.revision
    word = "enabled" if enabled else "disabled"
    if as_json:
        _print_json({"name": name, "enabled": enabled, "revision": revision})
    elif revision == before:
        click.echo(f"{name} is {word} already.")
    else:
        click.echo(f"{name} is {word}; its config is at revision {revision}.")


def _verified(wanted: Sequence[StoredInstance], model: str | None) -> list[Json]:
    """What was found of each, in the given order."""
    jobs = [_job(each.config.name, model) for each in wanted]
    found: list[list[Check] | None] = [None] * len(jobs)
    done = together(jobs, threads=VERIFY_THREADS, seconds=VERIFY_SECONDS)
    for each in _with_bar(done, len(jobs)):
        found[each.number] = each.result
    late = [Check("time", ok=False, detail=LATE)]
    look()  # meanwhile workers may have told more
    return [
        {
            "name": each.config.name,
            "ok": all(c.ok for c in checks or late),
            "checks": [asdict(c) for c in checks or late],
            "rest_ended": _rest_ended(each.config.name, checks or late),
        }
        for each, checks in zip(wanted, found, strict=True)
    ]


def _rest_ended(name: str, checks: Sequence[Check]) -> bool:
    try:
        return parts().operator.end_misconfigured(name, checks)
    except StoreUnavailable as error:
        said = f"{name}: what was left alone stays so for its time. {error.message}"
        click.echo(said, err=True)
        return False


def _job(name: str, model: str | None) -> Callable[[], list[Check]]:
    """Of what it needs, because another thread does it, which has no app."""
    snapshot, upstream = parts().snapshots.current, parts().upstream
    problem = snapshot.problems.get(name)
    if problem is not None:
        return lambda: [Check("config", ok=False, detail=problem.text)]
    return partial(verify, upstream, snapshot.configs[name], model)


def _with_bar(found: Iterator[Done[list[Check]]], total: int) -> Iterator[Done[list[Check]]]:
    if total < 2:
        return found
    # With rich, which nothing else here needs.
    progress = import_module("proxy.cli.progress")
    shown: Iterator[Done[list[Check]]] = progress.with_bar(found, total=total, label="verify")
    return shown


def _plain(value: Any) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "-" if value is None else str(value)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    for line in aligned(rows):
        click.echo(line)
