import json
import logging

import pytest

from proxy import create_app
from proxy.logs import LOGGER
from proxy.store import config as all_config
from proxy.store import instances, revisions
from tests.builders import AUTHOR, config, document, thing
from tests.web.conftest import log_kept

KEY, OTHER = "sk-planted-secret-3f2a", "sk-planted-secret-9999"
FILE = f"""\
instances:
- name: a
  api_base: https://a.openai.azure.com
  api_key: {KEY}
  api_version: 2024-10-21
- name: b
  api_base: https://b.openai.azure.com
  api_key: env:B_KEY
clients:
- {{name: app, max_rpm: 7}}
"""
LACKS = (
    "Note: instance 'b': api_key: the gateway's environment has no variable B_KEY; set it (or"
    " in .env) and restart the gateway, or change the reference. Until then it is out of"
    " service."
)
DOCUMENT = document(
    instance=[thing("instance", "a", api_key=KEY), thing("instance", "b", api_key="env:B_KEY")],
    client=[thing("client", "app", max_rpm=7)],
)


@pytest.fixture
def run(make_settings):
    """A function from a command's arguments to its result."""
    with log_kept():
        runner = create_app(make_settings()).test_cli_runner()
        yield lambda *arguments, **more: runner.invoke(
            args=["config", *map(str, arguments)], **more
        )


@pytest.fixture
def file(tmp_path):
    """A function that writes a file and gives its path."""

    def write(text=FILE, name="gateway.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def now(database):
    """A function that gives the present config and its revision."""

    def read():
        with database.read() as connection:
            return all_config.load(connection), revisions.newest(connection)

    return read


def change(database, **values):
    with database.session() as session:
        instances.change(session, "a", values, author=AUTHOR)


def test_a_plan_says_what_would_be_done_and_writes_nothing(run, file, now):
    result = run("plan", file())
    assert result.exit_code == 0
    assert result.output == (
        "+ instance 'a'\n"
        "    api_base: https://a.openai.azure.com\n"
        "    api_key: ***3f2a\n"
        "+ instance 'b'\n"
        "    api_base: https://b.openai.azure.com\n"
        "    api_key: env:B_KEY\n"
        "+ client 'app'\n"
        "    max_rpm: 7\n"
        "Note: client 'app' has no key yet: `flask keys rotate -- app` makes one.\n"
        f"{LACKS}\n"
        "3 to add, 0 to change, 0 to remove.\n"
    )
    assert now() == (document(), 0)


def test_what_a_server_logs_of_a_change_a_command_does_not(run, file):
    heard = []
    handler = logging.Handler()
    handler.handle = heard.append
    LOGGER.addHandler(handler)
    assert run("apply", file(), "--yes").exit_code == 0
    assert [record.getMessage() for record in heard if record.levelno < logging.WARNING] == []
    assert LOGGER.level == logging.INFO  # as before


def test_apply_makes_it_so_and_then_there_is_nothing_to_do(run, file, now):
    result = run("apply", file(), "--yes", "--reason", "from git")
    assert (result.exit_code, now()) == (0, (DOCUMENT, 1))
    assert result.output == (
        "Note: client 'app' has no key yet: `flask keys rotate -- app` makes one.\n"
        f"{LACKS}\n"
        "Done; the config is at revision 1.\n"
    )
    for command in (["plan"], ["plan", "--check"], ["apply"]):
        again = run(*command, file(), "--prune")
        assert (again.exit_code, again.output) == (0, "Nothing to do.\n")
    assert ")  config imported: instance 'a', " in run("revisions").output
    assert run("revisions").output.endswith("(from git)\n")


def test_a_plan_that_is_checked_fails_while_there_is_something_to_do(run, file):
    result = run("plan", file(), "--check")
    assert (result.exit_code, result.output.splitlines()[-1][:8]) == (1, "3 to add")


@pytest.mark.parametrize("answer, code, revision", [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)])
def test_without_yes_it_asks(run, file, now, answer, code, revision):
    result = run("apply", file(), input=answer)
    assert (result.exit_code, now()[1]) == (code, revision)
    assert "3 to add, 0 to change, 0 to remove.\n" in result.output
    assert "Carry it out? [y/N]" in result.output


def test_what_was_agreed_to_is_done_or_nothing(run, file, now, database, monkeypatch):
    """Somebody changes the config while the question stands."""
    run("apply", file(), "--yes")
    monkeypatch.setattr("click.confirm", lambda *_, **__: change(database, weight=3))
    result = run("rollback", 0)
    assert result.exit_code == 1
    assert "is at revision 2, not 1: somebody changed it" in result.output
    assert now()[1] == 2


def test_pruning_removes_what_is_not_in_the_file(run, file, now):
    run("apply", file(), "--yes")
    fewer = file("clients: []")
    assert run("plan", fewer).output == "Nothing to do.\n"
    result = run("plan", fewer, "--prune")
    assert result.output.splitlines()[0] == "- client 'app'"
    run("apply", fewer, "--prune", "--yes")
    assert now()[0] == DOCUMENT | {"clients": []}


