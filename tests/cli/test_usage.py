import csv
import json

import pytest

from proxy import create_app
from proxy.core.deltas import Deltas
from proxy.store import usage
from tests.web.conftest import log_kept

DAY = 1_893_456_000  # 2030-01-01
TIME = ("--from", "2030-01-01", "--to", "2030-01-02")


@pytest.fixture
def run(make_settings, database):
    """A function from a command's arguments to its result; something was used."""
    deltas = Deltas()
    counts = {"requests": 3, "succeeded": 2, "lost": 1, "failed": 1, "prompt_tokens": 70}
    deltas.add_usage((DAY + 3600, "a", "gpt-4o", "app\x1b[2J"), counts)
    with database.write() as connection:
        usage.add(connection, deltas)
    with log_kept():
        app = create_app(make_settings())
        yield lambda *arguments: app.test_cli_runner().invoke(args=["usage", *arguments])


def test_a_table_for_people_obeys_no_name(run):
    result = run(*TIME, "--group-by", "client,model")
    head, line = result.stdout.splitlines()
    assert head.split()[:4] == ["from", "(UTC)", "client", "model"]
    assert line.split() == [
        *("2030-01-01", "01:00", "app?[2J", "gpt-4o", "3", "66.67%", "1", "70", "0"),
        *("-", "-", "0.0000"),
    ]


def test_json_is_as_the_admin_api_has_it(run):
    found = json.loads(run(*TIME, "--by", "day", "--json").stdout)
    assert (found["from"], found["to"], found["by"]) == (DAY, DAY + 86_400, "day")
    assert [(row["at"], row["requests"]) for row in found["rows"]] == [(DAY, 3)]


def test_csv(run):
    (row,) = csv.DictReader(run(*TIME, "--model", "gpt-4o", "--csv").stdout.splitlines())
    assert (row["at"], row["requests"], row["tokens_prompt"]) == (str(DAY + 3600), "3", "70")


def test_where_nothing_was_counted_it_says_so(run):
    assert run(*TIME, "--instance", "b").stdout == "Nothing was counted in that time.\n"


@pytest.mark.parametrize("arguments", [("--from", "soon"), ("--group-by", "colour")])
def test_what_cannot_be_asked_is_wrong_usage(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert arguments[0].strip("-").replace("-", "_") in result.stderr


def test_of_two_forms_neither_is_chosen_silently(run):
    result = run("--json", "--csv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Give --json or --csv, not both." in result.stderr
