"""What alembic runs: the proxy's models and settings, so that there is one truth of each."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from logging.config import fileConfig

import alembic.command
from alembic import context
from sqlalchemy import Engine

from proxy.settings import SettingError, load_settings
from proxy.store.db import Database
from proxy.store.models import Base
from proxy.store.schema import SchemaProblem, check_alone, migrating
from proxy.store.vault import Vault

# What `-x NAME=VALUE` may name; read by the revision that imports the old program's data.
X_ARGUMENTS = ("legacy", "skip_bad")


def main() -> None:
    """With the engine the proxy handed us, or for the command line one from the settings."""
    given = context.config.attributes.get("engine")
    if isinstance(given, Engine):
        run_migrations(given)
        return
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    try:
        _check_x_arguments()
        settings = load_settings()
        vault = Vault(settings.secret_key, settings.secret_key_file)
        database = Database(settings.database_url, vault)
        if _runs(alembic.command.downgrade):
            # Else a gateway that runs would go on without the tables that it counts in.
            check_alone(database)
        with _connected(database), migrating(database):
            run_migrations(database.engine)
        _tell_if_nothing_was_imported()
    except (SettingError, SchemaProblem) as error:
        sys.exit(str(error))


@contextmanager
def _connected(database: Database) -> Iterator[None]:
    """At the end no connection is left: what was written is in the database's file, and not
    beside it, where who copies the file alone would lose it."""
    try:
        yield
    finally:
        database.dispose()


@contextmanager
def _nothing_left_over() -> Iterator[None]:
    """What a downgrade wrote for the old program goes, too, if it does not come to its end."""
    try:
        yield
    except BaseException:
        folder = context.config.attributes.get("written_out")
        if folder is not None:
            shutil.rmtree(folder)
            getLogger("alembic.legacy").warning("%s is taken away again.", folder)
        raise


def run_migrations(engine: Engine) -> None:
    # writes: the whole upgrade holds the write lock, so that two cannot run at once.
    with engine.connect().execution_options(writes=True) as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,  # SQLite cannot alter a column in place
            transactional_ddl=True,  # SQLite's is, once the driver begins no transactions
            transaction_per_migration=False,
        )
        # Within it the transaction: what is committed is left over from nothing.
        with _nothing_left_over(), context.begin_transaction():
            context.run_migrations()


def _check_x_arguments() -> None:
    unknown = context.get_x_argument(as_dictionary=True).keys() - set(X_ARGUMENTS)
    if unknown:
        # A misspelt `legacy` would be an upgrade without the data.
        names = " and ".join(X_ARGUMENTS)
        raise SchemaProblem(
            f"-x {sorted(unknown)[0]}: there is no such argument, only {names}."
        )


def _tell_if_nothing_was_imported() -> None:
    source = context.get_x_argument(as_dictionary=True).get("legacy")
    # The setting stands there for any command of alembic's, and concerns this one.
    if source is None and _runs(alembic.command.upgrade):
        source = load_settings().legacy_path
    if source is not None and not context.config.attributes.get("legacy_imported"):
        getLogger("alembic.legacy").warning(
            "Nothing was imported now: the database had passed that revision. To import later:"
            " `flask legacy import %s`.",
            source,
        )


def _runs(command: Callable[..., None]) -> bool:
    """The command line asked for it."""
    asked = getattr(context.config.cmd_opts, "cmd", None)
    return bool(asked) and asked[0] is command


if context.is_offline_mode():
    sys.exit("Offline migrations (--sql) are not supported: they cannot move data.")
main()
