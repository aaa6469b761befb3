"""Backups of the proxy's database and of the old program's JSON files.

    python scripts/backup_monitor.py backup --keep 14
    python scripts/backup_monitor.py verify FILE
    python scripts/backup_monitor.py restore FILE
    python scripts/backup_monitor.py restore --newest
    python scripts/backup_monitor.py list
    python scripts/backup_monitor.py monitor --webhook URL
    python scripts/backup_monitor.py job --interval 3600 --keep 48

Without --database it is the one of PROXY_DATABASE_URL, whether or not the proxy runs; only
`restore` wants it stopped. Exit codes: 0 done and well, 1 failed or an alert, 2 wrong usage.
`COMMAND --help` tells the options. In backups the instances' keys are encrypted; the key for
that (PROXY_SECRET_KEY, or instance/secret.key) is in none of them: keep a copy of it elsewhere,
apart from them. Only their owner can read them, and they should leave this disk for another
place that is as private.
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).resolve().parent.parent))

from backups import (
    checks,
    command_line,
    places,
    restoring,
    shelf,
    taking,
    users,
    watching,
    webhook,
)
from backups.command_line import WEBHOOK_VARIABLE
from backups.problems import Problem, WrongUsage, told
from backups.shelf import Source
from backups.watching import Alert, Limits

EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one command: lines for people, fields for machines, problems for both."""

    lines: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    exit_code: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = command_line.parser(
        __doc__,
        backup=backup,
        verify=verify,
        restore=restore,
        list=listing,
        monitor=monitor,
        job=job,
    ).parse_args(argv)
    with _sigterm_as_interrupt():
        try:
            outcome = arguments.run(arguments)
        except Problem as problem:
            outcome = Outcome(problems=[str(problem)], exit_code=problem.exit_code)
        except KeyboardInterrupt:
            outcome = Outcome(problems=["Interrupted; nothing is half done."], exit_code=1)
        if outcome is not None:
            tell(outcome, as_json=arguments.json)
    return outcome.exit_code if outcome is not None else 0


def tell(outcome: Outcome, *, as_json: bool) -> None:
    for problem in outcome.problems:
        print(problem, file=sys.stderr)
    if as_json:
        about = {"ok": outcome.exit_code == 0, **outcome.fields, "problems": outcome.problems}
        print(json.dumps(about), flush=True)
        return
    for line in outcome.lines:
        print(line, flush=True)


def backup(arguments: argparse.Namespace) -> Outcome:
    """Each source for itself: one that fails does not keep the others from being copied."""
    outcome, _ = _backed_up(arguments, places.sources(arguments))
    return outcome


def _backed_up(
    arguments: argparse.Namespace, sources: Sequence[Source]
) -> tuple[Outcome, list[Alert]]:
    taken, failed = [], []
    for source in sources:
        try:
            taken.append(
                taking.take(
                    source,
                    arguments.folder,
                    keep=arguments.keep,
                    timeout_seconds=arguments.timeout_seconds,
                )
            )
        except Problem as problem:
            failed.append(Alert("backup_failed", source.path, str(problem)))
    lines = [f"{t.source} -> {t.path} ({t.facts.bytes} bytes, checked)" for t in taken]
    deleted = [str(path) for t in taken for path in t.deleted]
    lines += [f"deleted {path}" for path in deleted]
    fields = {
        "backups": [
            {"source": str(t.source), "file": str(t.path), **_fields(t.facts)} for t in taken
        ],
        "deleted": deleted,
    }
    if any(t.facts.revision for t in taken):
        fields["key"] = places.key_place()
        lines.append(f"Not in it: the key of its secrets, {fields['key']}. Keep it apart.")
    problems = [alert.text for alert in failed]
    return Outcome(lines, fields, problems, EXIT_FAILED if failed else 0), failed


def verify(arguments: argparse.Namespace) -> Outcome:
    facts = checks.examined(arguments.file)
    known = "as its name says" if facts.has_named_checksum else "its name has none to compare"
    revision = f", schema {facts.revision}" if facts.revision else ""
    line = (
        f"{arguments.file} is whole: {facts.kind}, {facts.bytes} bytes{revision},"
        f" SHA-256 {facts.sha256} ({known})."
    )
    fields = {
        "file": str(arguments.file),
        **_fields(facts),
        "checksum_in_name": facts.has_named_checksum,
    }
    return Outcome([line], fields)


