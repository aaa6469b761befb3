import os
import sqlite3
import stat
from contextlib import closing

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from proxy.settings import ROOT
from proxy.store import db, schema
from proxy.store.db import Database
from proxy.store.schema import SchemaOutdated, SchemaProblem
from tests.builders import VAULT


@pytest.fixture
def open_database():
    """Databases by path or URL, disposed afterwards."""
    opened = []

    def make(target):
        url = target if "://" in str(target) else f"sqlite:///{target}"
        opened.append(Database(url, VAULT))
        return opened[-1]

    yield make
    for database in opened:
        database.dispose()


def sqlite_file(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def content(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def missing(folder):
    return folder / "proxy.db"


def empty(folder):
    path = folder / "proxy.db"
    path.touch()
    return path


def empty_sqlite(folder):
    return sqlite_file(folder / "proxy.db", "CREATE TABLE t (x)", "DROP TABLE t")


def no_sqlite(folder):
    path = folder / "proxy.db"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 100)
    return path


def short_text(folder):
    path = folder / "proxy.db"
    path.write_text("hello")
    return path


def anothers(folder):
    return sqlite_file(
        folder / "proxy.db", "CREATE TABLE letters (text)", "INSERT INTO letters VALUES ('Hi')"
    )


def anothers_with_alembic(folder):
    return sqlite_file(
        folder / "proxy.db",
        "CREATE TABLE letters (text)",
        "CREATE TABLE alembic_version (version_num)",
        "INSERT INTO alembic_version VALUES ('0001')",
    )


def newer(folder):
    return sqlite_file(
        folder / "proxy.db",
        "CREATE TABLE alembic_version (version_num)",
        "CREATE TABLE instance_config (name)",
        "INSERT INTO alembic_version VALUES ('9999')",
    )


def a_folder(folder):
    path = folder / "proxy.db"
    path.mkdir()
    return path


HOPELESS = [
    # What it is, what the message says of it, what it says to do.
    (no_sqlite, "cannot be used: file is not a database", "set PROXY_DATABASE_URL"),
    (short_text, "cannot be used: file is not a database", "restore a backup"),
    (a_folder, "cannot be used: unable to open database file", "set PROXY_DATABASE_URL"),
    (anothers, "is the database of another program", "Set PROXY_DATABASE_URL to another one."),
    (anothers_with_alembic, "is the database of another program", "Set PROXY_DATABASE_URL"),
    (newer, "newer version of the proxy (schema 9999", "Start that version, or restore"),
]
UPGRADABLE = [
    (missing, "does not exist"),
    (empty, "has schema none, needed is"),
    (empty_sqlite, "has schema none, needed is"),
]


def test_a_migrated_database_is_fine_and_checking_it_changes_nothing(database, database_file):
    before = content(database_file.parent)
    schema.check(database)
    database.dispose()
    assert content(database_file.parent) == before


@pytest.mark.parametrize("make, said, remedy", HOPELESS)
@pytest.mark.parametrize("act", [schema.check, schema.upgrade])
def test_what_is_not_for_us_is_refused_and_left_as_it_is(
    open_database, tmp_path, make, said, remedy, act
):
    path = make(tmp_path)
    before = content(tmp_path)
    database = open_database(path)
    with pytest.raises(SchemaProblem) as caught:
        act(database)
    database.dispose()
    assert not isinstance(caught.value, SchemaOutdated)
    assert content(tmp_path) == before
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert said in message
    assert remedy in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("make, said", UPGRADABLE)
def test_what_an_upgrade_would_help_says_so_and_is_left_as_it_is(
    open_database, tmp_path, make, said
):
    path = make(tmp_path)
    before = content(tmp_path)
    database = open_database(path)
    with pytest.raises(SchemaOutdated) as caught:
        schema.check(database)
    database.dispose()
    assert content(tmp_path) == before
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "`.venv/bin/alembic upgrade head`" in str(caught.value)


@pytest.mark.parametrize("make", [make for make, _ in UPGRADABLE])
def test_an_upgrade_makes_it_fit_also_after_a_look(open_database, tmp_path, make):
    database = open_database(make(tmp_path))
    with pytest.raises(SchemaOutdated):
        schema.check(database)
    schema.upgrade(database)
    schema.check(database)


def test_an_upgrade_makes_the_folders_and_a_file_only_its_owner_can_read(
    open_database, tmp_path
):
    path = tmp_path / "deep" / "down" / "proxy.db"
    database = open_database(path)
    schema.upgrade(database)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    # The write-ahead log holds keys as well.
    assert modes == dict.fromkeys(["proxy.db", "proxy.db-wal", "proxy.db-shm"], 0o600)


def test_an_upgrade_keeps_what_is_in_the_database(database):
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO state_write VALUES (1, 7)")
    schema.upgrade(database)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT number FROM state_write").scalar() == 7


def test_a_database_that_can_only_be_read_is_refused_at_once(open_database, database_file):
    database = open_database(f"sqlite:///file:{database_file}?mode=ro&uri=true")
    with pytest.raises(SchemaProblem, match="readonly") as caught:
        schema.check(database)
    assert "Give the proxy's user the right to write" in str(caught.value)


def test_a_missing_database_that_can_only_be_read_is_not_made(open_database, tmp_path):
    database = open_database(f"sqlite:///file:{tmp_path}/no.db?mode=ro&uri=true")
    with pytest.raises(SchemaProblem, match="unable to open"):
        schema.check(database)
    assert content(tmp_path) == {}


def test_a_folder_that_cannot_be_made_is_a_problem(open_database, tmp_path):
    (tmp_path / "file").touch()
    database = open_database(tmp_path / "file" / "proxy.db")
    with pytest.raises(SchemaProblem, match="set PROXY_DATABASE_URL"):
        schema.upgrade(database)


def test_a_database_that_another_process_is_writing_is_not_upgraded(
    open_database, tmp_path, monkeypatch
):
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 1)
    path = empty_sqlite(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SchemaProblem, match="cannot be migrated: database is locked"):
            schema.upgrade(open_database(path))


