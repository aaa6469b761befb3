"""Backups: taken under load, damaged in every way, put back, and watched."""

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from proxy.settings import ROOT
from proxy.store import schema

# A script finds its own folder by itself; this is no script.
sys.path.append(str(ROOT / "scripts"))

import backup_monitor
from backups import command_line, restoring, shelf, taking, users, webhook

SCRIPT = ROOT / "scripts" / "backup_monitor.py"
OLD_STATE = '{"east": {"priority": 1}}\n'
NOON = datetime(2025, 1, 31, 12, 0, 0, 123456, UTC)

# Two threads; each transaction adds to both tables. A line for each 20 of them.
WRITER = """
import sqlite3, sys, threading
stop = threading.Event()
def write(path):
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    written = 0
    while not stop.is_set():
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO debit VALUES (1, randomblob(500))")
        connection.execute("INSERT INTO credit VALUES (1, randomblob(500))")
        connection.execute("COMMIT")
        written += 1
        if written % 20 == 0:
            print(flush=True)
    connection.close()
threads = [threading.Thread(target=write, args=sys.argv[1:]) for _ in range(2)]
for thread in threads: thread.start()
sys.stdin.read()
stop.set()
for thread in threads: thread.join()
"""
# Statements, a line when they are done, then nothing until its input ends.
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(program, *arguments):
    """Yields it after its first line; it ends when its input does."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.stdin.close()
            process.stdout.read()


def holding(path, *statements):
    return another_process(HOLDER, path, *statements)


IN_WAL_MODE = ("PRAGMA journal_mode = WAL", "SELECT * FROM sqlite_master")
NOT_IN_WAL_MODE = ("PRAGMA journal_mode = DELETE", "SELECT * FROM sqlite_master")


class Shell:
    """The commands with this test's database and folder."""

    def __init__(self, database, folder, capsys):
        self.database = database
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments):
        """The exit code, what --json printed, and stderr."""
        try:
            code = backup_monitor.main([*map(str, arguments), "--json"])
        except SystemExit as ended:
            code = ended.code
        out, err = self._capsys.readouterr()
        return code, json.loads(out) if out else None, err

    def backup(self, *arguments):
        code, told, err = self("backup", "--folder", self.folder, *arguments)
        assert (code, err) == (0, "")
        return [Path(each["file"]) for each in told["backups"]]

    def monitor(self, *arguments):
        code, told, err = self("monitor", "--folder", self.folder, *arguments)
        assert told["ok"] is (code == 0)
        return code, [(alert["kind"], Path(alert["file"])) for alert in told["alerts"]], err

    @property
    def revision(self):
        with changing(self.database) as connection:
            return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]

    def names(self):
        return sorted(p.name for p in self.folder.glob("*") if p.name != ".lock")


