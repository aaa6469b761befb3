import json
import re
import threading
import time

import pytest

from proxy import create_app
from proxy.cli.instances import LATE
from proxy.context import EXTENSION
from proxy.core.deltas import WHOLE_INSTANCE, Deltas, LastError, Rest
from proxy.simulator import Resource, Simulator
from proxy.store import instances, revisions, states
from tests.builders import AUTHOR, config
from tests.token_endpoint import TokenEndpoint
from tests.web.conftest import log_kept

REST_SECONDS = 630.0  # 10 min, however long a test takes
KEY = "planted-key-of-a-0123456789"


@pytest.fixture
def app(make_settings):
    with log_kept():
        yield create_app(make_settings())


@pytest.fixture
def run(app):
    """A function from a command's arguments to its result."""
    return lambda *arguments: app.test_cli_runner().invoke(args=["instances", *arguments])


@pytest.fixture
def add(database):
    def add(*configs):
        with database.session() as session:
            instances.add(session, configs, author=AUTHOR)

    return add


@pytest.fixture
def measured(database):
    """A function from what workers measured to nothing."""

    def write(fill):
        deltas = Deltas()
        fill(deltas)
        with database.write() as connection:
            states.add(connection, deltas)

    return write


def rest():
    now = time.time()
    return Rest(now + REST_SECONDS, "throttled", now)


def test_the_list_says_how_each_stands_and_what_it_used(run, add, measured):
    models = ("gpt-4o", "gpt-4o-mini", "o3", "o4-mini")
    add(
        config("b", max_tpm=1000, supported_models=models),
        config("a", max_tpm=0, priority=200),
        config("off", enabled=False, priority=300),
    )

    def fill(deltas):
        deltas.add_window((int(time.time()) - 5, "b", "gpt-4o"), 250, 2)
        deltas.add_rest(("b", "gpt-4o"), rest())

    measured(fill)
    result = run("list")
    assert result.stderr == ""
    cells = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert cells == [
        ["NAME", "STATUS", "WHY", "TOKENS/MIN", "REQ/MIN", "PRIORITY", "MODELS"],
        [
            *("b", "rate_limited", "gpt-4o: its limit is reached (429), 10 min left"),
            *("250 of 1,000 (25 %)", "2", "100", "gpt-4o, gpt-4o-mini, o3 and 1 more"),
        ],
        ["a", "healthy", "-", "0, no limit", "0", "200", "any"],
        ["off", "disabled", "-", "0 of 240,000 (0 %)", "0", "300", "any"],
    ]


def test_machines_get_what_the_admin_api_shows_and_how_each_stands(run, add, measured):
    add(config("a"))
    measured(lambda d: d.add_rest(("a", ""), rest()))
    (view,) = json.loads(run("list", "--json").stdout)
    assert view["config"]["api_key"] == "***6789"
    assert view["state"]["status"] == "rate_limited"
    left = view["standing"].pop("seconds_left")
    assert REST_SECONDS - 30 < left < REST_SECONDS
    assert view["standing"] == {
        "status": "rate_limited",
        "reason": "its limit is reached (429)",
        "deployments": [],
        "text": "its limit is reached (429), 10 min left",
    }
    assert json.loads(run("show", "a", "--json").stdout)["config"] == view["config"]


def test_a_workers_log_lines_are_not_for_people(run, add, caplog):
    add(config("a", api_key="env:NO_SUCH_VARIABLE"))
    run("list")
    assert caplog.records == []


def test_without_instances_it_says_how_to_add_some(run):
    assert "There is no instance." in run("list").stdout
    assert json.loads(run("list", "--json").stdout) == []


def test_one_is_shown_with_config_state_and_why(run, add, measured):
    add(config("a", api_key="env:NO_SUCH_VARIABLE"))
    measured(lambda d: d.errors.update(a=LastError("x", 1.0)) or d.note("a", last_used=1.0))
    lines = run("show", "a").stdout.splitlines()
    assert lines[0].startswith("a: misconfigured (api_key: the gateway's environment has no")
    assert "  api_base            https://a.openai.azure.com" in lines
    assert "  proxy_url           -" in lines
    assert any(line.startswith("  breaker ") and line.endswith("closed") for line in lines)


@pytest.mark.parametrize("command", ["show", "enable", "disable", "verify"])
def test_an_unknown_instance_is_a_sentence_and_code_1(run, command):
    result = run(command, "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no instance named 'x'.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("verify", "a", "--all"),
        ("disable",),
        ("disable", "a", "--reason", "a\nb"),
        ("list", "a"),
    ],
)
def test_wrong_usage_is_code_2(run, arguments):
    assert run(*arguments).exit_code == 2


def test_switching_makes_a_revision_that_says_who_and_why(run, add, database):
    add(config("a"))
    result = run("disable", "a", "--reason", "it is sick")
    assert result.stdout == "a is disabled; its config is at revision 2.\n"
    with database.read() as connection:
        (newest, *_), _ = revisions.page(connection, limit=1)
        (stored,) = instances.load_all(connection)
    assert not stored.config.enabled
    assert newest.author.startswith("command line (")
    assert newest.reason == "it is sick"
    assert json.loads(run("enable", "a", "--json").stdout) == {
        "name": "a",
        "enabled": True,
        "revision": 3,
    }


def test_what_is_so_already_makes_no_revision(run, add):
    add(config("a"))
    assert run("enable", "a").stdout == "a is enabled already.\n"


