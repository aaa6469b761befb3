import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from proxy.store import damage
from proxy.store.damage import check_set_aside, set_aside_if_damaged
from proxy.store.db import Database
from proxy.store.schema import SchemaProblem
from tests.builders import VAULT


def spoil(path):
    """Writes over a page in the middle; the header stays."""
    with open(path, "r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 4)


def asides(path):
    return sorted(p.name for p in path.parent.glob("*.damaged-*"))


def test_a_whole_database_is_left_alone(database, database_file):
    before = database_file.read_bytes()
    set_aside_if_damaged(database)
    assert database_file.read_bytes() == before


def test_a_damaged_one_is_set_aside_and_the_remedy_is_told(database, database_file):
    spoil(database_file)
    spoiled = database_file.read_bytes()
    with pytest.raises(SchemaProblem) as caught:
        set_aside_if_damaged(database)
    (aside,) = asides(database_file)
    assert not database_file.exists()
    assert (database_file.parent / aside).read_bytes() == spoiled
    assert "is damaged (" in str(caught.value)
    assert aside in str(caught.value)
    assert "backup_monitor.py restore --newest" in str(caught.value)


def test_what_belongs_to_it_goes_with_it(database, database_file, monkeypatch):
    monkeypatch.setattr(damage, "damage_of", lambda _path: "a page is bad")
    wal = database_file.with_name("proxy.db-wal")
    wal.write_bytes(b"of the damaged one")
    with pytest.raises(SchemaProblem):
        set_aside_if_damaged(database)
    assert not wal.exists()
    assert len(asides(database_file)) == 2
    assert asides(database_file)[1].endswith("-wal")


def test_after_that_no_empty_one_takes_its_place(database, database_file):
    spoil(database_file)
    with pytest.raises(SchemaProblem):
        set_aside_if_damaged(database)
    for _ in range(2):  # a supervisor starts us again and again
        with pytest.raises(SchemaProblem, match=r"no database .* set aside as .*newest"):
            set_aside_if_damaged(database)
    assert len(asides(database_file)) == 1
    os.rename(database_file.parent / asides(database_file)[0], database_file.parent / "gone")
    set_aside_if_damaged(database)


def test_when_a_good_one_took_its_place_all_is_well(database, database_file, migrated_file):
    spoil(database_file)
    with pytest.raises(SchemaProblem):
        set_aside_if_damaged(database)
    database_file.write_bytes(migrated_file.read_bytes())
    set_aside_if_damaged(database)


@pytest.mark.parametrize("content", [b"", b"somebody else's notes" * 100])
def test_what_is_no_database_is_not_touched(content, tmp_path):
    path = tmp_path / "proxy.db"
    path.write_bytes(content)
    set_aside_if_damaged(Database(f"sqlite:///{path}", VAULT))
    assert path.read_bytes() == content


def test_a_locked_database_is_not_taken_for_a_damaged_one(database, database_file, monkeypatch):
    monkeypatch.setattr(damage, "BUSY_SECONDS", 0.01)
    with database.write() as connection:
        connection.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
        connection.exec_driver_sql("DELETE FROM instance_config")
        set_aside_if_damaged(database)
    assert asides(database_file) == []


@pytest.mark.parametrize(
    "url", ["postgresql://user@host/db", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_another_kind_of_database_is_looked_after_by_others(url):
    set_aside_if_damaged(SimpleNamespace(url=make_url(url)))


def test_where_there_is_nothing_yet_all_is_well(tmp_path):
    set_aside_if_damaged(Database(f"sqlite:///{tmp_path}/new/proxy.db", VAULT))


def test_one_that_cannot_be_set_aside_is_said(database, database_file, monkeypatch):
    def refuse(*_):
        raise OSError(13, "Permission denied")

    spoil(database_file)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(SchemaProblem, match="cannot be set aside: Permission denied"):
        set_aside_if_damaged(database)


def test_a_start_that_looks_twice_reads_a_large_file_once(database, database_file, monkeypatch):
    looked = []
    monkeypatch.setattr(damage, "damage_of", looked.append)
    for _ in range(2):
        set_aside_if_damaged(database)
    assert looked == [database_file]
    os.utime(database_file, ns=(0, 0))  # somebody wrote to it
    set_aside_if_damaged(database)
    assert looked == [database_file] * 2


def test_the_database_is_named_and_not_what_lies_beside_it(database, database_file):
    aside = f"{database_file}.damaged-20260101T000000Z"
    os.rename(database_file, aside)
    for side in ("-wal", "-shm"):
        Path(aside + side).touch()
    with pytest.raises(SchemaProblem) as caught:
        check_set_aside(database)
    assert f"set aside as {aside}." in str(caught.value)


def test_one_that_cannot_be_seen_is_not_said_to_be_gone(database, database_file, monkeypatch):
    Path(f"{database_file}.damaged-20260101T000000Z").touch()

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(damage.os, "stat", denied)
    check_set_aside(database)