@pytest.fixture
def shell(database_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROXY_DATABASE_URL", f"sqlite:///{database_file}")
    monkeypatch.delenv(command_line.WEBHOOK_VARIABLE, raising=False)
    return Shell(Path(database_file), tmp_path / "backups", capsys)


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "instance_configs.json"
    path.write_text(OLD_STATE)
    return path


@pytest.fixture
def set_clock(monkeypatch):
    def set_to(moment):
        monkeypatch.setattr(shelf, "now", lambda: moment)

    return set_to


@contextmanager
def changing(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def add_notes(path, *notes):
    with changing(path) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE IF NOT EXISTS note (text TEXT)")
        connection.executemany("INSERT INTO note VALUES (?)", [(note,) for note in notes])
        connection.execute("COMMIT")


def notes_of(path):
    with changing(path) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM note")]


def leave_a_wal(path, *notes):
    """As a killed process leaves a database: the last commits only in the -wal."""
    add_notes(path)
    copies = path.with_name("copies")
    copies.mkdir()
    with changing(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executemany("INSERT INTO note VALUES (?)", [(note,) for note in notes])
        for name in (path.name, f"{path.name}-wal"):
            shutil.copy(path.with_name(name), copies)
    for copy in copies.iterdir():
        copy.replace(path.with_name(copy.name))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


# Taking


def test_backups_taken_under_load_can_be_restored_and_agree_with_themselves(shell):
    with changing(shell.database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE debit (amount INTEGER, filler BLOB)")
        connection.execute("CREATE TABLE credit (amount INTEGER, filler BLOB)")
    taken = []
    with another_process(WRITER, shell.database) as writer:
        for _ in range(5):
            taken += shell.backup()
            writer.stdout.readline()
    sums = []
    for backup in taken:
        code, told, _ = shell("restore", backup)
        assert (code, told["revision"], told["note"]) == (0, shell.revision, None)
        with changing(shell.database) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            debit, credit = (
                connection.execute(f"SELECT sum(amount) FROM {table}").fetchone()[0]
                for table in ("debit", "credit")
            )
        assert debit == credit
        sums.append(debit)
    assert sums == sorted(set(sums)), "others wrote between them"


def test_a_backup_holds_what_only_the_wal_of_a_killed_process_has(shell):
    leave_a_wal(shell.database, "last words")
    (backup,) = shell.backup()
    assert notes_of(backup) == ["last words"]


def test_a_backup_is_not_begun_anew_when_others_write(shell, monkeypatch):
    add_notes(shell.database, *("x" * 500 for _ in range(200)))
    remaining = []

    with changing(shell.database) as other:

        def write(_status, pages, _total):
            remaining.append(pages)
            assert len(remaining) < 1000, "it never ends"
            other.execute("INSERT INTO note VALUES ('later')")

        monkeypatch.setattr(taking, "PAGES_AT_A_TIME", 1)
        monkeypatch.setattr(taking, "pause_for_signals", write)
        (backup,) = shell.backup()
    assert remaining == list(range(len(remaining)))[::-1]
    assert "later" not in notes_of(backup)


def test_a_backup_is_one_file_also_when_its_source_is_not(shell):
    with changing(shell.database) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    (backup,) = shell.backup()
    with changing(backup) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_source_that_is_named_twice_is_copied_once(shell, old_file):
    again = old_file.parent / "." / "x" / ".." / old_file.name
    assert len(shell.backup("--no-database", "--file", old_file, "--file", again)) == 1


def test_an_old_file_is_copied_byte_for_byte(shell, old_file):
    data = b'\xef\xbb\xbf{"b": 1.50,\r\n "a": "\\u00e9"}'
    old_file.write_bytes(data)
    (backup,) = shell.backup("--no-database", "--file", old_file)
    assert backup.read_bytes() == data


def test_only_the_owner_can_read_backups(shell, old_file):
    shell.backup("--file", old_file)
    assert shell.folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in shell.folder.iterdir()} == {0o600}


def test_backups_of_one_moment_do_not_overwrite_each_other(shell, set_clock):
    set_clock(NOON)
    assert len({*shell.backup(), *shell.backup(), *shell.backup()}) == 3
    assert len(shell.names()) == 3


def test_what_a_killed_backup_left_is_cleared_away(shell):
    shell.backup()
    (shell.folder / shelf.part_name("proxy.db")).write_bytes(b"half")
    shell.backup()
    assert [p.name for p in shell.folder.glob(".*")] == [".lock"]


def test_keep_deletes_the_oldest_of_this_source_only(shell, old_file, tmp_path):
    namesake = tmp_path / "elsewhere" / "proxy.db"
    namesake.parent.mkdir()
    shutil.copy(shell.database, namesake)
    kept = shell.backup("--database", namesake, "--file", old_file)
    first, second, third = (shell.backup()[0] for _ in range(3))
    others = [shell.folder / "proxy.db", shell.folder / "proxy.2025.db"]
    for other in others:
        other.write_text("somebody's")
    code, told, _ = shell("backup", "--folder", shell.folder, "--keep", 2)
    (fourth,) = [Path(each["file"]) for each in told["backups"]]
    assert (code, told["deleted"]) == (0, [str(first), str(second)])
    assert shell.names() == sorted(p.name for p in [*kept, third, fourth, *others])


def test_a_clock_that_was_set_back_does_not_cost_the_new_backup(shell, set_clock):
    set_clock(NOON)
    shell.backup()
    set_clock(NOON - timedelta(days=1))
    (made,) = shell.backup("--keep", 1)
    assert shell.names() == [made.name]


@pytest.mark.parametrize("keep", ["0", "-1", "1.5", "all"])
def test_keep_is_at_least_one(shell, keep):
    (kept,) = shell.backup()
    code, _, err = shell("backup", "--folder", shell.folder, f"--keep={keep}")
    assert code == 2
    assert "at least 1" in err
    assert shell.names() == [kept.name]


def test_a_failed_backup_leaves_no_file_and_deletes_none(shell):
    add_notes(shell.database, *("x" * 500 for _ in range(1000)))
    (kept,) = shell.backup()
    cut(shell.database)
    code, told, err = shell("backup", "--folder", shell.folder, "--keep", 1)
    assert (code, told["ok"], told["backups"]) == (1, False, [])
    assert f"{shell.database} is damaged" in err
    assert [p.name for p in shell.folder.iterdir() if p.name != ".lock"] == [kept.name]


def test_a_damaged_page_of_the_source_is_found_in_the_copy(shell):
    add_notes(shell.database, *("x" * 500 for _ in range(1000)))
    with changing(shell.database) as connection:
        row = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'note'")
        page = row.fetchone()[0]
    flip(shell.database, (page - 1) * 4096 + 3)  # how many cells the page has
    code, _, err = shell("backup", "--folder", shell.folder)
    assert (code, shell.names()) == (1, [])
    assert f"{shell.database} is damaged" in err
    assert ".part" not in err


def test_one_source_that_fails_does_not_keep_the_others_from_being_copied(shell, old_file):
    old_file.write_text(OLD_STATE[:-5])
    code, told, err = shell("backup", "--folder", shell.folder, "--file", old_file)
    assert (code, len(told["backups"])) == (1, 1)
    assert f"{old_file} is damaged: it is not JSON" in err


def test_a_full_disk_is_told_and_leaves_nothing(shell, old_file):
    add_notes(shell.database, *("x" * 500 for _ in range(1000)))
    old_file.write_text(json.dumps(["x" * 500] * 1000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        code, told, err = shell("backup", "--folder", shell.folder, "--file", old_file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, told["backups"], shell.names()) == (1, [], [])
    assert err.count(f"{shell.folder} cannot be used") == 2
    assert [p.name for p in shell.folder.iterdir()] == [".lock"]


def test_a_locked_database_is_waited_for_and_then_told(shell):
    with holding(shell.database, *NOT_IN_WAL_MODE, "BEGIN EXCLUSIVE"):
        limits = ("--timeout-seconds", "0.01")
        code, _, err = shell("backup", "--folder", shell.folder, *limits)
    assert (code, shell.names()) == (1, [])
    assert "another program holds it" in err


def test_two_backups_do_not_write_into_one_folder(shell):
    with shelf.held(shell.folder, 0):
        limits = ("--timeout-seconds", "0.01")
        code, _, err = shell("backup", "--folder", shell.folder, *limits)
    assert code == 1
    assert "Another backup is being written" in err


# Verifying


@pytest.fixture
def backup(shell):
    add_notes(shell.database, *("x" * 500 for _ in range(1000)))
    (path,) = shell.backup()
    return path


def under_another_name(path):
    return path.rename(path.with_name("renamed"))


def test_a_whole_backup_is_whole_and_looking_leaves_no_trace(shell, backup):
    before = shell.names()
    code, told, err = shell("verify", backup)
    assert (code, err, told["kind"], told["revision"]) == (0, "", "sqlite", shell.revision)
    assert told["checksum_in_name"]
    assert shell.names() == before


def test_verifying_asks_for_no_lock(shell, backup):
    with holding(backup, "BEGIN EXCLUSIVE"):
        assert shell("verify", backup)[0] == 0


@pytest.mark.parametrize("name", ["as it was", "another"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: cut(path),
        lambda path: cut(path, 0.999),
        lambda path: flip(path, 0),  # the header: an encrypted file looks so too
        lambda path: flip(path, 100),  # the kind of the first page
        lambda path: path.write_bytes(b""),
    ],
    ids=["middle", "end", "header", "page", "empty"],
)
def test_damage_to_the_structure_is_found_with_and_without_a_checksum(
    shell, backup, damage, name
):
    if name == "another":
        backup = under_another_name(backup)
    damage(backup)
    code, told, err = shell("verify", backup)
    assert (code, told["ok"]) == (1, False)
    assert f"{backup} is damaged" in err


def test_a_flipped_byte_within_a_value_is_found_by_the_checksum(shell, backup):
    flip(backup, backup.read_bytes().index(b"x" * 400) + 200)
    code, _, err = shell("verify", backup)
    assert code == 1
    assert "SHA-256" in err
    # Why the checksum is there: the structure alone looks good.
    assert shell("verify", under_another_name(backup))[0] == 0


def test_a_database_without_its_wal_is_not_taken_for_whole(shell):
    leave_a_wal(shell.database, "last words")
    code, _, err = shell("verify", shell.database)
    assert code == 1
    assert f"`backup --database {shell.database}`" in err


@pytest.mark.parametrize("name", ["", "nothing.db"])
def test_what_is_no_file_is_told(shell, tmp_path, name):
    code, _, err = shell("verify", tmp_path / name)
    assert code == 1
    assert str(tmp_path / name) in err


# Restoring


def test_what_was_there_is_kept_aside_with_its_wal(shell, backup):
    leave_a_wal(shell.database, "last words")
    code, told, _ = shell("restore", backup)
    aside = Path(told["aside"])
    assert code == 0
    assert "last words" not in notes_of(shell.database)
    assert notes_of(aside)[-1] == "last words"
    assert aside.name.startswith("proxy.db.before-restore-")
    assert shell.database.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("is_lost", [False, True])
def test_what_root_restores_is_still_the_proxys(shell, backup, is_lost):
    os.chown(shell.database.parent, 12345, 12346)
    os.chown(shell.database, 12345, 12346)
    if is_lost:
        shell.database.unlink()
    assert shell("restore", backup)[0] == 0
    status = shell.database.stat()
    assert (status.st_uid, status.st_gid) == (12345, 12346)


def test_each_restore_keeps_another_one_aside(shell, backup, set_clock):
    asides = {shell("restore", backup)[1]["aside"] for _ in range(3)}
    assert len(asides) == 3
    set_clock(NOON)
    first = Path(shell("restore", backup)[1]["aside"])
    data = first.read_bytes()
    add_notes(shell.database, "not to be lost")
    code, _, err = shell("restore", backup)
    assert code == 1
    assert "File exists" in err
    assert first.read_bytes() == data
    assert notes_of(shell.database)[-1] == "not to be lost"


def test_a_lost_database_can_be_restored(shell, backup):
    shell.database.unlink()
    code, told, _ = shell("restore", backup)
    assert (code, told["aside"]) == (0, None)
    assert len(notes_of(shell.database)) == 1000


def test_a_damaged_database_is_replaced_and_kept_as_it_was(shell, backup):
    shell.database.write_bytes(b"ruins")
    code, told, _ = shell("restore", backup)
    assert (code, Path(told["aside"]).read_bytes()) == (0, b"ruins")


def test_a_damaged_backup_is_not_restored(shell, backup):
    before = shell.database.read_bytes()
    cut(backup)
    assert shell("restore", backup)[0] == 1
    assert shell.database.read_bytes() == before


def test_the_newest_whole_backup_is_found_and_what_is_newer_is_told(shell, backup):
    add_notes(shell.database, "newer")
    (newer,) = shell.backup()
    add_notes(shell.database, "newest")
    (newest,) = shell.backup()
    cut(newest)
    shell.database.unlink()
    code, told, _ = shell("restore", "--newest", "--folder", shell.folder)
    assert (code, told["from"]) == (0, str(newer))
    assert len(told["skipped"]) == 1
    assert newest.name in told["skipped"][0]
    assert notes_of(shell.database)[-1] == "newer"


def test_without_a_whole_backup_nothing_is_restored(shell, backup):
    before = shell.database.read_bytes()
    cut(backup)
    code, _, err = shell("restore", "--newest", "--folder", shell.folder)
    assert code == 1
    assert "is whole in" in err
    backup.unlink()
    code, _, err = shell("restore", "--newest", "--folder", shell.folder)
    assert (code, "is there in" in err) == (1, True)
    assert shell.database.read_bytes() == before


def test_a_backup_is_named_or_the_newest(shell, backup):
    assert shell("restore")[0] == 2
    assert shell("restore", backup, "--newest")[0] == 2


def test_an_exchange_that_fails_is_undone(shell, backup, monkeypatch):
    leave_a_wal(shell.database, "last words")
    before = sorted(shell.database.parent.iterdir())
    rename = os.rename

    def fail_at_last(source, target):
        if Path(target) == shell.database and Path(source).suffix == ".part":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(restoring.os, "rename", fail_at_last)
    code, _, err = shell("restore", backup)
    assert code == 1
    assert "Input/output error" in err
    assert sorted(shell.database.parent.iterdir()) == before
    assert notes_of(shell.database)[-1] == "last words"


def test_a_file_system_without_links_will_do(shell, backup, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    add_notes(shell.database, "newer")
    monkeypatch.setattr(restoring.os, "link", refuse)
    code, told, _ = shell("restore", backup)
    assert (code, notes_of(told["aside"])[-1]) == (0, "newer")


@pytest.mark.parametrize(
    "is_seen_in_proc, statements",
    [
        (True, IN_WAL_MODE),
        (False, IN_WAL_MODE),  # of another user: its lock is what is found
        (True, ()),  # holds no lock, but has the file open
        (True, NOT_IN_WAL_MODE),
        (False, ("BEGIN IMMEDIATE",)),
    ],
)
def test_nothing_is_restored_while_another_process_has_the_database(
    shell, backup, monkeypatch, tmp_path, is_seen_in_proc, statements
):
    before = len(notes_of(shell.database))
    if not is_seen_in_proc:
        monkeypatch.setattr(users, "PROC", tmp_path / "no-proc")
    with holding(shell.database, *statements) as process:
        files = sorted(shell.database.parent.iterdir())
        code, told, err = shell("restore", backup)
        assert sorted(shell.database.parent.iterdir()) == files
    assert (code, told["ok"]) == (1, False)
    assert "is in use by" in err
    assert str(process.pid) in err
    assert len(notes_of(shell.database)) == before


def test_whoever_begins_during_the_exchange_has_to_wait(shell):
    statements = ("PRAGMA busy_timeout = 0", "SELECT * FROM sqlite_master")
    command = [sys.executable, "-c", HOLDER, shell.database, *statements]
    with users.alone(shell.database):
        done = subprocess.run(command, capture_output=True, text=True, input="", check=False)
    assert "database is locked" in done.stderr


def test_an_old_file_is_restored_where_it_is_said_to_belong(shell, old_file):
    (backup,) = shell.backup("--no-database", "--file", old_file)
    old_file.write_text("ruins")
    code, told, _ = shell("restore", backup, "--file", old_file)
    assert (code, old_file.read_text()) == (0, OLD_STATE)
    assert Path(told["aside"]).read_text() == "ruins"


def test_the_kind_of_a_backup_decides_where_it_may_go(shell, backup, old_file):
    (of_file,) = shell.backup("--no-database", "--file", old_file)
    code, _, err = shell("restore", of_file)
    assert code == 2
    assert "--file" in err
    code, _, err = shell("restore", backup, "--file", old_file)
    assert code == 2
    assert "--database" in err
    assert old_file.read_text() == OLD_STATE


def test_another_programs_database_is_not_put_in_the_proxys_place(shell, tmp_path):
    other = tmp_path / "other.db"
    add_notes(other, "a")
    (backup,) = shell.backup("--database", other)
    code, _, err = shell("restore", backup)
    assert code == 1
    assert "no schema revision" in err
    add_notes(other, "b")
    code, told, _ = shell("restore", backup, "--database", other)
    assert (code, told["revision"], notes_of(other)) == (0, None, ["a"])


def test_an_older_schema_is_told_with_its_remedy(shell, backup, tmp_path, monkeypatch):
    migrations = shutil.copytree(ROOT / "migrations" / "versions", tmp_path / "newer")
    (migrations / "9998_later.py").touch()
    monkeypatch.setattr(schema, "MIGRATIONS", migrations)
    code, told, _ = shell("restore", backup)
    assert (code, told["revision"]) == (0, shell.revision)
    assert "`.venv/bin/alembic upgrade head`" in told["note"]


def test_a_newer_schema_is_told(shell):
    with changing(shell.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    (backup,) = shell.backup()
    _, told, _ = shell("restore", backup)
    assert told["revision"] == "9999"
    assert "newer version" in told["note"]


# Listing


def test_backups_are_listed_by_age(shell, old_file, set_clock):
    set_clock(NOON)
    (newer,) = shell.backup()
    set_clock(NOON - timedelta(days=1))
    (older,) = shell.backup("--no-database", "--file", old_file)
    (shell.folder / "notes.txt").write_text("mine")
    code, told, _ = shell("list", "--folder", shell.folder)
    assert code == 0
    assert [(b["file"], b["source_name"], b["made_at"]) for b in told["backups"]] == [
        (str(older), "instance_configs.json", "2025-01-30T12:00:00.123456+00:00"),
        (str(newer), "proxy.db", "2025-01-31T12:00:00.123456+00:00"),
    ]


def test_no_backups_are_an_empty_list(shell):
    assert shell("list", "--folder", shell.folder)[:2] == (
        0,
        {"ok": True, "folder": str(shell.folder), "backups": [], "problems": []},
    )


@pytest.mark.parametrize(
    "name, source_name",
    [
        ("proxy.20250131T120000.123456Z.0123abcd.0123456789abcdef.db", "proxy.db"),
        ("a.b.20250131T120000.123456Z.0123abcd.0123456789abcdef.json", "a.b.json"),
        (".state.20250131T120000.123456Z.0123abcd.0123456789abcdef", ".state"),
        ("proxy.20250231T120000.123456Z.0123abcd.0123456789abcdef.db", None),  # no such day
        ("proxy.20250131T120000Z.0123abcd.0123456789abcdef.db", None),
        ("proxy.db.before-restore-20250131T120000.123456Z", None),
        ("proxy.20250131T120000.123456Z.0123abcd.0123456789abcdef.db-wal", "proxy.db-wal"),
        ("proxy.db", None),
    ],
)
def test_our_files_are_known_by_their_names(tmp_path, name, source_name):
    (tmp_path / name).write_text("")
    assert [b.source_name for b in shelf.listed(tmp_path)] == [source_name] * bool(source_name)


# Watching


def test_all_is_well_after_a_backup(shell, old_file):
    shell.backup("--file", old_file)
    assert shell.monitor("--file", old_file) == (0, [], "")


def test_what_is_missing_is_told(shell, old_file):
    old_file.unlink()
    code, alerts, _ = shell.monitor("--file", old_file)
    assert code == 1
    assert alerts == [
        ("missing", shell.database),  # its backup
        ("missing", old_file),
        ("missing", old_file),  # and its backup
    ]


def test_what_is_damaged_is_told(shell, backup, old_file):
    (of_file,) = shell.backup("--no-database", "--file", old_file)
    cut(shell.database)
    cut(backup)
    cut(old_file)
    of_file.write_text("{}")  # JSON, but not what was written
    code, alerts, _ = shell.monitor("--file", old_file)
    assert code == 1
    assert alerts == [("damaged", path) for path in (shell.database, backup, old_file, of_file)]


@pytest.mark.parametrize(
    "age_seconds, kinds",
    [
        (0, []),
        (100, []),
        (101, ["stale"]),
        (-300, []),  # clocks differ a little
        (-301, ["future"]),
    ],
)
def test_the_newest_backup_may_have_an_age(shell, set_clock, age_seconds, kinds):
    set_clock(NOON - timedelta(seconds=age_seconds))
    (backup,) = shell.backup()
    set_clock(NOON - timedelta(days=9))
    shell.backup()
    set_clock(NOON)
    alerts = shell.monitor("--max-age-seconds", 100)[1]
    assert alerts == [(kind, backup) for kind in kinds]


def test_the_age_of_sources_is_looked_at_on_request(shell, old_file):
    shell.backup("--file", old_file)
    for path in (shell.database, old_file):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    limits = ("--max-file-age-seconds", 3600)
    assert shell.monitor("--file", old_file)[0] == 0
    alerts = shell.monitor("--file", old_file, *limits)[1]
    assert alerts == [("stale", shell.database), ("stale", old_file)]
    # What the proxy writes is in the -wal first.
    shell.database.with_name("proxy.db-wal").touch()
    assert shell.monitor("--file", old_file, *limits)[1] == [("stale", old_file)]


def test_files_have_a_least_size(shell, old_file):
    (backup,) = shell.backup("--no-database", "--file", old_file)
    size = len(OLD_STATE)
    watch = ("--no-database", "--file", old_file, "--min-bytes")
    assert shell.monitor(*watch, size)[0] == 0
    assert shell.monitor(*watch, size + 1)[1] == [("small", old_file), ("small", backup)]


def test_alerts_are_appended_to_a_log(shell, tmp_path):
    log = tmp_path / "alerts.log"
    for _ in range(2):
        shell.monitor("--log", log)
    assert log.read_text().count(f"ALERT missing: {shell.database} has no backup") == 2
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_told_beside_the_alerts(shell, tmp_path):
    code, alerts, err = shell.monitor("--log", tmp_path)
    assert (code, len(alerts)) == (1, 1)
    assert f"{tmp_path} cannot be used" in err


class Hook:
    """A webhook that notes what it is sent."""

    def __init__(self, status):
        self.received = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append((self.path, json.loads(body)))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self):
                hook.received.append("redirected")

            def log_message(self, *_):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/s3cret?token=s3cret"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def no_http_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("is_option", [True, False])
def test_alerts_go_to_a_webhook(shell, monkeypatch, is_option):
    with Hook(204) as hook:
        if not is_option:
            monkeypatch.setenv(command_line.WEBHOOK_VARIABLE, hook.url)
        code, told, err = shell(
            "monitor", "--folder", shell.folder, *(["--webhook", hook.url] * is_option)
        )
    assert (code, told["webhook"], err) == (1, "sent", "")
    ((path, body),) = hook.received
    assert path == "/hooks/s3cret?token=s3cret"
    assert body["alerts"] == told["alerts"]
    assert f"{shell.database} has no backup" in body["text"]


def test_a_webhook_is_left_alone_when_all_is_well(shell):
    shell.backup()
    with Hook(200) as hook:
        assert shell.monitor("--webhook", hook.url)[0] == 0
    assert hook.received == []


@pytest.mark.parametrize(
    "status, reason", [(500, "answered 500"), (404, "answered 404"), (302, "answered 302")]
)
def test_a_webhook_that_fails_is_told_without_its_url(shell, status, reason):
    with Hook(status) as hook:
        code, alerts, err = shell.monitor("--webhook", hook.url)
    assert (code, len(alerts), len(hook.received)) == (1, 1, 1)
    assert reason in err
    assert "s3cret" not in err


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/s3cret",
        "http://127.0.0.1:1/s3cret with spaces",
        "http://127.0.0.1:99999/s3cret",
        "ftp://127.0.0.1/s3cret",
        "s3cret",
        "http:///s3cret",
        "http://[s3cret",
    ],
)
def test_a_url_that_does_not_work_is_not_repeated(shell, url):
    code, told, err = shell("monitor", "--folder", shell.folder, "--webhook", url)
    assert code in (1, 2)
    assert "webhook" in err
    assert "s3cret" not in err + json.dumps(told)


@pytest.mark.parametrize(
    "arguments", [["--webhook", "http://a/s3cret"], ["monitor", "--hook", "http://a/s3cret"]]
)
def test_a_wrong_command_line_does_not_repeat_a_url(shell, arguments):
    code, _, err = shell(*arguments)
    assert code == 2
    assert "s3cret" not in err


def test_a_webhook_is_not_waited_for_forever(monkeypatch):
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.01)
    with (
        HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent,
        pytest.raises(webhook.NotSent, match="TimeoutError"),
    ):
        webhook.send(f"http://127.0.0.1:{silent.server_port}/", "text", [])


# The job


def job_arguments(shell, *arguments):
    command = ["job", "--interval", "3600", "--folder", shell.folder, "--json", *arguments]
    return [str(each) for each in command]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_job_at_once_and_well(shell, number):
    command = [sys.executable, SCRIPT, *job_arguments(shell)]
    # A shell's background process ignores Ctrl-C, and would hand that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, before)
        told = json.loads(process.stdout.readline())
        process.send_signal(number)
        try:
            # Far less than the interval, and enough for a machine that is busy.
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, b"", b"")
    assert (told["ok"], len(told["backups"]), told["alerts"]) == (True, 1, [])


class Rounds(Event):
    """Stops the job after so many waits, none of which lasts."""

    def __init__(self, count):
        super().__init__()
        self.waits = []
        self._count = count

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return len(self.waits) == self._count


def run_job(shell, stop, *arguments):
    runs = dict.fromkeys(["backup", "verify", "restore", "list", "monitor", "job"])
    parser = command_line.parser(None, **runs)
    backup_monitor.job(parser.parse_args(job_arguments(shell, *arguments)), stop)


def test_the_job_goes_on_round_after_round(shell, capsys):
    stop = Rounds(3)
    run_job(shell, stop, "--keep", 2)
    rounds = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["ok"], len(r["deleted"])) for r in rounds] == [(True, 0), (True, 0), (True, 1)]
    assert stop.waits == [3600] * 3


