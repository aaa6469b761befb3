import sys
from datetime import UTC, datetime

import pytest

from proxy.settings import ROOT
from proxy.store import lost, schema
from proxy.store.db import Database
from proxy.store.vault import Vault

sys.path.append(str(ROOT / "scripts"))
from backups import shelf


def backup_of(path, day=1):
    """A file by the name that scripts/backup_monitor.py gives."""
    source = shelf.Source(path.resolve(), is_database=True)
    folder = path.parent / lost.BACKUP_FOLDER
    folder.mkdir(exist_ok=True)
    made = folder / shelf.name_of(source, datetime(2026, 1, day, tzinfo=UTC), "0" * 64)
    made.touch()
    return made


def test_the_newest_backup_of_this_database_is_found_and_no_others(tmp_path):
    path, other = tmp_path / "proxy.db", tmp_path / "elsewhere" / "proxy.db"
    assert lost.newest_backup(path) is None
    other.parent.mkdir()
    foreign = backup_of(other, day=9)
    foreign.parent.rename(tmp_path / "backups")
    assert lost.newest_backup(path) is None
    newest = [backup_of(path, day) for day in (2, 7, 5)][1]
    assert lost.newest_backup(path) == newest


def test_a_key_counts_where_a_first_start_makes_it(tmp_path):
    path, key = tmp_path / "proxy.db", tmp_path / "secret.key"
    database = Database(f"sqlite:///{path}", Vault(path=key))
    assert lost.key_beside(database) is None
    key.touch()
    assert lost.key_beside(database) == key
    elsewhere = tmp_path / "run" / "secret.key"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    assert lost.key_beside(Database(f"sqlite:///{path}", Vault(path=elsewhere))) is None


def test_what_has_backups_is_lost_and_not_to_be_migrated(tmp_path):
    path = tmp_path / "proxy.db"
    database = Database(f"sqlite:///{path}")
    with pytest.raises(schema.DatabaseMissing):
        schema.check(database)
    backup_of(path)
    with pytest.raises(schema.DatabaseLost, match="restore --newest") as caught:
        schema.check(database)
    assert not isinstance(caught.value, schema.SchemaOutdated)
    assert not path.exists()
