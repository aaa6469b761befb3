import json
import re

import pytest

from proxy import create_app
from proxy.cli.keys import keys_cli
from proxy.core.client_deltas import ClientDeltas
from proxy.store import client_states, instances, keys
from proxy.web.schemas_keys import COMPATS
from tests.builders import AUTHOR, config
from tests.web.conftest import log_kept

KEY = re.compile(r"gw_[0-9A-Za-z]{49}")
DAY_SECONDS = 86_400


@pytest.fixture
def app(make_settings, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    with log_kept():
        yield create_app(make_settings())


@pytest.fixture
def run(app):
    """A function from a command's arguments to its result."""
    return lambda *arguments: app.test_cli_runner().invoke(args=["keys", *arguments])


@pytest.fixture
def shown(run):
    """A function from a client's name to what is shown of it."""
    return lambda name="app": json.loads(run("show", name).stdout)


def hashed(database, key):
    with database.read() as connection:
        return keys.key_hash(keys.pepper(connection), key)


def stored(database):
    """Names by the hashes of keys that are valid, former ones as well."""
    with database.read() as connection:
        return {
            hashed: client.name
            for hashed, (client, until) in keys.load_all(connection).items()
            if until is None or until > 1_700_000_000.0
        }


def test_a_new_key_is_all_that_is_printed(run, database):
    result = run("add", "app")
    assert result.exit_code == 0
    assert KEY.fullmatch(result.stdout.removesuffix("\n"))
    assert "app" in result.stderr
    assert not KEY.search(result.stderr)
    assert stored(database) == {hashed(database, result.stdout.strip()): "app"}


def test_only_a_hash_of_a_key_is_kept(run, database_file):
    key = run("add", "app").stdout.strip()
    files = list(database_file.parent.glob(database_file.name + "*"))
    assert files
    for file in files:
        assert key.encode() not in file.read_bytes()


def test_a_client_has_one_key(run, database):
    run("add", "app")
    before = stored(database)
    result = run("add", "app")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'app' has a key already; change it, or give it another with rotate" in result.stderr
    assert stored(database) == before


def test_a_client_is_added_with_all_that_it_may_do(run, shown, database):
    with database.session() as session:
        instances.add(session, [config("east"), config("west")], author=AUTHOR)
    options = (
        *("--model", "gpt-4o*", "--model", "o3", "--instance", "east", "--instance", "west"),
        *("--network", "10.0.0.0/8", "--network", "192.0.2.1", "--max-tpm", "1000"),
        *("--max-rpm", "60", "--max-parallel", "4", "--tokens-per-day", "5000"),
        *("--tokens-per-month", "6000", "--cost-per-day", "1.5", "--cost-per-month", "20"),
        *("--expires", "30d", "--label", "team=search", "--label", "env=a=b"),
        *("--compat", "openai_strict"),
    )
    result = run("add", "app", *options)
    assert result.exit_code == 0, result.stderr
    client = shown()
    assert {k: client[k] for k in keys.FIELDS} == {
        "name": "app",
        "enabled": True,
        "expires_at": 1_700_000_000.0 + 30 * DAY_SECONDS,
        "allowed_models": ["gpt-4o*", "o3"],
        "allowed_instances": ["east", "west"],
        "allowed_networks": ["10.0.0.0/8", "192.0.2.1/32"],
        "max_tpm": 1000,
        "max_rpm": 60,
        "max_parallel_requests": 4,
        "max_tokens_per_day": 5000,
        "max_tokens_per_month": 6000,
        "max_cost_per_day": 1.5,
        "max_cost_per_month": 20.0,
        "compat": "openai_strict",
        "labels": {"team": "search", "env": "a=b"},
    }


def test_there_is_an_option_for_every_field():
    fields = {p.name for p in keys_cli.commands["add"].params}
    assert fields == set(keys.FIELDS) - {"enabled"} | {"reason"}
    assert set(COMPATS) == {"raw", "openai_strict"}


def test_a_change_leaves_alone_what_is_not_given(run, shown):
    run("add", "app", "--model", "o3", "--max-rpm", "5", "--label", "team=a")
    result = run("change", "app", "--max-tpm", "9", "--max-rpm", "0")
    assert (result.exit_code, result.stdout) == (0, "app is changed.\n")
    client = shown()
    assert (client["max_tpm"], client["max_rpm"]) == (9, 0)
    assert (client["allowed_models"], client["labels"]) == (["o3"], {"team": "a"})


def test_a_list_is_replaced_and_an_empty_text_empties_it(run, shown):
    run("add", "app", "--model", "o3", "--network", "10.0.0.0/8", "--label", "team=a")
    run("change", "app", "--model", "o1", "--network", "", "--label", "")
    client = shown()
    assert (client["allowed_models"], client["allowed_networks"]) == (["o1"], [])
    assert client["labels"] == {}


@pytest.mark.parametrize(
    "text, moment",
    [
        ("30d", 1_700_000_000.0 + 30 * DAY_SECONDS),
        ("90m", 1_700_000_000.0 + 5400),
        ("2w", 1_700_000_000.0 + 14 * DAY_SECONDS),
        ("2030-01-31", 1_896_048_000.0),  # UTC, wherever this machine stands
        ("2030-01-31T12:00", 1_896_091_200.0),
        ("2030-01-31T12:00+02:00", 1_896_084_000.0),
        ("never", None),
    ],
)
def test_it_expires_at_a_date_or_after_a_time_or_never(run, shown, text, moment):
    run("add", "app", "--expires", "1d")
    assert run("change", "app", "--expires", text).exit_code == 0
    assert shown()["expires_at"] == moment


@pytest.mark.parametrize("command", ["add", "change"])
def test_an_end_that_is_over_is_told(run, command):
    run("add", "app")
    name = "app" if command == "change" else "other"
    result = run(command, name, "--expires", "2020-01-31")
    assert result.exit_code == 0
    note = "Note: 2020-01-31T00:00:00Z is over, so its keys open nothing until --expires says"
    assert result.stderr.splitlines()[-1].startswith(note)
    assert "Note" not in run("change", name, "--expires", "never").output


@pytest.mark.parametrize("text, seconds", [("24h", DAY_SECONDS), ("90", 90), ("0", None)])
def test_a_rotated_key_stays_valid_for_its_grace(run, shown, database, text, seconds):
    old = run("add", "app").stdout.strip()
    result = run("rotate", "app", "--grace", text)
    new = result.stdout.strip()
    assert KEY.fullmatch(new)
    assert (hashed(database, old) in stored(database)) is (seconds is not None)
    assert hashed(database, new) in stored(database)
    former = [{"key_hint": f"***{old[-4:]}", "valid_until": 1_700_000_000.0 + (seconds or 0)}]
    assert shown()["former_keys"] == (former if seconds else [])


def test_the_usual_grace_is_a_day(run, shown):
    run("add", "app")
    run("rotate", "app")
    assert shown()["former_keys"][0]["valid_until"] == 1_700_000_000.0 + DAY_SECONDS


def test_a_client_is_disabled_and_enabled(run, shown):
    run("add", "app")
    assert run("disable", "app").stdout == "app is disabled.\n"
    assert shown()["enabled"] is False
    assert run("enable", "app").stdout == "app is enabled.\n"
    assert shown()["enabled"] is True


def test_the_list_shows_clients_the_ends_of_their_keys_and_how_they_stand(run):
    result = run("list")
    assert (result.stdout, "flask keys add" in result.stderr) == ("", True)
    first, second = (run("add", name).stdout.strip() for name in ("b", "a b"))
    run("add", "c", "--expires", "2020-01-01")
    run("change", "b", "--max-rpm", "6000000", "--cost-per-day", "2", "--label", "team=search")
    run("disable", "b")
    third = json.loads(run("show", "c").stdout)["key_hint"]
    assert run("list").stdout.splitlines() == [
        f"{'NAME  KEY      STATUS    ADDED              EXPIRES':53}          LAST USED"
        f"  {'LIMITS':35}  LABELS",
        *(
            f"{name:4}  {key:7}  {status:8}  2023-11-14 22:13Z  {ends:17}  never    "
            f"  {limits:35}  {labels}"
            for name, key, status, ends, limits, labels in [
                ("a b", f"***{second[-4:]}", "enabled", "never", "none", "-"),
                (
                    *("b", f"***{first[-4:]}", "disabled", "never"),
                    *("max_rpm=6000000, max_cost_per_day=2", "team=search"),
                ),
                ("c", third, "expired", "2020-01-01 00:00Z", "none", "-"),
            ]
        ),
    ]


def test_a_client_that_waits_for_a_key_is_listed(run, database):
    with database.session() as session:
        session.add(keys.ClientKeyRow(name="app", created_at=0, updated_at=0, revision=1))
    row = run("list").stdout.splitlines()[1]
    assert row.startswith("app   -    has no key  1970-01-01 00:00Z  never")
    assert KEY.fullmatch(run("rotate", "app").stdout.strip())
    assert "  enabled  " in run("list").stdout


def test_machines_get_all_of_it_but_no_key(run):
    run("add", "app", "--max-rpm", "5")
    run("rotate", "app")
    result = run("list", "--json")
    (client,) = json.loads(result.stdout)
    assert (client["name"], client["max_rpm"]) == ("app", 5)
    assert not KEY.search(result.stdout)
    assert "hash" not in result.stdout
    assert json.loads(run("show", "app").stdout) == client


def test_it_is_shown_what_a_client_used_but_what_only_workers_know(
    app, run, shown, database, monkeypatch
):
    clients = app.extensions["proxy"].clients
    monkeypatch.setattr(clients, "_clock", lambda: 1_700_000_000.0)
    run("add", "app", "--max-rpm", "5", "--cost-per-day", "1")
    deltas = ClientDeltas()
    day_at, second = 1_699_920_000, 1_699_999_990  # of the clock's day and minute
    deltas.add_window((second, "app"), 7, 2)
    deltas.add_spending((day_at, "app"), 30, 250_000_000)
    deltas.add_spending((day_at - DAY_SECONDS, "app"), 12, 0)
    deltas.used_at["app"] = 1_700_000_000.0
    with database.write() as connection:
        client_states.add(connection, deltas)
    assert shown()["last_used_at"] == 1_700_000_000.0
    assert shown()["state"] == {
        "current_tpm": 7,
        "current_rpm": 2,
        "tokens_today": 30,
        "tokens_this_month": 42,
        "cost_today": 0.25,
        "cost_this_month": 0.25,
    }


def test_a_removed_client_can_have_a_new_key(run, database):
    old = run("add", "app").stdout
    result = run("remove", "app")
    assert (result.exit_code, result.stdout) == (0, "The key of app is removed.\n")
    assert stored(database) == {}
    new = run("add", "app").stdout
    assert new != old
    assert stored(database) == {hashed(database, new.strip()): "app"}


@pytest.mark.parametrize(
    "command",
    [("remove",), ("rotate",), ("show",), ("disable",), ("enable",), ("change", "--max-tpm=1")],
)
def test_somebody_unknown_is_a_sentence(run, command):
    result = run(*command, "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no client named 'nobody'.\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("add",), "NAME"),
        (("add", "a", "b"), "unexpected"),
        (("add", ""), "name: "),
        (("add", "  "), "name: Must have no space at its ends"),
        (("add", "a\nb"), "name: "),
        (("add", "\x1b[31m"), "name: "),
        (("add", "x" * 101), "name: "),
        (("add", "anonymous"), "name: Is what callers without a key"),
        (("add", "--name"), "No such option"),
        (("add", "a", "--max-tpm", "-1"), "max_tpm: Must be"),
        (("add", "a", "--max-tpm", "many"), "--max-tpm"),
        (("add", "a", "--cost-per-day", "nan"), "max_cost_per_day: "),
        (("add", "a", "--model", "gpt*4"), "allowed_models.0: Is a model's name, or"),
        (("add", "a", "--network", "10.0.0.1/8"), "allowed_networks.0: Has bits set behind"),
        (("add", "a", "--expires", "soon"), "write 30d, 2030-01-31 or never"),
        (("add", "a", "--expires", "30"), "write 30d"),
        (("add", "a", "--label", "team"), "write it as team=search"),
        (("add", "a", "--label", "=x"), "labels."),
        (("add", "a", "--compat", "lax"), "--compat"),
        (("change", "a"), "Nothing to change"),
        (("rotate", "a", "--grace", "1y"), "write one as 90m"),
        (("rotate", "a", "--grace", "-1"), "write one as 90m"),
        (("rotate", "a", "--grace", "999w"), "At most 366 days"),
        (("remove",), "NAME"),
        (("list", "a"), "unexpected"),
        (("rotate",), "NAME"),
    ],
)
def test_wrong_usage_has_a_code_of_its_own_and_changes_nothing(run, database, arguments, words):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert stored(database) == {}


def test_an_instance_that_is_not_there_is_a_sentence(run, database):
    result = run("add", "a", "--instance", "est")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no instance named 'est'" in result.stderr
    assert stored(database) == {}


def test_no_command_leaves_a_connection_open(app, run):
    for command in (("add", "a"), ("add", "a"), ("list",), ("remove", "a"), ("remove", "a")):
        run(*command)
        assert app.extensions["proxy"].database.engine.pool.checkedin() == 0


@pytest.mark.parametrize("command", [("list",), ("add", "app"), ("remove", "app")])
def test_without_a_database_the_remedy_is_named(make_settings, tmp_path, command):
    path = tmp_path / "none.db"
    with log_kept():
        app = create_app(make_settings(database_url=f"sqlite:///{path}"))
        result = app.test_cli_runner().invoke(args=["keys", *command])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "alembic upgrade head" in result.stderr
    assert not path.exists()


@pytest.mark.parametrize("command", sorted(keys_cli.commands))
def test_every_command_has_a_help_of_its_own(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 4
