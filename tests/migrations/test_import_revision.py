import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, insert

from proxy.settings import ROOT
from proxy.store import instances, schema
from proxy.store.db import Database
from tests.builders import AUTHOR, SECRET_KEY, VAULT, config
from tests.migrations.legacy.files import KEY, RECORD, STATE, record, write
from tests.migrations.legacy.imports import LATER, contents, rows

FILES = {
    "instance_configs.json": {"a": RECORD | {"tags": ["x"]}, "b": record("b")},
    "instance_states.json": {"a": STATE | {"rate_limited_until": LATER}},
}
BAD = {"a": RECORD, "b": record("b", max_tpm="many")}


@pytest.fixture
def old(tmp_path):
    for name, content in FILES.items():
        write(tmp_path, f"old/{name}", content)
    return tmp_path / "old"


@pytest.fixture
def empty(tmp_path):
    """A database that is not made yet, in a folder of its own."""
    database = Database(f"sqlite:///{tmp_path}/new/proxy.db", VAULT)
    yield database
    database.dispose()


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="alembic.legacy")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def run(*arguments, database, legacy=None):
    """The command line's, from the project's root."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PROXY_")}
    environ |= {"PROXY_DATABASE_URL": str(database.url), "PROXY_SECRET_KEY": SECRET_KEY}
    if legacy is not None:
        environ["PROXY_LEGACY_PATH"] = str(legacy)
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def alembic(*arguments, database):
    return run("alembic", *arguments, database=database)


# The import is the last revision, whatever else changes.
SCRIPTS = ScriptDirectory(str(ROOT / "migrations"))
IMPORT = SCRIPTS.get_current_head()
BEFORE = SCRIPTS.get_revision(IMPORT).down_revision


def downgrade(database, target="-1"):
    with schema.migrating(database):
        command.downgrade(schema.alembic_config(database), target)


def revision(database):
    there = contents(database).get("alembic_version", [])
    return [row["version_num"] for row in there]


def without_imports(database):
    return {k: v for k, v in contents(database).items() if k != "legacy_import"}


NOT_MEASURED = ("instance_name", "legacy_state", "legacy_imported_at", "write_number")


def measured(database):
    """What is not zero of each instance's state, and its rest."""
    there = contents(database)
    numbers = {
        (row["instance_name"], k): v
        for row in there["instance_state"]
        for k, v in row.items()
        if v and k not in NOT_MEASURED
    }
    return numbers, [row["rate_limited_until"] for row in there["deployment_state"]]


def folders(database, prefix):
    folder = schema.sqlite_path(database).parent
    return sorted(folder.glob(f"{prefix}_*"))


def test_without_a_source_nothing_is_imported_and_that_is_said(empty, told):
    schema.upgrade(empty)
    schema.check(empty)
    assert "No data of an old proxy is imported: name it with `-x legacy=PATH`" in told()
    assert folders(empty, "backup") == []
    assert {t for t, there in contents(empty).items() if there} == {
        "alembic_version",
        "secret",
    }


def test_the_setting_names_the_source(empty, old, told, monkeypatch):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(empty)
    schema.check(empty)
    assert rows(empty, "instance_config").keys() == {"a", "b"}
    assert "3 records found = 2 imported + 1 merged + 0 rejected." in told()
    (backup,) = folders(empty, "backup")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700


def test_the_report_is_seen_where_nobody_asked_for_log_lines(empty, old, caplog, monkeypatch):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    caplog.set_level(logging.WARNING)
    schema.upgrade(empty)
    assert "unknown keys, kept as legacy_extra: tags" in caplog.text


def test_a_bad_record_stops_the_whole_upgrade(empty, old, monkeypatch):
    write(old, "instance_configs.json", BAD)
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    with pytest.raises(schema.SchemaProblem, match="'many'"):
        schema.upgrade(empty)
    assert contents(empty) == {}
    write(old, "instance_configs.json", FILES["instance_configs.json"])
    schema.upgrade(empty)
    assert rows(empty, "instance_config").keys() == {"a", "b"}


def test_a_bad_record_does_not_move_the_revision_of_a_present_database(
    database, old, monkeypatch
):
    downgrade(database)
    before = contents(database)
    write(old, "instance_configs.json", BAD)
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    with pytest.raises(schema.SchemaProblem, match="Nothing was imported"):
        schema.upgrade(database)
    assert contents(database) == before
    assert revision(database) == [BEFORE]


