import pytest
from sqlalchemy import select, text

from proxy.store import instances
from proxy.store.db import Database
from proxy.store.models import InstanceRow, RevisionChangeRow
from proxy.store.sealed import Unreadable
from proxy.store.vault import MARK, Vault
from tests.builders import AUTHOR, SECRET_KEY, VAULT, config

SECRET = "sk-planted-secret-0123456789"
PROXY = "http://user:planted-password@proxy:3128"
OTHER_KEY = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItMTI="


def add(database, **changes):
    with database.session() as session:
        instances.add(session, [config(**changes)], author=AUTHOR)


def on_disk(database):
    with database.read() as connection:
        query = text("SELECT api_key, proxy_url FROM instance_config")
        return tuple(connection.execute(query).one())


def loaded(database):
    with database.read() as connection:
        return instances.load_all(connection)[0].config


@pytest.fixture
def with_another_key(database_file):
    other = Database(f"sqlite:///{database_file}", Vault([OTHER_KEY]))
    yield other
    other.dispose()


def test_secrets_are_encrypted_on_disk_and_plain_in_memory(database):
    add(database, api_key=SECRET, proxy_url=PROXY)
    assert all(value.startswith(MARK) for value in on_disk(database))
    assert (loaded(database).api_key, loaded(database).proxy_url) == (SECRET, PROXY)


@pytest.mark.parametrize("written", ["env:KEY_OF_EAST", "file:/run/secrets/east", "NONE"])
def test_what_is_no_secret_is_kept_as_it_is(database, written):
    add(database, api_key=written)
    assert on_disk(database) == (written, None)


def test_a_secret_that_looks_like_a_sealed_one_is_sealed_all_the_same(database):
    add(database, api_key=f"{MARK}abc")
    assert on_disk(database)[0] != f"{MARK}abc"
    assert loaded(database).api_key == f"{MARK}abc"


def test_what_cannot_be_opened_is_empty_and_says_why(database, with_another_key):
    add(database, api_key=SECRET)
    found = loaded(with_another_key).api_key
    assert (found, type(found)) == ("", Unreadable)
    assert "another key" in found.reason


def test_what_cannot_be_opened_is_not_lost_by_a_change_of_something_else(
    database, with_another_key
):
    add(database, api_key=SECRET)
    with with_another_key.session() as session:
        instances.change(session, "a", {"weight": 5}, author=AUTHOR)
    assert (loaded(database).api_key, loaded(database).weight) == (SECRET, 5)


def test_the_vault_is_the_engines_own():
    assert VAULT.open(VAULT.seal(SECRET)) == SECRET
    assert SECRET_KEY != OTHER_KEY


def test_a_revision_keeps_what_could_not_be_decrypted_until_it_can(database, with_another_key):
    """Somebody removes an instance whose key seems lost; then the key is found."""
    add(database, api_key=SECRET)
    with with_another_key.session() as session:
        instances.remove(session, "a", author=AUTHOR)
    newest = select(RevisionChangeRow.secrets).order_by(RevisionChangeRow.revision.desc())
    both = Database(str(database.url), Vault([OTHER_KEY, SECRET_KEY]))
    with both.read() as connection:
        assert connection.scalars(newest).first()["api_key"] == [SECRET, None]
    both.dispose()
    with with_another_key.read() as connection:
        (lost, _) = connection.scalars(newest).first()["api_key"]
    assert isinstance(lost, Unreadable)
    # Undone without the key, it is what it was.
    with with_another_key.session() as session:
        instances.add(session, [config(api_key=lost)], author=AUTHOR)
    assert loaded(database).api_key == SECRET


def test_json_is_encrypted_as_a_whole_and_kept_where_it_cannot_be_opened(
    database, with_another_key
):
    add(database)
    extra = {"old": {"key": SECRET, "n": [1, None]}, "still sealed": "no"}
    with database.session() as session:
        session.get(InstanceRow, "a").legacy_extra = extra
    with with_another_key.session() as session:
        row = session.get(InstanceRow, "a")
        assert not row.legacy_extra
        row.legacy_extra, row.weight = row.legacy_extra, 5
    with database.session() as session:
        assert session.get(InstanceRow, "a").legacy_extra == extra
    with database.read() as connection:
        (stored,) = connection.execute(text("SELECT legacy_extra FROM instance_config")).one()
    assert stored.startswith(MARK)
