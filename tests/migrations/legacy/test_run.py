import gc
import hashlib
import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrations.legacy import discover, report, run
from migrations.legacy.backup import MANIFEST, REJECTED
from migrations.legacy.run import ImportRefused
from proxy.settings import ROOT
from proxy.store.db import StoreUnavailable
from tests.migrations.legacy.files import KEY, RECORD, STATE, record, write
from tests.migrations.legacy.imports import LATER, Reader, contents, imported, rows
from tests.migrations.legacy.test_samples import SAMPLES

PASSWORD = "planted-password"
PROXY = f"http://user:{PASSWORD}@10.0.0.5:3128"


@pytest.fixture
def old(tmp_path):
    return tmp_path / "old"


def backups(folder):
    return sorted(folder.glob("backup_*"))


def envelope(*records):
    return {"timestamp": 1.0, "worker_id": "w", "instances": list(records)}


def hashes(folder):
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def strict_json(file):
    """Python's JSON has NaN, and others have not."""
    return json.loads(file.read_text(), parse_constant=pytest.fail)


def refusal(database, path, **options):
    """The report of an import that writes nothing."""
    before = contents(database)
    with pytest.raises(ImportRefused) as caught:
        imported(database, path, **options)
    assert contents(database) == before
    assert "Nothing was imported" in str(caught.value)
    return str(caught.value)


def test_the_split_files_are_imported_and_the_counts_add_up(database, old):
    write(old, "instance_configs.json", {"a": RECORD, "b": record("b")})
    write(old, "instance_states.json", {"a": STATE})
    outcome = imported(database, old)
    assert rows(database, "instance_config").keys() == {"a", "b"}
    assert rows(database, "instance_state")["a"]["total_requests"] == 7
    text = outcome.as_text()
    assert "3 records found = 2 imported + 1 merged + 0 rejected." in text
    assert f"Backup: {outcome.backup}" in text
    assert text.endswith("Written: 2 configs, 1 states.")


BAD = [
    # What stands there, and what the report says of it.
    ("no name", {k: v for k, v in RECORD.items() if k != "name"}, ["instances[1]: name:"]),
    ("no key", record("b", api_key=""), ["instances[1] ('b'): api_key:", '"NONE"']),
    ("wrong type", record("b", max_tpm="many"), ["('b'): max_tpm:", "Found: 'many'."]),
    ("beyond", record("b", max_tpm=2**63), ["('b'): max_tpm:", "9223372036854775808"]),
    ("not a number", record("b", timeout_seconds=float("nan")), ["timeout_seconds:", "nan"]),
    ("reserved", record("new"), ["('new'): name:", "Give the record a name"]),
    ("slash", record("b/"), ["('b/'): name:", "slash"]),
    ("disagrees", record("a", max_tpm=5), ["('a'): max_tpm: Disagrees with instances[0]"]),
    ("state", record("b", stats={"error_count": "many"}), ["('b'): error_count:", "'many'"]),
    ("no object", "text", ["instances[1]: This is no object"]),
]


