"""What alembic runs: the proxy's models and settings, so that there is one truth of each."""

import sys
from logging.config import fileConfig

from alembic import context
from sqlalchemy import Engine

from proxy.settings import SettingError, load_settings
from proxy.store.db import Database
from proxy.store.models import Base
from proxy.store.schema import SchemaProblem, migrating


def main() -> None:
    """With the engine the proxy handed us, or for the command line one from the settings."""
    given = context.config.attributes.get("engine")
    if isinstance(given, Engine):
        run_migrations(given)
        return
    if context.config.config_file_name is not None:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    try:
        database = Database(load_settings().database_url)
        with migrating(database):
            run_migrations(database.engine)
    except (SettingError, SchemaProblem) as error:
        sys.exit(str(error))


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
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    sys.exit("Offline migrations (--sql) are not supported: they cannot move data.")
main()
