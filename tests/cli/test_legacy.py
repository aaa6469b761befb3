import hashlib
import json
import sqlite3
from contextlib import closing

import pytest

from migrations.legacy import discover
from migrations.legacy import run as legacy_run
from proxy import create_app
from proxy.store import instances
from tests.builders import AUTHOR
from tests.migrations.legacy.files import KEY, RECORD, STATE, record, write
from tests.migrations.legacy.imports import LATER, Reader, contents, rows
from tests.web.conftest import log_kept

PROXY = "http://user:planted-password@10.0.0.5:3128"


@pytest.fixture
def run(make_settings):
    """A function from a command's arguments to its result."""
    with log_kept():
        runner = create_app(make_settings()).test_cli_runner()
        yield lambda *arguments: runner.invoke(args=["legacy", *map(str, arguments)])


@pytest.fixture
def old(tmp_path):
    planted = {"proxy_url": PROXY, "tags": ["x"], "max_tpm": "30000"}
    write(tmp_path, "old/instance_configs.json", {"a": RECORD | planted, "b": record("b")})
    states = {"a": STATE | {"rate_limited_until": LATER}}
    write(tmp_path, "old/instance_states.json", states)
    with closing(sqlite3.connect(tmp_path / "old" / "instance_state.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE current_version (version_id TEXT)")
        connection.execute("CREATE TABLE instance_versions (id, version_id, data)")
        connection.execute("INSERT INTO current_version VALUES ('v')")
        versions = (json.dumps([record("c", max_tpm=7)]),)
        connection.execute("INSERT INTO instance_versions VALUES (1, 'v', ?)", versions)
        connection.commit()
    return tmp_path / "old"


def hashes(folder):
    return {
        str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def without_imports(database):
    return {k: v for k, v in contents(database).items() if k != "legacy_import"}


def spoil(old):
    write(old, "instance_configs.json", {"a": RECORD, "b": record("b", max_tpm="many")})


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("is_bad", [False, True])
def test_inspecting_writes_nothing_at_all(run, old, tmp_path, options, is_bad):
    if is_bad:
        spoil(old)
    before = hashes(tmp_path)
    result = run("inspect", old, *options)
    assert (result.exit_code, result.stderr) == (int(is_bad), "")
    assert hashes(tmp_path) == before


def test_inspecting_shows_field_by_field_what_an_import_would_do(run, old, database):
    shown = run("inspect", old).stdout
    assert "\na\n  config from S1 instance_configs.json key 'a' 'a'\n" in shown
    assert "    max_tpm = 30000\n" in shown
    assert "    total_requests = 7\n" in shown
    assert "  converted max_tpm: '30000' -> 30000\n" in shown
    assert "  unknown keys, kept as legacy_extra: tags\n" in shown
    plan, counts, rest = shown.partition(
        "4 records found = 3 imported + 1 merged + 0 rejected.\n"
    )
    assert rest == "Would be written: 3 configs, 1 states.\n"
    result = run("import", old)
    assert result.exit_code == 0
    assert result.stdout.startswith(plan + counts)


@pytest.mark.parametrize("path, said", [("none", "does not exist"), ("", "has no file of")])
def test_what_cannot_be_inspected_is_json_for_machines_too(run, tmp_path, path, said):
    (tmp_path / "deployment").mkdir()
    answer = run("inspect", tmp_path / "deployment" / path, "--json")
    assert answer.exit_code == 1
    assert said in json.loads(answer.stdout)["error"]
    assert answer.stderr == ""


def test_inspecting_tells_what_the_database_holds_already(run, old, database):
    run("import", old)
    with database.session() as session:
        instances.change(session, "a", {"max_tpm": 5}, author=AUTHOR)
        instances.remove(session, "b", author=AUTHOR)
    before = contents(database)
    shown = run("inspect", old).stdout
    assert shown.endswith(
        "Kept as it is, because it exists: a; the file differs in max_tpm\n"
        "Kept as it is, because it exists: c\n"
        "Left out, because it was removed after an import: b\n"
        "State not added, because one was added before: a\n"
        "Would be written: 0 configs, 0 states.\n"
    )
    told = json.loads(run("inspect", old, "--json").stdout)["database"]
    assert told == {
        "imported": [],
        "kept": {"a": ["max_tpm"], "c": []},
        "removed": ["b"],
        "states": [],
        "states_kept": {"a": []},
    }
    assert contents(database) == before


def test_inspecting_what_cannot_be_carried_does_not_promise_to_write_it(run, old):
    spoil(old)
    assert run("inspect", old).stdout.endswith(
        "Nothing would be imported; with --skip-bad would be written: 2 configs, 1 states.\n"
    )


def test_a_database_that_is_not_made_yet_has_nothing_to_tell(run, old, database, database_file):
    database.dispose()
    database_file.write_bytes(b"")
    assert run("inspect", old).stdout.endswith("0 rejected.\n")
    assert database_file.read_bytes() == b""


def test_inspecting_beside_a_database_that_cannot_be_read_says_so(run, old, database_file):
    database_file.write_bytes(b"no database" * 100)
    result = run("inspect", old)
    assert result.exit_code == 0
    assert "The database was not looked at: The database cannot be used: " in result.stdout
    assert json.loads(run("inspect", old, "--json").stdout)["database"] is None


def test_for_machines_it_is_json(run, old):
    told = json.loads(run("inspect", old, "--json").stdout)
    assert told["counts"]["imported"] == len(told["instances"]) == 3
    spoil(old)
    result = run("inspect", old, "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["field"], problem["value"]) == ("max_tpm", "'many'")


def test_inspecting_needs_no_database(make_settings, old, tmp_path):
    with log_kept():
        app = create_app(make_settings(database_url=f"sqlite:///{tmp_path}/none.db"))
        result = app.test_cli_runner().invoke(args=["legacy", "inspect", str(old)])
    assert result.exit_code == 0
    assert result.stdout.endswith("0 rejected.\n")
    assert not (tmp_path / "none.db").exists()


def test_an_import_carries_all_and_makes_a_backup_beside_the_database(run, old, database):
    result = run("import", old)
    assert (result.exit_code, result.stderr) == (0, "")
    assert rows(database, "instance_config").keys() == {"a", "b", "c"}
    (backup,) = old.parent.glob("backup_*")
    assert f"Backup: {backup}\n" in result.stdout
    assert result.stdout.endswith("Written: 3 configs, 1 states.\n")


def test_running_processes_can_write_while_the_old_files_are_read(
    run, old, database_file, monkeypatch
):
    """Of ten thousand instances that takes longer than a worker waits for the lock."""

    def read(*arguments):
        with closing(sqlite3.connect(database_file, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("COMMIT")
        return discover.read(*arguments)

    monkeypatch.setattr(legacy_run, "discover", Reader(read))
    assert run("import", old).exit_code == 0


def test_running_processes_notice_an_import(run, old, database):
    run("import", old)
    with database.read() as connection:
        assert {s.revision for s in instances.load_all(connection)} == {1}


def test_importing_twice_changes_no_config_and_no_state(run, old, database):
    run("import", old)
    before = without_imports(database)
    result = run("import", old)
    assert result.exit_code == 0
    assert result.stdout.endswith("Written: 0 configs, 0 states.\n")
    assert without_imports(database) == before


def test_an_operators_change_between_two_imports_is_kept_and_told(run, old, database):
    run("import", old)
    with database.session() as session:
        instances.change(session, "a", {"max_tpm": 5}, author=AUTHOR)
        instances.remove(session, "b", author=AUTHOR)
    before = without_imports(database)
    result = run("import", old)
    assert without_imports(database) == before
    assert "Kept as it is, because it exists: a; the file differs in max_tpm\n" in result.stdout
    assert "Left out, because it was removed after an import: b\n" in result.stdout


def test_a_bad_record_stops_it_with_the_report_and_nothing_is_written(run, old, database):
    spoil(old)
    before = contents(database)
    result = run("import", old)
    assert result.exit_code == 1
    assert result.stdout.startswith("Files:")
    assert "key 'b' ('b'): max_tpm:" in result.stdout
    assert result.stderr.startswith("Error: Nothing was imported; the files are copied to ")
    assert "alembic" not in result.stderr  # it would find that it has passed the revision
    assert f"flask legacy import --skip-bad {old}" in result.stderr
    assert contents(database) == before


def test_the_bad_can_be_skipped(run, old, database):
    spoil(old)
    result = run("import", old, "--skip-bad")
    assert result.exit_code == 0
    assert rows(database, "instance_config").keys() == {"a", "c"}
    assert "4 records found = 2 imported + 1 merged + 1 rejected." in result.stdout
    (backup,) = old.parent.glob("backup_*")
    assert (backup / "rejected.json").is_file()
    assert result.stdout.endswith(
        f"Left out, as they cannot be carried: 1 records; see {backup}/rejected.json\n"
    )


def test_what_only_a_file_that_came_too_late_has_is_named(run, old):
    """Files that are imported one after the other: only the first one's state is added."""
    write(old, "instance_states.json", {"a": {"error_count": 2, "last_error": "429: slow"}})
    write(old, "instance_state.json", {"instances": [record() | STATE]})
    run("import", old / "instance_states.json")
    shown = run("import", old / "instance_state.json").stdout
    assert (
        "State not added, because one was added before: a; only the file has total_requests\n"
        in shown
    )


@pytest.mark.parametrize("arguments", [("inspect",), ("import",), ("inspect", "--json")])
def test_no_key_and_no_password_is_printed(run, old, arguments):
    for _ in range(2):
        result = run(*arguments, old)
        assert KEY not in result.output
        assert "planted-password" not in result.output
        spoil(old)


@pytest.mark.parametrize("command", ["inspect", "import"])
def test_a_path_that_does_not_exist_is_a_sentence(run, tmp_path, command):
    result = run(command, tmp_path / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (f"Error: Nothing was imported: {tmp_path}/none does not exist.\n")


def test_without_a_database_the_remedy_is_named(make_settings, old, tmp_path):
    with log_kept():
        app = create_app(make_settings(database_url=f"sqlite:///{tmp_path}/none.db"))
        result = app.test_cli_runner().invoke(args=["legacy", "import", str(old)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "alembic upgrade head" in result.stderr
    assert list(tmp_path.glob("backup_*")) == []


@pytest.mark.parametrize("arguments", [("inspect",), ("import",), ("import", "a", "b"), ("x",)])
def test_wrong_usage_has_a_code_of_its_own(run, arguments):
    assert run(*arguments).exit_code == 2