def test_a_present_file_is_not_opened_besides_sqlite(database, database_file, monkeypatch):
    # To close it would end this process' locks on it.
    closed = []
    monkeypatch.setattr(os, "close", closed.append)
    schema.make_private(database_file)
    assert closed == []


@pytest.mark.parametrize(
    "url, path",
    [
        ("sqlite:////var/proxy.db", "/var/proxy.db"),
        ("sqlite+pysqlite:////var/proxy.db?timeout=1", "/var/proxy.db"),
        ("sqlite:///file:/var/proxy.db?uri=true", None),
    ],
)
def test_the_file_of_a_url(url, path):
    found = schema.sqlite_path(Database(url))
    assert found == path if path is None else str(found) == path


def test_the_known_revisions_are_alembics():
    scripts = ScriptDirectory(str(ROOT / "migrations"))
    assert schema._known_revisions() == {s.revision for s in scripts.walk_revisions()}
    assert max(schema._known_revisions()) == scripts.get_current_head()


def test_a_file_that_another_connection_has_open_is_in_use(database):
    with database.read():
        pass  # the pool keeps its connection open
    other = Database(str(database.url), VAULT)
    with pytest.raises(SchemaProblem, match="is in use: stop the gateway, and what else"):
        schema.check_alone(other)
    database.dispose()
    schema.check_alone(other)


@pytest.mark.parametrize("make", [missing, empty, empty_sqlite, no_sqlite])
def test_a_file_that_nobody_has_open_is_not(tmp_path, make, open_database):
    before = content(tmp_path) if make(tmp_path).exists() else {}
    schema.check_alone(open_database(tmp_path / "proxy.db"))
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "make", [no_sqlite, lambda folder: folder.joinpath("proxy.db").mkdir()]
)
def test_what_cannot_be_looked_into_is_told_by_who_works_with_it(tmp_path, make, open_database):
    make(tmp_path)
    database = open_database(tmp_path / "proxy.db")
    schema.check_alone(database)
    with pytest.raises(SchemaProblem, match="cannot be used"), schema.migrating(database):
        pass


@pytest.mark.parametrize(
    "code, remedy",
    [
        (sqlite3.SQLITE_FULL, "whether there is room on its disk"),
        (sqlite3.SQLITE_IOERR_WRITE, "whether there is room on its disk"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "the right to write the file and its folder"),
        (sqlite3.SQLITE_CANTOPEN, "the right to write the file and its folder"),
        (sqlite3.SQLITE_BUSY, "Stop what else uses it"),
        (sqlite3.SQLITE_CORRUPT, "move it aside or restore a backup"),
        (sqlite3.SQLITE_NOTADB, "set PROXY_DATABASE_URL; if it is, move it aside"),
    ],
)
def test_the_remedy_is_for_what_went_wrong(code, remedy, database, monkeypatch):
    cause = sqlite3.DatabaseError("it went wrong")
    cause.sqlite_errorcode = code

    def fail(*_):
        raise DBAPIError("SELECT", {}, cause)

    monkeypatch.setattr(schema, "inspect", fail)
    with pytest.raises(SchemaProblem, match=f"it went wrong. .*{remedy}"):
        schema.check(database)


def test_nor_is_what_is_no_file(open_database):
    schema.check_alone(open_database("sqlite://"))
