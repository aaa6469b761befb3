import os
import shutil
import sqlite3
from contextlib import ExitStack
from threading import Thread

import pytest
from sqlalchemy import URL, insert, text

from proxy.core.deltas import Deltas
from proxy.errors import Conflict
from proxy.settings import SettingError
from proxy.store import db, states
from proxy.store.db import Database, StoreUnavailable, translated
from proxy.store.models import ClientKeyRow
from tests.builders import VAULT

# As another program would write it.
ADD_B = """
INSERT INTO client_key VALUES (
  1, 'b', 'h', '1', 1.0, '[]', 1, NULL, '[]', '[]', '[]', 0, 0, 0, 0, 0, 0.0, 0.0, 'raw', '{}',
  1.0, 1
)
"""
KEY = {
    "name": "app",
    "key_hash": "hash-of-a-key",
    "key_hint": "1234",
    "created_at": 1.0,
    "updated_at": 1.0,
    "revision": 1,
}


def add_key(connection, *names):
    for name in names or ["app"]:
        connection.execute(insert(ClientKeyRow).values(KEY | {"name": name}))


def add_key_and_fail(session):
    session.add(ClientKeyRow(**KEY))
    session.flush()
    raise Conflict("no")


def names(database):
    with database.read() as connection:
        return list(connection.scalars(text("SELECT name FROM client_key ORDER BY id")))


@pytest.fixture
def impatient(database_file, monkeypatch):
    """A database that does not wait for others."""
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 1)
    database = Database(f"sqlite:///{database_file}", VAULT)
    yield database
    database.dispose()


def test_what_was_written_is_read(database):
    with database.write() as connection:
        add_key(connection)
    assert names(database) == ["app"]


def test_what_was_only_read_leaves_no_trace(database):
    with database.read() as connection:
        add_key(connection)
    assert names(database) == []


def test_a_failed_write_writes_nothing_and_gives_the_lock_back(database, other_process):
    with pytest.raises(StoreUnavailable), database.write() as connection:
        add_key(connection, "first", "second")  # with the same hash
    assert names(database) == []
    other_process.execute("BEGIN IMMEDIATE")


def test_our_own_errors_pass_unchanged_and_nothing_is_written(database, other_process):
    with pytest.raises(Conflict), database.session() as session:
        add_key_and_fail(session)
    assert names(database) == []
    other_process.execute("BEGIN IMMEDIATE")


def test_a_session_writes_what_was_only_added_to_it(database):
    with database.session() as session:
        session.add(ClientKeyRow(**KEY))
    assert names(database) == ["app"]


def test_what_a_session_cannot_write_at_its_end_is_unavailable_too(database):
    with pytest.raises(StoreUnavailable), database.session() as session:
        session.add_all([ClientKeyRow(**KEY), ClientKeyRow(**KEY)])
    assert names(database) == []


def test_a_write_holds_the_lock_before_its_first_statement(database, other_process):
    with database.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other_process.execute("BEGIN IMMEDIATE")


def test_a_locked_database_is_unavailable_for_writing_until_the_lock_is_gone(
    impatient, other_process
):
    other_process.execute("BEGIN IMMEDIATE")
    # More often than the pool has connections: none may be lost.
    for _ in range(20):
        with pytest.raises(StoreUnavailable) as caught, impatient.write():
            pytest.fail("there is no lock to be had")
    assert caught.value.message == "The database cannot be used: database is locked."
    other_process.execute("ROLLBACK")
    with impatient.write() as connection:
        add_key(connection)
    assert names(impatient) == ["app"]


def test_reading_goes_on_while_another_process_writes(impatient, other_process):
    with impatient.write() as connection:
        add_key(connection)
    other_process.execute("BEGIN IMMEDIATE")
    other_process.execute("DELETE FROM client_key")
    assert names(impatient) == ["app"]


def test_another_process_writes_while_we_read(database, other_process):
    with database.read() as connection:
        connection.execute(text("SELECT * FROM client_key"))
        other_process.execute(ADD_B)
    assert names(database) == ["b"]


def test_a_write_sees_what_others_wrote_before_it(database, other_process):
    with database.read() as connection:
        connection.execute(text("SELECT * FROM client_key"))
    other_process.execute(ADD_B)
    with database.write() as connection:
        assert connection.scalar(text("SELECT count(*) FROM client_key")) == 1