def test_a_file_may_be_json_or_standard_input(run, file, now):
    path = file(json.dumps({"clients": [{"name": "app"}]}), "gateway.json")
    assert run("apply", path, "--yes").exit_code == 0
    assert run("apply", "-", "--yes", input=FILE).exit_code == 0
    assert now() == (DOCUMENT, 2)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_is_exported_holds_no_secret_and_changes_nothing(run, file, form):
    run("apply", file(), "--yes")
    text = run("export", "--format", form).output
    assert "planted" not in text
    assert "env:B_KEY" in text
    assert run("plan", file(text, f"x.{form}"), "--prune").output == "Nothing to do.\n"


def test_back_to_a_revision(run, file, now, database):
    run("apply", file(), "--yes")
    change(database, api_key=OTHER, weight=3)
    shown = run("rollback", 1, "--dry-run")
    assert shown.output == (
        "~ instance 'a'\n"
        "    api_key: ***9999 -> ***3f2a (changed)\n"
        "    weight: 3 -> 100\n"
        "0 to add, 1 to change, 0 to remove.\n"
    )
    assert now()[1] == 2
    result = run("rollback", 1, "--yes", "--reason", "too soon")
    assert (result.exit_code, result.output) == (0, "Done; the config is at revision 3.\n")
    assert now() == (DOCUMENT, 3)
    assert run("rollback", 1).output == "Nothing to do.\n"


def test_the_difference_of_two_revisions(run, file, database):
    run("apply", file(), "--yes")
    change(database, weight=3)
    assert run("diff", 1, 2).output == "~ instance 'a'\n    weight: 100 -> 3\n"
    assert run("diff", 1, 1).output == "They are equal.\n"
    found = json.loads(run("diff", 2, 1, "--json").output)
    assert found["changes"][0]["fields"] == {"weight": [3, 100]}
    assert run("diff", 1, 9).output == "Error: There is no revision 9: the newest is 2.\n"


def test_revisions_are_listed_and_filtered(run, database):
    with database.session() as session:
        instances.add(session, [config(n) for n in "abcde"], author=AUTHOR)
    change(database, weight=3)
    result = run("revisions")
    headings, *lines = result.stdout.splitlines()
    assert headings.split() == ["number", "made", "author", "what"]
    assert [line.split()[0] for line in lines] == ["2", "1"]
    assert lines[1].endswith(
        "test    instance added: instance 'a', instance 'b', instance 'c' and 2 more"
    )
    assert result.stderr == ""
    assert run("revisions", "--name", "e").stdout.splitlines()[1].startswith("1 ")
    nobodys = run("revisions", "--author", "nobody")
    assert (nobodys.stdout, nobodys.stderr) == ("", "There is no such revision.\n")
    assert run("revisions", "--limit", 1).stderr == "1 older: --offset 1 shows them.\n"
    assert run("revisions", "--limit", 1, "--offset", 1).stderr == ""
    found = json.loads(run("revisions", "--limit", 1, "--json").output)
    assert (found["total"], found["revisions"][0]["revision"]) == (2, 2)


def test_for_machines_there_is_json_and_nothing_else(run, file):
    planned = json.loads(run("plan", file(), "--json").stdout)
    assert (planned["applied"], planned["revision"]) == (False, 0)
    asked = run("apply", file(), "--json", input="y\n")
    assert json.loads(asked.stdout)["applied"]
    assert "Carry it out?" in asked.stderr
    back = json.loads(run("rollback", 0, "--yes", "--json").stdout)
    assert (back["revision"], len(back["plan"]["changes"])) == (2, 3)
    assert "planted" not in asked.output


@pytest.mark.parametrize(
    "text, said",
    [
        ("instances: [{name: a}]", "Error: instances[0].api_"),
        ("instances: {}", "Error: instances: Must be a list.\n"),
        ("a: [", "Error: The text is not plain YAML"),
        ("", "Error: A mapping with any of these sections is needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(run, file, now, text, said):
    for command in (["plan"], ["apply", "--yes"]):
        result = run(*command, file(text))
        assert result.exit_code == 1
        assert result.output.startswith(said)
    assert now()[1] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan"],
        ["plan", "/no/such/file"],
        ["rollback", "x"],
        ["rollback", "-1"],
        ["diff", "1"],
        ["export", "--format", "xml"],
        ["rollback", "0", "--reason", "two\nlines"],
    ],
)
def test_a_wrong_use_has_exit_code_2(run, arguments):
    assert run(*arguments).exit_code == 2


def test_a_revision_that_there_is_not(run):
    result = run("rollback", 3, "--yes")
    assert (result.exit_code, result.output) == (
        1,
        "Error: There is no revision 3: the newest is 0.\n",
    )
