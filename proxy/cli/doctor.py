"""`flask doctor`: everything that is wrong or soon will be, and what to do about it."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from proxy.cli.look import asking, in_order, look, standing_of
from proxy.cli.progress import with_bar
from proxy.cli.told import it_goes_on
from proxy.context import Parts, parts
from proxy.core import findings
from proxy.core.columns import printable
from proxy.core.findings import (
    ERROR,
    KEY_IN_MEMORY,
    KEY_THERE,
    OK,
    SKIPPED,
    WARNING,
    Finding,
    skipped,
)
from proxy.core.masking import SECRET_FIELDS
from proxy.core.providers import CLASSIC
from proxy.core.references import is_variable
from proxy.core.types import InstanceConfig
from proxy.errors import ProxyError
from proxy.runtime import open_files, running
from proxy.runtime.reach import Reached, reach
from proxy.runtime.together import together
from proxy.runtime.verify import Look, looks
from proxy.settings import ROOT, SettingError
from proxy.store import admin_keys, checkup, keys, lost, schema, secrets
from proxy.store.damage import check_set_aside
from proxy.store.sealed import Unreadable

THREADS = 16
SECONDS = 60
# Of one that is not there: nobody waits for calls to it that long either.
HEALTH_SECONDS = 3.0
# Of the time for all of it, at most for one answer; for the others there is twice as much.
HEALTH_SHARE = 0.25
# Each worker takes some of the connections; to have asked all is likely enough.
ASKED_FOR_EACH_WORKER = 3
RESTORE = f"Stop what else uses it; or stop the gateway, then {findings.RESTORE_NEWEST}"
BACK = f"Put it back; or stop the gateway, then {findings.RESTORE_NEWEST}"
ILL = ("error", "misconfigured")  # statuses that a rest after a 429 is not
OK_SHOWN = 10  # lines of an area in which all is well
OPENS = (KEY_THERE, KEY_IN_MEMORY)  # with these workers can read secrets
Answers = list[dict[str, Any] | None]
MARKS = {OK: ("ok", "green"), WARNING: ("warning", "yellow"), ERROR: ("ERROR", "red")}
MARKS[SKIPPED] = ("skipped", "blue")


@dataclass(frozen=True, slots=True)
class Job:
    """One look that may take long. `label` says at what. Those of an earlier `turn` begin
    first."""

    area: str
    label: str
    look: Callable[[], list[Finding]]
    turn: int = 0


@click.command("doctor")
@click.option("--offline", is_flag=True, help="Ask no upstream, and not the running gateway.")
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),
    default=SECONDS,
    show_default=True,
    help="For all of it; what takes longer is given up.",
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@with_appcontext
def doctor(offline: bool, seconds: int, as_json: bool) -> None:
    """Look for what is wrong, and say what to do about it.

    Settings, database, disk, rights of files, secrets, keys, clock, DNS, TLS, the running
    gateway, and each deployment of each enabled instance, with a tiny prompt that costs a few
    tokens. Exit code 1 if there is an error.
    """
    mine = parts()
    ends_at = time.monotonic() + seconds
    try:
        heard = [] if offline else _heard(mine, seconds)
        found = [*_of_host(mine), *_of_config(mine, heard)]
        jobs = [Job("database", "its file", partial(_of_database, mine))]
        if offline:
            found.append(skipped("network", "Nobody was asked (--offline)."))
        else:
            found += findings.of_gateway(mine.settings.address, heard)
            jobs += [*_of_network(mine, _left(ends_at))]
        with asking():
            found += _carried_out(jobs, _left(ends_at))
    finally:
        mine.database.dispose()
    if as_json:
        shown = {"ok": not findings.has_error(found), "findings": [asdict(f) for f in found]}
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        _print(found)
    if findings.has_error(found):
        sys.exit(1)


def _left(ends_at: float) -> float:
    return max(ends_at - time.monotonic(), 0.0)


# At once.


def _of_host(mine: Parts) -> Iterator[Finding]:
    settings = mine.settings
    besides = [path for path in (ROOT / ".env",) if path.exists()]
    yield from findings.of_exposed([str(p) for p in checkup.exposed(mine.database, besides)])
    yield findings.of_open_files(
        open_files.allowed(), open_files.needed(settings.threads), settings.threads
    )
    for folder in _folders(mine):
        try:
            yield findings.of_disk(str(folder), shutil.disk_usage(folder).free)
        except OSError as error:
            yield Finding("disk", ERROR, f"{folder}: {error.strerror}.", "Make the folder.")
    try:
        mine.log_writer.check()
    except SettingError as error:
        yield Finding("disk", ERROR, f"{error}.", "Set PROXY_LOG_DIR to one that can be.")


def _folders(mine: Parts) -> list[Path]:
    """Where it writes; once each."""
    files = [mine.database.file.parent] if mine.database.file else []
    logs = [mine.settings.log_dir] if mine.settings.log_dir else []
    return list(dict.fromkeys(files + [path for path in logs if path.exists()]))


def _of_config(mine: Parts, heard: Answers) -> Iterator[Finding]:
    """What the tables say, and what workers do, which may have read secrets when they still
    could be, or have other rights. Where the tables cannot be read, nothing of it is known."""
    try:
        check_set_aside(mine.database)
        schema.check(mine.database, writes=False)
        look()
        yield from _of_tables(mine, heard)
        schema.check_writable(mine.database)
    except schema.DatabaseBusy as error:
        yield Finding("database", WARNING, str(error), "See what that process does.")
        yield from _of_instances(mine, heard)
        return
    except schema.DatabaseLost as error:
        yield Finding("database", ERROR, str(error), BACK)
    except schema.DatabaseMissing as error:
        yield _of_missing(mine, error, heard)
    except schema.SchemaOutdated as error:
        yield Finding("database", ERROR, str(error), ".venv/bin/alembic upgrade head")
    except (ProxyError, schema.SchemaProblem) as error:
        yield Finding("database", ERROR, str(error), RESTORE)
    else:
        yield from _of_instances(mine, heard)
        return
    yield skipped("instances", "Without the database nothing is known of them.")


def _of_missing(mine: Parts, error: schema.DatabaseMissing, heard: Answers) -> Finding:
    said = it_goes_on() if any(heard) else None
    if said is not None or lost.key_beside(mine.database) is not None:
        return Finding("database", ERROR, said or str(error), BACK)
    return Finding("database", ERROR, str(error), ".venv/bin/alembic upgrade head")


def _of_instances(mine: Parts, heard: Answers) -> Iterator[Finding]:
    snapshot = mine.snapshots.current
    out = snapshot.out_of_service
    problems = {name: snapshot.problems[name].text for name in out}
    if mine.database.vault.problem and findings.key_of(heard) in OPENS:
        sealed = [name for name in out if _is_sealed(snapshot.instances[name].config)]
        are_served = findings.serves_all(heard, but=len(out) - len(sealed))
        yield from findings.of_not_asked(sealed, serves=are_served)
        problems = {name: text for name, text in problems.items() if name not in sealed}
    yield from findings.of_references(problems, serves=findings.serves_all(heard))
    configs = [stored.config for stored in in_order()]
    stands = {s.config.name: standing_of(s) for s in in_order() if s.config.name not in out}
    ill = {name: s for name, s in stands.items() if s.status in ILL}
    yield from findings.of_ill({name: s.in_words(time.time()) for name, s in ill.items()})
    yield from findings.of_variables(c.name for c in configs if is_variable(c.api_key))
    yield findings.of_instances(len(configs), sum(c.enabled for c in configs))
    today = datetime.now(UTC)
    versions = [(c.name, c.api_version) for c in configs if c.provider_type == CLASSIC]
    yield from findings.of_api_versions(versions, (today.year, today.month, today.day))


def _is_sealed(config: InstanceConfig) -> bool:
    return any(isinstance(getattr(config, f), Unreadable) for f in SECRET_FIELDS)


def _of_tables(mine: Parts, heard: Answers) -> Iterator[Finding]:
    settings, vault, now = mine.settings, mine.database.vault, time.time()
    with mine.database.read() as connection:
        clients = [each for each in keys.listed(connection) if each.key_hint is not None]
        admins = [each.admin for each in admin_keys.listed(connection)]
        survey = secrets.survey(connection, vault)
    yield findings.of_admins(settings.admin_api_key, len(admins))
    yield from findings.of_client_auth(settings.client_auth, settings.bind, len(clients))
    yield from _of_secrets(vault.problem, survey, heard)
    enabled = [each.client for each in clients if each.client.enabled]
    ends = [("client", c.name, c.expires_at) for c in enabled]
    ends += [("admin", a.name, a.expires_at) for a in admins]
    yield from findings.of_expiries(ends, now)


def _of_secrets(
    problem: str | None, survey: secrets.Survey, heard: Answers
) -> Iterator[Finding]:
    key = findings.key_of(heard)
    if problem is None or key not in OPENS:
        unopened = [f"{u.table} {u.row}, {u.column}: {u.reason}" for u in survey.unopened]
        yield from findings.of_secrets(problem, survey.sealed, survey.behind, unopened)
    elif key == KEY_IN_MEMORY:
        yield findings.of_lost_key(problem, len(survey.unopened))
    else:
        yield findings.of_hidden_key(problem)


# What may take long.


def _of_database(mine: Parts) -> list[Finding]:
    try:
        seen = checkup.facts(mine.database)
    except ProxyError:
        return []  # the look at its schema said so
    return [
        *findings.of_database(seen.journal_mode, seen.damage, seen.size_bytes, seen.wal_bytes)
    ]


def _of_network(mine: Parts, seconds: float) -> Iterator[Job]:
    usable = mine.snapshots.current.configs.values()
    configs = [config for config in usable if config.enabled]
    if configs:
        yield Job("clock", "upstreams", partial(_of_hosts, mine, _hosts(configs), seconds))
    for config in configs:
        # All instances by turns: one that is silent must not take the others' threads.
        for turn, (model, check) in enumerate(looks(mine.upstream, config, None).items()):
            label = f"{config.name}, {model}" if model else config.name
            yield Job("instances", label, partial(_of_deployment, config.name, check), turn)


def _hosts(configs: Sequence[InstanceConfig]) -> list[InstanceConfig]:
    """One of each address: several instances may share it."""
    return list({(c.api_base, c.proxy_url): c for c in configs}.values())


def _heard(mine: Parts, seconds: float) -> Answers:
    """Of workers that run, what they say of themselves; one None if there are none."""
    settings = mine.settings
    each = min(HEALTH_SECONDS, HEALTH_SHARE * seconds)
    ask = partial(running.health, settings.address, seconds=each)
    answers = [done.result for done in together([ask], threads=1, seconds=each)]
    if any(answers):
        jobs = [ask] * (ASKED_FOR_EACH_WORKER * settings.workers - 1)
        answers += [done.result for done in together(jobs, threads=4, seconds=2 * each)]
    return answers


def _of_hosts(mine: Parts, hosts: Sequence[InstanceConfig], seconds: float) -> list[Finding]:
    """Of all together, because of the clock they are asked as one."""
    each_seconds = min(seconds, mine.settings.connect_timeout_ms / 1000)
    jobs = [partial(reach, mine.upstream, c, seconds=each_seconds) for c in hosts]
    reached: list[Reached] = []
    found: list[Finding] = []
    for done in together(jobs, threads=THREADS, seconds=0.9 * seconds):
        if done.result is None:
            found.append(findings.late("connection", hosts[done.number].name, 0.9 * seconds))
        else:
            reached.append(done.result)
    for each in reached:
        found.append(
            findings.of_host(
                each.host,
                each.problem,
                area=each.area,
                certificate_until=each.certificate_until,
                now=time.time(),
            )
        )
    ahead = [each.ahead_seconds for each in reached if each.ahead_seconds is not None]
    return [*found, findings.of_clock(ahead)]


def _of_deployment(name: str, look: Look) -> list[Finding]:
    c = look()
    return [findings.of_check(name, c.check, ok=c.ok, detail=c.detail, model=c.model)]


def _carried_out(jobs: Sequence[Job], seconds: float) -> list[Finding]:
    """All side by side; the findings in the order of the jobs."""
    found: list[list[Finding]] = [[]] * len(jobs)
    numbers = sorted(range(len(jobs)), key=lambda number: jobs[number].turn)
    done = together([jobs[n].look for n in numbers], threads=THREADS, seconds=seconds)
    for each in with_bar(done, total=len(jobs), label="doctor"):
        number = numbers[each.number]
        job = jobs[number]
        given_up = [findings.late(job.area, job.label, seconds)]
        found[number] = given_up if each.result is None else each.result
    return [finding for part in found for finding in part]


def _print(found: Sequence[Finding]) -> None:
    """Area by area, in the order in which they came; of those that are well not more than a
    person reads."""
    for area in dict.fromkeys(f.area for f in found):
        here = [f for f in found if f.area == area]
        fine = [f for f in here if f.severity == OK]
        for finding in [*fine[:OK_SHOWN], *(f for f in here if f.severity != OK)]:
            mark, color = MARKS[finding.severity]
            click.echo(
                f"{click.style(f'{mark:8}', fg=color)} {area:12} {printable(finding.what)}"
            )
            if finding.remedy:
                click.echo(f"{'':21} -> {printable(finding.remedy)}")
        if len(fine) > OK_SHOWN:
            click.echo(f"{'ok':8} {area:12} ... and {len(fine) - OK_SHOWN} more.")
    click.echo(findings.summary(found))