def test_the_command_line_imports_once_and_says_so(empty, old):
    first = alembic("-x", f"legacy={old}", "upgrade", "head", database=empty)
    assert (first.returncode, first.stdout) == (0, "")
    assert "2 imported + 1 merged" in first.stderr
    assert KEY not in first.stderr
    assert not Path(f"{empty.file}-wal").exists()  # who copies the file has it all
    before = contents(empty)
    second = alembic("-x", f"legacy={old}", "upgrade", "head", database=empty)
    assert second.returncode == 0
    # The database has passed that revision: silence would look like an import.
    assert "Nothing was imported now: the database had passed" in second.stderr
    assert f"`flask legacy import {old}`" in second.stderr
    assert contents(empty) == before


def test_the_command_line_says_so_too_where_the_setting_names_the_source(empty, old):
    first, second = (
        run("alembic", "upgrade", "head", database=empty, legacy=old) for _ in range(2)
    )
    said = f"To import later: `flask legacy import {old}`."
    assert (first.returncode, second.returncode) == (0, 0)
    assert said not in first.stderr
    assert f"Nothing was imported now: the database had passed that revision. {said}" in (
        second.stderr
    )
    other = run("alembic", "current", database=empty, legacy=old)
    assert "imported" not in other.stderr


def test_the_command_line_stops_with_a_report_and_can_skip_the_bad(empty, old):
    write(old, "instance_configs.json", BAD)
    stopped = alembic("-x", f"legacy={old}", "upgrade", "head", database=empty)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "instance_configs.json key 'b' ('b'): max_tpm:" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert contents(empty) == {}
    arguments = ("-x", f"legacy={old}", "-x", "skip_bad=yes", "upgrade", "head")
    assert alembic(*arguments, database=empty).returncode == 0
    assert rows(empty, "instance_config").keys() == {"a"}
    (rejected,) = (f / "rejected.json" for f in folders(empty, "backup"))
    assert stat.S_IMODE(rejected.stat().st_mode) == 0o600
    assert json.loads(rejected.read_text())[0]["config"] == BAD["b"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["legacy={folder}/none"], "Nothing was imported: {folder}/none does not exist."),
        (["legacy="], "-x legacy= names no path."),
        (["legacy"], "-x legacy= names no path."),
        (["legacy={folder}", "skip_bad=ja"], "-x skip_bad: it is yes or no, not 'ja'."),
        (["legacy={folder}", "skip_bad"], "-x skip_bad: it is yes or no, not ''."),
        (["legcy={folder}"], "-x legcy: there is no such argument, only legacy and skip_bad."),
    ],
)
def test_a_source_that_is_misspelt_is_a_sentence_and_no_upgrade(
    empty, tmp_path, arguments, said
):
    given = [each.format(folder=tmp_path) for each in arguments]
    stopped = alembic(*(x for a in given for x in ("-x", a)), "upgrade", "head", database=empty)
    assert stopped.returncode == 1
    assert stopped.stderr.endswith(said.format(folder=tmp_path) + "\n")
    assert "Traceback" not in stopped.stderr
    assert not schema.sqlite_path(empty).exists() or contents(empty) == {}


def test_the_start_of_the_proxy_stops_with_the_report(empty, old):
    write(old, "instance_configs.json", BAD)
    stopped = run("proxy", database=empty, legacy=old)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "max_tpm:" in stopped.stderr
    assert "Found: 'many'." in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert contents(empty) == {}


def test_going_back_writes_the_old_files_and_keeps_what_is_there(empty, old, told, monkeypatch):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(empty)
    before = without_imports(empty)
    downgrade(empty)
    (folder,) = folders(empty, "downgrade")
    assert str(folder) in told()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name, content in FILES.items():
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        back = json.loads((folder / name).read_text())
        for key, values in content.items():
            carried = {k: v for k, v in values.items() if k != "status"}
            assert {k: back[key][k] for k in carried} == carried
    # The same source again: nothing twice.
    schema.upgrade(empty)
    assert without_imports(empty) == before
    assert len(folders(empty, "backup")) == 1


def test_nothing_goes_back_under_a_gateway_that_runs(database):
    before = revision(database)
    stopped = alembic("downgrade", "-1", database=database)  # the fixture has it open
    assert stopped.returncode == 1
    assert "is in use: stop the gateway, and what else has it open" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert (revision(database), folders(database, "downgrade")) == (before, [])


@pytest.mark.tells_secrets("a downgrade writes them as they were before they were encrypted")
def test_what_was_imported_as_an_earlier_revision_is_not_imported_again(
    empty, old, monkeypatch, told
):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(empty)
    before = measured(empty)
    downgrade(empty, "0005")
    (old.parent / "emptied").mkdir()
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old.parent / "emptied"))
    schema.upgrade(empty)
    assert measured(empty) == before
    assert "data of an old proxy was before" in told()


