import pytest

from proxy.store import checkup
from proxy.store.db import Database
from proxy.store.vault import Vault
from tests.builders import SECRET_KEY
from tests.store.test_damage import spoil


def test_a_database_tells_its_mode_and_size(database, database_file):
    with database.write():
        pass  # sets WAL
    found = checkup.facts(database)
    assert (found.journal_mode, found.damage) == ("wal", None)
    assert found.size_bytes == database_file.stat().st_size


def test_damage_is_told_and_nothing_is_moved_for_it(database, database_file):
    spoil(database_file)
    assert checkup.facts(database).damage
    assert database_file.exists()


def test_of_no_sqlite_file_nothing_is_looked_at():
    assert checkup.facts(Database("sqlite:///file:x?mode=memory&uri=true")) == (
        checkup.DatabaseFacts()
    )


@pytest.mark.parametrize("which", ["proxy.db", "proxy.db-wal", "secret.key", ".env"])
def test_files_that_others_can_read_are_named(which, database_file, tmp_path):
    key, env = tmp_path / "secret.key", tmp_path / ".env"
    files = [database_file, tmp_path / "proxy.db-wal", key, env]
    for path in files:
        path.touch()
        path.chmod(0o600)
    key.write_text(SECRET_KEY)
    database = Database(f"sqlite:///{database_file}", Vault(path=key))
    assert checkup.exposed(database, [env]) == []
    (tmp_path / which).chmod(0o640)
    assert checkup.exposed(database, [env]) == [tmp_path / which]
