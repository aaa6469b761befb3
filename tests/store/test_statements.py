from types import SimpleNamespace

import pytest
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects import postgresql

from proxy.store.db import StoreUnavailable
from proxy.store.models import ClientKeyRow, InstanceStateRow
from proxy.store.statements import Prepared, upsert
from tests.store.test_db import ADD_B, add_key


def test_no_rows_are_no_statement(database):
    with database.read() as connection:
        upsert(connection, InstanceStateRow, [], lambda present, given: {})


def add_requests(present, given):
    return {"total_requests": present.c.total_requests + given.total_requests}


def test_an_upsert_inserts_what_is_new_and_merges_what_is_there(database):
    def write(*rows):
        with database.write() as connection:
            upsert(
                connection,
                InstanceStateRow,
                rows,
                add_requests,
            )

    write({"instance_name": "a", "total_requests": 1})
    write(
        {"instance_name": "a", "total_requests": 2}, {"instance_name": "b", "total_requests": 4}
    )
    with database.read() as connection:
        found = connection.execute(
            text("SELECT instance_name, total_requests FROM instance_state ORDER BY 1")
        ).all()
    assert found == [("a", 3), ("b", 4)]


FIND = Prepared(select(ClientKeyRow.name).where(ClientKeyRow.id == bindparam("number")))


def test_a_prepared_statement_is_executed_in_the_transaction_of_its_connection(database):
    with database.write() as connection:
        with connection.begin_nested() as inner:
            add_key(connection)
            assert FIND.rows(connection, number=1) == [("app",)]
            inner.rollback()
        assert FIND.rows(connection, number=1) == []
    with database.read() as connection:
        assert FIND.rows(connection, number=1) == []


def test_a_read_that_begins_with_one_sees_one_state_of_the_database(database, other_process):
    with database.read() as connection:
        FIND.rows(connection, number=1)
        other_process.execute(ADD_B)
        assert FIND.rows(connection, number=1) == []


def test_what_the_driver_raises_is_unavailable(database):
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE client_key")
    with pytest.raises(StoreUnavailable, match="no such table"), database.read() as connection:
        FIND.rows(connection, number=1)


def test_an_upsert_fills_in_what_a_table_has_by_default(database):
    with database.write() as connection:
        upsert(connection, InstanceStateRow, [{"instance_name": "a"}], keep)
    with database.read() as connection:
        found = connection.execute(text("SELECT total_requests FROM instance_state")).scalar()
    assert found == 0


def keep(present, _given):
    return {"total_requests": present.c.total_requests}


class Recorded:
    """A connection of another dialect, whose cursor keeps what it is given."""

    def __init__(self, dialect):
        self.dialect = dialect
        self.dialect.loaded_dbapi = SimpleNamespace(Error=ZeroDivisionError)
        self.connection = SimpleNamespace(cursor=lambda: self)
        self.given = []

    def in_transaction(self):
        return True

    def executemany(self, sql, rows):
        self.given.append((sql, rows))

    def close(self):
        pass


def test_postgresql_gets_its_own_words_and_values_by_name():
    connection = Recorded(postgresql.dialect())
    upsert(connection, InstanceStateRow, [{"instance_name": "a"}], keep)
    ((sql, (row,)),) = connection.given
    assert "ON CONFLICT (instance_name) DO UPDATE" in sql
    assert "%(instance_name)s" in sql
    assert (row["instance_name"], row["total_requests"]) == ("a", 0)
