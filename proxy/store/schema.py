"""Whether the database is one we can work with, and bringing it up to date."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from proxy.settings import INSTANCE_FOLDER, ROOT
from proxy.store import lock_holder, lost
from proxy.store.db import BUSY_TIMEOUT_MS, Database, StoreUnavailable, sqlite_file
from proxy.store.models import Base
from proxy.store.vault import VaultClosed, make_private_folder

RIGHTS = (
    "Give the proxy's user the right to write the file and its folder, or set"
    " PROXY_DATABASE_URL."
)
# By SQLite's code of what went wrong (https://sqlite.org/rescode.html).
REMEDIES = dict.fromkeys(
    (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR),
    "See whether there is room on its disk, and whether that is well; then try again.",
)
REMEDIES |= dict.fromkeys(
    (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN), RIGHTS
)
IN_USE = "Stop what else uses it, and try again."
REMEDIES |= dict.fromkeys((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED), IN_USE)
NOT_OURS = (
    "If it is not the proxy's database, set PROXY_DATABASE_URL; if it is, move it aside or"
    " restore a backup."
)
REMEDIES |= dict.fromkeys((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB), NOT_OURS)
REMEDY = "`.venv/bin/alembic upgrade head` (or ./scripts/run) makes or updates it"
# Their files' names begin with a schema's revision, which are numbers in their order.
MIGRATIONS = ROOT / "migrations" / "versions"
BUSY_SECONDS = BUSY_TIMEOUT_MS / 1000
VERSION_TABLE = "alembic_version"  # alembic's own, in which it keeps the schema's revision


class SchemaProblem(Exception):
    """One sentence for the person who starts the proxy: what is wrong and what to do."""


class SchemaOutdated(SchemaProblem):
    """Missing, empty or older: an upgrade helps."""


class DatabaseMissing(SchemaOutdated):
    """There is no file, and no backup of it."""


class DatabaseLost(SchemaProblem):
    """There is no file, though there are backups of it: an upgrade would hide that."""


class DatabaseBusy(SchemaProblem):
    """Another process writes to it, and does not end."""


def check(database: Database, *, writes: bool = True) -> None:
    """Raises SchemaProblem unless the database has our present schema and can be written, or
    only read: for that nobody waits for who writes to it."""
    path = sqlite_path(database)
    # Not Path.exists: it raises where a folder may not be entered.
    if path is not None and not os.path.exists(path):
        raise _missing(database, path)
    present = _usable_revision(database)
    head = max(_known_revisions())
    name = _name(database)
    if present != head:
        raise SchemaOutdated(
            f"{name} has schema {present or 'none'}, needed is {head}; {REMEDY}."
        )
    if writes:
        check_writable(database)


def _missing(database: Database, path: Path) -> SchemaProblem:
    said = f"The database {path} does not exist"
    backup, key = lost.newest_backup(path), lost.key_beside(database)
    ways = f"{lost.WAY_BACK} {lost.BEGIN_ANEW}"
    if backup is not None:
        return DatabaseLost(
            f"{said}, but there are backups of it, the newest is {backup}. {ways}"
        )
    if key is not None:
        return DatabaseMissing(
            f"{said}, but the key of its secrets does ({key}): it was there, unless that key is"
            f" another database's. {ways}"
        )
    return DatabaseMissing(f"{said}; {REMEDY}.")


def upgrade(database: Database) -> None:
    """Makes the database or brings it to the present schema. Raises SchemaProblem."""
    command = import_module("alembic.command")
    with migrating(database):
        command.upgrade(alembic_config(database), "head")


@contextmanager
def migrating(database: Database) -> Iterator[None]:
    """Around migrations: they begin only on a file that is ours or empty.

    Raises SchemaProblem, also for what the database says during them.
    """
    path = sqlite_path(database)
    if path is not None:
        make_private(path)
    _usable_revision(database)
    try:
        yield
    except VaultClosed as error:
        raise SchemaProblem(error.message) from error
    except DBAPIError as error:
        said = f"{_name(database)} cannot be migrated: {error.orig}."
        raise SchemaProblem(f"{said} {_remedy(error.orig, IN_USE)}") from error


def check_alone(database: Database) -> None:
    """Raises SchemaProblem if anybody else has the database's file open, whoever it is.

    In WAL mode each connection holds a shared lock on the file for as long as it is open, and
    one that means to be the only one needs all of it (https://sqlite.org/wal.html, section 8).
    """
    path = sqlite_path(database)
    # Not Path.exists: it raises where a folder may not be entered.
    if path is None or not os.path.exists(path):
        return
    try:
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            return  # what else is wrong is told by who works with it
        raise SchemaProblem(
            f"{_name(database)} is in use: stop the gateway, and what else has it open."
            " Nothing was changed."
        ) from error


def alembic_config(database: Database) -> Any:
    """alembic's own, which is loaded by this: it takes a tenth of a start, and most starts
    migrate nothing."""
    config = import_module("alembic.config").Config(str(ROOT / "alembic.ini"))
    config.attributes["engine"] = database.engine
    return config


def sqlite_path(database: Database) -> Path | None:
    """The file of an SQLite database; None for another kind, or one without a plain path."""
    name = sqlite_file(database.url)
    return None if name is None else Path(name)


def private_parent(connection: Connection) -> Path:
    """Where copies of what goes into this database belong: beside it, if it is a file."""
    name = connection.engine.url.database or ""
    is_file = connection.dialect.name == "sqlite" and not name.startswith(("file:", ":"))
    return Path(name).parent if is_file and name else INSTANCE_FOLDER


def make_private(path: Path) -> None:
    """Makes the file if there is none: only its owner can read it, for it holds keys."""
    try:
        make_private_folder(path.parent)
        # Never a present one: closing it would end this process' SQLite locks on it
        # (https://sqlite.org/howtocorrupt.html, 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass  # whose it is and whether it can be used, SQLite will tell
    except OSError as error:
        raise SchemaProblem(
            f"The database {path} cannot be written: {error.strerror}. Give the proxy's user"
            " that right, or set PROXY_DATABASE_URL."
        ) from error


def _usable_revision(database: Database) -> str | None:
    """The schema's, None if there is none yet. Raises SchemaProblem if it is not for us."""
    name = _name(database)
    try:
        with database.read() as connection:
            tables = set(inspect(connection).get_table_names())
            present = _revision(connection) if VERSION_TABLE in tables else None
    except StoreUnavailable as error:
        cause = getattr(error.__cause__, "orig", None)
        raise SchemaProblem(
            f"{name} cannot be used: {_cause(error)}. {_remedy(cause, NOT_OURS)}"
        ) from error
    if tables - {VERSION_TABLE} and not tables & Base.metadata.tables.keys():
        raise SchemaProblem(
            f"{name} is the database of another program: it has tables, but none of ours."
            " Set PROXY_DATABASE_URL to another one."
        )
    known = _known_revisions()
    if present is not None and present not in known:
        raise SchemaProblem(
            f"{name} was made by a newer version of the proxy (schema {present}, this version"
            f" knows up to {max(known)}). Start that version, or restore a backup from before."
        )
    return present


def _revision(connection: Connection) -> str | None:
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # nosec B608


def _known_revisions() -> set[str]:
    # By their names alone: without alembic.
    return {path.name.partition("_")[0] for path in MIGRATIONS.glob("[0-9]*_*.py")}


def _name(database: Database) -> str:
    """As an operator knows it, without a password."""
    path = sqlite_path(database)
    return str(path or database.url.render_as_string(hide_password=True))


def check_writable(database: Database) -> None:
    """Raises SchemaProblem, DatabaseBusy while another process holds the lock for it."""
    name = _name(database)
    try:
        with database.write() as connection:
            # SQLite grants the lock on a read-only file too, but not a statement that could
            # write, even if it finds nothing to write.
            nothing = f"DELETE FROM {VERSION_TABLE} WHERE version_num = ''"  # nosec B608
            connection.execute(text(nothing))
    except StoreUnavailable as error:
        cause = getattr(error.__cause__, "orig", None)
        if _code(cause) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _busy(database, name) from error
        raise SchemaProblem(
            f"{name} cannot be written: {_cause(error)}. {_remedy(cause, RIGHTS)}"
        ) from error


def _busy(database: Database, name: str) -> DatabaseBusy:
    path = sqlite_path(database)
    pids = [] if path is None else lock_holder.holders(path)
    who = f"process {lock_holder.described(pids)}" if pids else "another process"
    return DatabaseBusy(
        f"{name} cannot be written now: {who} has been writing to it for {BUSY_SECONDS:.0f} s"
        " and more. Try again when that has ended; the gateway need not be stopped for it."
    )


def _cause(error: StoreUnavailable) -> str:
    return error.message.removeprefix("The database cannot be used: ").rstrip(".")


def _remedy(cause: object, otherwise: str) -> str:
    """What a person can do about an error of SQLite's."""
    return REMEDIES.get(_code(cause), otherwise)


def _code(cause: object) -> int:
    code: int = getattr(cause, "sqlite_errorcode", 0)
    return code & 0xFF
