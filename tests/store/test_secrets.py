import contextlib

import pytest
from sqlalchemy import text

from proxy.store import instances, keys, secrets
from proxy.store.db import Database
from proxy.store.models import InstanceRow
from proxy.store.vault import MARK, CannotOpen, Vault, new_key
from tests.builders import AUTHOR, SECRET_KEY, config

SECRET = "sk-planted-secret-0123456789"
# Of what `fill` writes: two values of the instance, two of its revisions, the pepper.
SEALED = 6


@pytest.fixture
def vault(tmp_path):
    path = tmp_path / "secret.key"
    path.write_text(SECRET_KEY)  # with which the empty database was made
    return Vault(path=path)


@pytest.fixture
def database(database_file, vault):
    database = Database(f"sqlite:///{database_file}", vault)
    yield database
    database.dispose()


def fill(database):
    """Something in each column that is encrypted."""
    with database.session() as session:
        instances.add(
            session,
            [
                config("a", api_key=SECRET, proxy_url="http://u:p@h"),
                config("b", api_key="env:K"),
            ],
            author=AUTHOR,
        )
        session.get(InstanceRow, "a").legacy_extra = {"old_key": SECRET}


def stored(database):
    """All that is encrypted, as it is on disk."""
    with database.read() as connection:
        found = []
        for table, column in (
            ("instance_config", "api_key"),
            ("instance_config", "proxy_url"),
            ("instance_config", "legacy_extra"),
            ("config_change", "secrets"),
            ("secret", "value"),
        ):
            rows = connection.execute(text(f"SELECT {column} FROM {table}"))
            found += [v for (v,) in rows if v and v.startswith(MARK)]
    return found


def reseal(database, vault):
    with database.write() as connection:
        return secrets.reseal(connection, vault)


def survey(database, vault):
    with database.read() as connection:
        return secrets.survey(connection, vault)


def test_every_encrypted_column_is_known(database, vault):
    fill(database)
    found = survey(database, vault)
    assert (found.sealed, found.behind, found.unopened) == (len(stored(database)), 0, [])
    assert found.sealed == SEALED


def test_all_is_encrypted_with_the_new_key_and_says_what_it_said(database, vault):
    fill(database)
    with database.read() as connection:
        before = instances.load_all(connection), keys.pepper(connection)
    vault.add_key()
    assert survey(database, vault).behind == SEALED
    assert reseal(database, vault).behind == SEALED
    only_new = Vault([vault.path.read_text().split()[0]])
    assert all(only_new.open(value) for value in stored(database))
    with database.read() as connection:
        assert (instances.load_all(connection), keys.pepper(connection)) == before
    with database.session() as session:
        assert session.get(InstanceRow, "a").legacy_extra == {"old_key": SECRET}


def test_a_second_time_changes_nothing(database, vault):
    fill(database)
    vault.add_key()
    reseal(database, vault)
    before = stored(database)
    assert reseal(database, vault).behind == 0
    assert stored(database) == before


def test_one_that_was_interrupted_leaves_all_as_it_was_and_readable(database, vault):
    fill(database)
    before = stored(database)
    vault.add_key()
    with contextlib.suppress(RuntimeError), database.write() as connection:
        secrets.reseal(connection, vault)
        raise RuntimeError
    assert stored(database) == before
    assert all(vault.open(value) for value in before)


def test_what_cannot_be_decrypted_is_told_and_left(database, vault):
    fill(database)
    vault.path.write_text(f"{new_key()} {SECRET_KEY}")
    with database.session() as session:
        instances.change(session, "b", {"api_key": "another"}, author=AUTHOR)
    vault.path.write_text(f"{new_key()} {SECRET_KEY}")
    lost = [v for v in stored(database) if not _opens(vault, v)]
    assert len(lost) == 2  # b's key, and its revision
    found = reseal(database, vault)
    assert (found.sealed, found.behind) == (SEALED + 2, SEALED)
    assert [(u.table, u.row, u.column) for u in found.unopened] == [
        ("config_change", "2 0", "secrets"),
        ("instance_config", "b", "api_key"),
    ]
    assert "another key" in found.unopened[0].reason
    assert set(lost) <= set(stored(database))


def _opens(vault, value):
    try:
        return vault.open(value) is not None
    except CannotOpen:
        return False


def test_what_was_lost_when_it_was_recorded_follows_the_keys_too(database, vault):
    """An instance was removed while its key could not be decrypted."""
    fill(database)
    other = new_key()
    vault.path.write_text(other)
    with database.session() as session:
        instances.remove(session, "a", author=AUTHOR)
    vault.path.write_text(f"{other} {SECRET_KEY}")
    reseal(database, vault)
    vault.forget_old()
    with database.read() as connection:
        query = text("SELECT secrets FROM config_change ORDER BY revision DESC")
        newest = connection.execute(query).scalars().first()
    assert vault.open(newest).count("still sealed") == 2
    inner = vault.open(newest).split('"api_key": [{"still sealed": "')[1].split('"')[0]
    assert vault.open(inner) == SECRET
