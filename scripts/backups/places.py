"""Where the sources are, from the command line or the proxy's settings."""

import argparse
from pathlib import Path

from backups.problems import WrongUsage
from backups.shelf import Source
from proxy.settings import SettingError, load_settings
from proxy.store import schema, secrets
from proxy.store.db import Database
from proxy.store.vault import Vault


def sources(arguments: argparse.Namespace) -> list[Source]:
    """The database, then the files; each once. Raises WrongUsage."""
    found = [] if arguments.no_database else [_database(arguments.database)]
    found += [Source(Path(name).resolve(), is_database=False) for name in arguments.file]
    if not found:
        raise WrongUsage("Nothing to do: --no-database, and no --file.")
    return list(dict.fromkeys(found))


def target(arguments: argparse.Namespace) -> Source:
    """Of a restore. Raises WrongUsage."""
    if arguments.file is not None:
        return Source(Path(arguments.file).resolve(), is_database=False)
    return _database(arguments.database)


def key_place() -> str:
    """Where the key is without which a backup's secrets are worth nothing, for people."""
    return _vault().source


def secrets_note(path: Path) -> str | None:
    """What of a database of ours cannot be read for want of its key; None if all can."""
    vault = _vault()
    database = Database(f"sqlite:///{path}", vault)
    try:
        with database.read() as connection:
            found = secrets.survey(connection, vault)
    finally:
        database.dispose()
    if not found.unopened:
        return None
    return (
        f"{len(found.unopened)} of its {found.sealed} secrets cannot be decrypted with"
        f" {vault.source}: put back the key of that time; `flask secrets check` tells which."
    )


def schema_note(path: Path) -> str | None:
    """What has to be done before the proxy can use this database; None if nothing."""
    database = Database(f"sqlite:///{path}")
    try:
        schema.check(database)
    except schema.SchemaProblem as problem:
        return str(problem)
    finally:
        database.dispose()
    return None


def _vault() -> Vault:
    """Raises WrongUsage."""
    try:
        settings = load_settings()
    except SettingError as error:
        raise WrongUsage(f"{error}.") from error
    return Vault(settings.secret_key, settings.secret_key_file)


def _database(name: str | None) -> Source:
    if name is not None and "://" not in name:
        return Source(Path(name).resolve(), is_database=True)
    try:
        if name is None:
            url = load_settings().database_url
        else:
            url = load_settings({"PROXY_DATABASE_URL": name}, env_file=None).database_url
        if not url.startswith("sqlite"):
            raise WrongUsage(
                "The database is PostgreSQL: use its own tools, pg_dump and pg_restore. Old"
                " JSON files are copied with --no-database --file."
            )
        path = schema.sqlite_path(Database(url))
    except SettingError as error:
        raise WrongUsage(f"{error}.") from error
    if path is None:
        raise WrongUsage("The database's URL has no plain path; name its file with --database.")
    return Source(path.resolve(), is_database=True)
