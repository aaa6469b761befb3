"""From 0007 to 0008 and back: secrets are encrypted, hashes keyed, revisions apart."""

import hashlib
import json
from contextlib import closing
from sqlite3 import connect

import pytest
from alembic import command

from migrations.legacy.run import import_legacy
from proxy.store import instances, keys, revisions, schema
from proxy.store.db import Database
from proxy.store.models import InstanceRow, RevisionChangeRow
from proxy.store.vault import MARK, Vault, new_key
from tests.builders import AUTHOR, config
from tests.migrations.legacy.files import RECORD, write
from tests.migrations.test_import_revision import downgrade, folders, revision

SECRET = "sk-planted-secret-0123456789"
PROXY = "http://user:planted-password@proxy:3128"
EXTRA = {"tags": ["x"], "old_secret": "planted-extra-0123"}
CLIENT_KEY = "gw-a-key-from-before"
DIGEST = hashlib.sha256(CLIENT_KEY.encode()).hexdigest()

# As the program of 0007 wrote them.
ROW = {
    "name": "a",
    "provider_type": "azure",
    "api_key": SECRET,
    "api_base": "https://a.openai.azure.com",
    "api_version": "2024-10-21",
    "proxy_url": PROXY,
    "priority": 100,
    "weight": 100,
    "max_tpm": 0,
    "max_input_tokens": 0,
    "supported_models": "[]",
    "model_deployments": "{}",
    "enabled": 1,
    "timeout_seconds": 60.0,
    "retry_count": 3,
    "rate_limit_enabled": 1,
    "max_rpm": 0,
    "model_limits": "{}",
    "created_at": 1.0,
    "updated_at": 2.0,
    "revision": 1,
    "legacy_extra": json.dumps(EXTRA),
}
CHANGES = {"weight": [100, 5], "api_key": ["***0000", "***6789"]}
REVISIONS = [
    (1, 1.0, "admin", "instance added", "a", json.dumps({"api_key": [None, "***6789"]})),
    (2, 2.0, "admin", "instance changed", "a", json.dumps(CHANGES)),
    (3, 3.0, "admin", "quota group added", "g", json.dumps({"max_tpm": [0, 5]})),
    (4, 4.0, "command line", "key added", "app", "{}"),
    (9, 9.0, "migration", "instance imported", "b", "{}"),
]


@pytest.fixture
def vault(tmp_path):
    return Vault(path=tmp_path / "new" / "secret.key")


@pytest.fixture
def old(tmp_path, vault):
    """A database of the program before secrets were encrypted."""
    database = Database(f"sqlite:///{tmp_path}/new/proxy.db", vault)
    with schema.migrating(database):
        command.upgrade(schema.alembic_config(database), "0007")
    with closing(connect(database.file)) as connection:
        for name in ("a", "plain"):
            row = ROW if name == "a" else ROW | {"name": name, **PLAIN}
            marks = ", ".join("?" * len(row))
            connection.execute(
                f"INSERT INTO instance_config ({', '.join(row)}) VALUES ({marks})",
                list(row.values()),
            )
        connection.executemany("INSERT INTO config_revision VALUES (?,?,?,?,?,?)", REVISIONS)
        connection.execute(
            "INSERT INTO client_key (name, key_hash, key_hint, created_at) VALUES (?,?,?,?)",
            ("app", DIGEST, "fore", 7.0),
        )
        connection.commit()
    yield database
    database.dispose()


PLAIN = {"api_key": "NONE", "proxy_url": None, "legacy_extra": None}


def rows(database, query):
    with closing(connect(database.file)) as connection:
        return connection.execute(query).fetchall()


def configs(database):
    with database.read() as connection:
        return {s.config.name: s.config for s in instances.load_all(connection)}


SECRETS = "SELECT api_key, proxy_url, legacy_extra FROM instance_config ORDER BY name"


def test_secrets_are_encrypted_where_they_are_and_say_what_they_said(old, vault):
    assert not vault.path.exists()
    schema.upgrade(old)
    (sealed, plain) = rows(old, SECRETS)
    assert all(value.startswith(MARK) for value in sealed)
    assert plain == ("NONE", None, None)
    assert (configs(old)["a"].api_key, configs(old)["a"].proxy_url) == (SECRET, PROXY)
    assert configs(old)["plain"].api_key == "NONE"
    with old.session() as session:
        assert session.get(InstanceRow, "a").legacy_extra == EXTRA
    assert vault.path.stat().st_mode & 0o777 == 0o600


def test_nothing_of_a_secret_is_left_in_the_file(old):
    """A page that is free again keeps what it held, unless the file is made anew."""
    schema.upgrade(old)
    old.dispose()
    left = b"".join(path.read_bytes() for path in old.file.parent.glob("proxy.db*"))
    for secret in (SECRET, "planted-password", "planted-extra-0123"):
        assert secret.encode() not in left


def test_the_keys_of_clients_are_known_as_before(old):
    schema.upgrade(old)
    with old.read() as connection:
        pepper = keys.pepper(connection)
        known = keys.load_all(connection)
        client, valid_until = known[keys.key_hash(pepper, CLIENT_KEY)]
        assert (client.name, valid_until) == ("app", None)
    ((stored, updated_at),) = rows(old, "SELECT key_hash, updated_at FROM client_key")
    # Who has the database alone cannot check a key against it.
    assert stored != DIGEST
    assert updated_at == 7.0