def restore(arguments: argparse.Namespace) -> Outcome:
    place = places.target(arguments)
    is_proxys = place.is_database and not arguments.database
    skipped: list[str] = []
    backup = arguments.backup or restoring.newest_whole(arguments.folder, place, skipped)
    done = restoring.restore(backup, place, needs_revision=is_proxys)
    note = None
    if done.facts.revision:
        note = places.schema_note(done.path) or places.secrets_note(done.path)
    lines = [*skipped, f"{done.path} is restored from {backup}."]
    if done.aside:
        lines.append(f"What was there is kept as {done.aside}.")
    if done.facts.revision:
        lines.append(f"Its schema is {done.facts.revision}.")
    if note:
        lines.append(note)
    problems = []
    if done.latecomers:
        who = users.described(done.latecomers)
        problems.append(f"Process {who} opened the old file meanwhile; stop it, start it anew.")
    fields = {
        "restored": str(done.path),
        "from": str(backup),
        "skipped": skipped,
        "aside": str(done.aside) if done.aside else None,
        **_fields(done.facts),
        "note": note,
    }
    return Outcome(lines, fields, problems, EXIT_FAILED if problems else 0)


def listing(arguments: argparse.Namespace) -> Outcome:
    found = []
    for each in shelf.listed(arguments.folder):
        with told(each.path):
            bytes_ = each.path.stat().st_size
        found.append(
            {
                "file": str(each.path),
                "source_name": each.source_name,
                "made_at": each.made_at.isoformat(),
                "bytes": bytes_,
            }
        )
    lines = [f"{f['made_at']}  {f['bytes']:>12}  {f['file']}" for f in found]
    fields = {"folder": str(arguments.folder), "backups": found}
    return Outcome(lines or [f"There are no backups in {arguments.folder}."], fields)


def monitor(arguments: argparse.Namespace) -> Outcome:
    url = _webhook_url(arguments)
    return _looked(arguments, places.sources(arguments), url, [])


def _looked(
    arguments: argparse.Namespace,
    sources: Sequence[Source],
    url: str | None,
    earlier: Sequence[Alert],
) -> Outcome:
    limits = Limits(
        arguments.max_age_seconds,
        arguments.max_file_age_seconds,
        arguments.min_bytes,
        arguments.timeout_seconds,
    )
    seen = list(watching.look(sources, arguments.folder, limits, shelf.now()))
    # Why a source cannot be copied is often why it cannot be read: that is told once.
    alerts = [*(a for a in earlier if a.text not in {s.text for s in seen}), *seen]
    fields: dict[str, Any] = {
        "sources": [str(source.path) for source in sources],
        "alerts": [alert.to_dict() for alert in alerts],
        "webhook": None,
    }
    if not alerts:
        return Outcome([f"All is well with {len(sources)} sources and their backups."], fields)
    lines = [f"ALERT {alert.kind}: {alert.text}" for alert in alerts]
    problems = []
    if arguments.log is not None:
        problems += _logged(arguments.log, lines)
    if url is not None:
        text = "\n".join([f"Backups on {platform.node()}:", *(alert.text for alert in alerts)])
        try:
            webhook.send(url, text, fields["alerts"])
            fields["webhook"] = "sent"
        except webhook.NotSent as error:
            problems.append(str(error))
            fields["webhook"] = "failed"
    return Outcome(lines, fields, problems, EXIT_FAILED)


def job(arguments: argparse.Namespace, stop: Event | None = None) -> None:
    """Rounds of backup and monitor until SIGTERM, Ctrl-C or `stop`, none of which is a failure.

    A line of JSON for each round. What fails in one is told and tried again in the next.
    """
    url = _webhook_url(arguments)
    sources = places.sources(arguments)
    stop = stop or Event()
    try:
        while True:
            tell(_round(arguments, sources, url), as_json=arguments.json)
            if stop.wait(arguments.interval):
                return
    except KeyboardInterrupt:
        pass  # how it is meant to end


def _round(
    arguments: argparse.Namespace, sources: Sequence[Source], url: str | None
) -> Outcome:
    made, failed = _backed_up(arguments, sources)
    looked = _looked(arguments, sources, url, failed)
    return Outcome(
        made.lines + looked.lines,
        made.fields | looked.fields,
        made.problems + looked.problems,
        max(made.exit_code, looked.exit_code),
    )


def _fields(facts: checks.Facts) -> dict[str, Any]:
    return {
        "kind": facts.kind,
        "bytes": facts.bytes,
        "sha256": facts.sha256,
        "revision": facts.revision,
    }


def _logged(path: Path, lines: Sequence[str]) -> list[str]:
    """Appends; returns what kept it from that, which must not keep the webhook from it."""
    moment = shelf.now().isoformat(timespec="seconds")
    try:
        with told(path), open(path, "a", opener=_private) as file:
            file.writelines(f"{moment} {line}\n" for line in lines)
    except Problem as problem:
        return [str(problem)]
    return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, shelf.FILE_MODE)


def _webhook_url(arguments: argparse.Namespace) -> str | None:
    url = arguments.webhook or os.environ.get(WEBHOOK_VARIABLE)
    if url and not webhook.is_usable(url):
        raise WrongUsage(f"--webhook, or {WEBHOOK_VARIABLE}: it is no http or https URL.")
    return url or None


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
