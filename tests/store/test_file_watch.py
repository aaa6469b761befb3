import errno
import os
import shutil
import sqlite3

import pytest
from sqlalchemy import select

from proxy.store.db import Database, StoreUnavailable
from proxy.store.file_watch import FileWatch, damage
from proxy.store.models import ClientKeyRow


def test_a_watch_tells_once_that_another_file_is_there(database, database_file, migrated_file):
    watch = FileWatch(database)
    assert [watch.was_replaced() for _ in range(2)] == [False, False]
    os.rename(database_file, f"{database_file}.aside")
    with pytest.raises(StoreUnavailable, match=r"proxy\.db is gone; put it back"):
        watch.was_replaced()
    shutil.copy(migrated_file, database_file)
    assert [watch.was_replaced() for _ in range(2)] == [True, False]


def overwritten(path):
    """Its beginning, with what is no page; returns what was there."""
    with open(path, "r+b") as file:
        before = file.read(16_384)
        file.seek(0)
        file.write(b"\xa5" * len(before))
    return before


def test_a_file_that_was_written_over_is_noticed_by_who_looks_anew(database, database_file):
    watch = FileWatch(database)
    with database.read() as connection:
        connection.execute(select(ClientKeyRow.__table__)).all()
    watch.check(100.0)
    before = overwritten(database_file)
    watch.check(104.0)  # to look takes longer than to believe it
    for now in (105.0, 106.0):
        with pytest.raises(StoreUnavailable, match=r"proxy\.db is damaged \(file is not a"):
            watch.check(now)
    with open(database_file, "r+b") as file:
        file.write(before)
    watch.check(106.5)  # and at once, when it is well again


@pytest.mark.parametrize("left", [0, 4096])
def test_a_file_that_was_cut_is_noticed_too(left, database, database_file):
    with database.read() as connection:
        connection.execute(select(ClientKeyRow.__table__)).all()
    os.truncate(database_file, left)
    with pytest.raises(StoreUnavailable, match="is damaged"):
        FileWatch(database).check(100.0)


def test_behind_a_clock_that_was_set_back_it_is_looked_into(database, database_file):
    watch = FileWatch(database)
    watch.check(100.0)
    overwritten(database_file)
    with pytest.raises(StoreUnavailable):
        watch.check(50.0)


def test_what_cannot_be_looked_into_is_not_said_to_be_damaged(tmp_path, database_file):
    assert damage(str(tmp_path / "none.db")) is None
    with sqlite3.connect(database_file) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert damage(str(database_file)) is None


def test_a_file_that_may_not_be_seen_is_not_said_to_be_gone(
    database, database_file, monkeypatch
):
    def denied(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    watch = FileWatch(database)
    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(StoreUnavailable, match=r"cannot be reached \(Permission denied\)"):
        watch.was_replaced()


def test_a_file_that_comes_back_is_the_same(database, database_file):
    watch = FileWatch(database)
    watch.was_replaced()
    os.rename(database_file, aside := f"{database_file}.aside")
    with pytest.raises(StoreUnavailable):
        watch.was_replaced()
    os.rename(aside, database_file)
    assert not watch.was_replaced()


def test_what_is_no_file_is_not_watched():
    database = Database("sqlite:///file:x?mode=memory&uri=true")
    assert not FileWatch(database).was_replaced()
    FileWatch(database).check(0.0)
