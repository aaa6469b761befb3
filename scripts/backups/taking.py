"""From a source to a checked backup in the folder."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from backups import checks, shelf
from backups.checks import Facts
from backups.problems import Damaged, Problem, told
from backups.shelf import Source

PAGES_AT_A_TIME = 1024  # 4 MB, after which Ctrl-C is heard


@dataclass(frozen=True, slots=True)
class Taken:
    source: Path
    path: Path
    facts: Facts
    deleted: tuple[Path, ...]


def take(source: Source, folder: Path, *, keep: int | None, timeout_seconds: float) -> Taken:
    """A new backup, checked, then older ones deleted until `keep` are left. Raises Problem.

    What fails leaves no file, and deletes none.
    """
    with shelf.held(folder, timeout_seconds):
        with half_written(folder, source.path.name) as part:
            if source.is_database:
                _copy_database(source.path, part, timeout_seconds)
            else:
                _copy_json(source.path, part)
            facts = _checked(source, part)
            path = _free_name(folder, source, facts.sha256)
            with told(path):
                os.rename(part, path)
                synced(folder)
        deleted = shelf.prune(folder, source, keep, path) if keep is not None else []
    return Taken(source.path, path, facts, tuple(deleted))


@contextmanager
def half_written(folder: Path, name: str) -> Iterator[Path]:
    """A new file only its owner can read. At the end it is gone, unless it was renamed."""
    part = folder / shelf.part_name(name)
    with told(folder):
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, shelf.FILE_MODE))
    try:
        yield part
    finally:
        with told(folder):
            for each in checks.with_side_files(part):
                each.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """Of a file its content, of a folder its names are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_database(source: Path, part: Path, timeout_seconds: float) -> None:
    with closing(checks.opened(source, timeout_seconds)) as live:
        try:
            with closing(sqlite3.connect(part, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous = OFF")  # it is synced once, when complete
                # Step by step, and never begun anew as others write: `live` sees one moment.
                live.backup(copy, pages=PAGES_AT_A_TIME, progress=pause_for_signals)
                # Not WAL, as the source is: a backup is one file, also when looked into.
                copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            with told(part.parent if _is_of_copy(error) else source):
                raise


def pause_for_signals(_status: int, _remaining: int, _total: int) -> None:
    """Returning to Python now and then is what lets Ctrl-C and SIGTERM through."""


def _is_of_copy(error: sqlite3.Error) -> bool:
    """Whether it is about writing, as far as can be told."""
    writing = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in writing


def _copy_json(source: Path, part: Path) -> None:
    with told(source):
        checks.size(source)
        if checks.is_database(source):
            raise Problem(f"{source} is an SQLite database; name it with --database.")
        data = source.read_bytes()
    checks.check_json(source, data)
    with told(part.parent), part.open("r+b") as file:
        file.write(data)
    if part.read_bytes() != data:
        raise Problem(f"{part.parent} did not keep what was written; see to its disk.")


def _checked(source: Source, part: Path) -> Facts:
    """On the disk, and whole. Raises Problem."""
    try:
        with told(part.parent):
            synced(part)
        return checks.examined(part)
    except Damaged as error:
        # The copy is what the source is, page by page.
        reason = str(error).replace(str(part), str(source.path))
        raise Damaged(f"{reason} No backup was made of it, and none deleted.") from error


def _free_name(folder: Path, source: Source, sha256: str) -> Path:
    """Nobody else writes here meanwhile, so a free one stays free."""
    moment = shelf.now()
    while (path := folder / shelf.name_of(source, moment, sha256)).exists():
        moment += timedelta(microseconds=1)
    return path