@pytest.mark.parametrize("bad, said", [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_record_that_cannot_be_carried_stops_the_import_with_a_report(
    database, old, tmp_path, bad, said
):
    file = write(old, "instances.json", envelope(RECORD, bad))
    text = refusal(database, old)
    line = next(each for each in text.splitlines() if said[0] in each)
    assert str(file) in line
    assert all(each in line for each in said)
    assert line.rstrip(".").rpartition(". ")[2]  # the remedy
    # The backup comes before anything else, so it is there.
    (folder,) = backups(tmp_path)
    assert str(folder) in text
    assert "`alembic -x legacy=" in text
    assert "-x skip_bad=yes upgrade head`" in text
    assert "flask legacy" not in text  # without the schema it has nothing to import into
    assert not (folder / REJECTED).exists()


@pytest.mark.parametrize("bad", [row[1] for row in BAD], ids=[row[0] for row in BAD])
def test_skipping_the_bad_imports_the_rest_and_keeps_the_bad_whole(database, old, bad):
    write(old, "instances.json", envelope(RECORD, record("good"), bad))
    outcome = imported(database, old, skip_bad=True)
    assert "good" in rows(database, "instance_config")
    assert "b" not in rows(database, "instance_config")
    rejected = outcome.backup / REJECTED
    assert stat.S_IMODE(rejected.stat().st_mode) == 0o600
    kept = strict_json(rejected)
    if isinstance(bad, dict):
        whole = [each.get("config", {}) | each.get("state", {}) for each in kept]
        values = {k: v for k, v in (bad | bad.get("stats", {})).items() if k != "stats"}
        assert any(
            all(str(each.get(k)).lower() == str(v).lower() for k, v in values.items())
            for each in whole
        )
    else:
        assert [each["entry"] for each in kept if "entry" in each] == [bad]
    counts = report.counts(outcome.plan)
    assert (counts["found"], counts["rejected"]) == (3, len(kept))
    assert counts["found"] == counts["imported"] + counts["merged"] + counts["rejected"]


@pytest.mark.parametrize("entry", [None, 5, "text", []])
def test_old_data_does_not_take_the_place_of_an_entry_that_is_none(database, old, entry):
    write(old, "instance_configs.json", {"a": entry, "b": record("b")})
    older = {"last_updated": 1.0, **envelope(record("a", api_key="sk-old-and-gone"))}
    write(old, ".temp/instance_state.json", older)
    outcome = imported(database, old, skip_bad=True)
    assert rows(database, "instance_config").keys() == {"b"}
    kept = strict_json(outcome.backup / REJECTED)
    assert [each.get("entry", "a record") for each in kept] == ["a record", entry]


def test_an_unknown_scalar_beside_the_records_stops_nothing_and_is_listed(database, old):
    write(old, "instance_data.json", {"a": RECORD | STATE, "region": "eu", "timestamp": 1.0})
    outcome = imported(database, old)
    assert rows(database, "instance_config").keys() == {"a"}
    assert "Settings of the old program, not carried: region" in outcome.as_text()
    assert "1 records found = 1 imported + 0 merged + 0 rejected." in outcome.as_text()


def test_a_truncated_file_stops_the_import_and_can_be_skipped(database, old):
    cut = write(old, "instances.json", json.dumps(envelope(RECORD))[:-20])
    write(old, "instance_configs.json", {"b": record("b")})
    assert f"{cut}: No JSON at line 1" in refusal(database, old)
    outcome = imported(database, old, skip_bad=True)
    assert rows(database, "instance_config").keys() == {"b"}
    assert "What bad files hold is not counted: 1." in outcome.as_text()
    (problem,) = json.loads((outcome.backup / REJECTED).read_text())
    assert problem["problems"][0]["file"] == str(cut)


@pytest.mark.parametrize(
    "name", ["instance_configs.json", "instance_data.json", "instance_state.db"]
)
def test_old_data_does_not_take_the_place_of_a_damaged_newer_file(database, old, name):
    older = {"last_updated": 1.0, **envelope(record("a", api_key="sk-old-and-gone"))}
    write(old, ".temp/instance_state.json", older)
    newer = write(old, name, '{"a": {"api_key": "sk-new"')
    line = f"instances[0] ('a'): {newer} is newer and cannot be read. Mend that file"
    assert line in refusal(database, old)
    outcome = imported(database, old, skip_bad=True)
    assert contents(database)["instance_config"] == []
    assert "1 records found = 0 imported + 0 merged + 1 rejected." in outcome.as_text()


def test_old_state_does_not_take_the_place_of_a_damaged_newer_file(database, old):
    write(old, "instance_configs.json", {"a": RECORD})
    older = {"last_updated": 1.0, **envelope(record(stats={"error_count": 5}))}
    write(old, ".temp/instance_state.json", older)
    write(old, "states/now.json", '{"a": {"error_count"')
    write(old, ".env", "INSTANCE_STATE_FILE=states/now.json\n")
    imported(database, old, skip_bad=True)
    assert rows(database, "instance_config").keys() == {"a"}
    assert rows(database, "instance_state") == {}


@pytest.mark.parametrize("spot", ['"weight": 1, "weight": 1', f'"weight": {"9" * 5000}'])
def test_one_bad_spot_does_not_take_the_rest_of_the_file_along(database, old, spot):
    a = f'{{"api_key": "{KEY}", {spot}}}'
    write(old, "instance_configs.json", f'{{"a": {a}, "b": {json.dumps(record("b"))}}}')
    text = refusal(database, old)
    assert "instance_configs.json key 'a':" in text
    assert "set_int_max_str_digits" not in text
    outcome = imported(database, old, skip_bad=True)
    assert rows(database, "instance_config").keys() == {"b"}
    assert "2 records found = 1 imported + 0 merged + 1 rejected." in outcome.as_text()
    assert len(strict_json(outcome.backup / REJECTED)) == 1


@pytest.mark.parametrize("value", ["{!!binary aGk=: 1}", "&t [*t]"])
def test_what_json_does_not_have_is_one_problem_in_inspection_and_import(database, old, value):
    whole = f"api_key: {KEY}, api_base: 'https://a.example'"
    text = f"instances: [{{name: a, {whole}, tags: {value}}}, {{name: b, {whole}}}]"
    write(old, "config/base.yaml", text)
    (problem,) = run.inspect(old, {}).problems
    assert (problem.record, "plain YAML does not have" in problem.message) == (
        "instances[0]",
        True,
    )
    assert problem.message in refusal(database, old)
    outcome = imported(database, old, skip_bad=True)
    assert rows(database, "instance_config").keys() == {"b"}
    (kept,) = strict_json(outcome.backup / REJECTED)
    assert value in kept["entry"]


def test_the_backup_holds_every_file_as_it_was(database, old):
    files = [
        write(old, "instance_configs.json", {"a": RECORD}),
        write(old, ".env", "PORT=80\n"),
        write(old, ".temp/instance_state.json", envelope()),
    ]
    outcome = imported(database, old)
    entries = json.loads((outcome.backup / MANIFEST).read_text())
    assert {e["source"] for e in entries} == set(map(str, files))
    for entry in entries:
        copy = (outcome.backup / entry["copy"]).read_bytes()
        assert copy == Path(entry["source"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(copy).hexdigest()


def test_an_import_that_fails_again_and_again_makes_one_backup(database, old, tmp_path):
    write(old, "instances.json", envelope(record("b", max_tpm="many")))
    for _ in range(3):
        refusal(database, old)
    assert len(backups(tmp_path)) == 1


def test_what_was_left_out_is_written_once_and_never_over_another(database, old):
    write(old, "instances.json", envelope(RECORD, record("b", max_tpm="many")))
    first = imported(database, old, skip_bad=True).backup
    content = (first / REJECTED).read_bytes()
    assert imported(database, old, skip_bad=True).backup == first
    assert [p.name for p in first.glob("rejected*")] == [REJECTED]
    (first / REJECTED).write_text("of an earlier version")
    imported(database, old, skip_bad=True)
    assert (first / REJECTED).read_text() == "of an earlier version"
    assert (first / "rejected_2.json").read_bytes() == content


def test_nothing_is_read_before_the_backup_is_made(database, old, monkeypatch):
    write(old, "instance_configs.json", {"a": RECORD})

    def read(path, files, environ):
        assert backups(old.parent), "no backup yet"
        return discover.read(path, files, environ)

    monkeypatch.setattr(run, "discover", Reader(read))
    imported(database, old)


def test_a_file_that_changes_meanwhile_is_not_imported(database, old, monkeypatch):
    file = write(old, "instance_configs.json", {"a": RECORD})

    def read(path, files, environ):
        file.write_text(json.dumps({"a": record(max_tpm=5)}))
        return discover.read(path, files, environ)

    monkeypatch.setattr(run, "discover", Reader(read))
    text = refusal(database, old, skip_bad=True)
    assert f"{file} changed meanwhile. Stop the old program" in text


def test_a_backup_that_cannot_be_made_stops_the_import(database, old, tmp_path):
    write(old, "instance_configs.json", {"a": RECORD})
    text = refusal(database, old, backups=write(tmp_path, "file", "") / "x", skip_bad=True)
    assert "No backup can be made in" in text


def test_a_file_that_is_named_and_missing_can_be_skipped(database, old):
    write(old, ".env", "INSTANCE_CONFIG_FILE=gone.json\n")
    write(old, "instances.json", envelope(RECORD))
    assert "gone.json: An env file names this file, and it is not there." in refusal(
        database, old
    )
    imported(database, old, skip_bad=True)
    assert rows(database, "instance_config").keys() == {"a"}


def test_an_unknown_path_and_an_empty_folder_are_sentences(database, old):
    assert refusal(database, old) == f"Nothing was imported: {old} does not exist."
    old.mkdir()
    assert "has no file of the old program" in refusal(database, old)


def test_the_newest_era_wins_and_the_report_names_what_was_shadowed(database, old):
    write(old, "instance_configs.json", {"a": record(priority=1)})
    write(old, "instance_data.json", {"a": record(priority=2) | STATE})
    write(old, ".temp/instance_state.json", {"last_updated": 1.0, **envelope(record("b"))})
    outcome = imported(database, old)
    there = rows(database, "instance_config")
    assert (there["a"]["priority"], "b" in there) == (1, True)
    assert rows(database, "instance_state")["a"]["total_requests"] == 7
    assert "its state goes to S1 (instance_configs.json, key 'a'), its config is shadowed" in (
        outcome.as_text()
    )


def test_an_instance_in_both_yaml_files_is_found_twice_and_merged(database, old):
    whole = f"api_key: {KEY}, api_base: 'https://a.example'"
    write(old, "config/base.yaml", f"instances: [{{name: a, {whole}, tier: gold}}]")
    write(old, "config/production.yaml", f"instances: [{{name: a, {whole}, priority: 7}}]")
    outcome = imported(database, old)
    text = outcome.as_text()
    assert "2 records found = 1 imported + 1 merged + 0 rejected." in text
    assert "base.yaml instances[0] 'a': shadowed by Y1 (production.yaml, instances[0])" in text
    row = rows(database, "instance_config")["a"]
    assert (row["priority"], row["legacy_extra"]) == (7, {"tier": "gold"})


def test_keys_and_passwords_are_in_no_text_and_no_revision(database, old):
    planted = {"api_key": KEY, "proxy_url": PROXY}
    bad = record("bad", **planted, max_tpm=-1)
    state = STATE | {"name": "fine"}
    write(old, "instances.json", envelope(record("fine", **planted) | state, bad, [KEY]))
    write(old, ".env", f"ADMIN_API_KEY={KEY}\nAPI_INSTANCES=e\nAPI_INSTANCE_E_API_KEY={KEY}\n")
    texts = [refusal(database, old)]
    outcome = imported(database, old, skip_bad=True)
    plan = run.inspect(old, {})
    there = contents(database)
    texts += [outcome.as_text(), repr(outcome), json.dumps(report.as_json(plan)), repr(plan)]
    texts += [repr(there["config_revision"]), repr(there["legacy_import"])]
    for text in texts:
        assert KEY not in text
        assert PASSWORD not in text
    assert there["instance_config"][0]["api_key"] == KEY


def test_inspecting_writes_nothing_and_says_what_an_import_would_do(database, old, tmp_path):
    write(old, "instance_configs.json", {"a": RECORD, "b": record("b", max_tpm="5")})
    before = hashes(tmp_path)
    plan = run.inspect(old, {})
    assert hashes(tmp_path) == before
    assert imported(database, old).plan.instances == plan.instances


def test_an_exception_in_the_middle_leaves_nothing(database, old):
    write(old, "instance_configs.json", {"a": RECORD})
    write(old, "instance_states.json", {"a": STATE})
    with database.write() as connection:
        # The last statement of an import.
        connection.exec_driver_sql(
            "CREATE TRIGGER t BEFORE INSERT ON legacy_import BEGIN"
            " SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    before = contents(database)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        imported(database, old)
    assert contents(database) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from proxy.store.db import Database
from migrations.legacy.run import import_legacy
from tests.builders import VAULT

database = Database(f"sqlite:///{sys.argv[1]}", VAULT)

@event.listens_for(database.engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    if statement.startswith("INSERT INTO instance_state"):
        os.kill(os.getpid(), signal.SIGKILL)

with database.write() as connection:
    folder = Path(sys.argv[1]).parent
    import_legacy(connection, Path(sys.argv[2]), backups=folder, environ={})
"""


def test_a_kill_in_the_middle_leaves_the_old_state_and_the_next_run_completes(
    database, database_file, old, tmp_path
):
    names = [f"a{n}" for n in range(300)]
    write(old, "instance_configs.json", {n: record(n) for n in names})
    write(old, "instance_states.json", {n: STATE | {"name": n} for n in names})
    before = contents(database)
    database.dispose()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(database_file), str(old)], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert contents(database) == before
    (backup,) = backups(tmp_path)
    outcome = imported(database, old)
    assert len(outcome.result.imported) == len(outcome.result.states) == 300
    # The files are the same, so it is the one the killed run had made.
    assert outcome.backup == backup


bad_values = st.sampled_from([5, "5", -1, "many", None])
generated = st.lists(
    st.builds(
        lambda name, tpm, stats: record(name, max_tpm=tpm) | stats,
        st.sampled_from(["a", "b", "c", "new", None]),
        bad_values,
        st.sampled_from([{}, {"stats": {"error_count": 1}}, {"stats": {"error_count": "x"}}]),
    )
    | st.just("no record"),
    max_size=5,
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(generated, generated)
def test_whatever_the_files_hold_the_counts_reconcile(database, old, one, two):
    write(old, "instances.json", envelope(*one))
    write(old, ".temp/instance_state.json", {"last_updated": 1.0, **envelope(*two)})
    outcome = imported(database, old, skip_bad=True)
    counts = report.counts(outcome.plan)
    if counts["rejected"]:
        kept = max(outcome.backup.glob("rejected*"), key=lambda p: p.stat().st_mtime_ns)
        assert len(strict_json(kept)) == counts["rejected"]
    assert counts["found"] == len(one) + len(two)
    assert counts["found"] == counts["imported"] + counts["merged"] + counts["rejected"]


each_sample = pytest.mark.parametrize(
    "name",
    [
        "shared_state_timestamp.json",
        "instance_state.json",
        "instance_state_load_state.json",
        "instance_state.db",
        "flat_mixed.json",
        "flat_mixed_with_scalars.json",
        "instance_configs.json",
        "instance_states.json",
        "instance_states_late.json",
        "damaged_records.json",
        "truncated.json",
        "config/base.yaml",
        "config/production.yaml",
        "env.old",
        "instances.csv",
        "",
    ],
)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no samples here")
@each_sample
def test_every_sample_imports_with_reconciled_counts(database, name, tmp_path):
    path = SAMPLES / name
    before = hashes(SAMPLES)
    outcome = imported(database, path, skip_bad=True)
    counts = report.counts(outcome.plan)
    assert counts["found"] == counts["imported"] + counts["merged"] + counts["rejected"]
    written = {**rows(database, "instance_config"), **rows(database, "instance_state")}
    assert len(written) >= len(outcome.result.imported)
    assert set(outcome.result.imported) | set(outcome.result.states) == set(written)
    assert hashes(SAMPLES) == before


def test_the_garbage_collector_works_again_afterwards(database, old):
    write(old, "instances.json", envelope(RECORD, record("b", max_tpm="many")))
    refusal(database, old)
    assert gc.isenabled()
    imported(database, old, skip_bad=True)
    assert gc.isenabled()
    gc.disable()  # somebody else's choice stays
    try:
        run.inspect(old, {})
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_future_rest_survives_and_a_past_one_does_not(database, old):
    write(old, "instance_configs.json", {"a": RECORD, "b": record("b")})
    rests = {"a": STATE | {"rate_limited_until": LATER}, "b": STATE | {"rate_limited_until": 5}}
    write(old, "instance_states.json", rests)
    imported(database, old)
    assert [
        (row["instance_name"], row["rate_limited_until"])
        for row in contents(database)["deployment_state"]
    ] == [("a", LATER)]


def test_files_of_other_names_are_not_passed_over_without_a_word(tmp_path):
    copies = ["instance_configs.json.20250101", "instance_configs.json~", "instances.json.gz"]
    others = [".env.production", *copies, "my_state.json"]
    for name in ("instance_configs.json", *others, "notes.txt"):
        (tmp_path / name).write_text("{}")
    plan = run.inspect(tmp_path, {})
    expected = [tmp_path / name for name in others]
    assert plan.passed_over == expected
    assert all(str(path) in report.as_text(plan) for path in expected)
    assert report.as_json(plan)["not_read"] == [str(path) for path in expected]


def test_a_folder_without_a_known_name_tells_what_lies_there(tmp_path):
    (tmp_path / "shared.json").write_text("{}")
    with pytest.raises(run.ImportRefused, match=r"name the file itself.*shared\.json"):
        run.inspect(tmp_path, {})


@pytest.fixture
def home(tmp_path):
    write(tmp_path, "home/.azure_openai_proxy/instance_state.db", b"SQLite format 3\x00")
    return tmp_path / "home"


def test_a_database_in_the_home_is_told_and_not_read(old, home):
    """Nothing in the deployment's folder says that there is one."""
    write(old, "instance_configs.json", {"a": RECORD})
    default = home / ".azure_openai_proxy" / "instance_state.db"
    plan = run.inspect(old, {"HOME": str(home)})
    assert f"instance_state.db: {default} was not read" in report.as_text(plan)
    assert [note["file"] for note in report.as_json(plan)["notes"]] == [str(default)]
    assert (plan.files, plan.problems) == ([old / "instance_configs.json"], [])


def test_a_database_in_the_home_is_told_where_there_is_nothing_else(old, home):
    old.mkdir()
    with pytest.raises(ImportRefused, match=str(home / ".azure_openai_proxy")):
        run.inspect(old, {"HOME": str(home)})


def test_a_database_in_the_home_is_not_told_where_it_is_none_of_this_deployment(old, home):
    file = write(old, "instance_configs.json", {"a": RECORD})
    environ = {"HOME": str(home)}
    assert run.inspect(file, environ).file_notes == []
    assert run.inspect(old, {}).file_notes == []
    assert run.inspect(old, environ | {"INSTANCE_MANAGER_DB_PATH": "/x.db"}).file_notes == []
    assert run.inspect(home, environ).file_notes == []  # it is read
    write(old, "x.db", b"")
    write(old, ".env", "INSTANCE_MANAGER_DB_PATH=x.db\n")
    assert run.inspect(old, environ).file_notes == []
