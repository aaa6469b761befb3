"""One import from end to end: backup, read, decide, write, report."""

import gc
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from migrations.legacy import discover, report
from migrations.legacy.apply import Result, apply
from migrations.legacy.backup import (
    REJECTED,
    BackupFailed,
    changed_since,
    make_backup,
    write_beside,
)
from migrations.legacy.plan import Plan, make_plan
from proxy.store.schema import SchemaProblem

OF_THE_HOME = (
    "{} was not read: it is where the old program kept its database unless"
    " INSTANCE_MANAGER_DB_PATH said otherwise; if it is of this deployment, copy it into the"
    " folder first"
)


class ImportRefused(SchemaProblem):
    """Nothing was written. `said` is why, and what can be done; `report`, where there is one,
    is what was found."""

    def __init__(self, said: str, report: str = "") -> None:
        super().__init__(f"{report}\n\n{said}" if report else said)
        self.said = said
        self.report = report


@dataclass(frozen=True, slots=True)
class Prepared:
    """Backed up, read and decided; only the tables are to be written."""

    source: Path
    plan: Plan
    backup: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an import did. `backup` holds every source file as it was."""

    plan: Plan
    result: Result
    backup: Path

    def as_text(self) -> str:
        lines = [report.as_text(self.plan), f"Backup: {self.backup}"]
        lines += result_lines(self.result, "Written")
        if self.plan.problems:
            records = len(self.plan.rejected)
            whole = self.backup / REJECTED
            lines.append(f"Left out, as they cannot be carried: {records} records; see {whole}")
        return "\n".join(lines)


def result_lines(result: Result, verb: str) -> list[str]:
    """What an import did to the database, or would do."""
    lines = []
    for name, fields in sorted(result.kept.items()):
        differs = f"; the file differs in {', '.join(fields)}" if fields else ""
        lines.append(f"Kept as it is, because it exists: {name}{differs}")
    for name in sorted(result.removed):
        lines.append(f"Left out, because it was removed after an import: {name}")
    for name, fields in sorted(result.states_kept.items()):
        besides = f"; only the file has {', '.join(fields)}" if fields else ""
        lines.append(f"State not added, because one was added before: {name}{besides}")
    return [*lines, f"{verb}: {len(result.imported)} configs, {len(result.states)} states."]


def inspect(path: Path, environ: Mapping[str, str] | None = None) -> Plan:
    """What an import would do. Reads only. Raises ImportRefused if there is nothing to read."""
    with _uncollected():
        return _plan(path, _files(path, environ), environ)


def import_legacy(
    connection: Connection,
    path: Path,
    *,
    backups: Path,
    skip_bad: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Outcome:
    """Carries the files at `path` into the tables, in the caller's transaction.

    Raises ImportRefused as `prepared` does, and lets nothing be written then. It is a step of
    `alembic upgrade`, which is what can be repeated: there is no schema without it.
    """
    leave_out = f"alembic -x legacy={shlex.quote(str(path))} -x skip_bad=yes upgrade head"
    ready = prepared(path, backups, leave_out=leave_out, skip_bad=skip_bad, environ=environ)
    return carry_out(connection, ready)


def prepared(
    path: Path,
    backups: Path,
    *,
    leave_out: str,
    skip_bad: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Prepared:
    """All of an import that needs no database, and most of its time. `leave_out` is the command
    that imports the rest if a record cannot be carried.

    Raises ImportRefused if a record cannot be carried and `skip_bad` is not set; nothing is
    written then but the backup in a folder of `backups`.
    """
    files = _files(path, environ)
    try:
        backup = make_backup(files, backups)
        with _uncollected():
            plan = _plan(path, files, environ)
        _check(plan, backup, leave_out=leave_out, skip_bad=skip_bad)
    except BackupFailed as error:
        raise ImportRefused(f"Nothing was imported. {error}") from error
    return Prepared(path, plan, backup)


def carry_out(connection: Connection, ready: Prepared) -> Outcome:
    """In the caller's transaction."""
    with _uncollected():
        result = apply(connection, ready.plan, source=ready.source, backup=ready.backup)
    return Outcome(ready.plan, result, ready.backup)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Of ten thousand instances come millions of objects and hardly a cycle: to look for some
    again and again takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check(plan: Plan, backup: Path, *, leave_out: str, skip_bad: bool) -> None:
    changed = changed_since(backup)
    if changed:
        raise ImportRefused(
            f"Nothing was imported: {', '.join(changed)} changed meanwhile. Stop the old"
            " program, then import again."
        )
    if plan.problems and not skip_bad:
        raise ImportRefused(
            f"Nothing was imported; the files are copied to {backup}."
            f" Mend what is listed, or leave it out: `{leave_out}`.",
            report.as_text(plan),
        )
    if plan.problems:
        rejected = json.dumps(report.rejected_json(plan), indent=2)
        write_beside(backup, REJECTED, rejected.encode())


def _files(path: Path, environ: Mapping[str, str] | None) -> list[Path]:
    # Not Path.exists: it raises where a folder may not be entered.
    if not os.path.lexists(path):
        raise ImportRefused(f"Nothing was imported: {path} does not exist.")
    files = discover.find(path, os.environ if environ is None else environ)
    if not files:
        others = ", ".join(str(file) for file in discover.passed_over(path, []))
        hint = f" If one of these is: name the file itself. {others}" if others else ""
        database = discover.elsewhere(path, [], os.environ if environ is None else environ)
        hint += f" {OF_THE_HOME.format(database)}." if database else ""
        raise ImportRefused(
            f"Nothing was imported: {path} has no file of the old program.{hint}"
        )
    return files


def _plan(path: Path, files: list[Path], environ: Mapping[str, str] | None) -> Plan:
    variables = os.environ if environ is None else environ
    plan = make_plan(discover.read(path, files, variables), now=time.time())
    database = discover.elsewhere(path, files, variables)
    if database is not None:
        plan.file_notes.append((database, OF_THE_HOME.format(database)))
    plan.passed_over = discover.passed_over(path, files) if path.is_dir() else []
    return plan