def test_what_going_back_wrote_can_be_imported_again(empty, old, tmp_path, monkeypatch):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(empty)
    downgrade(empty)
    (folder,) = folders(empty, "downgrade")
    other = Database(f"sqlite:///{tmp_path}/other/proxy.db", VAULT)
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(folder))
    schema.upgrade(other)
    assert measured(other) == measured(empty)
    moments = {"created_at": 0.0, "updated_at": 0.0}
    one, two = (
        {name: row | moments for name, row in rows(each, "instance_config").items()}
        for each in (empty, other)
    )
    assert one == two
    other.dispose()


def test_totals_are_the_same_after_going_back_and_in_again(empty, tmp_path, monkeypatch):
    """Also those of an instance that was measured here only."""
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(write(tmp_path, "s1.json", {"a": RECORD})))
    schema.upgrade(empty)
    with empty.write() as connection:
        state = MetaData()
        state.reflect(connection, only=["instance_state"])
        row = {"instance_name": "a", "total_requests": 10}
        columns = state.tables["instance_state"].c
        zeros = {c.name: 0 for c in columns if not c.nullable}
        connection.execute(insert(state.tables["instance_state"]).values(zeros | row))
    for _ in range(2):
        downgrade(empty)
        monkeypatch.setenv("PROXY_LEGACY_PATH", str(folders(empty, "downgrade")[-1]))
        schema.upgrade(empty)
        assert rows(empty, "instance_state")["a"]["total_requests"] == 10


def test_going_back_where_nothing_can_be_written_is_refused(database, monkeypatch, tmp_path):
    (tmp_path / "proxy.db").chmod(0o600)
    stuck = write(tmp_path, "file", "")
    monkeypatch.setattr(schema, "private_parent", lambda connection: stuck / "folder")
    with pytest.raises(schema.SchemaProblem, match="cannot be written in"):
        downgrade(database)
    assert revision(database) == [IMPORT]


def test_a_source_that_can_only_be_read_is_enough(empty, old, monkeypatch):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    for path in (*old.iterdir(), old):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_mode) for p in (old, *old.iterdir())}
    schema.upgrade(empty)
    assert {
        p: (p.stat().st_mtime_ns, p.stat().st_mode) for p in (old, *old.iterdir())
    } == before
    old.chmod(0o700)  # so that it can be deleted
    assert rows(empty, "instance_config").keys() == {"a", "b"}


def test_the_import_is_the_last_revision():
    assert "import_what_the_old_program_left" in SCRIPTS.get_revision(IMPORT).path


@pytest.mark.tells_secrets("a downgrade writes them as they were before they were encrypted")
def test_a_database_that_passed_the_import_when_it_was_an_earlier_one_is_brought_up_to_date(
    empty, old, monkeypatch
):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(empty)
    before = rows(empty, "instance_config")
    downgrade(empty, "0003")
    schema.upgrade(empty)
    after = rows(empty, "instance_config")
    assert {n: r["max_rpm"] for n, r in after.items()} == {"a": 0, "b": 0}
    assert after == before
    assert measured(empty)[0]["a", "total_requests"] == STATE["total_requests"]


@pytest.mark.tells_secrets("a downgrade writes them as they were before they were encrypted")
def test_no_downgrade_forgets_that_totals_were_added(empty, old, monkeypatch):
    monkeypatch.setenv("PROXY_LEGACY_PATH", str(old))
    schema.upgrade(empty)
    before = contents(empty)
    with pytest.raises(schema.SchemaProblem, match="would add them twice"):
        downgrade(empty, "0001")
    assert contents(empty) == before
    assert folders(empty, "downgrade") == []  # nothing of it is marked as written out


def test_a_kind_the_old_program_does_not_know_is_named(empty, told, monkeypatch):
    schema.upgrade(empty)
    with empty.session() as session:
        instances.add(session, [config("new-kind", provider_type="azure_v1")], author=AUTHOR)
    downgrade(empty)
    assert "to be checked by hand: new-kind" in told()


def test_instances_that_the_old_program_could_not_ask_are_named(empty, told, monkeypatch):
    schema.upgrade(empty)
    with empty.session() as session:
        both = [config("with-token", auth="entra", api_key="NONE"), config("with-key")]
        instances.add(session, both, author=AUTHOR)
    downgrade(empty)
    assert "no tokens of Entra ID; to be given a key by hand: with-token\n" in told() + "\n"
