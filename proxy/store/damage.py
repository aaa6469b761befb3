"""A database file that is damaged: noticed at the start, set aside, and never replaced by an
empty one without a word."""

import glob
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from proxy.store.db import Database
from proxy.store.schema import SchemaProblem, sqlite_path
from proxy.store.vault import FileVersion, file_version

SQLITE_HEADER = b"SQLite format 3\0"  # https://sqlite.org/fileformat.html, 1.3
# What a database consists of besides its file; they belong together.
SIDE_FILES = ("", "-wal", "-shm", "-journal")
ASIDE = ".damaged-"
BUSY_SECONDS = 5.0

REMEDY = (
    "`.venv/bin/python scripts/backup_monitor.py restore --newest` puts the newest good backup"
    " in its place, if there is one."
)


def set_aside_if_damaged(database: Database) -> None:
    """Raises SchemaProblem if the file is damaged, or was set aside before and none has taken
    its place. Nothing happens to what is not an SQLite database: it may be another program's.
    """
    check_set_aside(database)
    path = sqlite_path(database)
    if path is None or _is_missing(path):
        return
    damage = _damage_of_version(path, file_version(path))
    if damage is None:
        return
    aside = _set_aside(path)
    raise SchemaProblem(
        f"The database {path} is damaged ({damage}); it is now {aside}. {REMEDY}"
    )


def check_set_aside(database: Database) -> None:
    """Raises SchemaProblem if a damaged file was set aside, and none has taken its place: to
    make an empty one would hide that."""
    path = sqlite_path(database)
    if path is None or not _is_missing(path) or not path.parent.is_dir():
        return
    found = path.parent.glob(f"{glob.escape(path.name)}{ASIDE}*")
    before = sorted(file for file in found if not file.name.endswith(SIDE_FILES[1:]))
    if before:
        raise SchemaProblem(
            f"There is no database {path}; a damaged one was set aside as {before[-1]}."
            f" {REMEDY} To begin anew with an empty one, move the damaged one elsewhere."
        )


def _is_missing(path: Path) -> bool:
    """Not one that cannot be seen: others say why."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def damage_of(path: Path) -> str | None:
    """What SQLite says is wrong with the file; None if nothing, or if it cannot tell now."""
    try:
        with path.open("rb") as file:
            if file.read(len(SQLITE_HEADER)) != SQLITE_HEADER:
                return None
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:  # it is locked, or may not be read: others will say so
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    except OSError:
        return None
    return None if found == "ok" else " ".join(found.split())


@lru_cache(maxsize=1)
def _damage_of_version(path: Path, _version: FileVersion | None) -> str | None:
    """A start looks twice, before it migrates and when gunicorn has begun; of a large database
    each look takes seconds."""
    return damage_of(path)


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}{ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    try:
        for suffix in SIDE_FILES:
            side = path.with_name(path.name + suffix)
            if side.exists():
                os.rename(side, aside.with_name(aside.name + suffix))
    except OSError as error:
        raise SchemaProblem(
            f"The database {path} is damaged, and cannot be set aside: {error.strerror}."
            f" {REMEDY}"
        ) from error
    return aside
