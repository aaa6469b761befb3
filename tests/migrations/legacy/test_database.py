"""The old database: its truth is the current version, and reading leaves no trace."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from migrations.legacy import database
from migrations.legacy.records import Era
from tests.migrations.legacy.files import KEY, record, told, write

TABLES = """
    CREATE TABLE instances (id INTEGER PRIMARY KEY, name TEXT, data TEXT, is_active INTEGER);
    CREATE TABLE instance_versions
        (id INTEGER PRIMARY KEY, version_id TEXT, worker_id TEXT, timestamp REAL, data);
    CREATE TABLE current_version
        (id INTEGER PRIMARY KEY CHECK (id = 1), version_id TEXT, timestamp REAL);
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "instance_state.db"


def make(file, current="v-2", **versions):
    """`versions` is data by the number in the version's name."""
    connection = sqlite3.connect(file)
    connection.executescript(TABLES)
    for number, data in versions.items():
        is_raw = data is None or isinstance(data, str | bytes)
        row = (number.replace("v", "v-"), data if is_raw else json.dumps(data))
        connection.execute(
            "INSERT INTO instance_versions (version_id, data) VALUES (?, ?)", row
        )
    if current:
        connection.execute("INSERT INTO current_version VALUES (1, ?, 0)", (current,))
    connection.commit()
    return connection


def names(reading):
    assert reading.problems == ()
    return [each.name for each in reading.records]


def trace(folder):
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def test_the_current_version_is_read_and_no_other(file):
    make(file, v1=[record("old")], v2=[record("a", stats={"error_count": 2})]).close()
    reading = database.read(file)
    (found,) = reading.records
    assert (found.name, found.layout, found.era) == ("a", "D1", Era.DATABASE)
    assert (found.place, found.state) == ("version 'v-2', instances[0]", {"error_count": 2})


def test_the_table_instances_is_not_read(file):
    with closing(make(file, v2=[record("a")])) as connection, connection:
        connection.execute("INSERT INTO instances VALUES (1, 'deleted', '{}', 1)")
    assert names(database.read(file)) == ["a"]


def test_of_two_rows_of_the_current_version_the_later_counts(file):
    with closing(make(file, v2=[record("a")])) as connection, connection:
        row = ("v-2", json.dumps([record("b")]))
        connection.execute(
            "INSERT INTO instance_versions (version_id, data) VALUES (?, ?)", row
        )
    assert names(database.read(file)) == ["b"]


@pytest.mark.parametrize("current", ["initial", None])
def test_a_database_before_its_first_save_is_empty(file, current):
    make(file, current).close()
    assert names(database.read(file)) == []


@pytest.mark.parametrize(
    "current, data, message",
    [
        ("v-9", [], "'v-9', and there is no such version"),
        (None, [], "None of the 1 versions is the current one"),
        ("v-2", f'[{{"api_key": "{KEY}"', "column 37"),
        ("v-2", f'[{{"{KEY}": "\xff'.encode("latin-1"), "not UTF-8"),
        ("v-2", {"a": 1}, "no list"),
        ("v-2", None, "no text"),
    ],
)
def test_versions_that_cannot_be_read_are_problems(file, current, data, message):
    make(file, current, v2=data).close()
    reading = database.read(file)
    assert reading.records == ()
    assert message in reading.problems[0].message
    assert KEY not in told(reading)


def test_text_that_is_not_utf8_is_not_quoted(file):
    with closing(make(file)) as connection, connection:
        raw = f"[{KEY}".encode() + b"\xff"
        connection.execute(
            "INSERT INTO instance_versions (version_id, data) VALUES ('v-2', CAST(? AS TEXT))",
            (raw,),
        )
    reading = database.read(file)
    assert "not UTF-8" in reading.problems[0].message
    assert KEY not in told(reading)


def test_reading_changes_nothing(file):
    make(file, v2=[record("a")]).close()
    before = trace(file.parent)
    names(database.read(file))
    assert trace(file.parent) == before


def test_a_closed_database_in_wal_mode_is_read_without_a_trace(file):
    connection = make(file, v2=[record("a")])
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    before = trace(file.parent)
    assert list(before) == [file.name]
    assert names(database.read(file)) == ["a"]
    assert trace(file.parent) == before


def test_what_is_still_in_the_wal_is_read_while_the_old_program_runs(file):
    with closing(in_wal(file)):
        before = trace(file.parent)
        assert names(database.read(file)) == ["new"]
        after = trace(file.parent)
        # The index of the WAL is shared memory: readers mark in it how far they read.
        assert {name: after[name] for name in after if not name.endswith("-shm")} == {
            name: before[name] for name in before if not name.endswith("-shm")
        }


def test_a_copy_with_its_wal_is_read_without_a_trace(file, tmp_path):
    copy = tmp_path / "copy" / "b ?#%.db"
    copy.parent.mkdir()
    with closing(in_wal(file)):
        shutil.copy(file, copy)
        shutil.copy(f"{file}-wal", f"{copy}-wal")
    before = trace(copy.parent)
    assert names(database.read(copy)) == ["new"]
    assert trace(copy.parent) == before


def in_wal(file):
    """Open, with the current version only in the WAL."""
    connection = make(file, v1=[record("old")])
    connection.execute("PRAGMA journal_mode = WAL")
    row = ("v-2", json.dumps([record("new")]))
    connection.execute("INSERT INTO instance_versions (version_id, data) VALUES (?, ?)", row)
    connection.commit()
    return connection


def test_a_locked_database_is_a_problem(file, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.0)
    with closing(make(file, v2=[record("a")])) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        reading = database.read(file)
    assert "Another program holds" in reading.problems[0].message
    assert reading.problems[0].remedy == "Stop the old program."


def test_a_write_that_was_cut_off_is_not_undone_by_reading(file, tmp_path):
    copy = tmp_path / "copy" / "b.db"
    copy.parent.mkdir()
    with closing(make(file, v2=[record("a")])) as connection:
        connection.execute("PRAGMA cache_size = 2")  # what does not fit goes to the disk
        rows = [("v-3", "x" * 1000)] * 500
        connection.executemany(
            "INSERT INTO instance_versions (version_id, data) VALUES (?, ?)", rows
        )
        shutil.copy(file, copy)
        shutil.copy(f"{file}-journal", f"{copy}-journal")
    before = trace(copy.parent)
    assert "in the middle of a write" in database.read(copy).problems[0].message
    assert trace(copy.parent) == before


def test_other_files_are_problems(file, tmp_path):
    text = write(tmp_path, "text.db", "no database at all, whatever its name may say")
    assert "no SQLite" in database.read(text).problems[0].message
    assert "cannot be read" in database.read(tmp_path / "none.db").problems[0].message
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE instances (id INTEGER)")
    assert "lacks the tables" in database.read(file).problems[0].message


def test_a_damaged_database_is_a_problem(file):
    make(file, v2=[record(str(n)) for n in range(500)]).close()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert "damaged" in database.read(file).problems[0].message


def test_a_schema_that_is_damaged_is_a_problem_whatever_bytes_are_in_it(file):
    make(file, v2="[]").close()
    content = file.read_bytes()
    # SQLite quotes it in its message, which is then no text.
    damaged = content.replace(
        b"(id INTEGER PRIMARY KEY CHECK", b"\xadid INTEGER PRIMARY KEY CHECK"
    )
    file.write_bytes(damaged)
    assert database.read(file).problems[0].message == "The database is damaged."
