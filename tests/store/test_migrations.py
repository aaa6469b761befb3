import os
import stat
import subprocess
import sys
from contextlib import closing
from sqlite3 import connect

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from proxy.settings import ROOT
from proxy.store import schema
from proxy.store.db import Database
from proxy.store.models import Base, RevisionRow
from tests.builders import SECRET_KEY, VAULT


def differences(database):
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        return compare_metadata(context, Base.metadata)


def tables(database):
    with database.read() as connection:
        return set(inspect(connection).get_table_names())


def alembic(*arguments, url):
    """The command line's, from the project's root, with nothing but the URL set."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environ | {"PROXY_DATABASE_URL": url, "PROXY_SECRET_KEY": SECRET_KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_migrations_from_zero_make_exactly_the_models(database):
    assert differences(database) == []


def test_a_missing_column_would_be_noticed(database):
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE instance_config DROP COLUMN weight")
    assert len(differences(database)) == 1


def test_row_numbers_of_revisions_are_never_used_twice(database):
    # compare_metadata does not look at AUTOINCREMENT.
    with database.read() as connection:
        made = connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE name = 'config_revision'"
        ).scalar_one()
    assert "AUTOINCREMENT" in made
    assert RevisionRow.__table__.dialect_options["sqlite"]["autoincrement"]


def test_down_to_nothing_and_up_again(database):
    with schema.migrating(database):
        command.downgrade(schema.alembic_config(database), "base")
    assert tables(database) <= {"alembic_version", "sqlite_sequence"}
    schema.upgrade(database)
    schema.check(database)
    assert differences(database) == []


def test_upgrading_what_is_up_to_date_changes_nothing(database, database_file):
    before = database_file.read_bytes()
    schema.upgrade(database)
    database.dispose()
    assert database_file.read_bytes() == before


def test_a_failed_migration_leaves_nothing_half_done(tmp_path, monkeypatch):
    path = tmp_path / "proxy.db"
    database = Database(f"sqlite:///{path}", VAULT)
    # The last tables of the migration cannot be made: a view has the name.
    schema.make_private(path)
    with closing(connect(path)) as connection:
        connection.execute("CREATE VIEW usage_minute AS SELECT 1")
    with pytest.raises(schema.SchemaProblem, match="usage_minute already exists"):
        schema.upgrade(database)
    assert tables(database) == set()
    database.dispose()


def test_the_command_line_makes_the_database_that_the_setting_names(tmp_path):
    path = tmp_path / "deep" / "down" / "proxy.db"
    # Two at once, as when two are started at once: one migrates, the other waits.
    running = [alembic("upgrade", "head", url=f"sqlite:///{path}") for _ in range(2)]
    for process in running:
        assert (process.communicate()[0], process.returncode) == ("", 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    database = Database(f"sqlite:///{path}", VAULT)
    schema.check(database)
    database.dispose()


def test_the_command_line_says_what_is_wrong_in_a_sentence(tmp_path):
    path = tmp_path / "letters.db"
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE letters (text)")
    before = path.read_bytes()
    process = alembic("upgrade", "head", url=f"sqlite:///{path}")
    assert process.communicate() == (
        "",
        f"{path} is the database of another program: it has tables, but none of ours. Set"
        " PROXY_DATABASE_URL to another one.\n",
    )
    assert process.returncode == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("argument", ["upgrade", "downgrade"])
def test_migrations_without_a_database_are_refused(argument, tmp_path):
    process = alembic(
        argument,
        "0001:base" if argument == "downgrade" else "head",
        "--sql",
        url=f"sqlite:///{tmp_path}/a.db",
    )
    assert "Offline migrations (--sql) are not supported" in process.communicate()[1]
    assert process.returncode == 1