def test_a_round_that_fails_is_an_alert_and_not_the_jobs_end(shell, capsys, old_file):
    old_file.unlink()
    with Hook(200) as hook:
        run_job(shell, Rounds(2), "--file", old_file, "--webhook", hook.url)
    rounds = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["ok"] for r in rounds] == [False, False]
    # The file and its backup; that it could not be copied says no more than that.
    assert [alert["kind"] for alert in rounds[0]["alerts"]] == ["missing", "missing"]
    assert len(hook.received) == 2
    assert str(old_file) in hook.received[0][1]["text"]


def test_an_interrupted_backup_leaves_nothing(shell, monkeypatch):
    def interrupt(*_):
        signal.raise_signal(signal.SIGTERM)

    # It is the check of the copy that is interrupted, within SQLite.
    monkeypatch.setattr("backups.checks.STEPS_BETWEEN_SIGNALS", 1)
    monkeypatch.setattr("backups.checks.pause_for_signals", interrupt)
    code, told, err = shell("backup", "--folder", shell.folder)
    assert (code, told["ok"]) == (1, False)
    assert "Interrupted" in err
    assert [p.name for p in shell.folder.iterdir()] == [".lock"]


# The command line


@pytest.mark.parametrize(
    "command, code, sentence",
    [
        ("", 2, "COMMAND"),
        ("delete", 2, "invalid choice"),
        ("verify", 2, "FILE"),
        ("job", 2, "--interval"),
        ("job --interval 0", 2, "above 0"),
        ("job --interval nan", 2, "above 0"),
        ("monitor --min-bytes 0", 2, "at least 1"),
        ("backup --no-database", 2, "Nothing to do"),
        ("backup --no-database --database x", 2, "not allowed with"),
        ("backup --database postgresql://user:s3cret@host/proxy", 2, "pg_dump"),
        ("restore x --database postgresql://user:s3cret@host/proxy", 2, "pg_dump"),
        ("backup --database sqlite://", 2, "PROXY_DATABASE_URL"),
        ("backup --database mysql://user:s3cret@host/proxy", 2, "PROXY_DATABASE_URL"),
        ("backup --database sqlite:///file:x?uri=true", 2, "no plain path"),
        ("backup --database {tmp}/nothing.db", 1, "does not exist"),
        ("backup --database {tmp}", 1, "is not a file"),
        ("backup --database {json}", 1, "is not an SQLite database"),
        ("backup --no-database --file {database}", 1, "name it with --database"),
        ("backup --folder {json}/below", 1, "Not a directory"),
        ("list --folder {json}", 1, "Not a directory"),
        ("restore {tmp}/nothing.db", 1, "does not exist"),
        ("restore {database}", 2, "in its place already"),
        ("restore {database} --database {tmp}", 1, "is not a file"),
    ],
)
def test_what_cannot_be_done_is_explained(shell, old_file, tmp_path, command, code, sentence):
    words = command.format(tmp=tmp_path, json=old_file, database=shell.database).split()
    if words[:1] == ["backup"] and "--folder" not in words:
        words += ["--folder", str(shell.folder)]
    found, told, err = shell(*words)
    assert found == code
    assert sentence in err
    assert "s3cret" not in err
    assert told is None or (not told["ok"] and told["problems"])


def test_a_wrong_setting_is_wrong_usage(shell, monkeypatch):
    monkeypatch.setenv("PROXY_WORKERS", "many")
    code, _, err = shell("backup", "--folder", shell.folder)
    assert code == 2
    assert "PROXY_WORKERS" in err


def test_people_get_sentences(shell, capsys, backup, tmp_path):
    for command in (["verify", backup], ["restore", backup]):
        assert backup_monitor.main([str(word) for word in command]) == 0
    out = capsys.readouterr().out
    assert f"{backup} is whole: sqlite" in out
    assert f"{shell.database} is restored from {backup}." in out
    assert "What was there is kept as" in out
