"""Whether the database is one we can work with, and bringing it up to date."""

import os
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from proxy.settings import ROOT
from proxy.store.db import Database, StoreUnavailable

REMEDY = "`alembic upgrade head` (or ./scripts/run) makes or updates it"


class SchemaProblem(Exception):
    """One sentence for the person who starts the proxy: what is wrong and what to do."""


class SchemaOutdated(SchemaProblem):
    """Missing, empty or older: an upgrade helps."""


def check(database: Database) -> None:
    """Raises SchemaProblem unless the database has our present schema and can be written."""
    path = sqlite_path(database)
    if path is not None and not path.exists():
        raise SchemaOutdated(f"The database {path} does not exist; {REMEDY}.")
    name = path or database.url.render_as_string(hide_password=True)
    try:
        with database.read() as connection:
            present, foreign = _present(connection)
    except StoreUnavailable as error:
        raise SchemaProblem(
            f"{name} cannot be used: {_cause(error)}. If it is not the proxy's database, set"
            " PROXY_DATABASE_URL; if it is, move it aside or restore a backup."
        ) from error
    _check_revision(str(name), present, foreign)
    _check_writable(database, str(name))


def upgrade(database: Database) -> None:
    """Makes the database or brings it to the present schema. Raises SchemaProblem."""
    path = sqlite_path(database)
    if path is not None:
        make_private(path)
    try:
        command.upgrade(alembic_config(database), "head")
    except OperationalError as error:
        raise SchemaProblem(
            f"The database {path or database.url.host} cannot be upgraded: {error.orig}."
        ) from error


def alembic_config(database: Database) -> Config:
    config = Config(str(ROOT / "alembic.ini"))
    config.attributes["engine"] = database.engine
    return config


def sqlite_path(database: Database) -> Path | None:
    """The file of an SQLite database; None for another kind, or one without a plain path."""
    name = database.url.database
    if database.url.get_backend_name() != "sqlite" or not name:
        return None
    return None if name.startswith(("file:", ":memory:")) else Path(name)


def make_private(path: Path) -> None:
    """The file exists and only its owner can read it: it holds keys. Keeps what is in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        raise SchemaProblem(
            f"The database {path} cannot be written: {error.strerror}. Give the proxy's user"
            " that right, or set PROXY_DATABASE_URL."
        ) from error


def _present(connection: Connection) -> tuple[str | None, bool]:
    """(our revision, or None; whether there are tables that are not ours)."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        return None, bool(tables)
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar(), False


def _check_revision(name: str, present: str | None, foreign: bool) -> None:
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    head = scripts.get_current_head()
    if present == head:
        return
    if foreign:
        raise SchemaProblem(
            f"{name} is the database of another program: it has tables, but none of ours."
            " Set PROXY_DATABASE_URL to another one."
        )
    if present is not None and present not in {s.revision for s in scripts.walk_revisions()}:
        raise SchemaProblem(
            f"{name} was made by a newer version of the proxy (schema {present}, this version"
            f" knows up to {head}). Start that version, or restore a backup from before."
        )
    raise SchemaOutdated(f"{name} has schema {present or 'none'}, needed is {head}; {REMEDY}.")


def _check_writable(database: Database, name: str) -> None:
    try:
        with database.write():
            pass
    except StoreUnavailable as error:
        raise SchemaProblem(
            f"{name} cannot be written: {_cause(error)}. Give the proxy's user the right to"
            " write the file and its folder."
        ) from error


def _cause(error: StoreUnavailable) -> str:
    return error.message.removeprefix("The database cannot be used: ").rstrip(".")