def test_running_workers_follow(run, add, make_settings):
    add(config("a"))
    with log_kept():
        worker = create_app(make_settings()).extensions[EXTENSION]
    worker.syncer.sync()
    assert worker.snapshots.current.catalog.serving("gpt-4o")
    run("disable", "a")
    worker.syncer.sync()
    assert not worker.snapshots.current.catalog.serving("gpt-4o")
    worker.syncer.stop()
    worker.database.dispose()


@pytest.fixture
def simulated(add):
    """Three instances: one that is well, one with a wrong key, one that is switched off."""
    with Simulator([Resource("sim", api_key=KEY)]) as simulator:
        more = {"api_base": simulator["sim"].url, "supported_models": ("gpt-4o",)}
        add(
            config("good", api_key=KEY, **more),
            config("bad", api_key="planted-key-that-is-wrong-123", **more),
            config("off", api_key=KEY, enabled=False, **more),
        )
        yield simulator["sim"]


def test_verify_tells_what_is_wrong_and_has_code_1(run, simulated):
    result = run("verify", "--all")
    assert result.exit_code == 1
    bad, good = result.stdout.splitlines()
    assert bad.split()[:3] == ["bad", "WRONG", "gpt-4o"]
    assert "key: The key was refused (401)" in bad
    assert good.split()[:3] == ["good", "ok", "gpt-4o"]
    assert "planted" not in result.output
    assert len(simulated.requests) == 2


def test_verify_of_those_that_are_well_has_code_0(run, simulated):
    result = run("verify", "good", "off", "good", "--model", "other", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [(each["name"], each["ok"]) for each in found] == [("good", True), ("off", True)]
    assert found[0]["checks"][0]["model"] == "other"


def test_what_is_found_well_is_asked_again_by_all_workers(run, simulated, database):
    now = time.time()
    deltas = Deltas()
    for name in ("good", "bad"):
        wrong = Rest(now + 300, "misconfigured", now)
        deltas.add_rest((name, WHOLE_INSTANCE), wrong)
    with database.write() as connection:
        states.add(connection, deltas)
    result = run("verify", "--all")
    assert "good was left alone, and is asked again." in result.stdout
    assert "bad was left alone" not in result.stdout
    with database.read() as connection:
        left = states.read(connection, now)
    assert [name for name, _ in left.rests] == ["bad"]
    assert left.instances["good"].cleared_at >= now  # which tells the workers


@pytest.fixture
def endpoint(no_identity, monkeypatch):
    endpoint = TokenEndpoint()
    endpoint.as_app_service(monkeypatch)
    yield endpoint
    endpoint.close()


def test_one_with_entra_is_asked_with_a_token(endpoint, run, add):
    token = "access-token-1-of-entra"
    with Simulator([Resource("sim", access_tokens=[token])]) as simulator:
        more = {"auth": "entra", "api_key": "NONE", "supported_models": ("gpt-4o",)}
        add(config("a", api_base=simulator["sim"].url, **more))
        result = run("verify", "a")
    assert result.exit_code == 0, result.output
    assert endpoint.given == [token]


def test_one_whose_secrets_cannot_be_read_is_not_asked(run, add):
    add(config("a", api_key="env:NO_SUCH_VARIABLE"))
    (found,) = json.loads(run("verify", "a", "--json").stdout)
    assert (found["ok"], found["checks"][0]["check"]) == (False, "config")
    assert "no variable NO_SUCH_VARIABLE" in found["checks"][0]["detail"]


def test_one_that_takes_too_long_is_given_up(run, add, monkeypatch):
    add(config("a"))
    end = threading.Event()
    monkeypatch.setattr("proxy.cli.instances.verify", lambda *_: end.wait(10) and [])
    monkeypatch.setattr("proxy.cli.instances.VERIFY_SECONDS", 0.05)
    result = run("verify", "a")
    end.set()
    assert result.exit_code == 1
    assert LATE in result.stdout


@pytest.mark.parametrize(
    "heard, status",
    [
        ({"lacks_token": True}, "misconfigured"),
        ({"lacks_token": False}, "healthy"),
        (None, "healthy"),  # nobody runs: nobody knows
    ],
)
def test_one_that_lacks_a_token_is_shown_as_the_gateway_that_runs_knows_it(
    heard, status, run, add, monkeypatch
):
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: heard)
    add(config("a", auth="entra", api_key="NONE"), config("b"))
    a, b = json.loads(run("list", "--json").stdout)
    assert (a["standing"]["status"], b["standing"]["status"]) == (status, "healthy")
    if status == "misconfigured":
        assert "`flask doctor` says why" in a["standing"]["text"]
    assert run("show", "a").stdout.startswith(f"a: {status}")


def test_to_verify_it_asks_for_a_token_whatever_the_gateway_has(
    endpoint, run, add, monkeypatch
):
    monkeypatch.setattr("proxy.runtime.running.health", lambda *_, **__: {"lacks_token": True})
    with Simulator([Resource("sim", access_tokens=["access-token-1-of-entra"])]) as simulator:
        more = {"auth": "entra", "api_key": "NONE", "supported_models": ("gpt-4o",)}
        add(config("a", api_base=simulator["sim"].url, **more))
        assert run("verify", "a").exit_code == 0


def test_where_nobody_needs_a_token_the_gateway_is_not_asked(run, add, monkeypatch):
    monkeypatch.setattr("proxy.runtime.running.health", None)
    add(config("a"), config("off", auth="entra", api_key="NONE", enabled=False))
    assert run("list").exit_code == 0
