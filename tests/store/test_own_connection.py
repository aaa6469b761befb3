import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import event, text

from proxy.errors import Conflict
from proxy.store import db
from proxy.store.db import Database, StoreUnavailable
from proxy.store.own_connection import OwnConnection
from tests.builders import VAULT

WRITE = "INSERT OR REPLACE INTO state_write VALUES (1, 9)"
READ = text("SELECT number FROM state_write")


@pytest.fixture
def own(database):
    own = OwnConnection(database)
    yield own
    own.close()


def numbers(connection):
    return list(connection.scalars(READ))


# Whether others wrote.


def test_at_the_first_look_others_wrote_and_at_the_second_they_did_not(own):
    assert [own.others_wrote(), own.others_wrote()] == [True, False]


def test_what_another_process_committed_is_seen_once(own, other_process):
    own.others_wrote()
    other_process.execute(WRITE)
    assert [own.others_wrote(), own.others_wrote()] == [True, False]


def test_what_this_process_committed_on_another_connection_is_seen(own, database):
    own.others_wrote()
    with database.write() as connection:
        connection.execute(text(WRITE))
    assert [own.others_wrote(), own.others_wrote()] == [True, False]


def test_what_was_committed_on_it_is_not_by_others(own, database):
    own.others_wrote()
    with database.write(on=own.for_transactions) as connection:
        connection.execute(text(WRITE))
    assert not own.others_wrote()


def test_what_was_rolled_back_is_not_written(own, other_process):
    own.others_wrote()
    other_process.execute("BEGIN IMMEDIATE")
    other_process.execute(WRITE)
    assert not own.others_wrote()
    other_process.execute("ROLLBACK")
    assert not own.others_wrote()


@pytest.mark.parametrize("transaction", ["read", "write"])
def test_what_others_wrote_can_be_read(transaction, own, database, other_process):
    own.others_wrote()
    other_process.execute(WRITE)
    assert own.others_wrote()
    with getattr(database, transaction)(on=own.for_transactions) as connection:
        assert numbers(connection) == [9]


def test_a_look_after_a_write_takes_no_lock(own, database, other_process):
    with database.write(on=own.for_transactions) as connection:
        connection.execute(text(WRITE))
    other_process.execute("BEGIN IMMEDIATE")
    assert own.others_wrote()
    other_process.execute("ROLLBACK")


def test_a_look_holds_no_snapshot_that_would_keep_the_log_growing(own, other_process):
    own.others_wrote()
    other_process.execute(WRITE)
    busy, _, _ = other_process.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy


# Transactions on it.


def test_transactions_follow_each_other_on_one_connection(own, database, statements):
    asked, taken = statements(database), []
    event.listen(database.engine, "checkout", lambda *_: taken.append(1))
    for number in (1, 2):
        with database.write(on=own.for_transactions) as connection:
            connection.execute(text(f"INSERT OR REPLACE INTO state_write VALUES (1, {number})"))
        with database.read(on=own.for_transactions) as connection:
            assert numbers(connection) == [number]
    begins = [each for each in asked if each.startswith("BEGIN")]
    assert begins == ["BEGIN", "BEGIN IMMEDIATE", "BEGIN"]  # and one before it was listened to
    assert not taken  # of the pool


def test_a_read_on_it_keeps_nobody_from_writing(own, database, other_process):
    with database.write(on=own.for_transactions):
        pass
    with database.read(on=own.for_transactions) as connection:
        assert numbers(connection) == []
        other_process.execute(WRITE)
        assert numbers(connection) == []  # one state of the database
    with database.read(on=own.for_transactions) as connection:
        assert numbers(connection) == [9]


def test_after_a_failure_nothing_is_written_and_the_lock_is_given_back(
    own, database, other_process
):
    def fail():
        with database.write(on=own.for_transactions) as connection:
            connection.execute(text(WRITE))
            raise Conflict("no")

    with pytest.raises(Conflict):
        fail()
    other_process.execute("BEGIN IMMEDIATE")
    assert numbers_of(other_process) == []
    other_process.execute("ROLLBACK")
    with database.write(on=own.for_transactions) as connection:
        connection.execute(text(WRITE))
    assert numbers_of(other_process) == [(9,)]


def numbers_of(process):
    return process.execute(READ.text).fetchall()


def test_one_that_finds_the_database_locked_is_closed_and_another_works(
    database_file, other_process, monkeypatch
):
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 1)
    database = Database(f"sqlite:///{database_file}", VAULT)
    other_process.execute("BEGIN IMMEDIATE")
    own = OwnConnection(database)
    with (
        pytest.raises(StoreUnavailable, match="locked"),
        database.write(on=own.for_transactions),
    ):
        pass
    own.close()
    other_process.execute("ROLLBACK")
    own = OwnConnection(database)
    with database.write(on=own.for_transactions) as connection:
        connection.execute(text(WRITE))
    own.close()
    database.dispose()
    assert numbers_of(other_process) == [(9,)]


def test_it_is_closed_by_close_also_after_a_dispose(database, database_file):
    own = OwnConnection(database)
    own.others_wrote()
    database.dispose()
    own.close()
    links = (os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())
    assert [each for each in links if each.startswith(str(database_file))] == []


def test_the_log_of_changes_outlives_it(database, database_file):
    """Where the disk is full nobody could make it anew."""
    own = OwnConnection(database)
    with database.write(on=own.for_transactions) as connection:
        connection.execute(text(WRITE))
    own.close()
    assert Path(f"{database_file}-wal").stat().st_size > 0
    assert Path(f"{database_file}-shm").exists()


def test_one_that_cannot_be_rolled_back_is_closed_all_the_same(
    database, other_process, monkeypatch
):
    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    own = OwnConnection(database)
    with monkeypatch.context() as patch:
        patch.setattr(database.engine.dialect, "do_commit", fail)
        patch.setattr(database.engine.dialect, "do_rollback", fail)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            write_on(own, database)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other_process.execute("BEGIN IMMEDIATE")
        own.close()
    other_process.execute("BEGIN IMMEDIATE")
    assert numbers_of(other_process) == []
    other_process.execute("ROLLBACK")


def write_on(own, database):
    with database.write(on=own.for_transactions) as connection:
        connection.execute(text(WRITE))


def test_of_a_server_there_is_none_and_each_look_is_a_change():
    server = SimpleNamespace(dialect=SimpleNamespace(name="postgresql"))  # nobody connects
    own = OwnConnection(SimpleNamespace(engine=server))
    assert own.for_transactions is None
    assert [own.others_wrote(), own.others_wrote()] == [True, True]
    own.close()
