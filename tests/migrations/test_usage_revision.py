"""From 0009 to 0010 and back: usage is rolled up, and stays."""

from contextlib import closing
from sqlite3 import connect

import pytest
from alembic import command

from proxy.store import schema, usage
from proxy.store.db import Database
from tests.builders import VAULT

DAY = 1_699_920_000
MINUTES = (
    (DAY, "a", "gpt-4o", "app"),
    (DAY + 3660, "a", "o1", "app"),
    (DAY + 90_000, "", "o1", "b"),
)


@pytest.fixture
def old(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/old/proxy.db", VAULT)
    with schema.migrating(database):
        command.upgrade(schema.alembic_config(database), "0009")
    with closing(connect(database.file)) as connection:
        for number, key in enumerate(MINUTES, 1):
            counts = [number] * 15
            marks = ", ".join("?" * (4 + len(counts)))
            connection.execute(f"INSERT INTO usage_minute VALUES ({marks})", [*key, *counts])
        connection.commit()
    yield database
    database.dispose()


def rows(database, query):
    with closing(connect(database.file)) as connection:
        return connection.execute(query).fetchall()


def test_what_was_counted_by_minute_is_rolled_up(old):
    schema.upgrade(old)
    who = "instance_name, model, client_name, requests"
    assert rows(old, f"SELECT minute_at, {who}, lost FROM usage_minute") == [
        (*key, number, 0) for number, key in enumerate(MINUTES, 1)
    ]
    assert rows(old, f"SELECT hour_at, {who} FROM usage_hour ORDER BY hour_at") == [
        (DAY, "a", "gpt-4o", "app", 1),
        (DAY + 3600, "a", "o1", "app", 2),
        (DAY + 90_000, "", "o1", "b", 3),
    ]
    series = "SELECT begins_at, name, requests FROM usage_series WHERE period_seconds ="
    assert rows(old, f"{series} 86400 AND dimension = 'model' ORDER BY 1, 2") == [
        *((DAY, "gpt-4o", 1), (DAY, "o1", 2), (DAY + 86_400, "o1", 3))
    ]
    assert rows(old, f"{series} 86400 AND dimension = ''") == [
        (DAY, "", 3),
        (DAY + 86_400, "", 3),
    ]
    assert rows(old, f"{series} 60 AND dimension = 'client'") == [
        (key[0], key[3], number) for number, key in enumerate(MINUTES, 1)
    ]
    pairs = "SELECT pair, day_at, name, other_name, requests FROM usage_pair ORDER BY 1, 3, 4"
    assert rows(old, pairs) == [  # of days that are over
        ("instance,client", DAY, "a", "app", 3),
        ("instance,model", DAY, "a", "gpt-4o", 1),
        ("instance,model", DAY, "a", "o1", 2),
        ("model,client", DAY, "gpt-4o", "app", 1),
        ("model,client", DAY, "o1", "app", 2),
    ]
    with old.read() as connection:
        assert usage.rolled_until(connection) == MINUTES[-1][0] + 60
        assert sum(c["cost_nano"] for c in usage.totals(connection).values()) == 6


def test_going_back_keeps_the_minutes(old):
    before = rows(old, "SELECT * FROM usage_minute ORDER BY 1")
    tables = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
    made = rows(old, tables)
    schema.upgrade(old)
    with schema.migrating(old):
        command.downgrade(schema.alembic_config(old), "0009")
    assert rows(old, "SELECT * FROM usage_minute ORDER BY 1") == before
    assert rows(old, tables) == made
