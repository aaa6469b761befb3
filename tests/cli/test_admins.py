import json
import re

import pytest

from proxy import create_app
from proxy.cli import admins
from proxy.core.roles import Admin
from proxy.store import admin_keys, keys
from tests.web.conftest import log_kept

KEY = re.compile(r"gwa_[0-9A-Za-z]{49}")
NOW = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(admins.time, "time", lambda: NOW)


@pytest.fixture
def run(make_settings):
    """A function from a command's arguments to its result."""
    with log_kept():
        app = create_app(make_settings())
        yield lambda *arguments: app.test_cli_runner().invoke(args=["admins", *arguments])


def stored(database):
    with database.read() as connection:
        pepper = keys.pepper(connection)
        return pepper, admin_keys.load_all(connection)


def test_a_new_key_is_all_that_is_printed_on_the_way_out(run, database):
    result = run("add", "ann", "--role", "operator")
    assert result.exit_code == 0
    key = result.stdout.removesuffix("\n")
    assert KEY.fullmatch(key)
    assert "ann, role operator" in result.stderr
    assert not KEY.search(result.stderr)
    pepper, found = stored(database)
    assert found == {keys.key_hash(pepper, key): Admin("ann", "operator")}


@pytest.mark.parametrize(
    "text, expires_at",
    [
        ("90d", NOW + 90 * 86_400),
        ("12h", NOW + 12 * 3600),
        ("30m", NOW + 30 * 60),
        ("never", None),
    ],
)
def test_a_key_may_expire(run, database, text, expires_at):
    assert run("add", "ann", "--role", "admin", "--expires", text).exit_code == 0
    assert list(stored(database)[1].values()) == [Admin("ann", "admin", expires_at)]


def test_the_list_shows_all_but_the_keys(run, monkeypatch):
    first = run("add", "b", "--role", "viewer", "--expires", "1d").stdout.strip()
    second = run("add", "a", "--role", "admin").stdout.strip()
    text = run("list").stdout
    assert not KEY.search(text)
    made = "2026-09-21 14:13Z"
    assert [re.split(" {2,}", line) for line in text.splitlines()] == [
        ["name", "role", "key", "made", "expires"],
        ["a", "admin", f"***{second[-4:]}", made, "never"],
        ["b", "viewer", f"***{first[-4:]}", made, "2026-09-22 14:13Z"],
    ]
    monkeypatch.setattr(admins.time, "time", lambda: NOW + 86_400)
    assert "2026-09-22 14:13Z (expired)" in run("list").stdout


def test_where_there_is_none_the_list_says_how_to_make_one(run):
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "flask admins add NAME" in result.stderr


def test_the_list_is_json_for_machines(run):
    run("add", "a", "--role", "viewer")
    (found,) = json.loads(run("list", "--json").stdout)
    assert (found["name"], found["role"], found["expires_at"]) == ("a", "viewer", None)
    assert not KEY.search(str(found))


def test_role_and_expiry_are_changed_each_without_the_other(run, database):
    run("add", "boss", "--role", "admin")
    run("add", "ann", "--role", "viewer", "--expires", "1d")
    result = run("change", "ann", "--role", "operator")
    assert (result.exit_code, result.stdout) == (0, "The admin key of ann is changed.\n")
    assert Admin("ann", "operator", NOW + 86_400) in stored(database)[1].values()
    assert run("change", "ann", "--expires", "never").exit_code == 0
    assert Admin("ann", "operator") in stored(database)[1].values()


def test_a_removed_key_is_gone_and_its_name_free(run, database):
    run("add", "boss", "--role", "admin")
    old = run("add", "ann", "--role", "admin").stdout
    result = run("remove", "ann")
    assert (result.exit_code, result.stdout) == (0, "The admin key of ann is removed.\n")
    assert run("add", "ann", "--role", "viewer").stdout != old
    assert len(stored(database)[1]) == 2


@pytest.mark.parametrize("command", [("remove", "ann"), ("change", "ann", "--role", "viewer")])
def test_the_last_admin_stays_and_the_remedy_is_named(run, database, command):
    run("add", "ann", "--role", "admin")
    result = run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Add another with role admin first" in result.stderr
    assert list(stored(database)[1].values()) == [Admin("ann", "admin")]


@pytest.mark.parametrize("command", [("remove", "x"), ("change", "x", "--role", "viewer")])
def test_somebody_unknown_is_a_sentence(run, command):
    result = run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no admin key named 'x'.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "ann"),
        ("add", "ann", "--role", "owner"),
        ("add", "", "--role", "admin"),
        ("add", "admin", "--role", "viewer"),
        ("add", "command line", "--role", "viewer"),
        ("add", "a\nb", "--role", "viewer"),
        ("add", "ann", "--role", "viewer", "--expires", "0d"),
        ("add", "ann", "--role", "viewer", "--expires", "90"),
        ("add", "ann", "--role", "viewer", "--expires", "-1d"),
        ("add", "ann", "--role", "viewer", "--expires", "99999d"),
        ("add", "ann", "--role", "viewer", "--expires", "soon"),
        ("change", "ann"),
        ("change",),
        ("remove",),
        ("list", "a"),
    ],
)
def test_wrong_usage_has_a_code_of_its_own_and_changes_nothing(run, database, arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
    assert stored(database)[1] == {}


def test_every_command_has_a_help_of_its_own(run):
    for command in ("add", "list", "change", "remove"):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) > 4