def test_an_error_does_not_tell_statement_or_values(database):
    with pytest.raises(StoreUnavailable) as caught, database.write() as connection:
        add_key(connection, "first", "second")
    assert caught.value.message == (
        "The database cannot be used: UNIQUE constraint failed: client_key.key_hash."
    )
    assert (caught.value.status, caught.value.code) == (503, "database_unavailable")


def test_when_all_connections_are_in_use_one_more_is_unavailable(impatient):
    with ExitStack() as held:
        for _ in range(15):
            held.enter_context(impatient.read())
        with pytest.raises(StoreUnavailable, match="TimeoutError"):
            names(impatient)
    assert names(impatient) == []


def test_nobody_waits_for_another_longer_than_the_busy_timeout(impatient):
    # Else a locked database would hold those who only read for as long as the pool allows.
    assert impatient.engine.pool.timeout() == 0.001
    with impatient.read() as connection:
        assert connection.scalar(text("PRAGMA busy_timeout")) == 1


def test_a_commit_waits_for_the_disk_only_at_checkpoints(database):
    with database.write() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 1  # NORMAL


def test_threads_never_lose_an_addition(database):
    def add():
        for _ in range(5):
            deltas = Deltas()
            deltas.add_totals("a", {"total_requests": 1})
            with database.write() as connection:
                states.add(connection, deltas)

    threads = [Thread(target=add) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert states.read_one(connection, "a").totals["total_requests"] == 200


def test_after_dispose_it_can_be_used_again(database):
    with database.write() as connection:
        add_key(connection)
    database.dispose()
    assert database.engine.pool.checkedin() == 0
    assert names(database) == ["app"]


def test_dispose_leaves_one_file_behind(database, database_file):
    with database.write() as connection:
        add_key(connection)
    database.dispose()
    assert [p.name for p in database_file.parent.iterdir()] == ["proxy.db"]


def test_a_database_is_made_without_connecting(tmp_path):
    Database(f"sqlite:///{tmp_path}/new.db", VAULT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url, named",
    [
        ("nosuch://user:hunter2@host/db", "nosuch"),
        ("sqlite+nosuch:///hunter2.db", "nosuch"),
        ("hunter2", "parse"),
    ],
)
def test_a_url_of_which_no_engine_can_be_made_is_a_bad_setting(url, named):
    with pytest.raises(SettingError, match=named) as caught:
        Database(url)
    assert str(caught.value).startswith("PROXY_DATABASE_URL: ")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


# A file that goes away, or becomes another.


def test_a_deleted_file_is_unavailable_and_not_made_anew(database, database_file):
    with database.write() as connection:
        connection.exec_driver_sql("SELECT 1")
    os.rename(database_file, aside := f"{database_file}.aside")
    for transaction in (database.read, database.write):
        with pytest.raises(StoreUnavailable, match="unable to open"), transaction():
            pass
    assert not os.path.exists(database_file)
    os.rename(aside, database_file)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_file_that_took_the_others_place_is_opened(database, database_file, migrated_file):
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'old'")
    shutil.copy(migrated_file, copy := f"{database_file}.copy")
    for side in ("-wal", "-shm"):  # of the old one, as whoever restores takes away
        os.remove(f"{database_file}{side}")
    os.replace(copy, database_file)
    with database.read() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    assert found != "old"


def test_what_is_in_use_while_all_is_disposed_of_is_closed_when_it_is_not(database):
    with database.read() as connection:
        driver = connection.connection.dbapi_connection
        database.dispose()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        driver.execute("SELECT 1")
    with database.read() as connection:
        kept = connection.connection.dbapi_connection
    kept.execute("SELECT 1").close()


@pytest.mark.parametrize("name", ["a b.db", "a?b#c%20.db", "\u00e4.db"])
def test_any_name_can_be_opened(name, tmp_path, migrated_file):
    shutil.copy(migrated_file, tmp_path / name)
    url = URL.create("sqlite", database=str(tmp_path / name))
    database = Database(url.render_as_string())
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM instance_config").scalar() == 0
    database.dispose()


def test_a_full_disk_is_unavailable_and_loses_only_what_was_being_written(database):
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE big (data)")
    writing = database.engine.execution_options(writes=True)
    with writing.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        connection.rollback()
        with (
            pytest.raises(StoreUnavailable, match="database or disk is full"),
            translated(),
            connection.begin(),
        ):
            connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(100000))")
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM big").scalar() == 0


def test_a_connection_sets_the_journal_once(database, statements):
    asked = statements(database)
    for _ in range(3):
        with database.write():
            pass
    assert asked.count("PRAGMA journal_mode = WAL") == 1
    assert asked.count("BEGIN IMMEDIATE") == 3
