"""The database's files, looked at without changing them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from proxy.store.damage import SIDE_FILES, damage_of
from proxy.store.db import Database

OTHERS = 0o077  # rights of others than a file's owner


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """`journal_mode` is "" and the sizes 0 where it is no file of SQLite; `damage` is what
    SQLite says is wrong with it."""

    journal_mode: str = ""
    damage: str | None = None
    size_bytes: int = 0
    wal_bytes: int = 0


def facts(database: Database) -> DatabaseFacts:
    """Reads the whole file: about a second for each gigabyte. Raises StoreUnavailable."""
    path = database.file
    if path is None:
        return DatabaseFacts()
    damage, size_bytes = damage_of(path), _size(path)
    if damage is not None:
        return DatabaseFacts("wal", damage, size_bytes)  # whatever it says of itself
    with database.read() as connection:
        mode: str = connection.execute(text("PRAGMA journal_mode")).scalar_one()
    return DatabaseFacts(mode, None, size_bytes, _size(path.with_name(f"{path.name}-wal")))


def exposed(database: Database, besides: Iterable[Path] = ()) -> list[Path]:
    """Files with secrets that others than their owner can read: the database's, the vault's,
    and those of `besides` that are there."""
    files = [*besides]
    if database.vault.path is not None:
        files.append(database.vault.path)
    if database.file is not None:
        files += [database.file.with_name(database.file.name + end) for end in SIDE_FILES]
    return [path for path in files if mode(path) & OTHERS]


def mode(path: Path) -> int:
    """0 where there is no such file."""
    try:
        return os.stat(path).st_mode
    except (OSError, ValueError):
        return 0


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
