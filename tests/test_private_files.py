"""What is written is nobody else's to read, whatever the umask."""

import logging
import os
import sys
from contextlib import closing
from sqlite3 import connect

import pytest
from alembic import command

from proxy.logs import LOGGER, LogWriter
from proxy.settings import ROOT
from proxy.store import instances, schema
from proxy.store.db import Database
from proxy.store.vault import Vault
from tests.builders import AUTHOR, config
from tests.migrations.legacy.files import RECORD, STATE, write
from tests.web.conftest import log_kept

# A script finds its own folder by itself; this is no script.
sys.path.append(str(ROOT / "scripts"))

import backup_monitor

FILE, FOLDER = 0o600, 0o700


@pytest.fixture(autouse=True)
def no_umask():
    """The most permissive: files get the mode that they are made with."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def home(tmp_path):
    """Where nothing is yet."""
    return tmp_path / "new" / "home"


@pytest.fixture
def database(home):
    database = Database(f"sqlite:///{home}/proxy.db", Vault(path=home / "secret.key"))
    yield database
    database.dispose()


def modes(folder):
    """{name: mode} of what is in it."""
    return {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()}


def mode(path):
    return path.stat().st_mode & 0o777


def test_the_database_its_side_files_and_the_key(home, database):
    schema.upgrade(database)
    with database.session() as session:
        instances.add(session, [config()], author=AUTHOR)
        with closing(connect(home / "proxy.db")) as other:
            other.execute("SELECT * FROM instance_config").fetchall()
            assert modes(home) == dict.fromkeys(
                ("proxy.db", "proxy.db-wal", "proxy.db-shm", "secret.key"), FILE
            )
    assert (mode(home), mode(home.parent)) == (FOLDER, FOLDER)


def test_a_journal_of_a_database_that_is_no_wal(home, database):
    """As SQLite makes it while a backup is copied, say."""
    schema.make_private(home / "proxy.db")
    with closing(connect(home / "proxy.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        assert modes(home) == {"proxy.db": FILE, "proxy.db-journal": FILE}
        connection.execute("ROLLBACK")


def test_a_new_key_beside_older_ones(home):
    vault = Vault(path=home / "secret.key")
    vault.make_key()
    vault.add_key()
    vault.forget_old()
    assert modes(home) == {"secret.key": FILE}


def test_copies_of_old_files_and_those_of_the_way_back(home, database, tmp_path, monkeypatch):
    old = tmp_path / "old"
    write(tmp_path, "old/instance_configs.json", {"a": RECORD})
    write(tmp_path, "old/instance_states.json", {"a": STATE})
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(database)
    with schema.migrating(database):
        command.downgrade(schema.alembic_config(database), "-1")
    folders = [p for p in home.iterdir() if p.is_dir()]
    assert sorted(p.name.partition("_")[0] for p in folders) == ["backup", "downgrade"]
    for folder in folders:
        assert mode(folder) == FOLDER
        assert set(modes(folder).values()) == {FILE}


def test_log_files_rotated_ones_and_their_lock(home, make_settings):
    with log_kept():
        writer = LogWriter(make_settings(log_dir=home, log_max_bytes=10_000))
        writer.check()
        writer.start()
        for _ in range(4):
            for _ in range(30):
                logging.getLogger("proxy.tests").warning("%s", "x" * 300)
            writer._waiting.write()
        writer.stop()
        assert LOGGER.handlers
    found = modes(home)
    assert {"proxy.log", "proxy.log.1"} <= found.keys()
    assert set(found.values()) == {FILE}
    assert mode(home) == FOLDER


def test_backups_what_is_restored_and_what_was_there(home, database, monkeypatch, capsys):
    schema.upgrade(database)
    database.dispose()
    monkeypatch.setenv("PROXY_DATABASE_URL", str(database.url))
    backups = home / "backups"
    assert backup_monitor.main(["backup", "--folder", str(backups)]) == 0
    assert backup_monitor.main(["restore", "--newest", "--folder", str(backups)]) == 0
    for folder in (home, backups):
        assert mode(folder) == FOLDER
    files = modes(home) | modes(backups)
    assert set(files.values()) - {FOLDER} == {FILE}
    assert any("before-restore" in name for name in files)
    log = home / "alerts.log"
    backup_monitor.main(
        ["monitor", "--folder", str(home / "none"), "--log", str(log), "--database", "/none"]
    )
    assert mode(log) == FILE
    capsys.readouterr()
