"""One look at sources and their backups: what is missing, stale, small or damaged."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backups import checks, shelf
from backups.problems import Problem, told
from backups.shelf import Backup, Source

CLOCK_TOLERANCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_age_seconds` is of the newest backup, `max_file_age_seconds` of a source.

    The latter None: sources may be as old as they like, as a config file that nobody
    changes and the database of a proxy nobody uses are.
    """

    max_age_seconds: float
    max_file_age_seconds: float | None
    min_bytes: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Alert:
    kind: str
    file: Path
    text: str

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "file": str(self.file), "text": self.text}


def look(
    sources: Sequence[Source], folder: Path, limits: Limits, now: datetime
) -> Iterator[Alert]:
    for source in sources:
        yield from _at_source(source, limits, now)
        yield from _at_backup(source, folder, limits, now)


def of_problem(path: Path, problem: Problem) -> Alert:
    return Alert(problem.kind, path, str(problem))


def _at_source(source: Source, limits: Limits, now: datetime) -> Iterator[Alert]:
    path = source.path
    try:
        with told(path):
            bytes_ = checks.size(path)
            changed_at = _changed_at(path)
            _check(source, limits.timeout_seconds)
    except Problem as problem:
        yield of_problem(path, problem)
        return
    yield from _small(path, bytes_, limits)
    age = (now - changed_at).total_seconds()
    if limits.max_file_age_seconds is not None and age > limits.max_file_age_seconds:
        yield Alert(
            "stale",
            path,
            f"{path} was last written {_span(age)} ago, allowed are"
            f" {_span(limits.max_file_age_seconds)}; see whether its program still runs.",
        )


def _at_backup(source: Source, folder: Path, limits: Limits, now: datetime) -> Iterator[Alert]:
    try:
        backup = shelf.newest(shelf.listed(folder), source)
    except Problem as problem:
        yield of_problem(folder, problem)
        return
    if backup is None:
        text = f"{source.path} has no backup in {folder}; take one with `backup`."
        yield Alert("missing", source.path, text)
        return
    yield from _age(backup, source, limits, now)
    try:
        facts = checks.examined(backup.path)
    except Problem as problem:
        yield of_problem(backup.path, problem)
    else:
        yield from _small(backup.path, facts.bytes, limits)


def _age(backup: Backup, source: Source, limits: Limits, now: datetime) -> Iterator[Alert]:
    age = (now - backup.made_at).total_seconds()
    if age > limits.max_age_seconds:
        yield Alert(
            "stale",
            backup.path,
            f"The newest backup of {source.path} is {_span(age)} old, allowed are"
            f" {_span(limits.max_age_seconds)}: {backup.path}; see why none is taken.",
        )
    if age < -CLOCK_TOLERANCE_SECONDS:
        # It would count as the newest for years, and hide that none is taken.
        yield Alert(
            "future",
            backup.path,
            f"{backup.path} bears a time that is still to come; set the clock right, and"
            " rename or delete the file.",
        )


def _small(path: Path, bytes_: int, limits: Limits) -> Iterator[Alert]:
    if bytes_ < limits.min_bytes:
        text = f"{path} has {bytes_} bytes, expected are at least {limits.min_bytes}."
        yield Alert("small", path, text)


def _check(source: Source, timeout_seconds: float) -> None:
    if source.is_database:
        with closing(checks.opened(source.path, timeout_seconds)) as connection:
            checks.check_database(source.path, connection)
    else:
        checks.check_json(source.path, source.path.read_bytes())


def _changed_at(path: Path) -> datetime:
    """What is committed in WAL mode is written to the file beside it first."""
    times = [each.stat().st_mtime for each in checks.with_side_files(path) if each.exists()]
    return datetime.fromtimestamp(max(times), UTC)


def _span(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h"
