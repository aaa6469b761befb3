"""From 0011 to 0012 and back: what was added to seconds is in a journal."""

from contextlib import closing
from sqlite3 import connect

import pytest
from alembic import command

from proxy.core.deltas import Deltas
from proxy.store import schema, states
from proxy.store.db import Database
from proxy.store.held import Held
from tests.builders import VAULT

SECOND = 1_700_000_000
SUMS = [(SECOND, "a", "gpt", 30, 2), (SECOND - 1, "b", "", 5, 1)]


@pytest.fixture
def old(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/old/proxy.db", VAULT)
    with schema.migrating(database):
        command.upgrade(schema.alembic_config(database), "0011")
    yield database
    database.dispose()


def execute(database, query, rows=()):
    with closing(connect(database.file)) as connection:
        connection.executemany(query, rows)
        connection.commit()


def tables(database):
    query = "SELECT type, name FROM sqlite_master ORDER BY 1, 2"
    with closing(connect(database.file)) as connection:
        return connection.execute(query).fetchall()


def test_limits_know_after_it_what_was_used_before(old):
    execute(old, "INSERT INTO state_window VALUES (?, ?, ?, ?, ?, 7)", SUMS)
    schema.upgrade(old)
    with old.read() as connection:
        found = states.read(connection, SECOND + 0.5)
    assert sorted(map(tuple, found.windows)) == sorted(SUMS)
    with old.write() as connection:
        states.forget_old(connection, SECOND + states.KEPT_WINDOW_SECONDS + 1)
        assert states.read(connection, SECOND).windows == []


def test_where_nothing_was_used_the_journal_is_empty(old):
    schema.upgrade(old)
    with old.read() as connection:
        assert states.read(connection, SECOND).windows == []


def test_going_back_makes_the_tables_that_were(old):
    before = tables(old)
    schema.upgrade(old)
    assert tables(old) != before
    with schema.migrating(old):
        command.downgrade(schema.alembic_config(old), "0011")
    assert tables(old) == before


def test_what_a_killed_gateway_left_is_added_before_its_table_goes(old):
    schema.upgrade(old)
    deltas = Deltas()
    for number in range(100):
        deltas.add_totals(f"{number:03}", {"total_requests": 7})
        deltas.add_usage((60, f"{number:03}", "gpt", "app"), {"attempts": 7})
    with old.write() as connection:
        Held().exchange(connection, deltas, SECOND)
    assert sums(old) == (None, None)
    with schema.migrating(old):
        command.downgrade(schema.alembic_config(old), "0011")
    assert sums(old) == (700, 700)


def sums(database):
    with closing(connect(database.file)) as connection:
        (total,) = connection.execute("SELECT sum(total_requests) FROM instance_state")
        (used,) = connection.execute("SELECT sum(attempts) FROM usage_minute")
    return total[0], used[0]
