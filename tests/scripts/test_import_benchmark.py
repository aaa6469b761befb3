"""The benchmark of moving in: its deployment is one the import takes whole, and it reports."""

import json
import sys
from pathlib import Path

import pytest

from tests.migrations.legacy.imports import contents, imported

# A script finds its own folder by itself; this is no script.
sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import import_benchmark
from import_benchmark import Failed, Step


def test_its_deployment_is_imported_without_a_complaint(database, tmp_path):
    (tmp_path / "old").mkdir()
    bytes_ = import_benchmark.write_old_deployment(tmp_path / "old", 3)
    assert bytes_ == sum(path.stat().st_size for path in (tmp_path / "old").iterdir())
    plan = imported(database, tmp_path / "old").plan
    assert (plan.found, len(plan.instances), plan.problems, plan.notes) == (6, 3, [], [])
    assert [i.converted for i in plan.instances] == [[]] * 3
    there = contents(database)
    for table in ("instance_config", "instance_state", "deployment_state"):
        assert len(there[table]) == 3


def test_it_times_the_commands_of_the_guide(monkeypatch, capsys):
    # They themselves are run by the test of the guide, where this is one of the commands.
    monkeypatch.setattr(import_benchmark, "_timed", lambda name, *_: Step(name, 1.0, 0.5, 9.0))
    monkeypatch.setattr(import_benchmark, "_check_arrived", lambda *_: None)
    assert import_benchmark.main(["--instances", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["facts"]["instances"] == 2
    assert [step["command"] for step in told["steps"]] == [
        "flask legacy inspect",
        "alembic -x legacy=... upgrade head",
        "flask legacy import, again",
        "alembic downgrade -1",
    ]
    assert all(step["seconds"] == 1.0 for step in told["steps"])


def test_people_get_a_table():
    steps = [Step("a", 1.5, 1.25, 80.25)]
    assert import_benchmark.as_markdown({"cores": 2, "Python": "3"}, steps).splitlines() == [
        "cores 2, Python 3",
        "",
        "| command | seconds | of CPU | most memory, MB |",
        "| --- | ---: | ---: | ---: |",
        "| `a` | 1.50 | 1.25 | 80.2 |",
        "",
        "The aim: 10000 instances are imported in less than 10 s, where nobody else works.",
    ]


def test_a_command_that_fails_ends_it_with_what_it_said(tmp_path, monkeypatch, capsys):
    def run(folder, instances):
        program = "import sys; print('the end'); sys.exit(3)"
        import_benchmark._timed("a command", ("-c", program), folder / "x.db")

    monkeypatch.setattr(import_benchmark, "run", run)
    assert import_benchmark.main([]) == 1
    assert "a command ended with code 3. It said:\nthe end" in capsys.readouterr().err


def test_what_did_not_arrive_is_a_failure(database_file):
    with pytest.raises(Failed, match="instance_config has 0 rows, expected were 5"):
        import_benchmark._check_arrived(database_file, 5)


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_wrong_usage(number, capsys):
    with pytest.raises(SystemExit) as ended:
        import_benchmark.main([f"--instances={number}"])
    assert ended.value.code == 2
    assert "a whole number of at least 1" in capsys.readouterr().err