def test_revisions_keep_their_numbers_and_what_they_changed(old):
    schema.upgrade(old)
    with old.read() as connection:
        assert revisions.newest(connection) == 9
    with old.session() as session:
        found = [
            (c.revision, c.number, c.kind, c.name, c.changes, c.secrets)
            for c in session.query(RevisionChangeRow).order_by(RevisionChangeRow.revision)
        ]
        assert found == [
            (1, 0, "instance", "a", {"api_key": [None, "***6789"]}, None),
            (2, 0, "instance", "a", CHANGES, None),
            (3, 0, "quota_group", "g", {"max_tpm": [0, 5]}, None),
            (4, 0, "client", "app", {}, None),
            (9, 0, "instance", "b", {}, None),
        ]
        # And go on from there.
        assert instances.add(session, [config("new")], author=AUTHOR) == 10


def test_a_number_that_was_used_is_not_used_again(old):
    schema.upgrade(old)
    with old.write() as connection:
        connection.exec_driver_sql("DELETE FROM config_revision WHERE id > 3")
    with old.session() as session:
        assert instances.add(session, [config("new")], author=AUTHOR) == 10


@pytest.mark.tells_secrets("a downgrade writes them as they were before they were encrypted")
def test_there_and_back_and_there_again_loses_nothing(old, vault, monkeypatch):
    before = rows(old, SECRETS)
    history = rows(old, "SELECT * FROM config_revision")
    schema.upgrade(old)
    key = vault.path.read_bytes()
    downgrade(old, "0007")
    assert rows(old, SECRETS) == before
    assert rows(old, "SELECT * FROM config_revision") == history
    assert revision(old) == ["0007"]
    # What was keyed cannot be taken back: that is said, and keys are made anew.
    assert rows(old, "SELECT * FROM client_key") == []
    schema.upgrade(old)
    schema.check(old)
    assert vault.path.read_bytes() == key
    assert configs(old)["a"].api_key == SECRET
    with old.session() as session:
        assert instances.add(session, [config("new")], author=AUTHOR) == 10


def test_going_back_writes_keys_as_the_old_program_reads_them(old, tmp_path, caplog):
    (tmp_path / "key").write_text("planted-key-in-file\n")
    schema.upgrade(old)
    with old.session() as session:
        more = (
            config("file", api_key=f"file:{tmp_path}/key"),
            config("lost", api_key="env:LOST"),
        )
        instances.add(session, more, author=AUTHOR)
    downgrade(old)
    (folder,) = folders(old, "downgrade")
    path = folder / "instance_configs.json"
    back = json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
    assert (back["a"]["api_key"], back["a"]["proxy_url"]) == (SECRET, PROXY)
    assert back["a"]["old_secret"] == "planted-extra-0123"
    assert back["file"]["api_key"] == "planted-key-in-file"
    assert back["lost"]["api_key"] == "env:LOST"
    assert "leads nowhere, and the old program knows neither; to be mended by hand: lost" in (
        caplog.text
    )
    assert not any(secret in caplog.text for secret in (SECRET, "planted"))


@pytest.mark.parametrize("target", ["-1", "0007"])
def test_going_back_without_the_key_is_refused_and_changes_nothing(old, vault, target):
    schema.upgrade(old)
    old.dispose()
    vault.path.write_text(new_key())
    before = rows(old, SECRETS)
    with pytest.raises(schema.SchemaProblem, match="cannot be decrypted") as caught:
        downgrade(old, target)
    assert SECRET not in str(caught.value)
    assert rows(old, SECRETS) == before
    assert revision(old) != ["0007"]
    assert folders(old, "downgrade") == []


def test_a_folder_in_which_no_key_can_be_kept_stops_the_upgrade(tmp_path):
    write(tmp_path, "file", "")
    vault = Vault(path=tmp_path / "file" / "secret.key")
    database = Database(f"sqlite:///{tmp_path}/proxy.db", vault)
    with pytest.raises(schema.SchemaProblem, match="Set PROXY_SECRET_KEY_FILE to a place"):
        schema.upgrade(database)
    assert revision(database) == []
    database.dispose()


def test_an_import_does_not_write_over_what_cannot_be_decrypted(
    old, vault, tmp_path, monkeypatch
):
    schema.upgrade(old)
    key = vault.path.read_bytes()
    vault.path.write_text(new_key())
    path = write(tmp_path, "s1.json", {"a": RECORD | {"more": 1}})
    downgraded = rows(old, SECRETS)
    with old.write() as connection:
        import_legacy(connection, path, backups=tmp_path / "backups")
    assert rows(old, SECRETS) == downgraded
    vault.path.write_bytes(key)
    assert configs(old)["a"].api_key == SECRET


def test_what_was_imported_before_is_not_imported_again_by_the_setting(
    old, tmp_path, monkeypatch, caplog
):
    """The import's number is another one now; what the setting names may have gone since."""
    with closing(connect(old.file)) as connection:
        connection.execute("INSERT INTO legacy_import VALUES (1, 1.0, '/old', '/backup', '{}')")
        connection.commit()
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(tmp_path / "new"))
    schema.upgrade(old)
    assert "data of an old proxy was before" in caplog.text


def test_what_was_never_imported_is_imported_by_the_setting(old, tmp_path, monkeypatch):
    path = write(tmp_path, "s1.json", {"c": RECORD | {"name": "c"}})
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(path))
    schema.upgrade(old)
    assert "c" in configs(old)
